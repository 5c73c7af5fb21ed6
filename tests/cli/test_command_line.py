"""`palign-bench` as a user types it: table 1, its files, its help, and a cell that fails."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
import yaml

from palign_bench.ledger.cells import CellFolder
from palign_bench.settings import options
from tests.command import COST_COLUMNS, FLOORS, SCORE_COLUMNS, cells, run, run_here, settings, table
from tests.tracking.wandb_runs import RunRead

METHODS = ("floors", "vanilla", "few_shot", "pas")


class Ran:
    """A command that ran to its end."""

    def __init__(self, folder: Path, arguments: list[str]):
        self.folder, self.runs, self.arguments = folder, folder / "runs", arguments
        self.result: CompletedProcess[str] = run(*arguments, folder=folder)


@pytest.fixture(scope="module")
def table1(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The whole command on two people, tracked by Weights & Biases offline."""
    folder = tmp_path_factory.mktemp("table1")
    choice = ["experiment=table1", f"method={','.join(METHODS)}"]
    ran = Ran(folder, [*choice, *settings(model, folder / "runs", tracking="wandb")])
    assert ran.result.returncode == 0, ran.result.stderr
    return ran


def test_table1_has_every_row_and_column(table1: Ran) -> None:
    frame = table(table1.runs)
    expected = SCORE_COLUMNS + COST_COLUMNS
    assert [name for name in frame.columns if name in expected] == expected
    assert len(frame) == FLOORS + 3 and {"vanilla", "few_shot", "pas", "ridge", "truth"} <= set(frame["method"])
    assert set(frame["respondents"]) == {2} and set(frame["missing_cells"]) == {0}
    by_method = frame.set_index("method")
    assert by_method.loc["truth", "composite"] == 0
    constants = {f"constant_{letter}" for letter in "abcde"}
    assert len(set(by_method.loc[sorted(constants), "composite"])) >= 4  # two may tie on two people
    assert by_method.loc["pas", "stored_bytes"] >= by_method.loc["few_shot", "stored_bytes"] > 0


def test_the_table_is_printed_and_written(table1: Ran) -> None:
    output = " ".join(table1.result.stdout.split())  # the title is wrapped, where depends on the model's path in it
    assert "protocol corrected" in output and "20 simulated people" in output and "tiny24" in output
    assert "Few-Shot" in output and "Ridge on others" in output
    (folder,) = (path for path in (table1.runs / "table1").iterdir() if path.is_dir() and path.name != "commands")
    assert folder.name == "tiny24-corrected"
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert {f"table1.{kind}" for kind in ("csv", "json", "md", "tex", "png")} <= names
    assert "Traceback" not in table1.result.stderr


def test_the_ledger_says_where_numbers_come_from(table1: Ran) -> None:
    (path,) = (table1.runs / "cells").glob("few_shot-tiny24-simulated-corrected-*")
    folder = CellFolder(path)
    assert len(folder.finished()) == 2
    provenance = folder.provenance()[-1]
    assert provenance["packages"]["torch"] and provenance["packages"]["transformers"] and provenance["cores"]
    assert folder.identity()["seed"] == 0
    assert yaml.safe_load((path / "config.yaml").read_text())["method"]["name"] == "few_shot"
    assert str(table1.folder) not in (path / "identity.json").read_text()
    assert folder.shared()["load_seconds"] > 0


def test_the_table_is_found_in_the_offline_run(table1: Ran) -> None:
    found = {}
    for folder in (table1.runs / "wandb").glob("offline-run-*"):
        read = RunRead(folder)
        found[read.run.display_name] = read
    tables = [read for read in found.values() if read.run.job_type == "table"]
    assert len(tables) == 1 and {read.run.run_group for read in found.values()} == {"table1"}
    logged = tables[0].table("table")
    frame = pd.DataFrame(logged["data"], columns=logged["columns"])
    expected = table(table1.runs)
    assert list(frame["method"]) == list(expected["method"])
    assert frame["composite"].astype(float).tolist() == pytest.approx(expected["composite"].tolist())
    row = found["few_shot-tiny24-corrected-0"]
    means = expected.set_index("method").loc["few_shot"]
    assert row.summary["composite"] == pytest.approx(means["composite"])
    assert row.summary["openness"] == pytest.approx(means["openness"])
    assert len(row.table("people")["data"]) == 2
    for path in (table1.runs / "wandb").rglob("*"):
        assert not path.is_file() or b"simulated-0001" not in path.read_bytes(), path


