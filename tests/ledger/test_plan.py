"""What a command planned: whole from the start, kept beside those before it, and never two meanings in one table."""

import json
from pathlib import Path
from typing import Any

import pytest

from palign_bench.files import LedgerError
from palign_bench.ledger.plan import Command, Plan, PlannedJob, Row
from tests.ledgers import kept_folder, plan_of, row_of

ABOUT = {"model": "tiny", "protocol": "corrected"}


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Row]:
    names = ("constant_a", "constant_b", "few_shot", "pas")
    return {name: row_of(name, kept_folder(tmp_path, name, {"row": name}), ("1", "2")) for name in names}


def job(order: int, *rows: Row, about: dict[str, Any] = ABOUT, **setting: Any) -> PlannedJob:
    return PlannedJob(order, rows, about, setting)


def test_jobs_of_one_command_make_one_table_in_their_order(tmp_path: Path, rows: dict[str, Row]) -> None:
    command = Command(tmp_path, "table1", "first")
    floors = (rows["constant_a"], rows["constant_b"])
    command.write(
        ["-m", "retry=failed", "shard=1/2"], [job(10, rows["pas"]), job(2, rows["few_shot"]), job(0, *floors)]
    )
    (plan,) = Plan.all(tmp_path, "table1")
    assert plan.read() == ([*floors, rows["few_shot"], rows["pas"]], ABOUT)
    assert plan.folder == tmp_path / "table1" / "tiny-corrected"
    assert Command.last(tmp_path, "table1").arguments == ["-m"]
    assert rows["pas"].missing() == ["1", "2"]


def test_a_job_that_came_later_is_added(tmp_path: Path, rows: dict[str, Row]) -> None:
    command = Command(tmp_path, "table1", "first")
    command.write_jobs([job(1, rows["pas"])], "job-001")
    command.write_jobs([job(0, rows["few_shot"])], "job-000")
    command.start(["-m"], [(1, 1)])
    assert Plan.all(tmp_path, "table1")[0].read()[0] == [rows["few_shot"], rows["pas"]]


def test_a_later_command_is_shown_and_the_earlier_kept(tmp_path: Path, rows: dict[str, Row]) -> None:
    fewer = rows["few_shot"].of(["2"])
    assert Command(tmp_path, "table1", "first").replaced() is None
    for id_, planned in (("first", rows["pas"]), ("second", fewer)):
        Command(tmp_path, "table1", id_).write([id_], [job(0, planned)])
    assert Command(tmp_path, "table1", "second").replaced([job(0, fewer)]) is None
    listed = f"(1 row, 1 cell), which `palign-bench resume table1 --runs {tmp_path} --list`"
    assert listed in str(Command(tmp_path, "table1", "x").replaced())
    assert [each.id for each in Command.all(tmp_path, "table1")] == ["first", "second"]
    assert Plan.all(tmp_path, "table1")[0].read()[0] == [fewer]
    assert Command(tmp_path, "table1", "first").tables()[0].read()[0] == [rows["pas"]]
    Command(tmp_path, "table1", "first").write(["first"], [job(0, rows["pas"])])  # typed again
    assert Plan.all(tmp_path, "table1")[0].read()[0] == [rows["pas"]]


def test_a_clock_that_went_backwards_does_not_bring_an_earlier_command_back(
    tmp_path: Path, rows: dict[str, Row]
) -> None:
    """Nor does another host's that is ahead: the last one typed is shown."""
    first, second = Command(tmp_path, "table1", "first"), Command(tmp_path, "table1", "second")
    first.write(["first"], [job(0, rows["pas"])])
    path = first.folder / "command.json"
    ahead = json.loads(path.read_text()) | {"started": "2126-01-01T00:00:00.000000+00:00"}
    path.write_text(json.dumps(ahead))
    second.write(["second"], [job(0, rows["few_shot"])])
    assert Command.last(tmp_path, "table1").id == "second"
    assert Plan.all(tmp_path, "table1")[0].read()[0] == [rows["few_shot"]]
    first.start(["first"], [(1, 1)])  # typed again
    assert [each.id for each in Command.all(tmp_path, "table1")] == ["second", "first"]
    path.write_text(json.dumps(ahead | {"started": "yesterday"}))
    with pytest.raises(LedgerError, match=r"damaged \(command\.json: .*yesterday"):
        second.start(["second"], [(1, 1)])


def test_the_same_words_for_other_cells_are_told(tmp_path: Path, rows: dict[str, Row]) -> None:
    """Typed where they name another file, or after a change of the program."""
    command = Command(tmp_path, "table1", "same")
    command.write(["same"], [job(0, rows["pas"])])
    assert "takes the place of" in str(command.replaced([job(0, rows["few_shot"])]))
    assert command.replaced([job(0, rows["pas"])]) is None


def test_another_commands_damaged_file_is_told_before_anything_is_computed(
    tmp_path: Path, rows: dict[str, Row]
) -> None:
    Command(tmp_path, "table1", "first").write(["first"], [job(0, rows["pas"])])
    path = Command(tmp_path, "table1", "first").folder / "command.json"
    path.write_text("{")
    with pytest.raises(LedgerError, match=str(path)):
        Command(tmp_path, "table1", "second").replaced([job(0, rows["pas"])])


