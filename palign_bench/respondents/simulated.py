"""Simulated people: a hierarchical factor model of IPIP-NEO-300 (five correlated domains, 30 facets, 300 items).

For where the real people cannot be had, and for tests. Means, spreads and correlations are those measured on the 300
people of PAPI (Zhu et al. 2025), kept here as aggregates per facet; where items of one facet differ, the difference is
drawn from a fixed seed with the measured spread, so that no item's own figures are copied. Tests compare simulated
people with the real 300.

An answer comes about in three steps. Domains are multivariate normal; a facet is a weighted sum of the domains and a
part of its own; each has unit variance. An item's latent answer to the sentence *as worded*, again of unit variance, is

    y = sign · (loading · own facet + small loadings · other facets) + acquiescence · Q + rest,

where Q is the person's tendency to agree with anything. Four thresholds cut y into the options 1…5 (graded response
model, Samejima 1969, with normal ogives); a person's extremity stretches y around the item's neutral point first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from palign_bench.inventory import Inventory, Respondent, ipip_neo_300
from palign_bench.respondents.source import RespondentsError, RespondentSource, make_source

Array = NDArray[np.float64]

# Measured on the 300 people of PAPI. Facet correlations, corrected for reliability, were factored into five minres
# factors (root mean square residual 0.024), turned so that a domain is the sum of what its six facets share.
_DOMAIN_CORRELATIONS = (  # rows and columns A, C, E, N, O
    (1.00, 0.47, 0.12, -0.24, 0.24),
    (0.47, 1.00, 0.31, -0.62, -0.04),
    (0.12, 0.31, 1.00, -0.53, 0.40),
    (-0.24, -0.62, -0.53, 1.00, -0.10),
    (0.24, -0.04, 0.40, -0.10, 1.00),
)

# Per facet: mean keyed answer of its positively and of its negatively keyed items, mean standard deviation of an item,
# mean correlation between its items (keyed), and its loadings on A, C, E, N, O (a pattern: they may exceed 1).
_FACETS: dict[str, tuple[float, ...]] = {
    "A1": (3.39, 3.26, 0.77, 0.55, 0.71, -0.25, 0.47, -0.28, -0.14),
    "A2": (3.64, 3.58, 0.76, 0.37, 0.73, 0.43, -0.18, 0.06, -0.07),
    "A3": (3.71, 3.80, 0.68, 0.47, 0.78, 0.08, 0.52, 0.18, 0.09),
    "A4": (3.40, 3.28, 0.84, 0.36, 0.93, -0.05, -0.27, -0.31, -0.03),
    "A5": (3.14, 3.09, 0.81, 0.30, 0.53, -0.06, -0.59, 0.21, -0.15),
    "A6": (3.54, 3.38, 0.75, 0.36, 0.87, -0.15, 0.06, 0.14, 0.31),
    "C1": (3.75, 3.63, 0.66, 0.49, -0.20, 0.76, 0.16, -0.26, 0.26),
    "C2": (3.47, 3.06, 0.81, 0.41, 0.02, 0.92, 0.13, 0.32, -0.31),
    "C3": (3.86, 3.77, 0.69, 0.45, 0.37, 0.79, -0.11, 0.03, -0.02),
    "C4": (3.64, 3.72, 0.71, 0.47, -0.19, 1.00, 0.27, 0.16, 0.20),
    "C5": (3.21, 3.15, 0.77, 0.56, -0.13, 0.94, 0.14, -0.01, -0.07),
    "C6": (3.47, 3.06, 0.79, 0.43, 0.13, 0.77, -0.59, -0.24, -0.06),
    "E1": (3.53, 3.34, 0.84, 0.58, 0.41, -0.17, 0.93, -0.10, -0.15),
    "E2": (3.24, 2.98, 0.88, 0.57, 0.24, -0.32, 1.07, -0.05, -0.23),
    "E3": (3.46, 3.24, 0.76, 0.50, -0.33, 0.37, 0.83, 0.07, 0.14),
    "E4": (3.46, 2.67, 0.67, 0.24, -0.33, 0.73, 0.48, 0.18, 0.02),
    "E5": (3.24, 3.58, 0.86, 0.43, -0.28, -0.45, 0.77, -0.05, 0.15),
    "E6": (3.66, 3.88, 0.73, 0.47, 0.29, -0.16, 0.80, -0.04, 0.07),
    "N1": (3.14, 2.90, 0.87, 0.51, 0.05, 0.29, 0.02, 1.16, 0.03),
    "N2": (2.87, 2.92, 0.87, 0.64, -0.38, 0.24, 0.26, 1.04, -0.04),
    "N3": (2.69, 2.72, 0.95, 0.63, -0.01, -0.07, -0.25, 0.75, 0.10),
    "N4": (2.95, 2.83, 0.86, 0.49, 0.26, 0.01, -0.51, 0.62, -0.04),
    "N5": (3.21, 3.06, 0.82, 0.37, -0.08, -0.37, 0.43, 0.68, 0.07),
    "N6": (2.86, 2.47, 0.81, 0.51, 0.16, -0.10, 0.05, 0.96, -0.13),
    "O1": (3.79, 3.96, 0.71, 0.42, -0.12, -0.09, 0.04, 0.17, 0.82),
    "O2": (4.08, 3.87, 0.75, 0.38, 0.23, 0.14, 0.20, 0.17, 0.71),
    "O3": (3.77, 3.53, 0.75, 0.34, 0.27, 0.29, 0.41, 0.90, 0.54),
    "O4": (3.89, 3.15, 0.70, 0.40, -0.15, -0.14, 0.09, -0.53, 0.64),
    "O5": (3.78, 3.79, 0.70, 0.42, -0.41, 0.44, -0.32, -0.27, 1.01),
    "O6": (3.13, 2.97, 0.86, 0.36, 0.19, -0.65, -0.42, -0.44, 0.60),
}
_MEAN_SPREAD = 0.28  # between items of one facet and sign: standard deviation of their means,
_DEVIATION_SPREAD = 0.09  # of their standard deviations (both measured),

# Chosen so that the spread of the correlations between items, the share of each option and people's spread in it, and
# what one item tells about another (the floors) come out as measured.
_LOADING_SPREAD = 0.10  # standard deviation between items of one facet and sign: of their loadings on it,
_CROSS_LOADING = 0.09  # of their loadings on each other facet,
_WORDING_LOADING = 0.04  # and of half the difference there between a facet's positively and negatively keyed items
_CUTS = (3 - 1.66, 3 - 0.36, 3 + 0.36, 3 + 1.66)  # between the options, on an axis on which the options are 1…5
_ACQUIESCENCE = 0.17
_EXTREMITY = 0.25
# What items of a facet share latently, over the mean correlation of their answers: five categories, acquiescence and
# loadings on other facets lower the latter.
_COARSENING = 1.5
_ITEM_SEED = 300  # of the items' differences: the questionnaire is the same whatever the people's seed


@dataclass(frozen=True, eq=False)
class FactorModel:
    """The model's parameters: all that an optimal predictor needs to know.

    ``inventory``: its ``items`` order the rows of ``item_loadings`` and ``thresholds``; its ``facets`` order the
    columns of ``item_loadings`` and the rows of ``facet_loadings``; domains are ordered A, C, E, N, O.
    ``domain_correlations``: (5, 5). ``facet_loadings``: (30, 5). ``item_loadings``: (300, 30), of y, so negative on its
    own facet for a negatively keyed item. ``thresholds``: (300, 4), ascending, on y.
    ``acquiescence``: loading of every y on Q ~ N(0, 1). ``extremity``: standard deviation of the log of the factor that
    stretches a person's y around each item's neutral point, the middle of its second and third threshold.
    """

    inventory: Inventory
    domain_correlations: Array
    facet_loadings: Array
    item_loadings: Array
    thresholds: Array
    acquiescence: float
    extremity: float

    @property
    def facet_correlations(self) -> Array:
        """(30, 30), unit diagonal: what a facet does not share with the domains is its own."""
        return _facet_correlations(self.facet_loadings, self.domain_correlations)

    @property
    def rest(self) -> Array:
        """(300,): standard deviation of what an item shares with nothing; y has unit variance."""
        shared = ((self.item_loadings @ self.facet_correlations) * self.item_loadings).sum(axis=1)
        return np.sqrt(1 - shared - self.acquiescence**2)

    @property
    def neutral_points(self) -> Array:
        """(300,): the y of a person who finds the sentence neither accurate nor inaccurate."""
        return self.thresholds[:, 1:3].mean(axis=1)

    def answers(self, generator: np.random.RandomState) -> NDArray[np.int64]:
        """One person's 300 literal answers, 1…5, drawn from ``generator``."""
        facets = np.linalg.cholesky(self.facet_correlations) @ generator.standard_normal(len(self.inventory.facets))
        agreeing, extreme = generator.standard_normal(2)
        rest = self.rest * generator.standard_normal(len(self.inventory.items))
        latent = self.item_loadings @ facets + self.acquiescence * agreeing + rest
        neutral = self.neutral_points
        stretched = neutral + math.exp(self.extremity * extreme) * (latent - neutral)
        return 1 + (stretched[:, None] > self.thresholds).sum(axis=1)


