"""What an aligner is told about each person, and the seeds from which everything random derives."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Answers, Inventory, Respondent
from palign_bench.run.experiment import Experiment
from palign_bench.settings import UserError


class LeaveOneOut(Sequence[Answers]):
    """All answers of every other person of the whole source; the elements are the same objects for everyone."""

    def __init__(self, everyone: Sequence[Answers], left_out: int):
        self._everyone = everyone
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self._everyone) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._everyone[index + (index >= self._left_out)]


class Cases:
    """Builds what an aligner is told about each person, and nothing that it did not declare to need."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._position = {person.id: i for i, person in enumerate(experiment.source.people)}
        self._everyone: list[Answers] | None = None
        self._told = told_items(experiment.inventory, experiment.known_answers, experiment.seed)

    def case(self, person: Respondent, needs: frozenset[str]) -> Case:
        """What an aligner with these needs is told about the person."""
        inventory, protocol = self.experiment.inventory, self.experiment.protocol
        held_out = {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        known = protocol.known(inventory, person)
        selection = protocol.selection(inventory, person, self.experiment.seed)
        untold = frozenset(known) - self._told
        return Case(
            respondent_id=person.id,
            known={n: value for n, value in known.items() if n not in untold},
            selection={n: value for n, value in selection.items() if n not in untold},
            seed=derived_seed(self.experiment.seed, person.id),
            others=LeaveOneOut(self._all_answers(), self._position[person.id]) if "people" in needs else None,
            truth=held_out if "truth" in needs else None,
            portrait=person.portrait if "portrait" in needs else None,
        )

    def _all_answers(self) -> list[Answers]:
        if self._everyone is None:
            inventory, protocol = self.experiment.inventory, self.experiment.protocol
            self._everyone = [
                dict(protocol.known(inventory, person)) | dict(protocol.truth(inventory, person))
                for person in self.experiment.source.people
            ]
        return self._everyone


def told_items(inventory: Inventory, count: int | None, seed: int) -> frozenset[int]:
    """The known items of which a method is told the answers: the same for everyone, nested, spread over the domains.

    Five are one of each domain, thirty one of each facet. Raises UserError for a count that the inventory lacks.
    """
    known = sorted(inventory.known)
    if count is None:
        return frozenset(known)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(known):
        raise UserError(f"known_answers={count}: choose a whole number from 1 to {len(known)}, or null for all.")
    generator = random.Random(f"known-answers-{seed}")
    generator.shuffle(known)
    of_facet: Counter[str] = Counter()
    of_domain: Counter[tuple[int, str]] = Counter()
    ranks: dict[int, tuple[int, int]] = {}
    for number in known:
        item = inventory[number]
        turn = of_facet[item.facet]
        ranks[number] = (turn, of_domain[turn, item.domain])
        of_facet[item.facet] += 1
        of_domain[turn, item.domain] += 1
    return frozenset(sorted(known, key=ranks.__getitem__)[:count])


def derived_seed(seed: int, respondent_id: str) -> int:
    """A person's own seed, whatever the order, shard or process: 63 bits of SHA-256 of (seed, id)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{respondent_id}".encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, so that a method drawing from any of them repeats."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
