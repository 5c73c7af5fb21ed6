"""How far a row is: a bar at a terminal, a line a minute in a log."""

import sys
import time

from tqdm import tqdm

from palign_bench.settings import counted

SECONDS_BETWEEN_LINES = 60.0


class Progress:
    """Counts a row's people on stderr."""

    def __init__(self, title: str, people: int):
        self.title = title
        self.people = people
        self.done = 0
        self._bar = tqdm(total=people, desc=title, unit="person", file=sys.stderr, disable=None)
        self._started = self._told = time.monotonic()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def update(self) -> None:
        """Count one more person."""
        self.done += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and (self.done == self.people or now - self._told >= SECONDS_BETWEEN_LINES):
            self._told = now
            print(f"{self.title}: {self._so_far(now - self._started)}", file=sys.stderr, flush=True)

    def _so_far(self, seconds: float) -> str:
        if self.done == self.people:
            return f"{counted(self.people)} done in {seconds:.0f} s"
        left = seconds / self.done * (self.people - self.done)
        return f"{self.done} of {counted(self.people)}, about {left / 60:.0f} min left"
