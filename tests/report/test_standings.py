"""What is told of rows while others are still computed."""

from collections.abc import Callable
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report import standings
from palign_bench.report.standings import Standings

MakeRecord = Callable[..., dict[str, Any]]


@pytest.fixture
def plan(five_items: Inventory, make_record: MakeRecord, make_plan: Callable[..., Plan]) -> Plan:
    """Four rows, of which the last has not been computed; composites 5, 0 (the check), 10."""

    def records(answer: int) -> dict[str, Any]:
        return {p: make_record({6: answer}, {6: 5}, 5.0 * (5 - answer)) for p in ("p1", "p2")}

    rows = {"constant_b": records(4), "truth": records(5), "few_shot": records(3), "pas": {}}
    return make_plan(rows, ("p1", "p2"), inventory=five_items.outline())


def test_rows_are_told_as_they_finish(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Standings(plan.command)
    rows = {row.name: row for row in plan.read()[0]}
    first = told.after([rows["constant_b"], rows["truth"]], last=False).splitlines()
    assert first[0] == "So far, the best first (1 row to come; lower is better)"
    assert [line.split()[0] for line in first[-2:]] == ["Always", "Few-Shot"], "the check is no rival"
    assert first[-1].split()[1:] == ["2", "10.00", "10.00–10.00"]
    monkeypatch.setattr(told, "_free", 0.0)
    assert told.after([rows["few_shot"]], last=False) == (
        "Few-Shot: composite 10.00, 95 % interval 10.00–10.00 (place 2 of 2 so far)"
    )
    assert told.after([rows["few_shot"]], last=False) == "", "reading the ledger may take a tenth of the time"
    monkeypatch.setattr(told, "_free", 0.0)
    monkeypatch.setattr(standings, "SECONDS_BETWEEN", 0.0)
    assert told.after([rows["few_shot"]], last=False).splitlines() == first
    monkeypatch.setattr(told, "_free", 0.0)
    assert told.after([rows["pas"]], last=True) == "", "the table itself follows"


def test_a_row_without_a_result_is_no_line(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Standings(plan.command)
    rows = {row.name: row for row in plan.read()[0]}
    told.after([rows["few_shot"]], last=False)
    monkeypatch.setattr(told, "_free", 0.0)
    assert told.after([rows["pas"]], last=False) == ""
