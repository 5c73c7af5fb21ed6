"""Invariance: the statistics on a case computed by hand, and a real run of the organism on the variants it reads."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.questionnaire.variant import Variant
from palign_bench.report.invariance import (
    Invariance,
    by_variant,
    changes_of,
    invariance,
    letters_kept,
    pairs,
    position_test,
)
from palign_bench.report.rows import read_rows
from tests.command import run_here

PEOPLE = ["respondents=simulated", "respondents.figures=published", "respondents.seed=11", "respondents.count=40"]


def test_changes_against_plain_are_counted_over_answers_that_both_have(inventory: Inventory) -> None:
    plain = np.array([[5.0, 4.0, 3.0, np.nan], [1.0, 2.2, 3.0, 3.0]])
    asked = np.array([[1.0, 4.0, np.nan, 2.0], [2.0, 2.4, 3.0, 3.0]])
    found = changes_of("reversed", plain, asked, inventory)
    assert found["answers"] == 6
    assert found["instability"] == pytest.approx((4 + 0 + 1 + 0.2 + 0 + 0) / 6)
    assert found["flips"] == pytest.approx(2 / 6)  # 2.2 and 2.4 are one option
    # Letters of answers that had one to keep: A and B of the first person, E, D of the second; C stands where it stood.
    assert letters_kept(plain, asked, Variant("reversed"), inventory).tolist() == [1, 0, 0, 0]


def test_chi_squared_of_labels_by_order_as_by_hand(inventory: Inventory) -> None:
    plain = np.array([[5.0, 5.0, 5.0, 1.0]])
    asked = np.array([[5.0, 1.0, 1.0, 1.0]])
    # Counts 3 1 / 1 3, all expected 2: chi-squared 4 × 1 / 2 = 2, V = sqrt(2 / 8).
    assert position_test([plain, asked], inventory) == pytest.approx((2, 0.5))
    missing = np.array([[np.nan, 1.0, 1.0, 1.0]])  # then 2 1 / 0 3
    assert position_test([plain, missing], inventory)[0] == pytest.approx(3)
    assert position_test([plain * 0 + 3, asked * 0 + 3], inventory) == (0, 0)
    assert np.isnan(position_test([plain], inventory)).all()


def _method(title: str, **composites: dict[str, float]) -> Invariance:
    changes = pd.DataFrame({"flips": 0.0}, [name for name in composites if name != "plain"])
    return Invariance(title, pd.DataFrame(composites), changes, 0.0, 0.0, 0.0)


def test_a_ranking_is_robust_where_its_sign_stays_in_every_variant() -> None:
    first = _method("first", plain={"a": 1, "b": 2}, reversed={"a": 1, "b": 2}, frame_1={"a": 3, "b": 4, "c": 9})
    second = _method("second", plain={"a": 2, "b": 3}, reversed={"a": 1, "b": 4}, frame_1={"a": 2, "b": 2, "c": 0})
    third = _method("third", plain={"a": 9, "b": 9}, reversed={"a": 9, "b": 9})
    one, two, three = pairs([first, second, third])
    assert list(one.items())[-3:] == [("plain", -1), ("reversed", -1), ("frame_1", 1.5)]
    assert list(two.items())[-3:] == [("keeps its sign", "yes"), ("plain", -7.5), ("reversed", -7.5)]
    assert one["keeps its sign"] == "no" and three["keeps its sign"] == "yes"
    twin = _method("twin", plain={"a": 9, "b": 9}, reversed={"a": 9, "b": 9})
    assert [each["keeps its sign"] for each in pairs([third, twin])] == ["tie"], "no ranking to keep"


def test_a_variant_that_one_method_lacks_is_a_gap_in_its_row() -> None:
    whole, part = _method("whole", plain={}, reversed={}, repeat={}), _method("part", plain={}, repeat={})
    assert by_variant([part, whole], "flips") == [
        {"method": "part", "reversed": None, "repeat": 0.0},
        {"method": "whole", "reversed": 0.0, "repeat": 0.0},
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invariance")
    command = [
        "experiment=invariance", "model=organism", "method=floors,vanilla,few_shot",
        "variant=plain,shuffled,repeat", *PEOPLE, "respondents.limit=3", "tracking=none", f"runs={folder / 'runs'}",
    ]  # fmt: skip
    done = run_here(*command, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Every answer is the same in every variant: Always A" in done.stdout
    return folder / "runs"


def test_floors_stay_exactly_and_a_repeat_is_computed_again(runs: Path) -> None:
    (plan,) = Plan.all(runs, "invariance")
    rows, _ = read_rows(plan)
    found = {each.title: each for each in invariance(rows, ipip_neo_300())}
    for title, each in found.items():
        assert len(each.composites) == 3 and list(each.changes.index) == ["shuffled", "repeat"]
        assert each.changes.loc["repeat", ["instability", "answers"]].tolist() == [0, 90]
        assert each.changes.loc["shuffled", "instability"] == 0 or title == "Few-Shot"
    few_shot = [row for row in rows if row.title == "Few-Shot"]
    assert len({row.folder.path for row in few_shot}) == 3
    records = {row.variant: dict(row.folder.read_all(row.ids)) for row in few_shot}
    for person, plain in records["plain"].items():
        shuffled, repeat = records["shuffled"][person], records["repeat"][person]
        assert plain["log_probs"] == repeat["log_probs"] != shuffled["log_probs"]
        assert not repeat["cost"]["reused_answers"]
        assert len(plain["asked"]) == 30 and plain["truth"].keys() == {str(n) for n in plain["asked"]}


def test_the_page_says_per_variant_what_the_ledger_holds(runs: Path) -> None:
    (plan,) = Plan.all(runs, "invariance")
    rows = {(row.title, row.variant): row for row in read_rows(plan)[0]}
    table = pd.read_csv(plan.folder / "invariance_variants.csv").set_index(["method", "variant"])
    plain, shuffled = (
        dict(rows["Few-Shot", name].folder.read_all(rows["Few-Shot", name].ids)) for name in ("plain", "shuffled")
    )
    changes = [abs(plain[p]["answers"][n] - shuffled[p]["answers"][n]) for p in plain for n in plain[p]["answers"]]
    line = table.loc["Few-Shot", "shuffled"]
    assert line["instability"] == pytest.approx(sum(changes) / 90)
    assert line["flips"] == pytest.approx(sum(change > 0 for change in changes) / 90)
    compared = pd.read_csv(plan.folder / "invariance_pairs.csv")
    assert len(compared) == 13 * 12 / 2
    cards = [json.loads(path.read_text())["evaluation_results"][0] for path in plan.folder.glob("cards/few_shot-*")]
    told = [card["source_data"]["additional_details"] for card in cards]
    assert len(told) == 3 and {each["held_out_items"] for each in told} == {"30"}
    between = compared[(compared["method"] == "Always C") & (compared["against"] == "Few-Shot")].iloc[0]
    composites = [rows[title, "plain"].composites for title in ("Always C", "Few-Shot")]
    assert between["plain"] == pytest.approx(np.mean([composites[0][p] - composites[1][p] for p in composites[0]]))
