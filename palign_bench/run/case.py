"""What an aligner is told about each person, and the seeds from which everything random derives."""

import hashlib
import random
from collections import Counter
from functools import cached_property

import numpy as np
import torch

from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Answers, Inventory, Respondent
from palign_bench.questionnaire.scoring import Matrix, as_matrix
from palign_bench.run.job import Job
from palign_bench.settings import counted


class Cases:
    """Builds what an aligner is told about each person, and nothing that it did not declare to need."""

    def __init__(self, job: Job):
        self.job = job
        self._position = {person.id: i for i, person in enumerate(job.source.people)}
        inventory = job.protocol.inventory
        self._told = told_items(inventory, job.known_answers, job.seed)
        self._untold = frozenset(inventory.known) - self._told

    def case(self, person: Respondent, needs: frozenset[str]) -> Case:
        """What an aligner with these needs is told about the person."""
        protocol, untold = self.job.protocol, self._untold
        known = self.told(person)
        return Case(
            respondent_id=person.id,
            known={n: value for n, value in known.items() if n not in untold},
            selection=self._changed(protocol.selection(person, self.job.seed, self._told)),
            seed=derived_seed(self.job.seed, person.id),
            missing=tuple(n for n in protocol.inventory.known if n in self._told and n not in known),
            others=np.delete(self._everyone, self._position[person.id], axis=0) if "people" in needs else None,
            held_out=protocol.held_out(person) if "held_out" in needs else None,
            portrait=person.portrait if "portrait" in needs else None,
        )

    def told(self, person: Respondent) -> Answers:
        """The person's known answers as a method is told them: with the job's intervention, where it has one."""
        return self._changed(self.job.protocol.known(person))

    def _changed(self, answers: Answers) -> Answers:
        change = self.job.intervention
        return answers if change is None else change.apply(answers, self.job.protocol.inventory)

    def notes(self) -> list[str]:
        """What the table says where a method is told nothing of somebody, who then cannot be answered as themselves."""
        people, chosen = self.job.people, self.job.known_answers
        without = sum(self._told.isdisjoint(person.answers) for person in people)
        if not without:
            return []
        items = counted(len(self._told), "known item", "known items")
        picked = f" that known_answers={chosen} picks" if chosen else ""
        of = f"{without} of {counted(len(people))}"
        return [f"Methods are told nothing of {of}: none of the {items}{picked} is answered."]

    @cached_property
    def _everyone(self) -> Matrix:
        """Literal answers of the whole source, whatever the limit or shard: (people, items), NaN where missing."""
        numbers = [item.number for item in self.job.protocol.inventory.items]
        return as_matrix(numbers, [person.answers for person in self.job.source.people])


def told_items(inventory: Inventory, count: int | None, seed: int) -> frozenset[int]:
    """The known items of which a method is told the answers: the same for everyone, nested, spread over the scales.

    Of IPIP-NEO, five are one of each domain and thirty one of each facet. ``count``: None (all), or checked before.
    """
    known = sorted(inventory.known)
    if count is None:
        return frozenset(known)
    generator = random.Random(f"known-answers-{seed}")
    generator.shuffle(known)
    of_group: Counter[tuple[str, str | None]] = Counter()
    of_scale: Counter[tuple[int, str]] = Counter()
    ranks: dict[int, tuple[int, int]] = {}
    for number in known:
        item = inventory[number]
        group = item.scale, item.subscale
        turn = of_group[group]
        ranks[number] = (turn, of_scale[turn, item.scale])
        of_group[group] += 1
        of_scale[turn, item.scale] += 1
    return frozenset(sorted(known, key=ranks.__getitem__)[:count])


def derived_seed(seed: int, respondent_id: str) -> int:
    """A person's own seed, whatever the order, shard or process: 63 bits of SHA-256 of (seed, id)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{respondent_id}".encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, so that a method drawing from any of them repeats."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
