"""Answers to scores: the aligned score per domain (paper, Eq. 2), its composite, and trait scores by full name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory

COMPOSITE = "composite"
SCORES: tuple[str, ...] = (*DOMAINS.values(), COMPOSITE)

Matrix = NDArray[np.floating[Any]]
Keyed = Callable[[Inventory, int, float], float]


def aligned_scores(inventory: Inventory, answers: Answers, truth: Answers) -> dict[str, float | None]:
    """Mean absolute difference per domain (paper, Eq. 2, for one person) and their sum, ``composite``.

    Both answers are in one protocol's orientation. Only items present in both count: an unparsed or missing answer is
    left out (`as_released` has its missing answers present, as 0). A domain without such an item is None, and so is
    then the composite: a sum over fewer domains would look like a better score.
    """
    differences: dict[str, list[float]] = {domain: [] for domain in DOMAINS}
    for number, value in answers.items():
        if number in truth:
            differences[inventory[number].domain].append(abs(value - truth[number]))
    scores: dict[str, float | None] = {
        name: sum(differences[domain]) / len(differences[domain]) if differences[domain] else None
        for domain, name in DOMAINS.items()
    }
    per_domain = [score for score in scores.values() if score is not None]
    scores[COMPOSITE] = sum(per_domain) if len(per_domain) == len(DOMAINS) else None
    return scores


def trait_scores_of(inventory: Inventory, answers: Answers, keyed: Keyed) -> dict[str, float]:
    """Mean keyed answer (1…5) per domain, under full names; a domain without answers is absent.

    ``keyed(inventory, number, value)`` is the protocol's: stored answers of `as_released` are keyed already.
    """
    values: dict[str, list[float]] = {name: [] for name in DOMAINS.values()}
    for number, value in answers.items():
        values[DOMAINS[inventory[number].domain]].append(keyed(inventory, number, value))
    return {name: sum(of_domain) / len(of_domain) for name, of_domain in values.items() if of_domain}


def as_matrix(numbers: Sequence[int], people: Sequence[Answers]) -> Matrix:
    """Answers of several people as ``(people, items)``; NaN where an answer is absent."""
    return np.array([[answers.get(number, np.nan) for number in numbers] for answers in people], dtype=float).reshape(
        len(people), len(numbers)
    )


def cross_composites(inventory: Inventory, numbers: Sequence[int], answers: Matrix, truths: Matrix) -> Matrix:
    """Composite of every row of ``answers`` against every row of ``truths``.

    ``answers`` is ``(n, items)``, ``truths`` is ``(m, items)``, columns are the items ``numbers``, NaN is absent.
    Returns ``(n, m)``; NaN where `aligned_scores` has no composite.
    """
    composites = np.zeros((len(answers), len(truths)))
    domains = np.array([inventory[number].domain for number in numbers])
    for domain in DOMAINS:
        columns = np.flatnonzero(domains == domain)
        sums = np.zeros_like(composites)
        counts = np.zeros_like(composites)
        for column in columns:  # item by item keeps the memory at a few (n, m) matrices
            difference = np.abs(answers[:, column, None] - truths[None, :, column])
            present = ~np.isnan(difference)
            sums += np.where(present, difference, 0.0)
            counts += present
        composites += np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return composites
