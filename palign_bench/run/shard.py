"""A part of the people: `shard=2/4`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from palign_bench.settings import UserError

_LARGEST = 1_000_000

Each = TypeVar("Each")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of the ``count`` that the people of a run are cut into."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: Any) -> Self | None:
        """``shard=2/4``; None for null. Raises UserError for anything but a part of a whole."""
        if text is None:
            return None
        match = re.fullmatch("([0-9]{1,7})/([0-9]{1,7})", str(text))
        if match and 1 <= int(match[1]) <= int(match[2]) <= _LARGEST:
            return cls(int(match[1]), int(match[2]))
        raise UserError(f"shard={text}: give i/n with 1 ≤ i ≤ n, as in shard=2/4, or null for everyone.")

    def cut(self, people: Sequence[Each]) -> Sequence[Each]:
        """This part's people: neighbours, so that the parts in order are all the people in order; sizes differ by 1."""
        total = len(people)
        return people[total * (self.index - 1) // self.count : total * self.index // self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"
