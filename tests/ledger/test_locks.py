"""Locks and claims: no cell is computed twice, and a dead owner's is taken over, whatever the clocks say."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign_bench.ledger import locks
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.locks import CellLocks, Owner, start_of
from palign_bench.run import claims
from palign_bench.run.claims import Claims
from tests.ledgers import kept_folder

HOLD = (
    "import sys, time; from pathlib import Path; from palign_bench.ledger.locks import CellLocks\n"
    "assert CellLocks(Path(sys.argv[1])).acquire('cell.lock'); print('held', flush=True); time.sleep(600)"
)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``cell.lock``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def elsewhere(folder: Path, **changes: Any) -> Path:
    """A lock that names a process of another machine."""
    folder.mkdir(exist_ok=True)
    owner = replace(Owner.this_process(), host="node7", place="another boot/pid:[1]", **changes)
    (folder / "cell.lock").write_text(json.dumps(owner.__dict__))
    return folder / "cell.lock"


class Seconds:
    """A monotonic clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr(locks.time, "monotonic", lambda: self.now)


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    first, second = CellLocks(tmp_path / "locks"), CellLocks(tmp_path / "locks")
    assert first.acquire("a.lock") and not second.acquire("a.lock") and second.acquire("b.lock")
    second.release("a.lock")  # not its own
    assert first.is_held("a.lock") and not second.acquire("a.lock")
    first.release("a.lock")
    assert not second.is_held("a.lock") and second.acquire("a.lock")
    second.release("a.lock")
    second.release("b.lock")
    assert not list((tmp_path / "locks").glob("*.lock"))


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, reaped: bool) -> None:
    mine = CellLocks(tmp_path)
    with holder(tmp_path) as process:
        assert not mine.acquire("cell.lock") and mine.is_held("cell.lock")
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            while start_of(process.pid) != "dead":
                time.sleep(0.01)
        assert not mine.is_held("cell.lock") and mine.acquire("cell.lock")
    mine.release("cell.lock")