def test_a_plan_that_was_not_finished_is_no_command(tmp_path: Path, rows: dict[str, Row]) -> None:
    Command(tmp_path, "table1", "killed").write_jobs([job(0, rows["pas"])], "plan")
    with pytest.raises(LedgerError, match="holds no table"):
        Command.last(tmp_path, "table1")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"seed": 0}, {"seed": 1}], ["tiny-corrected-seed=0", "tiny-corrected-seed=1"]),
        (
            [{"respondents.name": "papi"}, {"respondents.name": "simulated"}],
            ["tiny-corrected-respondents=papi", "tiny-corrected-respondents=simulated"],
        ),
        (
            [{"respondents.name": "file", "respondents.path": f"/people/{name}"} for name in ("a (1).csv", "b.csv")],
            ["tiny-corrected-respondents.path=a_1_.csv", "tiny-corrected-respondents.path=b.csv"],
        ),
        (
            [{"seed": seed, "model.dtype": dtype} for seed in (0, 1) for dtype in ("auto", "float32")],
            [f"tiny-corrected-seed={seed}-model.dtype={dtype}" for seed in (0, 1) for dtype in ("auto", "float32")],
        ),
        ([{"data_hash": "x"}, {"data_hash": "x"}], ["tiny-corrected"]),
        (
            [{"a.path": "x/people"}, {"a.path": "y/people"}],
            ["tiny-corrected-a.path=people", "tiny-corrected-a.path=people~2"],
        ),
    ],
)
def test_what_must_not_be_compared_stands_in_tables_of_its_own(
    tmp_path: Path, rows: dict[str, Row], settings: list[dict[str, Any]], names: list[str]
) -> None:
    command = Command(tmp_path, "table1", "first")
    command.write([], [job(n, rows["pas"], **setting) for n, setting in enumerate(settings)])
    tables = command.tables()
    assert [plan.name for plan in tables] == names
    for plan in tables:
        notes = plan.read()[1].get("notes", [])
        assert all(each in notes[0] for each in plan.apart) if plan.apart else not notes


def test_models_and_protocols_have_folders_of_their_own(tmp_path: Path, rows: dict[str, Row]) -> None:
    abouts = [{"model": model, "protocol": protocol} for model in ("a", "b") for protocol in ("c", "d")]
    jobs = [PlannedJob(n, (rows["pas"],), about, {"x": json.dumps(about)}) for n, about in enumerate(abouts)]
    Command(tmp_path, "table1", "first").write([], jobs)
    plans = Plan.all(tmp_path, "table1")
    assert [plan.name for plan in plans] == ["a-c", "a-d", "b-c", "b-d"]
    assert [plan.read()[1] for plan in plans] == abouts


def test_a_moved_ledger_still_reads(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    folder = kept_folder(runs, "pas", {"row": "pas"})
    plan_of(runs, [row_of("pas", folder, ("1", "2"))], {})
    folder.record("1", {"n": 1})
    runs.rename(tmp_path / "elsewhere")
    ((row,), _) = Plan.all(tmp_path / "elsewhere", "table1")[0].read()
    assert row.missing() == ["2"] and row.folder.read("1") == {"n": 1}


def test_shards_that_nobody_started_are_named(tmp_path: Path, rows: dict[str, Row]) -> None:
    command = Command(tmp_path, "table1", "first")
    command.write([], [job(0, rows["pas"])], [(2, 3)])
    assert command.absent_shards() == ["Shards not started yet: 1, 3 of 3; the table lacks their people."]
    command.start([], [(1, 3), (1, 2)])
    command.start([], [(3, 3)])
    assert command.absent_shards() == []  # the halves were never needed
    assert Plan.all(tmp_path, "table1")[0].read()[1] == ABOUT


def test_shards_of_several_counts_that_cover_everybody(tmp_path: Path, rows: dict[str, Row]) -> None:
    command = Command(tmp_path, "table1", "first")
    command.write([], [job(0, rows["pas"])], [(1, 2), (4, 4)])
    assert len(command.absent_shards()) == 2  # the third of four
    command.start([], [(3, 4)])
    assert command.absent_shards() == []


def test_shards_of_a_whole_table_are_not_missed(tmp_path: Path, rows: dict[str, Row]) -> None:
    """Cells merged from another machine, whose command was another."""
    Command(tmp_path, "table1", "first").write([], [job(0, rows["pas"])], [(1, 2)])
    for each, notes in (("1", 1), ("2", 0)):
        rows["pas"].folder.record(each, {})
        assert len(Plan.all(tmp_path, "table1")[0].read()[1].get("notes", [])) == notes


def test_a_ledger_of_another_layout_is_told_and_left_alone(tmp_path: Path) -> None:
    old = tmp_path / "table1" / "tiny-corrected" / "plan" / "last.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    assert "another layout" in str(Command(tmp_path, "table1", "new").replaced())
    for name in ("table1", None):
        with pytest.raises(LedgerError, match=r"earlier version: .*another layout.* `palign-bench experiment=table1`"):
            Plan.all(tmp_path, name)
    assert old.read_text() == "{}"
