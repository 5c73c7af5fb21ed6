"""Who computes which cell, so that two processes on one ledger never compute the same one.

A lock is a file made with O_EXCL, which is atomic on local disks and on NFS. It names its owner and is touched by a
thread of the owner every `BEAT_SECONDS`. On the owner's own machine the lock of a process that is gone is stale at
once; on another machine it is stale when nobody has touched it for `STALE_SECONDS`. No two clocks are compared: a
process that waits sees whether the file's time *changes*, and counts its own monotonic seconds, so that clocks that
jump or disagree do no harm.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

BEAT_SECONDS = 15.0
STALE_SECONDS = 180.0  # NFS may show a file's time up to a minute late
_PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. ``place``: see `this_place`. ``started``: tells a process from a later one."""

    host: str
    place: str
    pid: int
    started: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """This process as the owner of one more lock."""
        pid = os.getpid()
        return cls(platform.node(), this_place(), pid, start_of(pid) or "", uuid.uuid4().hex)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that a lock file names; None for a file that its owner did not finish, or that is no lock."""
        try:
            document: Any = json.loads(text)
            owner = cls(**document)
        except (ValueError, TypeError, RecursionError):
            return None
        texts = (owner.host, owner.place, owner.started, owner.token)
        whole = isinstance(owner.pid, int) and owner.pid > 0 and all(isinstance(each, str) for each in texts)
        return owner if whole else None

    def is_dead(self) -> bool | None:
        """Whether the process is gone; None where this machine cannot know."""
        if self.place != this_place():
            return None
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:  # another user's
            pass
        started = start_of(self.pid)
        return None if started is None or not self.started else started != self.started


def this_place() -> str:
    """Where process ids mean what they mean here: this boot of this machine, and in Linux this container."""
    return _place(os.getpid())


@lru_cache(maxsize=1)
def _place(_: int) -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()}/{uuid.getnode()}"


def start_of(pid: int) -> str | None:
    """When a process began, as its kernel counts (in Linux ticks since boot: no clock change moves it).

    "dead" for one that has ended and waits to be reaped; None where this cannot be read.
    """
    try:
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "dead" if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        pass
    if _PROC.joinpath("self").exists():
        return None
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


class _Heart:
    """Touches every lock that this process holds, so that other machines see that it lives."""

    def __init__(self) -> None:
        self._held: set[Path] = set()
        self._lock = threading.Lock()
        self._pid = 0

    def add(self, path: Path) -> None:
        with self._lock:
            self._held.add(path)
            if self._pid != os.getpid():  # a fork has no threads but its own
                self._pid = os.getpid()
                threading.Thread(target=self._beat, name="cell-locks", daemon=True).start()

    def remove(self, path: Path) -> None:
        with self._lock:
            self._held.discard(path)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._lock:
                held = list(self._held)
            for path in held:
                # A lock that cannot be touched is given up or taken over: either way the cell's own write is atomic.
                with _ignoring_os_errors():
                    os.utime(path)


_heart = _Heart()


@contextmanager
def _ignoring_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


class CellLocks:
    """The locks in one folder, by file name. An instance remembers what it saw of other machines' locks."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._mine: dict[str, Owner] = {}
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}  # name -> (the file's marks, monotonic seconds)

    def acquire(self, name: str) -> bool:
        """Take the lock unless somebody who may be alive holds it. Raises OSError when the folder cannot be used."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._create(name):
            return True
        if not self._is_stale(name):
            return False
        # One at a time: of two that find a lock stale, the later must see that the first has taken it over.
        with guarded(self.folder / ".guard"):
            if not self._is_stale(name):
                return False
            (self.folder / name).unlink(missing_ok=True)
            return self._create(name)

    def release(self, name: str) -> None:
        """Give a lock back; one that another process has taken over stays its."""
        owner = self._mine.pop(name, None)
        path = self.folder / name
        _heart.remove(path)
        if owner is not None and self.owner(name) == owner:
            with _ignoring_os_errors():  # a stale lock is found and taken over; the finished cell matters more
                path.unlink(missing_ok=True)

    def owner(self, name: str) -> Owner | None:
        """Who holds the lock, as far as its file tells."""
        try:
            return Owner.parse((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def is_held(self, name: str) -> bool:
        """Whether a process that is not known to be dead holds the lock."""
        owner = self.owner(name)
        return (self.folder / name).exists() and not (owner is not None and owner.is_dead())

    def _create(self, name: str) -> bool:
        path = self.folder / name
        owner = Owner.this_process()
        try:
            with path.open("x", encoding="utf-8") as file:
                try:
                    file.write(json.dumps(owner.__dict__))
                    file.flush()
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
        except FileExistsError:
            return False
        self._mine[name] = owner
        self._seen.pop(name, None)
        _heart.add(path)
        return True

    def _is_stale(self, name: str) -> bool:
        owner = self.owner(name)
        dead = owner.is_dead() if owner is not None else None
        if dead is not None:
            return dead
        try:
            status = (self.folder / name).stat()
        except FileNotFoundError:
            return True
        marks = (status.st_ino, status.st_mtime_ns)
        now = time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if before != marks:
            self._seen[name] = (marks, now)
            return False
        return now - since > STALE_SECONDS


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """The block runs in one process at a time, wherever the file system can lock a file; the kernel frees a dead one's.

    Where it cannot, the block runs unguarded: what is done inside must at worst be done twice.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        with _ignoring_os_errors():
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
