"""Specificity: how much worse a person's answers fit the table's other people than that person."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from palign_bench.ledger.columns import Array, Whole
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.scoring import cross_composites, mean_present
from palign_bench.report.rows import RowNumbers

FEWEST_FOR_SPECIFICITY = 2
_LARGEST = 4_000_000  # numbers in a matrix held in memory at a time


@dataclass(frozen=True)
class Truths:
    """The held-out truth of every person with a finished cell in any row.

    ``position``: each respondent's row of ``truths``, which is (people, items) with NaN where an answer is absent.
    """

    position: dict[str, int]
    items: Whole
    truths: Array

    @classmethod
    def of(cls, rows: Iterable[RowNumbers]) -> Self:
        """The truths that the rows' cells hold; of a person that several rows have, the last one's."""
        rows = list(rows)
        position = {each: n for n, each in enumerate(dict.fromkeys(p for row in rows for p in row.respondents))}
        items = np.unique(np.concatenate([row.digest.items for row in rows]))
        truths = np.full((len(position), len(items)), np.nan)
        for row in rows:
            truths[[position[respondent] for respondent in row.respondents]] = row.digest.truth_to(items)
        answered = (~np.isnan(truths)).any(axis=0)
        return cls(position, items[answered], truths[:, answered])


def specificity(inventory: Inventory, row: RowNumbers, pool: Truths) -> float | None:
    """How much better a person's answers fit that person than the table's others; 0: the method ignored the person.

    Mean over people i of (mean composite of i's answers against the truth of every other person j, minus i's own
    composite). None where no person has both.
    """
    rows = [number for number, respondent in enumerate(row.respondents) if respondent in row.composites]
    if not rows or len(pool.position) < FEWEST_FOR_SPECIFICITY:
        return None
    own = np.array([pool.position[respondent] for respondent in row.composites])
    answers = row.digest.take(rows).answers_to(pool.items)
    others, own_scores = others_and_own(inventory, pool.items.tolist(), answers, pool.truths, own)
    counted = ~np.isnan(others) & ~np.isnan(own_scores)
    return float(np.mean(others[counted] - own_scores[counted])) if counted.any() else None


def others_and_own(
    inventory: Inventory, numbers: list[int], answers: Array, truths: Array, own: Whole
) -> tuple[Array, Array]:
    """Mean composite of each row of ``answers`` against all rows of ``truths`` but its own, and the composite on that.

    ``answers`` is ``(n, items)``, ``truths`` is ``(m, items)``, columns are the items ``numbers``, NaN is absent;
    ``own`` is ``(n,)``, rows of ``truths``. Returns two ``(n,)``; NaN where there is no composite.

    The sum over people of the distances to their truths needs, of every item, only how many of them chose each option.
    A mean over the items that both answered needs these tallies for each set of items that people left out. So the
    work grows with the people times the different sets (one where nobody leaves an item out), not with all pairs.
    """
    scales = np.array([inventory[number].scale for number in numbers])
    columns = [np.flatnonzero(scales == scale) for scale in inventory.scales]
    distances = np.abs(answers - truths[own])
    own_scores = sum((mean_present(distances[:, each]) for each in columns), np.zeros(len(own)))
    # Whoever lacks a whole scale has no composite with anybody.
    usable = np.all([(~np.isnan(truths[:, each])).any(axis=1) for each in columns], axis=0)
    if not usable.any():
        return np.full(len(answers), np.nan), own_scores
    sums, defined = np.zeros(len(answers)), np.ones(len(answers), dtype=bool)
    for each in columns:
        of_scale, shared = _sum_of_mean_distances(answers[:, each], truths[usable][:, each])
        sums += of_scale
        defined &= shared
    people = usable.sum() - usable[own]
    with np.errstate(invalid="ignore", divide="ignore"):
        others = np.where(usable[own], sums - own_scores, sums) / people
    others[people == 0] = np.nan
    pairwise = np.flatnonzero(~defined)  # some pair shares no item of some scale, and is left out of every scale
    step = max(1, _LARGEST // max(1, len(truths)))
    for start in range(0, len(pairwise), step):
        rows = pairwise[start : start + step]
        composites = cross_composites(inventory, numbers, answers[rows], truths)
        composites[np.arange(len(rows)), own[rows]] = np.nan
        present = ~np.isnan(composites)
        counts = present.sum(axis=1)
        totals = np.where(present, composites, 0.0).sum(axis=1)
        others[rows] = np.divide(totals, counts, out=np.full(len(rows), np.nan), where=counts > 0)
    return others, own_scores


def _sum_of_mean_distances(answers: Array, truths: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Of each row of ``answers``, the sum over the rows of ``truths`` of the mean distance on the items of one scale.

    Beside it, whether it shares an item with every row of ``truths``; where not, the sum means nothing.
    """
    answered = ~np.isnan(truths)
    packed = np.packbits(answered, axis=1)  # rows of a few bytes sort several times as fast as rows of truth values
    _, first, pattern_of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    patterns = answered[first]
    order = np.argsort(pattern_of.ravel(), kind="stable")
    starts = np.searchsorted(pattern_of.ravel()[order], np.arange(len(patterns)))
    options = np.unique(truths[~np.isnan(truths)])
    chosen = (truths[order][:, :, None] == options).reshape(len(truths), -1)
    tallies = np.add.reduceat(chosen, starts, axis=0, dtype=float)  # (patterns, items × options): people
    sums, shares = np.zeros(len(answers)), np.ones(len(answers), dtype=bool)
    step = max(1, _LARGEST // max(1, len(patterns), tallies.shape[1]))
    for start in range(0, len(answers), step):
        part = answers[start : start + step]
        distances = np.nan_to_num(np.abs(part[:, :, None] - options)).reshape(len(part), -1)
        totals = distances @ tallies.T  # (part, patterns)
        counts = (~np.isnan(part)).astype(float) @ patterns.T.astype(float)
        shares[start : start + step] = (counts > 0).all(axis=1)
        sums[start : start + step] = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 0).sum(axis=1)
    return sums, shares
