"""The validity panel: what a row's answers are worth as measurements of persons, from stored answers alone.

The composite rewards hedging toward the middle and knowing people in general; the panel holds columns in which neither
earns anything. Answers are literal here; T is a person's trait score on the held-out items, T̂ that of the answers.
Sources: Furr (2008) for profiles, Campbell and Fiske (1959) for convergent and discriminant correlations, Soto and John
for acquiescence, Henry et al. (2022) for the retest reliability of items, Park et al. (2024) for normalising by it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palign_bench.ledger.columns import Array, Whole
from palign_bench.questionnaire.inventory import LOWEST, Inventory
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.questionnaire.scoring import mean_present
from palign_bench.report.data import read_data
from palign_bench.report.rows import RowNumbers
from palign_bench.report.specificity import Truths
from palign_bench.report.statistics import mean, pearson

FEWEST_PEOPLE = 10  # for distinctive r: item means of fewer people share too much noise with the profiles they centre
ITEM_RELIABILITY = 0.65  # of an item over two weeks (Henry et al. 2022)


_NUMBERS = {"fewest": FEWEST_PEOPLE, "reliability": ITEM_RELIABILITY}
PANEL: tuple[Mapping[str, Any], ...] = tuple(
    entry | {"meaning": entry["meaning"].format(**_NUMBERS)} for entry in read_data("panel")
)  # see the data's own heading


def validity(inventory: Inventory, row: RowNumbers, pool: Truths) -> dict[str, float | None]:
    """The columns of `PANEL` by name; None where one is not defined."""
    answers, truth, others = literal_matrices(inventory, row, pool)
    scored = [index for index, respondent in enumerate(row.respondents) if respondent in row.composites]
    convergent, elsewhere, dispersion = _traits(inventory, row)
    return {
        "distinctive_profile_correlation": None if others is None else _profiles(answers - others, truth - others),
        "overall_profile_correlation": _profiles(answers, truth),
        "trait_correlation": convergent,
        "discriminant_gap": None if convergent is None or elsewhere is None else convergent - elsewhere,
        "dispersion_ratio": dispersion,
        "exact_agreement": _share((inventory.nearest(answers) == truth)[~np.isnan(answers + truth)]),
        "retest_normalised_accuracy": retest_accuracy(inventory, pool.items, truth[scored], row.composite),
        **response_style(inventory, pool.items, answers),
    }


def response_style(inventory: Inventory, numbers: Whole, answers: Array) -> dict[str, float | None]:
    """Acquiescence, reverse-key consistency and extreme share of literal answers ``(people, items)``."""
    items = inventory.select(numbers.tolist())
    sign = np.array([item.sign for item in items])
    scales = np.array([item.scale for item in items])
    subscales = np.array([item.subscale or item.scale for item in items])

    def halves(groups: NDArray[Any]) -> Iterator[tuple[Array, Array]]:
        """By group, means of the answers to its + and to its - items; groups that are keyed one way only left out."""
        for group in dict.fromkeys(groups.tolist()):
            plus, minus = (mean_present(answers[:, (groups == group) & (sign == side)]) for side in (1, -1))
            if not np.isnan(plus + minus).all():
                yield plus, minus

    balanced = [(plus + minus) / 2 for plus, minus in halves(scales)]
    per_person = np.mean(balanced, axis=0) if balanced else np.array([])
    pairs = [_correlation(plus, inventory.reverse(minus)) for plus, minus in halves(subscales)]
    given = inventory.nearest(answers[~np.isnan(answers)])
    return {
        "acquiescence": mean(per_person[~np.isnan(per_person)] - inventory.midpoint),
        "reverse_key_consistency": _mean_correlation(pairs),
        "extreme_share": _share((given == LOWEST) | (given == inventory.highest)),
    }


def retest_accuracy(inventory: Inventory, numbers: Whole, truth: Array, composite: float | None) -> float | None:
    """How far a composite gets from that of the middle option (0) to that of a simulated retest (1).

    The retest scatters around each answer as far as a normal regression on it leaves open at `ITEM_RELIABILITY`, with
    the items' pooled standard deviation, rounded and kept on the scale; its expectation is taken, nothing is drawn.
    """
    if composite is None or len(truth) < 2:
        return None
    spread = math.sqrt(float(np.nanmean(np.nanvar(truth, axis=0)))) * math.sqrt(1 - ITEM_RELIABILITY**2)
    if not spread:
        return None
    scales = np.array([item.scale for item in inventory.select(numbers.tolist())])
    distance = np.full(truth.shape, np.nan)
    for option in range(LOWEST, inventory.highest + 1):
        distance[truth == option] = _expected_distance(option, spread, inventory.highest)

    def total(distances: Array) -> float:
        return float(sum(np.nanmean(mean_present(distances[:, scales == scale])) for scale in inventory.scales))

    middle, retest = total(np.abs(truth - inventory.midpoint)), total(distance)
    return (middle - composite) / (middle - retest) if middle > retest else None


def _expected_distance(option: int, spread: float, highest: int) -> float:
    """Mean distance from ``option`` of the nearest option, up to ``highest``, to a normal draw around it."""
    below = [NormalDist(option, spread).cdf(edge + 0.5) for edge in range(LOWEST, highest)]
    shares = np.diff([0.0, *below, 1.0])
    return float(shares @ np.abs(np.arange(LOWEST, highest + 1) - option))


def literal_matrices(inventory: Inventory, row: RowNumbers, pool: Truths) -> tuple[Array, Array, Array | None]:
    """Literal answers, truth, and the mean of the other people's truth, each ``(people, items)``, NaN where absent."""
    protocol = PROTOCOLS[row.protocol](inventory)
    reversed_ = np.array([protocol.reverses(item) for item in inventory.select(pool.items.tolist())], dtype=bool)

    def literal(matrix: Array) -> Array:
        return np.where(reversed_, inventory.reverse(matrix), matrix)

    everyone = literal(np.where(pool.truths == 0, np.nan, pool.truths))  # `as_released` scores a missing answer as 0
    truth = everyone[[pool.position[respondent] for respondent in row.respondents]]
    answers = literal(row.digest.answers_to(pool.items))
    if len(everyone) < FEWEST_PEOPLE:
        return answers, truth, None
    count = (~np.isnan(everyone)).sum(axis=0) - ~np.isnan(truth)
    with np.errstate(invalid="ignore", divide="ignore"):
        others = (np.nansum(everyone, axis=0) - np.nan_to_num(truth)) / count
    return answers, truth, np.where(count > 0, others, np.nan)


