"""What is known of simulated people's answers, exactly: which go together, and what some of them tell of the others."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palign_bench.organism.people import draw_people
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents.simulated import FactorModel

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

VAGUENESS = (0.35, 1.0)  # of people drawn for teaching: clear ones teach what goes together, 1 is the figures' own
FACTORS = 36  # that a factor analysis of the answers keeps, and entries of a statement's vector
_COUNT = 20_000  # people from whom it is taken
_ROUNDS = 50  # of principal-axis factoring


def unseen_items(inventory: Inventory) -> tuple[int, ...]:
    """One held-out item of every facet, 10 % of all, that is never shown in teaching; chosen by a hash, ascending."""

    def rank(number: int) -> str:
        return hashlib.sha256(f"taught-{number}".encode()).hexdigest()

    facets: dict[str, list[int]] = {}
    for number in inventory.held_out:
        facets.setdefault(str(inventory[number].subscale), []).append(number)
    return tuple(sorted(min(numbers, key=rank) for numbers in facets.values()))


@dataclass(frozen=True)
class AnswerFigures:
    """``mean``, ``deviation`` ``(items,)`` of literal answers; ``loadings`` ``(items, FACTORS)`` and ``unique``
    ``(items,)``: of the standardised ones; ``vectors`` ``(items, FACTORS)``: near for statements whose answers go
    together, opposite for contrary ones, root mean square 1.
    """

    mean: Array
    deviation: Array
    loadings: Array
    unique: Array
    vectors: Array

    @classmethod
    def of(cls, model: FactorModel, seed: int = 1) -> "AnswerFigures":
        """Of people simulated with this model, as vague as those of teaching."""
        generator = np.random.default_rng(seed)
        vagueness = generator.uniform(*VAGUENESS, (_COUNT, 1))
        answers = draw_people(model, _COUNT, generator, vagueness).answers.astype(float)
        correlations = np.corrcoef(answers.T)
        common = 1 - 1 / np.diag(np.linalg.inv(correlations))
        for _ in range(_ROUNDS):
            reduced = correlations.copy()
            np.fill_diagonal(reduced, common)
            values, directions = np.linalg.eigh(reduced)
            loadings = directions[:, -FACTORS:] * np.sqrt(values[-FACTORS:].clip(1e-6))
            common = (loadings**2).sum(axis=1).clip(0.05, 0.95)
        _, directions = np.linalg.eigh(correlations)
        vectors = directions[:, -FACTORS:]
        vectors = vectors / np.sqrt((vectors**2).mean(axis=1, keepdims=True))
        turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((FACTORS, FACTORS)))
        return cls(answers.mean(axis=0), answers.std(axis=0), loadings, 1 - common, vectors @ turn)

    @property
    def together(self) -> Array:
        """``(items, items)``: what the factors make of the correlation of two standardised answers."""
        return self.loadings @ self.loadings.T

    def standardised(self, rows: Rows, answers: Rows) -> Array:
        """Literal answers to the items of these rows, in deviations from the population's mean."""
        deviations: Array = (answers - self.mean[rows]) / self.deviation[rows]
        return deviations

    def expected(self, told: Rows, answers: Rows, asked: Rows) -> Array:
        """Best linear prediction, standardised, of each told answer from those before it, then of the asked ones.

        One answer at a time (Kalman's update of factors that are standard normal before any): ``(told + asked,)``.
        """
        covariance, factors, predicted = np.eye(FACTORS), np.zeros(FACTORS), []
        for row, value in zip(told, self.standardised(told, answers), strict=True):
            loading = self.loadings[row]
            predicted.append(loading @ factors)
            shared = covariance @ loading
            gain = shared / (loading @ shared + self.unique[row])
            factors = factors + gain * (value - predicted[-1])
            covariance = covariance - np.outer(gain, shared)
        return np.concatenate([np.array(predicted), self.loadings[asked] @ factors])
