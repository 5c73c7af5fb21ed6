"""The questionnaire: items, options, facets, domains, and which answers a method may know.

IPIP-NEO-300 (Goldberg 1999; Johnson 2014) is in the public domain (https://ipip.ori.org). The wording and keys in
``data/ipip_neo_300.csv`` are those of that inventory; tests compare signs and facets with the PyPI package
``five-factor-e`` and, where the PAPI files are at hand, wording, keys and split with theirs.
"""

import csv
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[Any])

# Answers by item number. A value is 5 (Very Accurate) … 1 (Very Inaccurate); a missing one is absent. Floors may answer
# with other real numbers; the truth of `as_released` has 0 for a missing answer.
Answers = Mapping[int, float]


class Option(NamedTuple):
    """One answer option; values run from 1 (the last letter) to the number of options (A: the fullest agreement)."""

    letter: str
    value: int
    label: str


MOST_OPTIONS = 7


LETTERS = "ABCDEFG"  # of as many options as a questionnaire can have


def options_of(labels: Sequence[str]) -> tuple[Option, ...]:
    """Options with these labels, from the fullest agreement to the fullest disagreement."""
    return tuple(
        Option(letter, value, label)
        for letter, value, label in zip(LETTERS, range(len(labels), 0, -1), labels, strict=False)
    )


# Those of the MPI template (Jiang et al. 2024; paper, appendix C).
OPTIONS: tuple[Option, ...] = options_of(
    (
        "Very Accurate",
        "Moderately Accurate",
        "Neither Accurate Nor Inaccurate",
        "Moderately Inaccurate",
        "Very Inaccurate",
    )
)
LOWEST, HIGHEST = 1, 5