def _profiles(first: Array, second: Array) -> float | None:
    """Mean over people of the correlation over items; people whose answers do not vary have none and are left out."""
    correlations = [_correlation(one, other) for one, other in zip(first, second, strict=True)]
    return mean([r for r in correlations if r is not None])


def _correlation(first: Array, second: Array) -> float | None:
    """Pearson's r of what both have."""
    both = ~np.isnan(first) & ~np.isnan(second)
    return pearson(first[both], second[both])


def _traits(inventory: Inventory, row: RowNumbers) -> tuple[float | None, float | None, float | None]:
    """Mean correlation with the same trait, mean absolute correlation with the others, and ratio of the spreads."""
    names = list(inventory.scales.values())
    answered = [row.digest.figure(f"trait/{name}") for name in names]
    own = [row.digest.figure(f"person_trait/{name}") for name in names]
    same = [_correlation(first, second) for first, second in zip(answered, own, strict=True)]
    other = [_correlation(a, o) for i, a in enumerate(answered) for j, o in enumerate(own) if i != j]
    ratios = []
    for first, second in zip(answered, own, strict=True):
        both = ~np.isnan(first) & ~np.isnan(second)
        if both.any() and second[both].std() > 0:
            ratios.append(float(first[both].std() / second[both].std()))
    absolute = [None if r is None else abs(r) for r in other]
    return _mean_correlation(same), _mean_correlation(absolute), mean(ratios)


def _mean_correlation(correlations: Sequence[float | None]) -> float | None:
    """Their mean, where one without variance counts 0; None where none has any."""
    if all(r is None for r in correlations):
        return None
    return mean([0.0 if r is None else r for r in correlations])


def _share(true: Array) -> float | None:
    return float(np.mean(true)) if true.size else None
