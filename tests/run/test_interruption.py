"""A real `palign-bench` killed at random moments: nothing finished is lost or done twice, and the table is the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palign_bench.ledger.locks import CellLocks
from tests.command import SCORE_COLUMNS, cells, heed_interrupts, run_here, save_many_headed, settings, start, table

PEOPLE = 3
METHODS = "floors,vanilla,few_shot,pas_no_prompt"
FLOOR_CELLS = PEOPLE * 11
CELLS = FLOOR_CELLS + PEOPLE * 3
SEED = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_many_headed(tmp_path_factory.mktemp("many-headed") / "tiny24")


def arguments(model: Path, runs: Path, people: int = PEOPLE) -> list[str]:
    return ["experiment=table1", f"method={METHODS}", *settings(model, runs, people=people)]


def wait_for_cells(process: subprocess.Popen[str], runs: Path, count: int) -> None:
    """Until so many cells are finished; a process that ends earlier is a failure."""
    while len(list(runs.glob("cells/*/respondents/[!.]*.json"))) < count:
        if process.poll() is not None:
            _, errors = process.communicate()
            raise AssertionError(f"ended with {process.returncode} before {count} cells were finished: {errors}")
        time.sleep(0.002)


def test_kill_dash_nine_at_three_random_moments(model: Path, tmp_path: Path) -> None:
    generator = random.Random(SEED)
    with_a_model = sorted(generator.sample(range(FLOOR_CELLS, CELLS - 2), 2))
    survives_kills(model, tmp_path, [generator.randrange(1, FLOOR_CELLS), *with_a_model], PEOPLE, generator)


def test_killed_in_its_first_row_a_sweep_knows_what_is_left(model: Path, tmp_path: Path) -> None:
    """The plan is whole before the first cell: status, resume and the table know every row."""
    runs = tmp_path / "runs"
    process = start(*arguments(model, runs), folder=tmp_path)
    wait_for_cells(process, runs, 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = len(cells(runs))
    assert 0 < finished < FLOOR_CELLS
    told = run_here("status", "table1", folder=tmp_path)
    assert told.returncode == 0 and f"{CELLS - finished} cells missing" in told.stdout
    for label in ("Always A", "Ridge on others", "Vanilla", "Few-Shot", "PAS, no prompt"):
        (counts,) = [line.removeprefix(f"  {label}").split()[:5] for line in told.stdout.splitlines() if label in line]
        assert counts[0] == str(PEOPLE)
    assert "PAS, no prompt 3" in " ".join(run_here("report", "--wide", folder=tmp_path).stdout.split())
    resumed = run_here("resume", "table1", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert len(cells(runs)) == CELLS and len(table(runs)) == CELLS / PEOPLE
    assert "Everything is finished" in run_here("status", folder=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEED, SEED + 5))
def test_kill_dash_nine_at_fifty_random_moments(model: Path, tmp_path: Path, seed: int) -> None:
    """Ten in each of five sweeps, spread over floors and models; nothing is lost, nothing is done twice."""
    people, generator = 8, random.Random(seed)
    moments = sorted(generator.sample(range(1, people * CELLS // PEOPLE - 2), 10))
    survives_kills(model, tmp_path, moments, people, generator)


def survives_kills(model: Path, tmp_path: Path, moments: list[int], people: int, generator: random.Random) -> None:
    """Kill a sweep when so many cells are finished, and a little later; then let it end and compare."""
    wanted = people * CELLS // PEOPLE
    undisturbed = tmp_path / "undisturbed"
    ran = run_here(*arguments(model, undisturbed, people), folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(cells(undisturbed)) == wanted

    runs = tmp_path / "disturbed"
    finished = cells(runs)
    for moment in moments:
        process = start(*arguments(model, runs, people), folder=tmp_path)
        wait_for_cells(process, runs, max(moment, len(finished)))
        time.sleep(generator.random() * 0.9 / people)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had finished before it was killed: choose another seed"
        now = cells(runs)
        assert finished.items() <= now.items(), "a finished cell was lost or written again"
        assert len(now) >= moment
        finished = now
    assert 0 < len(finished) < wanted

    last = run_here(*arguments(model, runs, people), folder=tmp_path)
    assert last.returncode == 0, last.stderr
    after = cells(runs)
    assert finished.items() <= after.items() and len(after) == wanted
    left = [path for path in runs.glob("cells/*/locks/*.lock") if CellLocks(path.parent).is_held(path.name)]
    assert not left  # a kill between a record and its lock's release leaves a file, which nobody holds
    assert "finished before" in last.stderr
    assert not list(runs.glob("cells/*/respondents/*.damaged"))
    names = {path.parts[1] for path in after}
    assert names == {path.parts[1] for path in cells(undisturbed)}  # the same fingerprints
    pd.testing.assert_frame_equal(table(runs)[SCORE_COLUMNS], table(undisturbed)[SCORE_COLUMNS], check_exact=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_with_one_line(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    runs = tmp_path / "runs"
    process = start(*arguments(model, runs), folder=tmp_path)
    wait_for_cells(process, runs, FLOOR_CELLS + PEOPLE)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.rstrip().endswith("Interrupted. Finished people stay; the same command does the rest.")
    assert "Traceback" not in errors
    assert FLOOR_CELLS + PEOPLE <= len(cells(runs)) < CELLS
    assert not list(runs.rglob("*.tmp")) and not list(runs.rglob("*.error.json"))


def ignore_interrupts() -> None:
    """As a shell starts a command in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("number", "begin"), [("SIGTERM", heed_interrupts), ("SIGINT", heed_interrupts), ("SIGTERM", ignore_interrupts)]
)
def test_a_signal_that_meets_a_finalizer_is_not_forgotten(number: str, begin: Any, tmp_path: Path) -> None:
    """Python prints what a finalizer raises, a KeyboardInterrupt too, and goes on."""
    code = f"""
import os, signal, sys, time
from palign_bench.__main__ import main
from palign_bench.cli import main as command_line

class Doomed:
    def __del__(self):
        os.kill(os.getpid(), signal.{number})
        time.sleep(0.2)

def run(arguments):
    Doomed()
    time.sleep(60)

command_line.run = run
sys.argv = ["palign-bench", "method=floors"]
main()
"""
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=45,
        env=os.environ | {"PYTHONPATH": root}, preexec_fn=begin,
    )  # fmt: skip
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr == "\nInterrupted. Finished people stay; the same command does the rest.\n"
