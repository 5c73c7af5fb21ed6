"""Notes on trained rows, from the summaries of their cells."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palign_bench.report.rows import read_rows
from palign_bench.report.training import training_notes
from tests.ledgers import kept_folder, plan_of, row_of

Notes = Callable[..., list[str]]


@pytest.fixture
def notes(tmp_path: Path, make_record: Callable[..., dict[str, Any]]) -> Notes:
    """The notes on one row whose people have these summaries."""

    def made(method: dict[str, Any], *summaries: dict[str, Any]) -> list[str]:
        folder = kept_folder(tmp_path / str(len(list(tmp_path.iterdir()))), "row", {"method": method, "model": None})
        ids = tuple(f"p{index}" for index in range(len(summaries)))
        for respondent, summary in zip(ids, summaries, strict=True):
            about = {"respondent": respondent, "alignment": {"summary": summary}}
            folder.record(respondent, make_record({6: 1}, {6: 2}, 3.0, **about))
        rows, _ = read_rows(plan_of(folder.path.parent.parent, [row_of(method["name"], folder, ids)], {}))
        return training_notes(rows)

    return made


def test_displacement_is_told_of_those_whom_it_befell(notes: Notes) -> None:
    fell, rose = {"chosen_change": -7.0, "rejected_change": -39.0}, {"chosen_change": 1.0, "rejected_change": -9.0}
    (note,) = notes({"name": "dpo", "budget": "paper"}, fell, rose)
    assert note.startswith("DPO (paper): for 1 of 2 people") and "-7.0 nats" in note and "-39.0" in note
    (slight,) = notes({"name": "dpo", "budget": "paper"}, fell | {"chosen_change": -0.0234})
    assert "(median -0.02 nats" in slight
    assert notes({"name": "dpo", "budget": "paper"}, rose) == []


def test_weights_that_hardly_move_are_told(notes: Notes) -> None:
    (note,) = notes({"name": "lora", "budget": "quick"}, {"moved_share": 0.32})
    assert "LoRA (quick): only 32 %" in note
    assert notes({"name": "lora", "budget": "quick"}, {"moved_share": 0.85}) == []
    assert notes({"name": "pas"}, {"moved_share": 0.1}) == []
