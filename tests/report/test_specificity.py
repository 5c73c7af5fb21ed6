"""Specificity by counting options equals specificity over all pairs of people."""

import random

import numpy as np
import pytest

import palign_bench.report.specificity
from palign_bench.questionnaire.inventory import DOMAINS, Inventory, Item
from palign_bench.questionnaire.scoring import as_matrix, cross_composites
from palign_bench.report.specificity import others_and_own

# Four held-out items a domain.
ITEMS = tuple(Item(4 * k + j, f"Say {d}{j}.", 1, d) for k, d in enumerate(DOMAINS) for j in range(4))
SMALL = Inventory("small", ITEMS, (), DOMAINS)
NUMBERS = [item.number for item in ITEMS]


def people(count: int, holes: float, generator: random.Random, options: tuple[float, ...]) -> list[dict[int, float]]:
    return [{n: generator.choice(options) for n in NUMBERS if generator.random() >= holes} for _ in range(count)]


def pairwise(answers: np.ndarray, truths: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, by all pairs."""
    composites = cross_composites(SMALL, NUMBERS, answers, truths)
    rows = np.arange(len(answers))
    own_scores = composites[rows, own].copy()
    composites[rows, own] = np.nan
    others = [np.mean(row[~np.isnan(row)]) if (~np.isnan(row)).any() else np.nan for row in composites]
    return np.array(others), own_scores


@pytest.mark.parametrize("missing_truth", [0.0, 0.05, 0.4, 0.8])
@pytest.mark.parametrize("missing_answers", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("largest", [4_000_000, 50])
def test_counting_options_is_comparing_all_pairs(
    missing_truth: float, missing_answers: float, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(palign_bench.report.specificity, "_LARGEST", largest)
    generator = random.Random(f"{missing_truth}-{missing_answers}")
    truths = as_matrix(NUMBERS, people(40, missing_truth, generator, (0, 1, 2, 3, 4, 5)))
    answers = as_matrix(NUMBERS, people(25, missing_answers, generator, (1, 2, 3, 4, 5, 2.7)))
    own = np.array(generator.sample(range(40), 25))
    found, expected = others_and_own(SMALL, NUMBERS, answers, truths, own), pairwise(answers, truths, own)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    undefined = np.isnan(cross_composites(SMALL, NUMBERS, answers, truths))
    if (missing_truth, missing_answers) == (0.4, 0.3):
        assert undefined.any() and not undefined.all(), "pairs without a common item must occur"


def test_nobody_to_compare_with() -> None:
    answers, truths = as_matrix(NUMBERS, [dict.fromkeys(NUMBERS, 4)]), as_matrix(NUMBERS, [dict.fromkeys(NUMBERS, 5)])
    others, own_scores = others_and_own(SMALL, NUMBERS, answers, truths, np.array([0]))
    assert np.isnan(others).all() and own_scores.tolist() == [5.0]
    others, own_scores = others_and_own(SMALL, NUMBERS, answers, as_matrix(NUMBERS, [{0: 5}, {1: 5}]), np.array([0]))
    assert np.isnan(others).all() and np.isnan(own_scores).all()
