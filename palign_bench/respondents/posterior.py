"""The optimal predictor of simulated people: the posterior predictive distribution of the model that draws them.

Given some of a person's answers, Gibbs sampling with data augmentation (Albert & Chib 1993) draws from the posterior of
the person's facets, acquiescence and extremity in `FactorModel`. One sweep draws

1. the extremity given the factors, on a grid (griddy Gibbs, Ritter & Tanner 1992), the latent answers integrated out:
   an item's answer then has the probability of a normal variable between two thresholds;
2. every latent answer given extremity and factors, normal between the thresholds of the person's answer;
3. facets and acquiescence together given the latent answers, normal.

The prediction is the mean over the kept sweeps of P(option | latent answers, extremity), the factors integrated out
(Rao-Blackwell). A missing answer is not conditioned on.

Measured on 300 simulated people with 120 known and 180 held-out answers, six seeds of the sampler: with 400 sweeps a
probability moves between seeds by 0.005 (standard deviation), 0.7 % of the median options change, one person's
composite moves by 0.03 and the mean of all 300 by 0.0014 (1.660; 1.659 with 4,000 sweeps). That takes 12 s on one core.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import HIGHEST, LOWEST
from palign_bench.respondents.simulated import FactorModel

Array = NDArray[np.float64]

SWEEPS = 400
BURN_IN = 50

_GRID = np.linspace(-4, 4, 21)  # of the standard normal extremity; a posterior's standard deviation is about one step
_BLOCK = 25  # sweeps whose random numbers are drawn at once: part of what a seed means
_SMALLEST = 1e-300  # a probability that is not quite zero
_OPTIONS = HIGHEST - LOWEST + 1


class FactorPosterior:
    """Predicts people's answers to the items ``asked`` from those to the items ``known``, under ``model``.

    ``known``, ``asked``: item numbers. ``sweeps``: those kept, after ``burn_in`` others. Raises ValueError for fewer
    than one sweep to keep or a negative burn-in.
    """

    def __init__(
        self,
        model: FactorModel,
        known: Sequence[int],
        asked: Sequence[int],
        sweeps: int = SWEEPS,
        burn_in: int = BURN_IN,
    ):
        if sweeps < 1 or burn_in < 0:
            raise ValueError(f"sweeps={sweeps}, burn_in={burn_in}: keep at least one sweep after none or more")
        self.sweeps, self.burn_in = sweeps, burn_in
        row_of = model.inventory.column
        known_rows, asked_rows = [row_of[number] for number in known], [row_of[number] for number in asked]
        factors = np.linalg.cholesky(model.facet_correlations)
        # (items, factors): loadings on independent standard normal factors, the last one acquiescence.
        loadings = np.column_stack([model.item_loadings @ factors, np.full(len(row_of), model.acquiescence)])
        self._known = _Items(loadings[known_rows], model, known_rows)
        self._asked = _Items(loadings[asked_rows], model, asked_rows)
        self._extremity = model.extremity

    def predict(self, answers: NDArray[np.int64], seeds: Sequence[int]) -> Array:
        """``(people, asked, 5)`` probabilities of the literal answers 1…5.

        ``answers``: ``(people, known)``, literal, 1…5, 0 where missing. ``seeds``: one per person; what is predicted
        for a person depends on the person's own answers and seed alone. Raises ValueError for other answers.
        """
        answers = np.asarray(answers)
        if answers.shape != (len(seeds), len(self._known.rest)):
            raise ValueError(f"answers of shape {answers.shape}: expected {(len(seeds), len(self._known.rest))}")
        if not np.isin(answers, range(HIGHEST + 1)).all():
            raise ValueError("answers must be 1…5, or 0 where missing")
        items, asked = self._known, self._asked
        gain, spread = self._factors_given_latent(answers > 0)
        # What the factors leave open about an item asked adds to what it shares with nothing.
        open_ended = asked.loadings @ spread
        deviation = np.sqrt(asked.rest**2 + (open_ended**2).sum(axis=2))[:, :, None]
        lower, upper = items.intervals(answers)
        factors = np.zeros((len(seeds), items.loadings.shape[1]))
        below = np.zeros((len(seeds), len(asked.rest), _OPTIONS - 1))
        for sweep, (uniform, normal) in enumerate(self._random_numbers(seeds)):
            mean = _per_person(factors, items.loadings.T)
            stretch = self._draw_stretch(mean, lower, upper, uniform[:, 0])[:, None]
            latent = items.draw_latent(mean, lower / stretch, upper / stretch, uniform[:, 1:])
            expected = _per_person(latent, gain)
            factors = expected + _per_person(normal, spread.transpose(0, 2, 1))
            if sweep >= self.burn_in:
                predicted = _per_person(expected, asked.loadings.T) - asked.neutral
                below += cumulative((asked.cuts / stretch[:, :, None] - predicted[:, :, None]) / deviation)
        edges = np.zeros((*below.shape[:2], 1))
        return np.diff(below / self.sweeps, axis=2, prepend=edges, append=edges + 1)

    def _factors_given_latent(self, given: NDArray[np.bool_]) -> tuple[Array, Array]:
        """What turns a person's latent answers into the factors' mean, ``(people, known, factors)``, and a root of
        their covariance, ``(people, factors, factors)``; both are the same whatever the answers.
        """
        weighted = np.where(given, self._known.rest**-2.0, 0)[:, :, None] * self._known.loadings
        precision = np.eye(weighted.shape[2]) + self._known.loadings.T @ weighted
        spread = np.linalg.inv(np.linalg.cholesky(precision)).transpose(0, 2, 1)
        return weighted @ spread @ spread.transpose(0, 2, 1), spread

    def _draw_stretch(self, mean: Array, lower: Array, upper: Array, uniform: Array) -> Array:
        """``(people,)``: how much the person stretches latent answers, drawn given the factors.

        ``mean``: ``(people, known)``, of the latent answers. ``lower``, ``upper``: their intervals, unstretched, from
        the neutral point.
        """
        items = self._known
        stretch = np.exp(self._extremity * _GRID)[:, None]  # (grid, 1)
        centred = ((mean - items.neutral) / items.rest)[:, None]
        low, high = ((edge / items.rest)[:, None] / stretch - centred for edge in (lower, upper))
        _, lowest, highest = _lower_tails(low, high)
        log_density = np.log(np.maximum(highest - lowest, _SMALLEST)).sum(axis=2) - _GRID**2 / 2
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True)).cumsum(axis=1)
        drawn = (density < uniform[:, None] * density[:, -1:]).sum(axis=1)
        return stretch[drawn, 0]

    def _random_numbers(self, seeds: Sequence[int]) -> Iterator[tuple[Array, Array]]:
        """For every sweep numbers uniform in (0, 1], ``(people, 1 + known)``, and normal, ``(people, factors)``."""
        # RandomState's stream is frozen by NumPy's policy; Generator's is not.
        streams = [np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))) for seed in seeds]
        known, factors = self._known.loadings.shape
        for start in range(0, self.burn_in + self.sweeps, _BLOCK):
            uniform = np.stack([1 - stream.random_sample((_BLOCK, 1 + known)) for stream in streams], axis=1)
            normal = np.stack([stream.standard_normal((_BLOCK, factors)) for stream in streams], axis=1)
            for sweep in range(min(_BLOCK, self.burn_in + self.sweeps - start)):
                yield uniform[sweep], normal[sweep]


class _Items:
    """Some items of the model: loadings on independent factors, and thresholds from the neutral point."""

    def __init__(self, loadings: Array, model: FactorModel, rows: list[int]):
        self.loadings = loadings  # (items, factors)
        self.rest = model.rest[rows]
        self.neutral = model.neutral_points[rows]
        self.cuts = model.thresholds[rows] - self.neutral[:, None]  # (items, 4)

    def intervals(self, answers: NDArray[np.int64]) -> tuple[Array, Array]:
        """Between which thresholds the answers lie, each ``(people, items)``; unbounded where one is missing."""
        edges = np.pad(self.cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (-np.inf, np.inf)))
        lower = edges[range(len(edges)), np.maximum(answers - LOWEST, 0)]
        upper = edges[range(len(edges)), np.where(answers > 0, answers, HIGHEST)]
        return lower, upper

    def draw_latent(self, mean: Array, lower: Array, upper: Array, uniform: Array) -> Array:
        """Normal latent answers around ``mean`` between the stretched thresholds; all are ``(people, items)``."""
        centred = mean - self.neutral
        low, high = (lower - centred) / self.rest, (upper - centred) / self.rest
        mirrored, lowest, highest = _lower_tails(low, high)
        drawn = quantile(np.clip(lowest + uniform * (highest - lowest), _SMALLEST, 1 - 2**-53))
        return mean + self.rest * np.clip(np.where(mirrored, -drawn, drawn), low, high)


def median_option(probabilities: Array) -> NDArray[np.int64]:
    """The answer, 1…5, that minimises the expected absolute error under ``(…, 5)`` probabilities: the median."""
    return LOWEST + (probabilities.cumsum(axis=-1)[..., :-1] < 0.5).sum(axis=-1)


def expected_error(probabilities: Array, answers: NDArray[np.int64]) -> Array:
    """``(…,)``: expected absolute difference between an answer and one drawn from ``(…, 5)`` probabilities."""
    options = np.arange(LOWEST, HIGHEST + 1)
    return (probabilities * np.abs(options - answers[..., None])).sum(axis=-1)


def cumulative(values: Array) -> Array:
    """The standard normal distribution function, exact to 1e-12 of its value also far in the lower tail."""
    import torch

    return 0.5 * torch.special.erfc(torch.from_numpy(values * -math.sqrt(0.5))).numpy()


def quantile(probabilities: Array) -> Array:
    """The inverse of `cumulative`."""
    import torch

    return torch.special.ndtri(torch.from_numpy(probabilities)).numpy()


def _lower_tails(low: Array, high: Array) -> tuple[NDArray[np.bool_], Array, Array]:
    """Where an interval was mirrored so as to lie in the lower tail, and `cumulative` at its ends.

    In the upper tail both would round to 1 and their difference to 0.
    """
    mirrored = low > -high
    return mirrored, cumulative(np.where(mirrored, -high, low)), cumulative(np.where(mirrored, -low, high))


def _per_person(rows: Array, matrix: Array) -> Array:
    """``rows @ matrix``, person by person, so that neighbours cannot change how a person's sums are rounded."""
    return np.matmul(rows[:, None], matrix)[:, 0]
