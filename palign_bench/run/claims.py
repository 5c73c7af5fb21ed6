"""Which cells this process computes, beside others that work on the same ledger: its shard, and what is not locked."""

import time
from collections.abc import Callable, Generator, Sequence

from palign_bench.files import WriteError
from palign_bench.ledger.cells import CellFolder
from palign_bench.settings import counted

RETRIES = ("all", "failed", "never")
POLL_SECONDS = 0.5


class Claims:
    """Hands out missing cells under a lock; those that another process holds come last.

    A cell that another process finishes, or fails on, while this one runs is left alone and counted here.
    """

    def __init__(self, folder: CellFolder, respondent_ids: Sequence[str], say: Callable[[str], None]):
        self.folder = folder
        self.respondent_ids = list(respondent_ids)
        self.finished_elsewhere = 0
        self.failed_elsewhere = 0
        self._say = say
        self._locks = folder.locks()
        self._failed_before = folder.failure_marks()

    def cohorts(self, size: int) -> Generator[list[str], None, None]:
        """At most ``size`` respondents at a time, locked until the next are asked for or the iteration is closed.

        Raises WriteError when the ledger's folder takes no locks.
        """
        waiting = list(self.respondent_ids)
        told = False
        while waiting:
            held: list[str] = []
            pending = []
            for respondent_id in waiting:
                if not self._acquire(respondent_id):
                    pending.append(respondent_id)
                    continue
                held.append(respondent_id)
                if self._done_elsewhere(respondent_id):
                    self._release([held.pop()])
                if len(held) == size:
                    yield from self._yielded(held)
                    held = []
            if held:
                yield from self._yielded(held)
            elif len(pending) == len(waiting):  # nothing but cells of others: wait for them
                if not told:
                    self._tell(pending)
                    told = True
                time.sleep(POLL_SECONDS)
            waiting = [each for each in pending if not self._finished(each)]

    def _yielded(self, held: list[str]) -> Generator[list[str], None, None]:
        try:
            yield held
        finally:
            self._release(held)

    def _acquire(self, respondent_id: str) -> bool:
        try:
            return self._locks.acquire(self.folder.lock_name(respondent_id))
        except OSError as error:
            raise WriteError(
                f"cannot lock cells in {self._locks.folder}: {error.strerror}. "
                "Free the disk or choose another folder with runs=PATH."
            ) from error

    def _release(self, respondent_ids: Sequence[str]) -> None:
        for respondent_id in respondent_ids:
            self._locks.release(self.folder.lock_name(respondent_id))

    def _done_elsewhere(self, respondent_id: str) -> bool:
        """Whether another process has finished it, or failed on it, since this one looked."""
        if self._finished(respondent_id):
            return True
        failed = self.folder.failure_mark(respondent_id) not in (None, self._failed_before.get(respondent_id))
        self.failed_elsewhere += failed
        return failed

    def _finished(self, respondent_id: str) -> bool:
        finished = self.folder.read(respondent_id) is not None
        self.finished_elsewhere += finished
        return finished

    def _tell(self, pending: Sequence[str]) -> None:
        owner = self._locks.owner(self.folder.lock_name(pending[0]))
        by = f" (the first by process {owner[0]} on {owner[1]})" if owner else ""
        cells = counted(len(pending), "cell", "cells")
        self._say(f"waiting for {cells} that other processes compute{by}")
