"""Locks and claims: no cell is computed twice, and a dead owner's is taken over, whatever the clocks say."""

import errno
import fcntl
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.locks import CellLocks, guarded
from palign_bench.run import claims
from palign_bench.run.claims import Claims
from tests.ledgers import kept_folder

HOLD = (
    "import sys, time; from pathlib import Path; from palign_bench.ledger.locks import CellLocks\n"
    "held = CellLocks(Path(sys.argv[1]))\n"
    "assert held.acquire(sys.argv[2]); print('held', flush=True); time.sleep(600)"
)


@contextmanager
def holder(folder: Path, name: str = "cell.lock") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), name], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    first, second = CellLocks(tmp_path / "locks"), CellLocks(tmp_path / "locks")
    assert first.acquire("a.lock") and not second.acquire("a.lock") and second.acquire("b.lock")
    second.release("a.lock")  # not its own
    assert first.is_held("a.lock") and second.is_held("a.lock") and not second.acquire("a.lock")
    assert second.owner("a.lock") == (os.getpid(), platform.node())
    first.release("a.lock")
    assert not second.is_held("a.lock") and second.owner("a.lock") is None and second.acquire("a.lock")
    second.release("a.lock")
    second.release("b.lock")
    assert not list((tmp_path / "locks").glob("*.lock"))


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, reaped: bool) -> None:
    mine = CellLocks(tmp_path)
    with holder(tmp_path) as process:
        assert not mine.acquire("cell.lock") and mine.is_held("cell.lock")
        assert mine.owner("cell.lock") == (process.pid, platform.node())
        process.send_signal(signal.SIGKILL)
        if reaped:
            process.wait()
        else:
            while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
        assert mine.acquire("cell.lock")
        assert mine.owner("cell.lock") == (os.getpid(), platform.node())
    mine.release("cell.lock")


def test_asking_clears_away_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    with holder(tmp_path):
        pass
    assert (tmp_path / "cell.lock").exists()
    assert not CellLocks(tmp_path).is_held("cell.lock") and not (tmp_path / "cell.lock").exists()


def test_the_locks_of_a_ledger_that_can_only_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process is not taken for one that runs, and its file stays."""

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", read_only)
    with holder(tmp_path):
        assert CellLocks(tmp_path).is_held("cell.lock")
    assert not CellLocks(tmp_path).is_held("cell.lock") and (tmp_path / "cell.lock").exists()


def test_a_process_that_stands_still_keeps_its_lock(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        assert not CellLocks(tmp_path).acquire("cell.lock") and CellLocks(tmp_path).is_held("cell.lock")


@pytest.mark.parametrize(
    "content", ["", "filelock/2\npid=", '{"pid": 12, "host": "node7"}', "1", "\x00\ud800", "[" * 9999]
)
def test_a_file_that_nobody_holds_is_free_whatever_it_says(tmp_path: Path, content: str) -> None:
    """What a kill or a full disk leaves, or an earlier version of this program."""
    (tmp_path / "cell.lock").write_bytes(content.encode("utf-8", "surrogatepass"))
    mine = CellLocks(tmp_path)
    assert mine.owner("cell.lock") in (None, (1, "")) and mine.acquire("cell.lock")
    mine.release("cell.lock")


def test_a_ledger_that_takes_no_files(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="taken"):
        CellLocks(tmp_path / "taken" / "locks").acquire("cell.lock")


def test_where_the_file_system_has_no_locks_the_work_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    mine = CellLocks(tmp_path)
    assert mine.acquire("cell.lock")
    mine.release("cell.lock")
    with guarded(tmp_path / ".guard"):
        pass


def test_never_do_two_hold_a_lock_that_comes_and_goes(tmp_path: Path) -> None:
    """Its file is removed and made again all the time, while others have just opened it."""
    holders, most, turns = 0, 0, 0
    count = threading.Lock()

    def want() -> None:
        nonlocal holders, most, turns
        mine = CellLocks(tmp_path)
        for _ in range(200):
            if mine.acquire("cell.lock"):
                with count:
                    holders, turns = holders + 1, turns + 1
                    most = max(most, holders)
                with count:
                    holders -= 1
                mine.release("cell.lock")

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and turns > 100


def add_one(path: Path, times: int) -> None:
    for _ in range(times):
        with guarded(path.with_suffix(".guard")):
            path.write_text(str(int(path.read_text()) + 1))


def test_a_guarded_block_runs_in_one_process_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_one, args=(tmp_path / "count", 10)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "count").read_text() == "30"


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
    order = []
    with holder(folder.path / "locks", folder.lock_name("1")) as process:
        for cohort in Claims(folder, ["1", "2", "3"], said.append).cohorts(1):
            order += cohort
            folder.record(cohort[0], {})
            if order == ["2", "3"]:
                process.kill()
                process.wait()  # until then its lock is held, and waiting would be told
    assert order == ["2", "3", "1"] and said == []


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