def test_the_same_command_again_computes_nothing_and_says_so(table1: Ran) -> None:
    before, frame = cells(table1.runs), table(table1.runs)
    again = run_here(*table1.arguments, "tracking=none", folder=table1.folder)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("2 people finished before, nothing to do") == FLOORS + 3
    assert "Loading" not in again.stderr
    assert cells(table1.runs) == before
    pd.testing.assert_frame_equal(table(table1.runs), frame, check_exact=True)


def test_report_prints_the_table_without_a_model(table1: Ran) -> None:
    (folder,) = (path for path in (table1.runs / "table1").iterdir() if path.is_dir() and path.name != "commands")
    written = (folder / "table1.csv").read_text()
    (folder / "table1.csv").unlink()
    told = run_here("report", "table1", "--runs", str(table1.runs), folder=table1.folder)
    assert told.returncode == 0, told.stderr
    assert (folder / "table1.csv").read_text() == written
    assert told.stdout.split("\nWritten to ")[0] == table1.result.stdout.split("\nWritten to ")[0]
    assert "Loading" not in told.stderr


def test_help_lists_the_choices(tmp_path: Path) -> None:
    told = run_here("run", "--help", folder=tmp_path)
    assert told.returncode == 0
    for group in ("method", "model", "protocol", "respondents", "tracking"):
        (line,) = [line for line in told.stdout.splitlines() if line.startswith(f"{group}: ")]
        assert line.removeprefix(f"{group}: ").split(", ") == options(group)
    assert not (tmp_path / "runs").exists()


def test_cfg_shows_what_would_run(tmp_path: Path) -> None:
    told = run_here("--cfg", "job", "method=pas", "method.k=3", "respondents.limit=7", folder=tmp_path)
    assert told.returncode == 0
    shown = yaml.safe_load(told.stdout)
    assert (shown["method"]["k"], shown["respondents"]["limit"], shown["model"]["name"]) == (3, 7, "smollm2_135m")
    assert not (tmp_path / "runs").exists()


def test_a_failed_cell_is_told_and_the_exit_code_says_so(table1: Ran, model: Path, tmp_path: Path) -> None:
    """A portrait that cannot be read fails one person's cell; the sweep goes on, and mending it finishes the row."""
    arguments = ["method=personality_prompt", "method.max_new_tokens=4", *settings(model, tmp_path / "runs")]
    first = run_here(*arguments, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    portraits = sorted((tmp_path / "runs" / "portraits").glob("*.json"))
    assert len(portraits) == 2
    kept = portraits[0].read_text()
    portraits[0].write_text("{")
    for path in (tmp_path / "runs").glob("cells/personality_prompt-*/respondents/*.json"):
        path.unlink()
    broken = run(*arguments, folder=tmp_path)
    assert broken.returncode == 1
    assert "1 cell is missing" in broken.stderr and str(portraits[0].name) in broken.stderr
    assert table(tmp_path / "runs", "run")["missing_cells"].tolist() == [1]
    errors = list((tmp_path / "runs").glob("cells/*/respondents/*.error.json"))
    assert len(errors) == 1 and "Traceback" in json.loads(errors[0].read_text())["traceback"]
    portraits[0].write_text(kept)
    mended = run_here(*arguments, folder=tmp_path)
    assert mended.returncode == 0 and "1 of 2 people finished before, 1 to do" in mended.stderr
    assert not list((tmp_path / "runs").glob("cells/*/respondents/*.error.json"))
