"""Sweeps in processes that a launcher starts: the same tables, and mistakes that reach the exit code."""

import os
from pathlib import Path

import pandas as pd
import pytest

from tests.command import FLOORS, SCORE_COLUMNS, run, run_here, settings, table


def test_sweeps_under_two_protocols_and_two_launchers_agree(model: Path, tmp_path: Path) -> None:
    """One process after the other or two at once, as joblib launches them: the same tables."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for launcher in ("basic", "joblib"):
        runs = tmp_path / launcher
        arguments = ["-m", "method=floors,vanilla", "protocol=corrected,as_released", f"hydra/launcher={launcher}"]
        if launcher == "joblib":
            arguments.append("hydra.launcher.n_jobs=2")
        ran = run(*arguments, *settings(model, runs, people=1), folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        told = " ".join(ran.stdout.split())  # a title may wrap anywhere
        assert "protocol corrected" in told and "protocol as_released" in told
        frames[launcher] = [table(runs, "run", protocol)[SCORE_COLUMNS] for protocol in ("corrected", "as_released")]
    for one, other in zip(frames["basic"], frames["joblib"], strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    corrected, released = frames["basic"]
    assert list(corrected["method"]) == list(released["method"]) and len(corrected) == FLOORS + 1
    assert list(corrected["composite"]) != list(released["composite"])


def test_a_mistake_in_a_launched_process_reaches_the_exit_code(tiny_folder: Path, tmp_path: Path) -> None:
    """The tiny model has eight heads; only the process that the launcher started knows."""
    launcher = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", "method=pas"]
    ran = run(*launcher, *settings(tiny_folder, tmp_path / "runs"), folder=tmp_path)
    assert ran.returncode == 1
    assert "method.k=24: the model has only 8 heads" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("raise UserError('too little of it')", "palign-bench: too little of it"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "palign-bench: a process of hydra/launcher=joblib was killed"),
    ],
)
def test_a_launched_process_that_fails_leaves_the_others_their_table(end: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(
        "import os, signal\nfrom baselines.few_shot import Vanilla\nfrom palign_bench.settings import UserError\n"
        f"class Ends(Vanilla):\n    def prepare(self, backbone, protocol):\n        {end}\n"
    )
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    arguments = ["method=vanilla", "model=organism", "tracking=none", "respondents=simulated", "respondents.limit=1"]
    assert run_here(*arguments, folder=tmp_path).returncode == 0
    launcher = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    classes = "method._target_=baselines.few_shot.Vanilla,ends.Ends"
    ran = run(*launcher, *arguments, classes, "name=launched", folder=tmp_path, variables=variables)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert ran.stderr.count(f"\n{told}") == 1  # what joblib itself warns of when it ends may follow
    assert list(table(tmp_path / "runs", "launched")["missing_cells"]) == [0, 1]


def test_slurm_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is optional")
    people = ["respondents=simulated", "respondents.count=5", "tracking=none"]
    ran = run("-m", "method=floors", "hydra/launcher=submitit_slurm", *people, folder=tmp_path)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "palign-bench: hydra/launcher=submitit_slurm: this machine has no SLURM" in ran.stderr
