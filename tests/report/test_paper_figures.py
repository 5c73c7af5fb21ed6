"""Where the paper's figures stand beside ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.report.table import build_report
from tests.ledgers import kept_folder, plan_of, row_of
from tests.report.tables import PEOPLE, text_of

MakePlan = Callable[..., Plan]


def test_the_papers_figures_stand_beside_ours_only_in_its_setting(
    twelve_people: dict[str, Any], make_plan: MakePlan
) -> None:
    same = build_report(make_plan(twelve_people, PEOPLE, protocol="as_released", model="llama3_8b"))
    assert same.rows[0]["paper_composite"] == 4.41
    assert same.rows[2]["paper_composite"] is None
    assert "not comparable" not in text_of(same)
    larger = build_report(make_plan(twelve_people, PEOPLE, protocol="as_released", model="llama3_70b"))
    assert larger.rows[0]["paper_composite"] == 4.74
    for other in (
        {"protocol": "corrected", "model": "llama3_8b"},
        {"protocol": "as_released", "model": "llama3_8b", "weights": "random"},
        {"protocol": "as_released", "model": "llama3_8b", "respondents": "simulated"},
        {"protocol": "as_released", "model": "smollm2_135m"},
    ):
        report = build_report(make_plan(twelve_people, PEOPLE, **other))
        assert report.rows[0]["paper_composite"] is None, other
        assert "not comparable" in text_of(report), other
        assert "4.41" in text_of(report), other


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        ("few_shot", {"known_answers": 5}),
        ("few_shot", {"intervention": "A+1"}),
        ("few_shot", {"variant": "shuffled"}),
        ("pas", {"method": {"name": "pas", "k": 6}}),
        ("dpo", {"method": {"name": "dpo", "budget": "quick"}}),
    ],
)
def test_the_papers_figures_stand_beside_no_row_that_is_set_otherwise(
    twelve_people: dict[str, Any], tmp_path: Path, row: str, setting: dict[str, Any]
) -> None:
    usual = {"name": row} | ({"budget": "paper"} if row == "dpo" else {})
    rows = []
    for more in ({}, setting):
        identity = {"method": usual, "model": {"name": "llama3_8b", "weights": "hub"}} | more
        folder = kept_folder(tmp_path, row, identity)
        for person, record in twelve_people["pas"].items():
            folder.record(person, {**record, "respondent": person})
        rows.append(row_of(row, folder, PEOPLE))
    about = {"experiment": "t", "model": "llama3_8b", "model_title": "x", "protocol": "as_released"}
    about |= {"respondents": "papi", "respondents_description": "300 people of PAPI"}
    shown = [each["paper_composite"] for each in build_report(plan_of(tmp_path, rows, about)).rows]
    assert shown[0] is not None and shown[1] is None
