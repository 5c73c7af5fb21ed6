"""What is asked, how an answer is read, what counts as truth, and on which answers hyperparameters are chosen.

`corrected` is the default. `as_released` does what the authors' released code does, its known faults included, so that
its numbers can be reproduced and the difference be seen. Every number carries its protocol; the two are never mixed.
"""

from __future__ import annotations

import hashlib
import random
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import VALUE_OF_LETTER, Answers, Inventory, Item, Respondent

_RELEASED_ANSWER = re.compile(r"[abcdeABCDE][^a-zA-Z]")
_RELEASED_PREFIX = "\n\nOption"
_RELEASED_WINDOW = 12  # characters of prefix + generation that the released code looks at
AUDIT_ITEMS = 20


@dataclass(frozen=True)
class Reading:
    """How an answer is read: the text that opens the assistant's turn, and whether the model then generates."""

    opening: str
    generates: bool
    max_new_tokens: int = 0


def parse_released(generated: str) -> int | None:
    """The released code's parse: first match of a letter A-E (any case) before a non-letter in a 12-character window.

    ``generated`` is the text after the opening ``Option``, special tokens included. Returns 5…1, or None: unparsed.
    """
    match = _RELEASED_ANSWER.search((_RELEASED_PREFIX + generated)[:_RELEASED_WINDOW])
    return VALUE_OF_LETTER[match.group()[0].upper()] if match else None


def parse_is_decided(generated: str) -> bool:
    """Whether more text cannot change `parse_released`: it matched, or its window is full."""
    return parse_released(generated) is not None or len(generated) >= _RELEASED_WINDOW - len(_RELEASED_PREFIX)


FREE_GENERATION = Reading(opening="Option", generates=True, max_new_tokens=15)


class EvaluationProtocol(ABC):
    """One way of asking and scoring. Raise ``version`` when a change here changes numbers."""

    name: str
    version: int
    reading: Reading

    @abstractmethod
    def known(self, inventory: Inventory, respondent: Respondent) -> Answers:
        """The known answers in this protocol's orientation."""

    @abstractmethod
    def truth(self, inventory: Inventory, respondent: Respondent) -> Answers:
        """The held-out answers that a method is scored against, in this protocol's orientation."""

    @abstractmethod
    def selection(self, inventory: Inventory, respondent: Respondent, seed: int) -> Answers:
        """The answers that hyperparameters may be chosen on."""

    @abstractmethod
    def orient(self, inventory: Inventory, literal: Answers) -> Answers:
        """Literal answers turned into this protocol's orientation."""

    @abstractmethod
    def keyed(self, inventory: Inventory, number: int, value: float) -> float:
        """An answer in this protocol's orientation turned into a keyed one, or back."""

    @abstractmethod
    def statement(self, item: Item) -> str:
        """The statement as it stands in the question."""

    @abstractmethod
    def few_shot_prompt(self, inventory: Inventory, known: Answers, for_pas: bool = False) -> str:
        """The system prompt that lists the known answers."""

    def question(self, item: Item) -> str:
        """The user's turn for one item."""
        return prompts.question(self.statement(item))


class Corrected(EvaluationProtocol):
    """Literal truth, missing answers left out, log-probabilities read after ``Option (``."""

    name = "corrected"
    version = 1
    reading = Reading(opening="Option (", generates=False)

    def known(self, inventory: Inventory, respondent: Respondent) -> Answers:
        return {n: respondent.answers[n] for n in inventory.known if n in respondent.answers}

    def truth(self, inventory: Inventory, respondent: Respondent) -> Answers:
        return {n: respondent.answers[n] for n in inventory.held_out if n in respondent.answers}

    def selection(self, inventory: Inventory, respondent: Respondent, seed: int) -> Answers:
        """One known item per facet (30), drawn from the seed alone: the same items for all methods and people."""
        generator = random.Random(f"selection-{seed}")
        chosen = []
        for facet in inventory.facets:
            chosen.append(generator.choice([n for n in sorted(inventory.known) if inventory[n].facet == facet]))
        return {n: respondent.answers[n] for n in sorted(chosen) if n in respondent.answers}

    def orient(self, inventory: Inventory, literal: Answers) -> Answers:
        return literal

    def keyed(self, inventory: Inventory, number: int, value: float) -> float:
        return inventory.keyed(number, value)

    def statement(self, item: Item) -> str:
        return prompts.statement_as_worded(item)

    def few_shot_prompt(self, inventory: Inventory, known: Answers, for_pas: bool = False) -> str:
        return prompts.few_shot_system_prompt(inventory, known)  # PAS shares it word for word


class AsReleased(EvaluationProtocol):
    """The released code: stored (keyed) truth, zeros counted, greedy generation, choices on the held-out answers."""

    name = "as_released"
    version = 1
    reading = FREE_GENERATION

    def known(self, inventory: Inventory, respondent: Respondent) -> Answers:
        return self._stored(inventory, respondent, inventory.known)

    def truth(self, inventory: Inventory, respondent: Respondent) -> Answers:
        return self._stored(inventory, respondent, inventory.held_out)

    def selection(self, inventory: Inventory, respondent: Respondent, seed: int) -> Answers:
        """The held-out answers themselves: a leak of the released code, kept only to reproduce it."""
        return self.truth(inventory, respondent)

    def orient(self, inventory: Inventory, literal: Answers) -> Answers:
        return {n: inventory.keyed(n, value) for n, value in literal.items()}

    def keyed(self, inventory: Inventory, number: int, value: float) -> float:
        return value  # stored answers are keyed already

    def statement(self, item: Item) -> str:
        return prompts.statement_as_released(item)

    def few_shot_prompt(self, inventory: Inventory, known: Answers, for_pas: bool = False) -> str:
        return prompts.few_shot_system_prompt(inventory, known, separator=";" if for_pas else "")

    @staticmethod
    def _stored(inventory: Inventory, respondent: Respondent, numbers: tuple[int, ...]) -> Answers:
        answers = respondent.answers
        return {n: inventory.keyed(n, answers[n]) if n in answers else 0 for n in numbers}


PROTOCOLS: dict[str, type[EvaluationProtocol]] = {"corrected": Corrected, "as_released": AsReleased}


def audit_items(inventory: Inventory) -> list[Item]:
    """The 20 held-out items of the free-generation audit: the same for everyone, spread over the inventory."""

    def rank(number: int) -> str:
        return hashlib.sha256(f"audit-{inventory.name}-{number}".encode()).hexdigest()

    return inventory.select(sorted(sorted(inventory.held_out, key=rank)[:AUDIT_ITEMS]))
