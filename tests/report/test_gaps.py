"""What a table says of cells that are missing, failed or damaged."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palign_bench.files import LedgerError
from palign_bench.ledger.plan import Command, Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report import make_report
from palign_bench.report.table import build_report
from tests.report.tables import CONSTANTS, PEOPLE, text_of

MakeRecord = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]


def test_missing_and_failed_cells_are_told(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    for person in PEOPLE[:3]:
        del twelve_people["pas"][person]
    plan = make_plan(twelve_people, PEOPLE)
    folder = plan.read()[0][0].folder
    folder.fail("p0", RuntimeError("out of memory\nwith a second line"))
    folder.fail("p1", RuntimeError("out of memory\nwith another second line"))
    folder.fail("somebody_else", RuntimeError("not of this table"))
    report = build_report(plan)
    assert report.rows[0]["missing_cells"] == 3 and report.rows[0]["respondents"] == 9
    notes = "\n".join(report.notes)
    assert "Missing cells: PAS 3. `palign-bench resume table1 --runs FOLDER` tries only these." in notes
    assert "PAS: 2 failed, RuntimeError: out of memory (traceback" in notes
    assert "second line" not in notes and "not of this table" not in notes
    assert "Rows do not cover the same people" in notes
    assert "9/12" in text_of(report)


def test_every_command_that_is_told_names_the_ledger(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    """By its place on a terminal, without it in files, which are passed on."""
    del twelve_people["pas"]["p0"]
    plan = make_plan(twelve_people, PEOPLE)
    told = make_report(plan).text
    written = (plan.folder / "table1.md").read_text(encoding="utf-8")
    for text, runs in ((told, str(plan.runs)), (written, "FOLDER")):
        commands = re.findall(r"`palign-bench (\w+ table1[^`]*)`", " ".join(text.split()))
        assert len(commands) >= 2 and {each.split()[0] for each in commands} <= {"resume", "report"}
        assert all(each.partition(" --runs ")[2].split()[0] == runs for each in commands), commands
    assert str(plan.runs) not in written


def test_at_most_five_lines_of_failures(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    rows = {"pas": {}, **{key: twelve_people[key] for key in CONSTANTS}}
    plan = make_plan(rows, PEOPLE)
    for person in PEOPLE[:8]:
        plan.read()[0][0].folder.fail(person, ValueError(f"reason {person} " + "long " * 60))
    failures = [note for note in build_report(plan).notes if "fail" in note]
    assert len(failures) == 5
    assert failures[-1] == "… and 4 more kinds of failure in the ledger."
    assert max(map(len, failures)) < 220


def test_a_finished_cell_is_no_failure(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    plan.read()[0][0].folder.fail("p0", RuntimeError("tried once more"))  # the record of p0 is there
    assert build_report(plan).notes == ()


def test_people_without_composite_are_told(make_record: MakeRecord, make_plan: MakePlan, five_items: Inventory) -> None:
    records = {"p0": make_record({6: 1}, {6: 2}, None), "p1": make_record({6: 1}, {6: 2}, 3.0)}
    report = build_report(make_plan({"pas": records}, ("p0", "p1")), five_items)
    assert report.rows[0]["composite"] == 3.0 and report.rows[0]["unscored"] == 1
    assert any(note.startswith("No composite") and "PAS 1" in note for note in report.notes)


def test_nothing_planned_or_nothing_finished(tmp_path: Path, make_plan: MakePlan) -> None:
    with pytest.raises(LedgerError, match="table1 holds no table: run `palign-bench experiment=table1` first"):
        Command.last(tmp_path, "table1")
    with pytest.raises(LedgerError, match="no rows"):
        build_report(make_plan({}, ()))
    plan = make_plan({"pas": {}, "ridge": {}}, PEOPLE)
    text = make_report(plan, wide=True).text
    assert "0/12" in text and "Missing cells: PAS 12, Ridge on others 12" in text
    assert (plan.folder / "table1.png").stat().st_size > 5_000


def test_a_damaged_record_is_missing_and_left_alone(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    path = plan.read()[0][0].folder.path / "respondents" / "p4.json"
    before = path.read_bytes().replace(b'"seed":0', b'"seed":1')
    assert before != path.read_bytes()
    path.write_bytes(before)
    assert build_report(plan).rows[0]["missing_cells"] == 1
    assert path.read_bytes() == before