def _facet_correlations(loadings: Array, domain_correlations: Array) -> Array:
    shared = loadings @ domain_correlations @ loadings.T
    return shared + np.diag(1 - np.diag(shared))


@lru_cache(maxsize=1)
def factor_model() -> FactorModel:
    """The model of IPIP-NEO-300 from which `simulate` draws people; always the same."""
    inventory = ipip_neo_300()
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(_ITEM_SEED)))
    measured = np.array([_FACETS[item.facet] for item in inventory.items])
    signs = np.array([item.sign for item in inventory.items])
    groups = [f"{item.facet}{item.sign:+d}" for item in inventory.items]
    keyed = np.where(signs > 0, measured[:, 0], measured[:, 1]) + _spread(generator, groups, _MEAN_SPREAD)
    means = np.where(signs > 0, keyed, 6 - keyed)
    deviations = measured[:, 2] + _spread(generator, groups, _DEVIATION_SPREAD)
    domain_correlations = np.array(_DOMAIN_CORRELATIONS)
    facet_loadings = np.array([_FACETS[facet][4:] for facet in inventory.facets])
    shared = np.sqrt(_COARSENING * measured[:, 3]) + _spread(generator, groups, _LOADING_SPREAD)
    facet_of = np.array([inventory.facets.index(item.facet) for item in inventory.items])
    contrast = signs - np.array([signs[facet_of == facet].mean() for facet in facet_of])  # cancels within a facet
    wording = _WORDING_LOADING * generator.standard_normal((len(inventory.facets), len(inventory.facets)))
    loadings = contrast[:, None] * wording[facet_of]
    loadings += np.array([_spread(generator, groups, _CROSS_LOADING) for _ in inventory.facets]).T
    loadings[range(len(groups)), facet_of] += 1
    variance = ((loadings @ _facet_correlations(facet_loadings, domain_correlations)) * loadings).sum(axis=1)
    loadings *= (np.clip(shared, 0.2, 0.95) / np.sqrt(variance))[:, None]
    return FactorModel(
        inventory=inventory,
        domain_correlations=domain_correlations,
        facet_loadings=facet_loadings,
        item_loadings=signs[:, None] * loadings,
        thresholds=_thresholds(means, np.clip(deviations, 0.45, None)),
        acquiescence=_ACQUIESCENCE,
        extremity=_EXTREMITY,
    )


