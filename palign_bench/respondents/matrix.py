"""Many people's literal answers as one array: for reading, checking, describing and selecting them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import Inventory, Respondent
from palign_bench.questionnaire.scoring import as_matrix

Array = NDArray[np.float64]
MISSING = 0


@dataclass(frozen=True)
class AnswerMatrix:
    """``answers`` (people, items of ``inventory`` in its order), literal, int8, 0 where missing; ``ids`` by row."""

    inventory: Inventory
    ids: tuple[str, ...]
    answers: NDArray[np.int8]

    @classmethod
    def of(cls, people: Sequence[Respondent], inventory: Inventory) -> Self:
        """The people's answers to the items of this inventory."""
        answers = as_matrix(list(inventory.by_number), [person.answers for person in people])
        return cls(inventory, tuple(person.id for person in people), np.nan_to_num(answers).astype(np.int8))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Iterable[int] | NDArray[Any]) -> Self:
        """These people alone, in the order given."""
        chosen = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), dtype=int)
        return replace(self, ids=tuple(self.ids[row] for row in chosen), answers=self.answers[chosen])

    def columns(self, numbers: Iterable[int]) -> list[int]:
        """The columns of these item numbers, in the order given."""
        return [self.inventory.column[number] for number in numbers]

    def keyed(self) -> Array:
        """(people, items): answers in the keyed direction, NaN where missing."""
        keyed = reverse_negative(self.answers, self.inventory).astype(float)
        keyed[keyed == MISSING] = np.nan
        return keyed

    def twice_reversed(self) -> Array:
        """(people, items): stored answers whose negatively keyed items are reversed although they already were.

        So are the literal answers, but for a missing one: its 0 is a number too, and becomes 6 (of five options) where
        the item is negatively keyed. The paper's figures 21 to 25 show their means.
        """
        negative = np.array([item.sign < 0 for item in self.inventory.items])
        return np.where(negative & (self.answers == MISSING), self.inventory.highest + 1, self.answers).astype(float)

    def respondents(self) -> tuple[Respondent, ...]:
        """The people one by one, missing answers absent; portraits are not kept."""
        numbers = np.array(list(self.inventory.by_number))
        people = []
        for name, row in zip(self.ids, self.answers, strict=True):
            given = row != MISSING
            people.append(Respondent(name, dict(zip(numbers[given].tolist(), row[given].tolist(), strict=True))))
        return tuple(people)


def reverse_negative(answers: NDArray[np.int8], inventory: Inventory) -> NDArray[np.int8]:
    """Literal answers (people, items) turned keyed, or back; missing ones stay 0."""
    return np.where(answers == MISSING, MISSING, inventory.keyed_matrix(answers)).astype(np.int8)
