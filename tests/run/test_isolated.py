"""`cost=isolated` as a user types it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.files import read_json
from palign_bench.respondents import simulate
from palign_bench.run import row
from palign_bench.run.isolated import IsolationError, cost_repeats, in_own_process
from palign_bench.run.session import Session
from palign_bench.settings import UserError
from tests.command import cells, run, run_here, save_many_headed, settings, table
from tests.run.jobs import a_job, run_alone


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("isolated")
    model = save_many_headed(folder / "tiny24")
    return ["-m", "method=vanilla,pas", "cost=isolated", "cost_repeats=2", *settings(model, folder / "runs")]


@pytest.fixture(scope="module")
def runs(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of two methods measured on two people."""
    result = run(*arguments, folder=tmp_path_factory.mktemp("here"))
    assert result.returncode == 0, result.stderr
    return Path(next(a for a in arguments if a.startswith("runs=")).removeprefix("runs="))


def records(runs: Path, method: str) -> list[dict[str, Any]]:
    (folder,) = (runs / "cells").glob(f"{method}-*")
    return [read_json(path)["record"] for path in sorted((folder / "respondents").glob("*.json"))]


def test_every_method_is_measured_and_stands_in_one_table(runs: Path) -> None:
    frame = table(runs, "run").set_index("method")
    assert list(frame.index) == ["vanilla", "pas"] and set(frame["cost_repeats"]) == {2}
    assert 0 < frame.loc["pas", "search_seconds"] < frame.loc["pas", "align_seconds"]
    assert frame.loc["vanilla", "search_seconds"] == 0
    for phases in (frame.loc["pas"], frame.loc["vanilla"]):
        marginal = phases["align_seconds"] + phases["answer_seconds"]
        assert phases["seconds_for_300"] == pytest.approx(phases["shared_seconds"] + 300 * marginal)


def test_nothing_is_taken_over_between_people_or_methods(runs: Path) -> None:
    """In passing, everyone's Vanilla answers are the first person's."""
    assert [record["cost"]["reused_answers"] for record in records(runs, "vanilla")] == [False, False]
    assert len({record["cost"]["answer_seconds"] for record in records(runs, "vanilla")}) == 2


def test_the_conditions_are_recorded(runs: Path) -> None:
    for method in ("vanilla", "pas"):
        (folder,) = (runs / "cells").glob(f"{method}-*")
        states = read_json(folder / "measurement.json")
        assert len(states) == 3, "before the first cell, and after each"
        for state in states:
            assert len(state["load_averages"]) == 3 and state["memory_total_mib"] > 0 and "processor_mhz" in state
        (provenance,) = read_json(folder / "provenance.json")
        assert provenance["packages"]["torch"] and provenance["processor"]


def test_conditions_of_a_command_that_ended_in_the_middle_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load is 1, 2, 3, … each time that it is looked at; the second person of three ends the first command."""
    loads = count(1)
    monkeypatch.setattr(row, "machine_state", lambda: {"load_averages": [next(loads)]})
    source = simulate(count=3, seed=3)

    class Interrupted(Aligner):
        needs_backbone = False

        def align(self, case: Case) -> Alignment:
            if case.respondent_id == source.people[1].id and ends:
                ends.pop()
                raise KeyboardInterrupt
            return Alignment(answers={})

        def warm_up(self, case: Case) -> None: ...

    ends, job = [True], a_job(tmp_path, source, source.people, repeats=1)
    with pytest.raises(KeyboardInterrupt):
        run_alone(job, "nobody", Interrupted(), Session())
    _, folder = run_alone(job, "nobody", Interrupted(), Session())
    assert [state["load_averages"][0] for state in folder.measurement()] == [1, 2, 3, 4, 5]


def test_what_was_measured_is_not_measured_again(runs: Path, arguments: list[str], tmp_path: Path) -> None:
    """A cell that was lost is, alone; cells whose costs were taken in passing are others."""
    (lost, *_) = (runs / "cells").glob("vanilla-*/respondents/*.json")
    lost.unlink()
    before = cells(runs)
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 0 and "1 of 2 people finished before, 1 to do" in result.stderr, result.stderr
    assert before.items() <= cells(runs).items() and len(cells(runs)) == len(before) + 1
    in_passing = [each for each in arguments if not each.startswith("cost")]
    result = run_here(*in_passing, "method=vanilla", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((runs / "cells").glob("vanilla-*"))) == 2 and len(cells(runs)) == len(before) + 3


def test_the_work_returns_raises_or_dies() -> None:
    assert in_own_process(os.getpid, what="nothing") != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process(int, "x", what="nothing")
    with pytest.raises(IsolationError, match="measured nothing was killed, or ran out of memory"):
        in_own_process(os._exit, 9, what="nothing")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_process_ends_with_the_one_that_made_it(number: signal.Signals, tmp_path: Path) -> None:
    """Whoever kills the command kills what it measures: nobody waits for it."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from palign_bench.run.isolated import in_own_process\n"
        "def sleep_and_tell(place):\n"
        "    Path(place + '.part').write_text(str(os.getpid()))\n"
        "    Path(place + '.part').rename(place)\n"
        "    time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        "    in_own_process(sleep_and_tell, sys.argv[1], what='nothing')\n"
    )
    (tmp_path / "program.py").write_text(program)
    told = tmp_path / "pid"
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", told],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    until(told.exists)
    process.send_signal(number)
    process.wait(timeout=60)
    until(lambda: not Path(f"/proc/{told.read_text()}").exists())


def until(happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")


@pytest.mark.parametrize("mistake", [{"cost": "guessed"}, {"cost_repeats": 0}, {"cost_repeats": 1.5}])
def test_mistakes_are_named(mistake: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(mistake))):
        cost_repeats({"cost": "isolated", "cost_repeats": 3} | mistake)
