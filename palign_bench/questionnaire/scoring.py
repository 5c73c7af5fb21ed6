"""Answers to scores: the aligned score per scale (paper, Eq. 2), its composite, and trait scores by full name."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory

COMPOSITE = "composite"
SCORES: tuple[str, ...] = (*DOMAINS.values(), COMPOSITE)  # of IPIP-NEO

Matrix = NDArray[np.floating[Any]]


def aligned_scores(inventory: Inventory, answers: Answers, truth: Answers) -> dict[str, float | None]:
    """Mean absolute difference per scale (paper, Eq. 2, for one person) by full name, and their sum, ``composite``.

    Both answers are in one protocol's orientation. Only items present in both count: an unparsed or missing answer is
    left out (`as_released` has its missing answers present, as 0). A scale without such an item is None, and so is
    then the composite: a sum over fewer scales would look like a better score.
    """
    differences: dict[str, list[float]] = {scale: [] for scale in inventory.scales}
    for number, value in answers.items():
        if number in truth:
            differences[inventory[number].scale].append(abs(value - truth[number]))
    scores: dict[str, float | None] = {
        name: sum(differences[scale]) / len(differences[scale]) if differences[scale] else None
        for scale, name in inventory.scales.items()
    }
    per_scale = [score for score in scores.values() if score is not None]
    scores[COMPOSITE] = sum(per_scale) if len(per_scale) == len(inventory.scales) else None
    return scores


def trait_scores(
    inventory: Inventory, answers: Answers, keyed: Callable[[int, float], float] | None = None
) -> dict[str, float]:
    """Mean keyed answer per scale, by full name; a scale without answers is absent.

    ``keyed(number, value)`` turns the answers keyed: `Inventory.keyed` (None) for literal ones,
    `EvaluationProtocol.keyed` for those in a protocol's orientation.
    """
    keyed = keyed or inventory.keyed
    values: dict[str, list[float]] = {name: [] for name in inventory.scales.values()}
    for number, value in answers.items():
        values[inventory.scales[inventory[number].scale]].append(keyed(number, value))
    return {name: sum(of_scale) / len(of_scale) for name, of_scale in values.items() if of_scale}


def as_matrix(numbers: Sequence[int], people: Sequence[Answers]) -> Matrix:
    """Answers of several people as ``(people, items)``; NaN where an answer is absent."""
    return np.array([[answers.get(number, np.nan) for number in numbers] for answers in people], dtype=float).reshape(
        len(people), len(numbers)
    )


def mean_present(values: Matrix) -> Matrix:
    """Mean along the last axis of what is not NaN; NaN where nothing is left."""
    count = (~np.isnan(values)).sum(axis=-1)
    return np.where(count > 0, np.nansum(values, axis=-1) / np.maximum(count, 1), np.nan)


def cross_composites(inventory: Inventory, numbers: Sequence[int], answers: Matrix, truths: Matrix) -> Matrix:
    """Composite of every row of ``answers`` against every row of ``truths``.

    ``answers`` is ``(n, items)``, ``truths`` is ``(m, items)``, columns are the items ``numbers``, NaN is absent.
    Returns ``(n, m)``; NaN where `aligned_scores` has no composite.
    """
    composites = np.zeros((len(answers), len(truths)))
    scales = np.array([inventory[number].scale for number in numbers])
    for scale in inventory.scales:
        columns = np.flatnonzero(scales == scale)
        sums = np.zeros_like(composites)
        counts = np.zeros_like(composites)
        for column in columns:  # item by item keeps the memory at a few (n, m) matrices
            difference = np.abs(answers[:, column, None] - truths[None, :, column])
            present = ~np.isnan(difference)
            sums += np.where(present, difference, 0.0)
            counts += present
        composites += np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return composites
