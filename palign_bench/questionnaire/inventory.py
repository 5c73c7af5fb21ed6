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
from typing import NamedTuple

# Answers are keyed by item number. A value is 5 (Very Accurate) … 1 (Very Inaccurate); a missing answer is absent.
# Only floors answer with other real numbers, and only `as_released` uses 0 for "missing, but counted".
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

# The order of the paper's tables and of the released code (alphabetical).
DOMAINS: dict[str, str] = {
    "A": "agreeableness",
    "C": "conscientiousness",
    "E": "extraversion",
    "N": "neuroticism",
    "O": "openness",
}


def reverse(value: float) -> float:
    """Mirror an answer on the 1…5 scale: what a negatively keyed item's answer says about its facet."""
    return LOWEST + HIGHEST - value


@dataclass(frozen=True)
class Item:
    """One statement of the questionnaire."""

    number: int  # 1-based, the "Full#" of the released item key
    text: str  # as worded, e.g. "Worry about things."
    sign: int  # +1: agreeing raises the facet; -1: agreeing lowers it
    facet: str  # e.g. "N1"

    @property
    def domain(self) -> str:
        """First letter of the facet: A, C, E, N or O."""
        return self.facet[0]


@dataclass(frozen=True)
class Inventory:
    """A questionnaire and its split into known and held-out items."""

    name: str
    items: tuple[Item, ...]
    known: tuple[int, ...]  # item numbers, in the order in which prompts list them

    @cached_property
    def by_number(self) -> dict[int, Item]:
        return {item.number: item for item in self.items}

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Item numbers that methods are judged on, ascending."""
        known = set(self.known)
        return tuple(item.number for item in self.items if item.number not in known)

    @cached_property
    def facets(self) -> tuple[str, ...]:
        return tuple(sorted({item.facet for item in self.items}))

    def __getitem__(self, number: int) -> Item:
        return self.by_number[number]

    def select(self, numbers: Iterable[int]) -> list[Item]:
        """The items with these numbers, in the order given."""
        return [self.by_number[number] for number in numbers]

    def keyed(self, number: int, value: float) -> float:
        """Turn a literal answer into a keyed one, or back (the same operation)."""
        return value if self.by_number[number].sign > 0 else reverse(value)

    def trait_scores(self, literal: Answers) -> dict[str, float]:
        """Mean keyed answer per domain; a domain without answers is absent."""
        sums: dict[str, list[float]] = {}
        for number, value in literal.items():
            sums.setdefault(self.by_number[number].domain, []).append(self.keyed(number, value))
        return {domain: sum(sums[domain]) / len(sums[domain]) for domain in DOMAINS if domain in sums}


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
    items = tuple(Item(int(row["number"]), row["text"], 1 if row["sign"] == "+" else -1, row["facet"]) for row in rows)
    short_form = sorted((int(row["short_form_number"]), int(row["number"])) for row in rows if row["short_form_number"])
    return Inventory("ipip_neo_300", items, tuple(number for _, number in short_form))
