"""`palign-bench table1` and `testbed`: the runs that they stand for, and two of them at once."""

import argparse
from pathlib import Path

import pytest

from palign_bench.cli.as_run import commands_of_testbed, side_by_side
from palign_bench.cli.commands import dispatch
from tests.command import run, table


def test_the_first_table_of_a_model_of_ones_own_is_a_run() -> None:
    assert dispatch(["table1", "model=smollm2_135m", "runs=r"]) == [
        "experiment=table1", "runs=r", "respondents.limit=3", "model=smollm2_135m"]  # fmt: skip
    assert dispatch(["table1", "model=organism", "respondents.limit=5"]) == [
        "experiment=table1", "runs=runs", "training.cohort=2", "model=organism", "respondents.limit=5"]  # fmt: skip
    assert dispatch(["table1", "--beside", "", "protocol=as_released"]) == [
        "experiment=table1", "runs=runs", "model=organism", "respondents.limit=20", "training.cohort=2",
        "protocol=as_released"]  # fmt: skip


def test_the_first_table_and_another_beside_it(tmp_path: Path) -> None:
    floors = ["--methods-beside", "floors", "method=floors", "respondents=simulated", "tracking=none"]
    ran = run("table1", "--beside", "organism", *floors, "respondents.limit=4", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert set(table(tmp_path / "runs")["respondents"]) == {4}
    assert set(table(tmp_path / "runs", "table1_organism")["respondents"]) == {2}
    told = (tmp_path / "runs" / "table1_organism.log").read_text()
    assert "progress in runs/table1_organism.log" in ran.stdout and "Always C: " in told
    assert [line for line in ran.stdout.splitlines() if line.startswith("table1_organism: no language model")]


def test_the_testbed_asks_simulated_people_beside_the_real_ones() -> None:
    chosen = argparse.Namespace(runs=Path("r"), curve=30)
    chosen.overrides = ["training.people_limit=2", "respondents=papi", "respondents.limit=9", "protocol=as_released"]
    (testbed, curve), (simulated, curve_simulated) = commands_of_testbed(chosen)
    assert testbed == ["experiment=testbed", "runs=r", *chosen.overrides]
    assert curve == [
        "experiment=learning_curve", "runs=r", "respondents.limit=30", "respondents=papi",
        "protocol=as_released"]  # fmt: skip
    asked = ["respondents=simulated", "respondents.figures=published"]
    assert simulated == [
        *asked, "name=testbed_simulated", "experiment=testbed", "runs=r", "training.people_limit=2",
        "respondents.limit=9", "protocol=as_released"]  # fmt: skip
    assert curve_simulated == [
        *asked, "name=learning_curve_simulated", "experiment=learning_curve", "runs=r", "respondents.limit=30",
        "protocol=as_released"]  # fmt: skip


def test_a_command_that_fails_ends_its_chain_and_the_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = ["status", f"runs={tmp_path}"]
    with pytest.raises(SystemExit) as ended:
        side_by_side([["--version"]], [nothing, ["--version"]], tmp_path / "deep" / "log")
    assert ended.value.code == 1
    told = (tmp_path / "deep" / "log").read_text()
    assert "holds no table" in told and told.count("\n") == 1
    assert told in capsys.readouterr().err
