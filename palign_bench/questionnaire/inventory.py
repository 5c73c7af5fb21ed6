"""The questionnaire: items, options, facets, domains, and which answers a method may know.

IPIP-NEO-300 (Goldberg 1999; Johnson 2014) is in the public domain (https://ipip.ori.org). The wording and keys in
``data/ipip_neo_300.csv`` are those of that inventory; tests compare signs and facets with the PyPI package
``five-factor-e`` and, where the PAPI files are at hand, wording, keys and split with theirs.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Answers by item number. A value is 5 (Very Accurate) … 1 (Very Inaccurate); a missing one is absent. Floors may answer
# with other real numbers; the truth of `as_released` has 0 for a missing answer.
Answers = Mapping[int, float]


class Option(NamedTuple):
    """One of the five answer options of the MPI template (Jiang et al. 2024; paper, appendix C)."""

    letter: str
    value: int
    label: str


OPTIONS: tuple[Option, ...] = (
    Option("A", 5, "Very Accurate"),
    Option("B", 4, "Moderately Accurate"),
    Option("C", 3, "Neither Accurate Nor Inaccurate"),
    Option("D", 2, "Moderately Inaccurate"),
    Option("E", 1, "Very Inaccurate"),
)
LABELS: dict[int, str] = {option.value: option.label for option in OPTIONS}
LETTERS: str = "".join(option.letter for option in OPTIONS)
VALUE_OF_LETTER: dict[str, int] = {option.letter: option.value for option in OPTIONS}
LOWEST, HIGHEST = 1, 5

# The scales of IPIP-NEO, in the order of the paper's tables and of the released code (alphabetical).
DOMAINS: dict[str, str] = {
    "A": "agreeableness",
    "C": "conscientiousness",
    "E": "extraversion",
    "N": "neuroticism",
    "O": "openness",
}


def reverse(value: float) -> float:
    """Mirror an answer on the 1…5 scale: what the answer to a negatively keyed item says about its scale."""
    return LOWEST + HIGHEST - value


@dataclass(frozen=True)
class Item:
    """One statement of the questionnaire."""

    number: int  # 1-based, the "Full#" of the released item key
    text: str  # as worded, e.g. "Worry about things."
    sign: int  # +1: agreeing raises the scale; -1: agreeing lowers it
    scale: str  # a key of `Inventory.scales`, e.g. "N"
    subscale: str | None = None  # e.g. the facet "N1"; None where the inventory has no subscales


@dataclass(frozen=True)
class Inventory:
    """A questionnaire and its split into known and held-out items.

    ``known``: item numbers, in the order in which prompts list them. ``scales``: full name by the short one that `Item`
    and table headers use, in the order of a table's columns. ``stores_keyed``: whether published files of answers hold
    those to negatively keyed items reversed; `Respondent.answers` are literal whatever it says.
    """

    name: str
    items: tuple[Item, ...]
    known: tuple[int, ...]
    scales: Mapping[str, str]
    stores_keyed: bool = False

    @cached_property
    def by_number(self) -> dict[int, Item]:
        return {item.number: item for item in self.items}

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Item numbers that methods are judged on, ascending."""
        known = set(self.known)
        return tuple(item.number for item in self.items if item.number not in known)

    @cached_property
    def subscales(self) -> tuple[str, ...]:
        """Names of the subscales (facets), sorted; empty where the inventory has none."""
        return tuple(sorted({item.subscale for item in self.items if item.subscale is not None}))

    @cached_property
    def column(self) -> dict[int, int]:
        """The column of each item's number in a matrix ``(people, items)``."""
        return {item.number: index for index, item in enumerate(self.items)}

    def __getitem__(self, number: int) -> Item:
        return self.by_number[number]

    def select(self, numbers: Iterable[int]) -> list[Item]:
        """The items with these numbers, in the order given."""
        return [self.by_number[number] for number in numbers]

    def keyed(self, number: int, value: float) -> float:
        """Turn a literal answer into a keyed one, or back (the same operation)."""
        return value if self.by_number[number].sign > 0 else reverse(value)

    def keyed_matrix(self, literal: NDArray[Any]) -> NDArray[Any]:
        """The same for a matrix of answers ``(people, items)``; NaN stays NaN."""
        negative = np.array([item.sign < 0 for item in self.items])
        return np.where(negative, LOWEST + HIGHEST - literal, literal)


@dataclass(frozen=True)
class Respondent:
    """One person: an id and literal answers. Nothing else about a person leaves a loader."""

    id: str
    answers: Answers  # literal, 1…5; missing answers are absent
    portrait: str | None = None  # the P² portrait released with PAPI, where the source has one


@lru_cache(maxsize=1)
def ipip_neo_300() -> Inventory:
    """IPIP-NEO-300 with the IPIP-NEO-120 (Johnson 2014) as the known part, in the short form's order."""
    text = files("palign_bench.questionnaire").joinpath("data/ipip_neo_300.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    items = tuple(
        Item(int(row["number"]), row["text"], 1 if row["sign"] == "+" else -1, row["facet"][0], row["facet"])
        for row in rows
    )
    short_form = sorted((int(row["short_form_number"]), int(row["number"])) for row in rows if row["short_form_number"])
    return Inventory("ipip_neo_300", items, tuple(number for _, number in short_form), DOMAINS, stores_keyed=True)