def test_a_process_that_stands_still_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, it beats no more; but it is here and alive, and will go on."""
    clock, mine = Seconds(monkeypatch), CellLocks(tmp_path)
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        for clock.now in (0.0, 1e6):
            assert not mine.acquire("cell.lock")


def test_a_later_process_with_the_same_number_is_another(tmp_path: Path) -> None:
    tmp_path.joinpath("cell.lock").write_text(json.dumps(replace(Owner.this_process(), started="1").__dict__))
    mine = CellLocks(tmp_path)
    assert not mine.is_held("cell.lock") and mine.acquire("cell.lock")
    mine.release("cell.lock")


@pytest.mark.parametrize("stamp", [0, 2**40, -(2**30)])
def test_a_lock_of_another_machine_is_free_when_nobody_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: int
) -> None:
    """Whatever time the file shows: at the epoch, in the far future, or before; here and there clocks may jump."""
    path = elsewhere(tmp_path)
    os.utime(path, (stamp, stamp))
    clock, mine = Seconds(monkeypatch), CellLocks(tmp_path)
    for now in (0.0, 100.0, locks.STALE_SECONDS):
        clock.now = now
        monkeypatch.setattr(locks.time, "time", lambda now=now: 1e10 - 1e8 * now)
        assert not mine.acquire("cell.lock")
    clock.now = locks.STALE_SECONDS + 1
    assert mine.acquire("cell.lock") and mine.owner("cell.lock") != Owner.parse("{}")
    mine.release("cell.lock")


def test_a_lock_of_another_machine_that_beats_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = elsewhere(tmp_path)
    clock, mine = Seconds(monkeypatch), CellLocks(tmp_path)
    for beat in range(50):
        clock.now = beat * (locks.STALE_SECONDS - 1)
        assert not mine.acquire("cell.lock")
        os.utime(path, (1000 - beat, 1000 - beat))  # that machine's clock runs backwards
    assert not mine.acquire("cell.lock")


@pytest.mark.parametrize("content", ["", "{", '{"pid": "x"}', "[]", "null", "[" * 100_000])
def test_a_lock_that_tells_no_owner_is_freed_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (tmp_path / "cell.lock").write_text(content)
    clock, mine = Seconds(monkeypatch), CellLocks(tmp_path)
    assert not mine.acquire("cell.lock")
    clock.now = locks.STALE_SECONDS + 1
    assert mine.acquire("cell.lock")
    mine.release("cell.lock")


@given(st.text() | st.dictionaries(st.text(), st.integers() | st.text() | st.none()).map(json.dumps))
def test_any_text_is_an_owner_or_none(text: str) -> None:
    owner = Owner.parse(text)
    assert owner is None or owner.is_dead() in (True, False, None)


def test_an_owner_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(locks, "_heart", locks._Heart())
    mine = CellLocks(tmp_path)
    assert mine.acquire("cell.lock")
    for _ in range(2):
        os.utime(tmp_path / "cell.lock", (0, 0))
        while (tmp_path / "cell.lock").stat().st_mtime == 0:
            time.sleep(0.005)
    mine.release("cell.lock")


def test_one_of_many_takes_a_dead_owners_lock(tmp_path: Path) -> None:
    """All see it stale and want it at once, again and again; never do two hold it."""
    winners: list[int] = []

    def want(locks_: CellLocks, barrier: threading.Barrier) -> None:
        barrier.wait()
        if locks_.acquire("cell.lock"):
            winners.append(1)

    for _ in range(30):
        tmp_path.joinpath("cell.lock").write_text(json.dumps(replace(Owner.this_process(), started="1").__dict__))
        barrier = threading.Barrier(6)
        threads = [threading.Thread(target=want, args=(CellLocks(tmp_path), barrier)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 1
        winners.clear()


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    return kept_folder(tmp_path, "cells", {"seed": 0})


def work(path: Path, ids: list[str], seconds: float, computed: Any) -> None:
    folder = CellFolder(path)
    claimed = Claims(folder, ids, lambda _: None)
    with closing(claimed.cohorts(2)) as cohorts:
        for cohort in cohorts:
            for each in cohort:
                time.sleep(seconds)
                folder.record(each, {"by": os.getpid()})
                computed.put(each)


def test_four_processes_compute_every_cell_once(folder: CellFolder) -> None:
    ids = [f"p{n}" for n in range(40)]
    context = multiprocessing.get_context("fork")
    computed = context.SimpleQueue()
    processes = [context.Process(target=work, args=(folder.path, ids, 0.005, computed)) for _ in range(4)]
    for process in processes:
        process.start()
    seen = [computed.get() for _ in ids]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(seen) == sorted(ids) and computed.empty()
    assert folder.finished() == set(ids)
    assert not list((folder.path / "locks").glob("*.lock"))


def test_a_locked_cell_comes_last_and_a_dead_owners_is_taken_over(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "POLL_SECONDS", 0.01)
    said: list[str] = []
    name = folder.lock_name("1")
    held = CellLocks(folder.path / "locks")
    assert held.acquire(name)
    order = []
    for cohort in Claims(folder, ["1", "2", "3"], said.append).cohorts(1):
        order += cohort
        folder.record(cohort[0], {})
        if order == ["2", "3"]:
            owner = replace(held._mine[name], started="1")  # it dies
            (folder.path / "locks" / name).write_text(json.dumps(owner.__dict__))
    assert order == ["2", "3", "1"] and said == []
    held.release(name)


def test_what_another_process_finishes_or_fails_meanwhile_is_left_alone(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fail("old", ValueError("yesterday"))
    folder.fail("again", ValueError("yesterday"))
    claimed = Claims(folder, ["mine", "finished", "failed", "old", "again"], lambda _: None)
    order = []
    for cohort in claimed.cohorts(1):
        order += cohort
        if cohort == ["mine"]:
            folder.record("finished", {})
            folder.fail("failed", ValueError("now"))
            folder.fail("again", ValueError("now"))
        folder.record(cohort[0], {})
    assert order == ["mine", "old"]
    assert (claimed.finished_elsewhere, claimed.failed_elsewhere) == (1, 2)


def test_waiting_is_told_once_and_ends_with_the_others_work(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = CellLocks(folder.path / "locks")
    assert held.acquire(folder.lock_name("1"))
    said: list[str] = []
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            folder.record("1", {})

    monkeypatch.setattr(claims.time, "sleep", nap)
    claimed = Claims(folder, ["1"], said.append)
    assert list(claimed.cohorts(1)) == [] and claimed.finished_elsewhere == 1
    assert len(said) == 1 and f"by process {os.getpid()} on " in said[0]
    held.release(folder.lock_name("1"))


def test_breaking_off_gives_the_locks_back(folder: CellFolder) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        closing(Claims(folder, ["1", "2"], lambda _: None).cohorts(2)) as cohorts,
    ):
        for _ in cohorts:
            assert len(list((folder.path / "locks").glob("*.lock"))) == 2
            raise KeyboardInterrupt
    assert not list((folder.path / "locks").glob("*.lock"))
