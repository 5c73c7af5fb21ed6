"""Locks on files: no two processes compute the same cell, on one machine or on several that share a disk.

A lock is the kernel's (`flock`, through filelock): it ends with the process, however that ends, so nothing has to be
touched, timed or cleaned up. filelock's `SoftFileLease`, which needs no `flock`, is not used: a process killed between
making its file and writing it leaves an empty one, which a lease never takes over. Where a file system has no `flock`
cells are not locked: two processes may compute the same cell, and the second record replaces an equal one.
"""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_NO_FLOCK = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class CellLocks:
    """The locks in one folder, by file name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._held: dict[str, BaseFileLock] = {}

    def acquire(self, name: str, wait: bool = False) -> bool:
        """Take the lock, unless another process holds it and this one is not to wait.

        Raises OSError when the folder cannot be used.
        """
        lock = FileLock(self.folder / name, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            return True
        self._held[name] = lock
        # Who it is, for those who wait. Not truncated: some file systems would write the file to the disk for it.
        with suppress(OSError), (self.folder / name).open("r+", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {platform.node()}\n")
        return True

    def release(self, name: str) -> None:
        """Release the lock; one that is another's stays its."""
        lock = self._held.pop(name, None)
        if lock is not None:
            with suppress(OSError):  # while it is held: whoever has opened the file sees that it is gone, tries again
                (self.folder / name).unlink(missing_ok=True)
            lock.release()

    def owner(self, name: str) -> tuple[int, str] | None:
        """Process id and host of the lock's owner, as far as its file tells."""
        try:
            number, _, host = (self.folder / name).read_text(encoding="utf-8").split("\n")[0].partition(" ")
            return int(number), host
        except (OSError, ValueError):
            return None

    def is_held(self, name: str) -> bool:
        """Whether a process holds the lock; what a dead one left is cleared away by asking."""
        if not (self.folder / name).exists():
            return False
        asking = CellLocks(self.folder)
        try:
            free = asking.acquire(name)
        except OSError:  # a folder that can only be read
            return _is_locked(self.folder / name)
        asking.release(name)
        return not free


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file, which need only be readable."""
    import fcntl  # Windows has none, and no `flock`

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: some file systems let only writers exclude
    except FileNotFoundError:
        return False
    except OSError:  # held, or nobody can tell
        return True
    return False


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """The block runs in one process at a time; unguarded where the file system has no locks.

    Raises OSError where no file can be made.
    """
    locks = CellLocks(path.parent)
    locks.acquire(path.name, wait=True)
    try:
        yield
    finally:
        locks.release(path.name)
