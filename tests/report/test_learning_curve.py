"""Which rows of a table make a curve."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from palign_bench.ledger.plan import Row
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.pictures.learning_curve import learning_curve_figure, learning_curves
from palign_bench.report.table import build_report
from tests.ledgers import kept_folder, plan_of, row_of

PEOPLE = ("p1", "p2", "p3")


def test_each_setting_of_a_method_has_its_own_curve(
    five_items: Inventory, make_record: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    def row(composite: float, known: int | None, k: int) -> Row:
        identity = {"method": {"name": "few_shot", "k": k}, "model": None, "known_answers": known}
        identity |= {"told_version": 3} if known else {}  # as the cells of a part of the answers have it
        folder = kept_folder(tmp_path, "few_shot", identity)
        for person in PEOPLE:
            record = make_record({6: 4}, {6: 5}, composite, respondent=person)
            folder.record(person, record)
        return row_of("few_shot", folder, PEOPLE)

    rows = [row(4.0, 3, 1), row(3.0, None, 1), row(9.0, 3, 2), row(8.0, None, 2), row(7.0, 3, 5)]
    about = {"experiment": "curve", "model_title": "tiny", "respondents": "papi", "respondents_description": "papi"}
    report = build_report(plan_of(tmp_path, rows, about), five_items)
    curves = [{count: each["composite"] for count, each in found.items()} for found in learning_curves(report)]
    assert curves == [{3: 4.0, 5: 3.0}, {3: 9.0, 5: 8.0}], "all five known answers are the last count"
    (axes,) = learning_curve_figure(report).axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Few-Shot [k=1]", "Few-Shot [k=2]"]
