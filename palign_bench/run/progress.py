"""How far a row is, on stderr."""

import sys
import time
from collections import Counter

from tqdm import tqdm

from palign_bench.settings import counted

NAMED_ALIKE = 3  # people of a row who are named with one and the same failure
SECONDS_BETWEEN_LINES = 60.0  # on a row's progress in a log


class Progress:
    """How far a row is, on stderr: a bar at a terminal, a line a minute in a log."""

    def __init__(self, title: str, people: int):
        self.title = title
        self.people = people
        self.begun = self.done = self.failed = 0
        self._alike = Counter[str]()
        self._bar = tqdm(total=people, desc=title, unit="person", file=sys.stderr, disable=None)
        self._started = self._told = time.monotonic()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def fail(self, respondent_id: str, error: BaseException) -> None:
        """Count somebody whose cell failed, and say so; of many who fail alike the first few are named."""
        self.failed += 1
        reason = f"{type(error).__name__}: {error}"
        self._alike[reason] += 1
        if self._alike[reason] <= NAMED_ALIKE:
            say(f"{self.title}: person {respondent_id} failed: {reason}")
        elif self._alike[reason] == NAMED_ALIKE + 1:
            say(f"{self.title}: others fail alike; they are counted")

    def update(self) -> None:
        """Count one more person who was tried."""
        self.done += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and (self.done == self.people or now - self._told >= SECONDS_BETWEEN_LINES):
            self._told = now
            print(f"{self.title}: {self._so_far(now - self._started)}", file=sys.stderr, flush=True)

    def _so_far(self, seconds: float) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        if self.done == self.people:
            return f"{counted(self.people)} {'tried' if failed else 'done'} in {seconds:.0f} s{failed}"
        left = seconds / self.begun * (self.people - self.done)  # a cohort is trained before it answers
        return f"{self.done} of {counted(self.people)}, about {left / 60:.0f} min left{failed}"


def say(line: str) -> None:
    """A line beside the progress bars."""
    tqdm.write(line, file=sys.stderr)
