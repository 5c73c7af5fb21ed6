"""The one front door: help, version, mistyped words, and the ledger's folder in both spellings."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from palign_bench.cli.commands import SUBCOMMANDS, dispatch
from palign_bench.ledger.cells import CellFolder
from palign_bench.settings import UserError, conf_folder
from tests.command import environment, run_here
from tests.ledgers import plan_of, row_of


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert dispatch(arguments) is None
    return capsys.readouterr().out


def test_alone_it_prints_help_with_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told([], capsys)
    assert shown == told(["--help"], capsys) == told(["-h"], capsys)
    for name, (_, summary) in SUBCOMMANDS.items():
        (line,) = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert line.split(maxsplit=1)[1] == summary
    assert max(map(len, shown.splitlines())) <= 80


def test_help_names_every_group_that_a_run_has(capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))
    groups = [name for each in config["defaults"] if isinstance(each, dict) for name in each if "override" not in name]
    listed = told([], capsys).partition("lists the names):\n")[2].partition("\n\n")[0]
    assert " ".join(listed.split()).split(", ") == sorted(groups) and "inventory" in groups


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["report", "--version"]])
def test_the_version_is_ours(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert told(arguments, capsys) == f"palign-bench {version('palign-bench')}\n"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("method=pas seed=1", ["method=pas", "seed=1"]),
        ("run method=pas", ["method=pas"]),
        ("run", []),
        ("-m method=pas,lora", ["-m", "method=pas,lora"]),
        ("--cfg job", ["--cfg", "job"]),
        ("run --help", ["--help"]),
        ("+method.k=3", ["+method.k=3"]),
        ("method=pas --runs elsewhere", ["method=pas", "runs=elsewhere"]),
        ("run --runs=elsewhere method=pas", ["runs=elsewhere", "method=pas"]),
    ],
)
def test_settings_are_a_run(typed: str, expected: list[str]) -> None:
    assert dispatch(typed.split()) == expected


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "reprot",
            "reprot is no command (did you mean report?); the commands are run, table1, testbed, resume, report",
        ),
        ("pas", "pas is no command; the commands are "),
        ("statsu table1", "(did you mean status?)"),
        ("report --rnus x", "unrecognized arguments: --rnus (see palign-bench report --help)"),
        ("report a b", "unrecognized arguments: b"),
        ("forecast --people=many", "argument --people: many is no whole number above 0 (see palign-bench forecast"),
        ("run --runs", "--runs: give the ledger's folder"),
    ],
)
def test_a_mistyped_command_is_told_in_one_line(typed: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        dispatch(typed.split())
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in SUBCOMMANDS if name != "run"])
def test_every_subcommand_has_help_and_the_ledgers_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        dispatch([name, "--help"])
    shown = capsys.readouterr().out
    assert not ended.value.code and shown.startswith(f"usage: palign-bench {name}") and "--runs" in shown


@pytest.mark.parametrize("folder", [["--runs", "läufe (1)"], ["--runs=läufe (1)"], ["runs=läufe (1)"]])
def test_the_ledger_is_named_in_either_way(
    folder: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("läufe (1)")
    plan_of(runs, [row_of("few_shot", CellFolder(runs / "cells" / "few_shot"), ("1",))], {})
    assert "Few-Shot" in told(["status", *folder], capsys)
    assert "Few-Shot" in told(["status", "table1", *folder], capsys)
    assert "Few-Shot" in told(["status", *folder, "table1"], capsys)


def test_a_number_of_steps_is_handed_on_whatever_it_is() -> None:
    """So that the run refuses 0, and does not take the usual number instead."""
    assert "training.steps=0" in (dispatch(["efficiency", "--steps", "0"]) or ())
    assert not [each for each in dispatch(["efficiency"]) or () if each.startswith("training.steps")]


def test_the_module_does_what_the_program_does(tmp_path: Path) -> None:
    """Table, exit code and the command that is resumed."""
    arguments = ["method=floors", "method.rows=[constant_a]", "respondents=simulated", "respondents.limit=2"]
    ran = subprocess.run(
        [sys.executable, "-m", "palign_bench", *arguments, "tracking=none"],
        cwd=tmp_path, env=environment(tmp_path), text=True, capture_output=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    again = run_here("resume", "run", folder=tmp_path)
    assert "2 people finished before" in again.stderr
    assert again.stdout == ran.stdout and "Always A" in ran.stdout
    mistaken = subprocess.run(
        [sys.executable, "-m", "palign_bench", "method=florrs"], cwd=tmp_path, text=True, capture_output=True
    )
    assert mistaken.returncode == 1 and mistaken.stderr.startswith("palign-bench: method=florrs does not exist")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--version"], ["run", "--help"]])
def test_a_pipe_whose_reader_leaves_is_no_mistake(arguments: list[str], unbuffered: str, tmp_path: Path) -> None:
    """As in `palign-bench report | head`."""
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "palign_bench", *arguments]
    its_own = environment(tmp_path) | {"PYTHONUNBUFFERED": unbuffered}
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(program, cwd=tmp_path, env=its_own, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (ended.returncode, ended.stderr) == (141, b"")