def _spread(generator: np.random.RandomState, groups: list[str], deviation: float) -> Array:
    """Seeded differences between items, centred within each group so that the group's mean stays as measured."""
    drawn = deviation * generator.standard_normal(len(groups))
    for group in set(groups):
        members = [row for row, each in enumerate(groups) if each == group]
        drawn[members] -= drawn[members].mean()
    return drawn


def _thresholds(means: Array, deviations: Array) -> Array:
    """(items, 4) thresholds that give each item's answers this mean and standard deviation over people."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    stretch, weights = np.exp(_EXTREMITY * nodes), weights / weights.sum()
    cuts = np.array(_CUTS)
    location, scale = means.copy(), deviations.copy()
    for _ in range(40):
        # An answer is above a cut where stretch · (location + scale · z - 3) > cut - 3, z standard normal.
        distance = ((cuts - 3) / stretch[:, None] + 3 - location[:, None, None]) / scale[:, None, None]
        above = np.tensordot(_upper_tail(distance), weights, axes=(1, 0))  # (items, 4)
        mean = 1 + above.sum(axis=1)
        square = 1 + above @ np.array([3.0, 5.0, 7.0, 9.0])
        location += means - mean
        scale *= deviations / np.sqrt(square - mean**2)
    return (cuts - location[:, None]) / scale[:, None]


def _upper_tail(z: Array) -> Array:
    values = [0.5 * math.erfc(each / math.sqrt(2)) for each in z.ravel()]
    return np.array(values).reshape(z.shape)


def simulate(count: int = 300, seed: int = 0) -> RespondentSource:
    """``count`` simulated people with complete answers; the first n are the same whatever the count.

    Raises `RespondentsError` for a count below 1 or a seed below 0.
    """
    for key, value, lowest in (("count", count, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
            raise RespondentsError(f"respondents.{key}={value}: give a whole number of at least {lowest}")
    model = factor_model()
    numbers = [item.number for item in model.inventory.items]
    people = []
    for index in range(count):
        # RandomState's stream is frozen by NumPy's policy; Generator's is not.
        stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, index])))
        answers = dict(zip(numbers, model.answers(stream).tolist(), strict=True))
        people.append(Respondent(f"simulated-{index + 1:04d}", answers))
    noun = "person" if count == 1 else "people"
    return make_source("simulated", f"{count} simulated {noun}", people)
