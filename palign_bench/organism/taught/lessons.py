"""Texts about a person as the harness writes them, in tokens, with the places where answers are told and asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Inventory, Option

Rows = NDArray[np.int64]

_SYSTEM, _QUESTION, _OPENING = "a system prompt", "a question", "Option ("


def unseen_items(inventory: Inventory) -> tuple[int, ...]:
    """One held-out item of every facet, 10 % of all, that is never shown in teaching; chosen by a hash, ascending."""

    def rank(number: int) -> str:
        return hashlib.sha256(f"taught-{number}".encode()).hexdigest()

    return tuple(sorted(min(numbers, key=rank) for numbers in inventory.grouped(inventory.held_out).values()))


@dataclass(frozen=True)
class Told:
    """A system prompt's tokens; ``asks``: where each statement has just been read and its answer comes next."""

    ids: list[int]
    asks: list[int]


@dataclass(frozen=True)
class Asked:
    """A question's tokens, the answer's opening among them, and what the model is to write, if anything.

    ``letter``: where an option's letter comes next; ``values``: of the options in the order of their letters.
    """

    ids: list[int]
    letter: int
    values: tuple[int, ...]


class Lessons:
    """Writes what a simulated person tells and is asked, by rows of the inventory's ``items``."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, inventory: Inventory):
        self.tokenizer, self.inventory, self.items = tokenizer, inventory, list(inventory.items)
        whole = ChatFormat(tokenizer).render((_SYSTEM, _QUESTION, _OPENING))
        self._before_system, rest = whole.split(_SYSTEM)
        after_system, self._after_question = rest.split(_QUESTION)
        self._after_question = self._after_question.removesuffix(_OPENING)
        # A turn ends with a special token and a line feed; the rest opens the user's turn and belongs to a question.
        self._after_system, opened, self._before_question = after_system.partition("\n")
        self._after_system += opened
        unseen = set(unseen_items(inventory))
        self.shown: Rows = np.array([row for row, item in enumerate(self.items) if item.number not in unseen])
        self.stop = self._after_system.removesuffix("\n")  # the chat's own: a tokenizer's end token may be another

    @cached_property
    def subscales(self) -> Rows:
        """Of every item, as a place among the inventory's subscales."""
        return np.array([self.inventory.subscales.index(str(item.subscale)) for item in self.items])

    def draw(
        self, generator: np.random.Generator, told: int, asked: int, of_few_facets: bool = True
    ) -> tuple[Rows, Rows]:
        """Different items to tell and to ask, in random order; of a few facets, so that the told ones say much of the
        asked ones, or of all. No more are told than there are.
        """
        pool = self.shown
        if of_few_facets:
            facets = len(self.inventory.subscales)
            needed = -(-(told + asked) // 9) + int(generator.integers(0, 2))
            chosen = generator.choice(facets, min(facets, needed), replace=False)
            pool = pool[np.isin(self.subscales[pool], chosen)]
        order = generator.permutation(pool)
        told = min(told, len(order) - asked)
        return order[:told], order[told : told + asked]

    def neutral(self) -> Told:
        return self._told(prompts.NEUTRAL_SYSTEM_PROMPT, [])

    def listing(self, told: Rows, answers: Rows, separator: str = ";") -> Told:
        """A Few-Shot list in this order. A label is asked for after the colon."""
        text, asks = prompts.FEW_SHOT_OPENING + separator, []
        for place, (row, value) in enumerate(zip(told, answers, strict=True)):
            text += (";" if place else "") + self.items[row].text + ":"
            asks.append(len(text))
            text += self.inventory.labels[int(value)]
        return self._told(text, asks)

    def portrait(self, told: Rows, answers: Rows) -> Told:
        """A portrait from the template. An ending is asked for after its comma."""
        text, asks = "", []
        for row, value in zip(told, answers, strict=True):
            text += (" " if text else "") + prompts.PORTRAIT_OPENING
            text += prompts.statement(self.inventory, self.items[row])
            asks.append(len(text) + 1)
            text += prompts.PORTRAIT_ENDINGS[int(value)]
        return self._told(text, asks)

    def question(
        self,
        row: int,
        options: Sequence[Option] = OPTIONS,
        asks: str = prompts.ASKS["phrase"],
        as_released: bool = False,
        answer: int | None = None,
    ) -> Asked:
        """One question; with ``answer`` the model is to write that option's letter and label and to end its turn."""
        item = self.items[row]
        said = prompts.statement_as_released(item) if as_released else prompts.statement(self.inventory, item)
        asked = self._before_question + prompts.question(said, asks, options) + self._after_question + _OPENING
        written = ""
        if answer is not None:
            option = next(each for each in options if each.value == answer)
            written = f"{option.letter}). {option.label}{self.stop}"
        ids, ends = self._encoded(asked + written)
        return Asked(ids, int(np.searchsorted(ends, len(asked))), tuple(option.value for option in options))

    def token(self, text: str, place: int) -> int:
        """The id of a text's token, counted as in a list."""
        return int(self.tokenizer(text, add_special_tokens=False)["input_ids"][place])

    def _told(self, text: str, asks: list[int]) -> Told:
        ids, ends = self._encoded(self._before_system + text + self._after_system)
        return Told(ids, np.searchsorted(ends, np.array(asks, dtype=int) + len(self._before_system)).tolist())

    def _encoded(self, text: str) -> tuple[list[int], NDArray[np.int64]]:
        """Tokens, and the characters up to which each reaches."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), np.array([end for _, end in found["offset_mapping"]])
