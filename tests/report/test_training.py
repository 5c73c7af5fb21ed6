"""Notes on trained rows, from the summaries of their cells."""

from __future__ import annotations

from typing import Any

from palign_bench.ledger.cells import CellFolder
from palign_bench.report.rows import RowNumbers, read_rows
from palign_bench.report.training import training_notes
from tests.report.conftest import MakePlan, MakeRecord


def notes(make_plan: MakePlan, make_record: MakeRecord, method: dict[str, Any], *summaries: dict[str, Any]) -> list[str]:
    ids = tuple(f"p{index}" for index in range(len(summaries)))
    plan = make_plan({method["name"]: dict.fromkeys(ids, make_record({6: 1}, {6: 2}, 3.0))}, ids)
    rows, _ = read_rows(plan)
    row: RowNumbers = rows[0]
    folder = CellFolder.open(plan.runs, method["name"], {}, {"method": method, "model": None})
    for respondent, summary in zip(ids, summaries, strict=True):
        record = make_record({6: 1}, {6: 2}, 3.0)
        folder.record(respondent, record | {"alignment": record["alignment"] | {"summary": summary}})
    return training_notes([type(row)(**{**vars(row), "folder": folder, "respondents": ids})])


def test_displacement_is_told_of_those_whom_it_befell(make_plan: MakePlan, make_record: MakeRecord) -> None:
    fell, rose = {"chosen_change": -7.0, "rejected_change": -39.0}, {"chosen_change": 1.0, "rejected_change": -9.0}
    (note,) = notes(make_plan, make_record, {"name": "dpo", "budget": "paper"}, fell, rose)
    assert note.startswith("DPO (paper): for 1 of 2 people") and "-7.0 nats" in note and "-39.0" in note
    assert notes(make_plan, make_record, {"name": "dpo", "budget": "paper"}, rose) == []


def test_weights_that_hardly_move_are_told(make_plan: MakePlan, make_record: MakeRecord) -> None:
    (note,) = notes(make_plan, make_record, {"name": "lora", "budget": "quick"}, {"moved_share": 0.32})
    assert "LoRA (quick): only 32 %" in note
    assert notes(make_plan, make_record, {"name": "lora", "budget": "quick"}, {"moved_share": 0.85}) == []
    assert notes(make_plan, make_record, {"name": "pas"}, {"moved_share": 0.1}) == []
