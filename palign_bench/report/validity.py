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
from palign_bench.report.statistics import FEWEST_FOR_A_CORRELATION, mean, pearson, varies

FEWEST_PEOPLE = 10  # for distinctive r: item means of fewer people share too much noise with the profiles they centre
ITEM_RELIABILITY = 0.65  # of an item over two weeks (Henry et al. 2022)


_NUMBERS = {"fewest": FEWEST_PEOPLE, "reliability": ITEM_RELIABILITY}
PANEL: tuple[Mapping[str, Any], ...] = tuple(
    entry | {"meaning": entry["meaning"].format(**_NUMBERS)} for entry in read_data("panel")
)  # see the data's own heading


def validity(inventory: Inventory, row: RowNumbers, pool: Truths) -> dict[str, float | None]:
    """The columns of `PANEL` by name; None where one is not defined."""
    answers, truth, others = literal_matrices(inventory, row, pool)
    as_asked = not reversed_items(inventory, row.protocol, pool.items).any()
    scored = [index for index, respondent in enumerate(row.respondents) if respondent in row.composites]
    convergent, elsewhere, dispersion = _traits(inventory, row)
    return {
        "distinctive_profile_correlation": None if others is None else _profiles(answers - others, truth - others),
        "overall_profile_correlation": _profiles(answers, truth) if as_asked else None,
        "trait_correlation": convergent,
        "discriminant_gap": None if convergent is None or elsewhere is None else convergent - elsewhere,
        "dispersion_ratio": dispersion,
        "exact_agreement": _share((inventory.nearest(answers) == truth)[~np.isnan(answers + truth)]),
        "retest_normalised_accuracy": retest_accuracy(inventory, pool.items, truth[scored], row.composite),
        **response_style(inventory, pool.items, answers, as_asked),
    }


def response_style(
    inventory: Inventory, numbers: Whole, answers: Array, as_asked: bool = True
) -> dict[str, float | None]:
    """Acquiescence, reverse-key consistency and extreme share of literal answers ``(people, items)``.

    The first two are None unless ``as_asked``: where items are asked as worded and scored reversed (`as_released`), an
    answer is neither the one nor the other.
    """
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
    pairs = [pearson(*_of_both(plus, inventory.reverse(minus))) for plus, minus in halves(subscales)]
    given = inventory.nearest(answers[~np.isnan(answers)])
    return {
        "acquiescence": mean(per_person[~np.isnan(per_person)] - inventory.midpoint) if as_asked else None,
        "reverse_key_consistency": _mean_correlation(pairs) if as_asked else None,
        "extreme_share": _share((given == LOWEST) | (given == inventory.highest)),
    }


def retest_accuracy(inventory: Inventory, numbers: Whole, truth: Array, composite: float | None) -> float | None:
    """How far a composite gets from that of the middle of the scale (0) to that of a simulated retest (1).

    The retest scatters around each answer as far as a normal regression on it leaves open at `ITEM_RELIABILITY`, with
    the items' pooled standard deviation, rounded and kept on the scale; its expectation is taken, nothing is drawn.
    """
    if composite is None or len(truth) < 2:
        return None
    several = truth[:, (~np.isnan(truth)).sum(axis=0) > 1]
    if not several.size:
        return None
    spread = math.sqrt(float(np.nanvar(several, axis=0, ddof=1).mean()) * (1 - ITEM_RELIABILITY**2))
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
    reversed_ = reversed_items(inventory, row.protocol, pool.items)

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


def reversed_items(inventory: Inventory, protocol: str, numbers: Whole) -> NDArray[np.bool_]:
    """Which of these items a protocol scores reversed though it asks them as worded."""
    of_protocol = PROTOCOLS[protocol](inventory)
    return np.array([of_protocol.reverses(item) for item in inventory.select(numbers.tolist())], dtype=bool)


def _profiles(first: Array, second: Array) -> float | None:
    """Mean over people of the correlation over items; people whose answers do not vary have none and are left out."""
    correlations = [pearson(*_of_both(one, other)) for one, other in zip(first, second, strict=True)]
    return mean([r for r in correlations if r is not None])


def _of_both(first: Array, second: Array) -> tuple[Array, Array]:
    """The values where both have one."""
    both = ~np.isnan(first) & ~np.isnan(second)
    return first[both], second[both]


def _traits(inventory: Inventory, row: RowNumbers) -> tuple[float | None, float | None, float | None]:
    """Mean correlation with the same trait, mean absolute correlation with the others, and ratio of the spreads."""
    names = list(inventory.scales.values())
    answered = [row.digest.figure(f"trait/{name}") for name in names]
    own = [row.digest.figure(f"person_trait/{name}") for name in names]
    same = [_of_both(first, second) for first, second in zip(answered, own, strict=True)]
    other = [_of_both(a, o) for i, a in enumerate(answered) for j, o in enumerate(own) if i != j]
    convergent, elsewhere = ([pearson(*pair) for pair in pairs if _suffices(pair[1])] for pairs in (same, other))
    absolute = [None if r is None else abs(r) for r in elsewhere]
    ratios = [float(first.std() / second.std()) for first, second in same if varies(second)]
    return _mean_correlation(convergent), _mean_correlation(absolute), mean(ratios)


def _suffices(truth: Array) -> bool:
    """Whether there is something to correlate with."""
    return len(truth) >= FEWEST_FOR_A_CORRELATION and varies(truth)


def _mean_correlation(correlations: Sequence[float | None]) -> float | None:
    """Their mean, where answers that do not vary count 0; None where none do."""
    if all(r is None for r in correlations):
        return None
    return mean([0.0 if r is None else r for r in correlations])


def _share(true: Array) -> float | None:
    return float(np.mean(true)) if true.size else None
