"""From finished cells to the columns of a table. Every measure is None where it is not defined."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palign_bench.costs.figures import FIGURES
from palign_bench.ledger.columns import Array
from palign_bench.questionnaire.inventory import LOWEST, Inventory
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.questionnaire.scoring import mean_present
from palign_bench.report.names import is_constant
from palign_bench.report.paper import PAPER_PEOPLE
from palign_bench.report.rows import RowNumbers
from palign_bench.report.statistics import mean, mean_interval
from palign_bench.settings import options, read_option


def best_floor(row: RowNumbers, floors: Sequence[RowNumbers]) -> RowNumbers | None:
    """The floor that ``row`` does worst against, on the people (and items) that both answered.

    Floors that share fewer people than another are left out, so that an unfinished floor never wins on an easy few.
    """
    found = [difference for floor in floors if (difference := Difference(row, floor))]
    most = max((len(each.values) for each in found), default=0)
    best = max(
        (each for each in found if len(each.values) == most), key=lambda each: np.mean(each.values), default=None
    )
    return best.second if best else None


@dataclass(frozen=True)
class Difference:
    """Composites of one row less those of another, over the people whom both have; below 0 the first is better.

    Where one of them left an item out, both composites are over the items that both answered: whoever answers the
    easy items alone gains nothing. False where nobody has both.
    """

    first: RowNumbers
    second: RowNumbers | None

    @cached_property
    def values(self) -> list[float]:
        """Each of these people's difference, in the order of the first row."""
        first, second = self.first, self.second
        if second is None:
            return []
        people = [each for each in first.composites if each in second.composites]
        if min(first.answered_share, second.answered_share) >= 1:
            return [first.composites[each] - second.composites[each] for each in people]
        items = np.intersect1d(first.digest.items, second.digest.items)
        differences = first.differences_of(people, items) - second.differences_of(people, items)  # NaN: not both
        scales = np.array([first.scale_of[number] for number in items.tolist()])
        totals = sum((mean_present(differences[:, scales == each]) for each in dict.fromkeys(scales.tolist())), 0.0)
        return [each for each in np.asarray(totals).tolist() if not math.isnan(each)]

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def mean(self) -> float | None:
        """Their mean; None where nobody has both."""
        return mean(self.values)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of their mean; None below 2 people."""
        return mean_interval(self.values)

    @property
    def sign(self) -> int:
        """-1: better for sure, 1: worse for sure, 0: the interval (or its absence) leaves it open."""
        low, high = self.interval or (0.0, 0.0)
        return -1 if high < 0 else 1 if low > 0 else 0

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:+.2f} for 1 person"
        low, high = self.interval
        return f"{self.mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, {len(self.values)} people"


def farthest(protocol: str, inventory: Inventory) -> int:
    """The largest distance that an answer can have from the truth; a composite's is as many times that as scales."""
    counts_missing = bool(PROTOCOLS[protocol](inventory).truth({}))  # as answers of 0
    return inventory.highest - (0 if counts_missing else LOWEST)


def beats_best_constant(row: RowNumbers, rows: Sequence[RowNumbers]) -> bool | None:
    """Whether the mean composite is below that of the best of "always A" … "always E" on the same people.

    None for the constants themselves and where the table has none of them.
    """
    if is_constant(row.name):
        return None
    constant = best_floor(row, [other for other in rows if is_constant(other.name)])
    difference = Difference(row, constant).mean
    return None if difference is None else difference < 0


def option_counts(row: RowNumbers, highest: int = 0) -> NDArray[np.int64]:
    """How often each value from 0 was answered, over all people; real numbers count as the nearest option."""
    answers = row.digest.answers
    return np.bincount((answers[~np.isnan(answers)] + 0.5).astype(int).clip(min=LOWEST), minlength=highest + 1)


def most_frequent_option_share(row: RowNumbers) -> float | None:
    """Share of the most frequent option among all answers of all people."""
    counts = option_counts(row)
    return int(counts.max()) / int(counts.sum()) if counts.any() else None


def reading_rates(row: RowNumbers) -> tuple[float | None, float | None]:
    """Pooled share of generated answers without an option, and of audited ones that agree with the recorded answer.

    A protocol generates every answer, or reads log-probabilities and generates only in the audit. Where nothing was
    generated, the first is the share of the items that were left out, None where none was.
    """
    whole = PROTOCOLS[row.protocol].reading.generates
    generated = row.digest.figure("generated" if whole else "audited") > 0  # else nothing can be unparsed

    def total(counts: Array) -> int:
        return int(counts[generated].sum())

    if not generated.any():
        return (1 - row.answered_share or None), None
    asked = total(row.digest.figure("asked" if whole else "audited"))
    read = total((~np.isnan(row.digest.answers)).sum(axis=1) if whole else row.digest.figure("parsed"))
    compared = total(row.digest.figure("compared"))
    agreed = total(row.digest.figure("agreed"))
    return (asked - read) / asked if asked else None, agreed / compared if compared else None


def costs(row: RowNumbers) -> dict[str, Any]:
    """Shared seconds, those of one person and of 300, and every figure of the catalogue summed up over the people.

    Cells from before a figure was recorded leave it None. So does, of what people cost, a row that took a part of its
    budget's steps to measure them.
    """
    kept = row.folder.shared()
    shared = kept["load_seconds"] + kept["prepare_seconds"] if kept else None
    people = {each: row.recorded(f"cost/{each.name}").tolist() for each in FIGURES}
    figures = {each.name: each.over(values) if values else None for each, values in people.items()}
    is_a_part = row.identity.get("cost_repeats") and steps_not_taken(row)
    phases = None if is_a_part else shared, figures["align_seconds"], figures["answer_seconds"]
    return {
        "shared_seconds": shared,
        "seconds_for_one": seconds_for(1, *phases),
        "seconds_for_300": seconds_for(PAPER_PEOPLE, *phases),
        **figures,
    }


def full_steps(row: RowNumbers) -> int | None:
    """Optimizer steps (rollouts for on-policy methods) of the paper's budget; None for a method that trains nothing."""
    if row.budget is None or row.name not in options("method"):
        return None
    paper = read_option("method", row.name).get("budgets", {}).get("paper")
    return None if paper is None else int(paper["steps"])


def steps_not_taken(row: RowNumbers) -> int:
    """By how many steps the paper's budget is longer than the row's; 0 where it is not."""
    steps = full_steps(row)
    return 0 if steps is None else max(0, steps - int(row.identity["method"]["steps"]))


def with_all_steps(row: RowNumbers, measured: float | None, of_a_step: float | None) -> float | None:
    """A figure with the full training budget: what was measured, plus the steps not taken; None if not known."""
    missing = steps_not_taken(row)
    if measured is None or (missing and of_a_step is None):
        return None
    return float(measured + missing * (of_a_step or 0))


def seconds_for(people: int, shared: float | None, align: float | None, answer: float | None) -> float | None:
    """What so many people cost: shared + people × (align + answer); None where a part is not known."""
    return None if shared is None or align is None or answer is None else shared + people * (align + answer)