# The scales of IPIP-NEO, in the order of the paper's tables and of the released code (alphabetical).
DOMAINS: dict[str, str] = {
    "A": "agreeableness",
    "C": "conscientiousness",
    "E": "extraversion",
    "N": "neuroticism",
    "O": "openness",
}


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
    """A questionnaire and its split into known and held-out items. The composite is the sum over its scales.

    ``known``: item numbers, in the order in which prompts list them. ``scales``: full name by the short one that `Item`
    and table headers use, in the order of a table's columns. ``stores_keyed``: whether published files of answers hold
    those to negatively keyed items reversed; `Respondent.answers` are literal whatever it says. ``options``: 2 to 7,
    as `options_of` makes them. ``wording``: "phrase" for items that complete "You …", "sentence" for whole sentences.
    ``asks``: what is asked about a statement, with ``{statement}`` in it; None for the frame of the wording.
    ``title``: how it reads; its name where empty.
    """

    name: str
    items: tuple[Item, ...]
    known: tuple[int, ...]
    scales: Mapping[str, str]
    stores_keyed: bool = False
    options: tuple[Option, ...] = OPTIONS
    wording: str = "phrase"
    asks: str | None = None
    title: str = ""

    @cached_property
    def by_number(self) -> dict[int, Item]:
        return {item.number: item for item in self.items}

    @cached_property
    def held_out(self) -> tuple[int, ...]:
        """Item numbers that methods are judged on, ascending."""
        known = set(self.known)
        return tuple(item.number for item in self.items if item.number not in known)

    @property
    def scale_of(self) -> dict[str, str]:
        """The full name of every held-out item's scale, by the item's number as records write it."""
        return {str(number): self.scales[self.by_number[number].scale] for number in self.held_out}

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """The item numbers of the two parts, by what messages call them."""
        return {"known": self.known, "held-out": self.held_out}

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

    def grouped(self, numbers: Iterable[int], finest: bool = True) -> dict[str, list[int]]:
        """These item numbers by scale, in the order given; ``finest``: by subscale, if there are any."""
        groups: dict[str, list[int]] = {}
        for item in self.select(numbers):
            group = item.subscale if finest and item.subscale else item.scale
            groups.setdefault(group, []).append(item.number)
        return groups

    def selection(self, seed: int, told: Collection[int] | None = None) -> list[int]:
        """Known items to choose hyperparameters on, drawn from the seed alone: the same for all methods and people.

        Of the items that methods are told (None: all known ones) at most half, so that a method can be fitted to the
        others: one of each subscale (IPIP-NEO-300: 30 of 120); where these are too many or none, one in five of each
        scale's, at least one; where these are too many, one in five of all.
        """
        generator = random.Random(f"selection-{seed}")
        numbers = sorted(self.known if told is None else told)
        subscales, scales = self.grouped(numbers), self.grouped(numbers, finest=False)
        for groups, some in (
            ([subscales[name] for name in self.subscales if name in subscales], False),
            ([scales[name] for name in self.scales if name in scales], True),
            ([numbers], True),
        ):
            counts = [max(1, len(group) // 5) if some else 1 for group in groups]
            if 0 < sum(counts) <= len(numbers) / 2:
                return sorted(
                    n for group, count in zip(groups, counts, strict=True) for n in generator.sample(group, count)
                )
        return []

    def outline(self) -> dict[str, Any]:
        """What scores and tables need of it, without a word of the items: JSON values."""
        return {
            "name": self.name,
            "title": self.title or self.name,
            "scales": dict(self.scales),
            "stores_keyed": self.stores_keyed,
            "options": [option.label for option in self.options],
            "items": [[item.number, item.sign, item.scale, item.subscale] for item in self.items],
            "known": list(self.known),
        }

    @classmethod
    def of_outline(cls, outline: Mapping[str, Any]) -> Self:
        """An inventory whose items have no text, from `outline`: answers to it can be scored, but nothing be asked."""
        items = tuple(Item(number, "", sign, scale, subscale) for number, sign, scale, subscale in outline["items"])
        options = options_of(outline["options"])
        known, scales = tuple(outline["known"]), dict(outline["scales"])
        name, title = outline["name"], outline["title"]
        keyed = outline.get("stores_keyed", name.startswith("ipip_neo"))  # plans from before 2026-11-25 do not say
        return cls(name, items, known, scales, keyed, options=options, title=title)

    def select(self, numbers: Iterable[int]) -> list[Item]:
        """The items with these numbers, in the order given."""
        return [self.by_number[number] for number in numbers]

    @cached_property
    def letters(self) -> str:
        """The letters of the options, A first."""
        return "".join(option.letter for option in self.options)

    @cached_property
    def labels(self) -> dict[int, str]:
        """The options' labels by value."""
        return {option.value: option.label for option in self.options}

    @property
    def highest(self) -> int:
        """The value of option A; the lowest is 1."""
        return len(self.options)

    @property
    def midpoint(self) -> float:
        """The middle of the scale: an answer that says nothing; no option where these are of an even number."""
        return (1 + self.highest) / 2

    def nearest(self, value: Number) -> Number:
        """The nearest option's value, halves upwards, of a real answer or an array of them; NaN stays NaN."""
        return np.clip(np.floor(value + 0.5), LOWEST, self.highest)

    def reverse(self, value: Number) -> Number:
        """Mirror an answer, or an array of them: what the answer to a negatively keyed item says about its scale."""
        return 1 + self.highest - value

    def keyed(self, number: int, value: float) -> float:
        """Turn a literal answer into a keyed one, or back (the same operation)."""
        return value if self.by_number[number].sign > 0 else self.reverse(value)

    def keyed_matrix(self, literal: NDArray[Any]) -> NDArray[Any]:
        """The same for a matrix of answers ``(people, items)``; NaN stays NaN."""
        negative = np.array([item.sign < 0 for item in self.items])
        return np.where(negative, self.reverse(literal), literal)


@dataclass(frozen=True)
class Respondent:
    """One person: an id and literal answers. Nothing else about a person leaves a loader."""

    id: str
    answers: Answers  # literal, 1…5; missing answers are absent
    portrait: str | None = None  # the P² portrait released with PAPI, where the source has one


@cache
def ipip_neo_300() -> Inventory:
    """IPIP-NEO-300 with the IPIP-NEO-120 (Johnson 2014) as the known part, in the short form's order."""
    text = files("palign_bench.questionnaire").joinpath("data/ipip_neo_300.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    items = tuple(
        Item(int(row["number"]), row["text"], 1 if row["sign"] == "+" else -1, row["facet"][0], row["facet"])
        for row in rows
    )
    short_form = sorted((int(row["short_form_number"]), int(row["number"])) for row in rows if row["short_form_number"])
    known = tuple(number for _, number in short_form)
    return Inventory("ipip_neo_300", items, known, DOMAINS, stores_keyed=True, title="IPIP-NEO-300")


@cache
def ipip_neo_120() -> Inventory:
    """IPIP-NEO-120, its items under their numbers in the long form; the first two of each facet are known, two not."""
    long = ipip_neo_300()
    first = {number for numbers in long.grouped(long.known).values() for number in numbers[:2]}
    items = tuple(item for item in long.items if item.number in long.known)
    known = tuple(number for number in long.known if number in first)
    return replace(long, name="ipip_neo_120", items=items, known=known, title="IPIP-NEO-120")
