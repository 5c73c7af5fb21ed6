"""Simulated people: a hierarchical factor model of IPIP-NEO-300 (five correlated domains, 30 facets, 300 items).

For where the real people cannot be had, for tests, and to train the model organism. Means, spreads and correlations
are those of `norms.py`: measured on the 300 people of PAPI, or published; where items of one facet differ, the
difference is drawn from a fixed seed with the measured spread, so that no item's own figures are copied. Tests compare
simulated people with the real 300.

An answer comes about in three steps. Domains are multivariate normal; a facet is a weighted sum of the domains and a
part of its own; each has unit variance. An item's latent answer to the sentence *as worded*, again of unit variance, is

    y = sign · (loading · own facet + small loadings · other facets) + acquiescence · Q + rest,

where Q is the person's tendency to agree with anything. Four thresholds cut y into the options 1…5 (graded response
model, Samejima 1969, with normal ogives); a person's extremity stretches y around the item's neutral point first.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_300
from palign_bench.respondents.norms import DOMAINS, NORMS
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import counted, is_whole

Array = NDArray[np.float64]

# What items of a facet share latently, over the mean correlation of their answers: five categories, acquiescence and
# loadings on other facets lower the latter. Right for the measured figures; people of the published ones, which load on
# no other facet, come out more consistent than those are (alpha of a facet .86 beside .80). The organism and the taught
# model learnt from such people, so they are left as they are.
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

    @cached_property
    def facet_correlations(self) -> Array:
        """(30, 30), unit diagonal: what a facet does not share with the domains is its own."""
        return _facet_correlations(self.facet_loadings, self.domain_correlations)

    @cached_property
    def rest(self) -> Array:
        """(300,): standard deviation of what an item shares with nothing; y has unit variance."""
        shared = ((self.item_loadings @ self.facet_correlations) * self.item_loadings).sum(axis=1)
        return np.sqrt(1 - shared - self.acquiescence**2)

    @cached_property
    def neutral_points(self) -> Array:
        """(300,): the y of a person who finds the sentence neither accurate nor inaccurate."""
        return self.thresholds[:, 1:3].mean(axis=1)

    @cached_property
    def _facet_root(self) -> Array:
        return np.linalg.cholesky(self.facet_correlations).astype(float)

    def answers(self, generator: np.random.RandomState) -> NDArray[np.int64]:
        """One person's 300 literal answers, 1…5, drawn from ``generator``."""
        facets = self._facet_root @ generator.standard_normal(len(self.inventory.subscales))
        agreeing, extreme = generator.standard_normal(2)
        rest = self.rest * generator.standard_normal(len(self.inventory.items))
        latent = self.item_loadings @ facets + self.acquiescence * agreeing + rest
        neutral = self.neutral_points
        stretched = neutral + math.exp(self.extremity * extreme) * (latent - neutral)
        return 1 + (stretched[:, None] > self.thresholds).sum(axis=1)


def _facet_correlations(loadings: Array, domain_correlations: Array) -> Array:
    shared = loadings @ domain_correlations @ loadings.T
    return shared + np.diag(1 - np.diag(shared))


@lru_cache(maxsize=2)
def factor_model(figures: str = "measured") -> FactorModel:
    """The model of IPIP-NEO-300 with these figures (`norms.py`), from which `simulate` draws; always the same.

    Raises `RespondentsError` for figures that do not exist.
    """
    if figures not in NORMS:
        raise RespondentsError(f"respondents.figures={figures}: choose one of {', '.join(NORMS)}")
    taken = NORMS[figures]
    inventory = ipip_neo_300()
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(_ITEM_SEED)))
    facets = taken.facets.loc[[str(item.subscale) for item in inventory.items]]  # a row for each item
    signs = np.array([item.sign for item in inventory.items])
    groups = [f"{item.subscale}{item.sign:+d}" for item in inventory.items]
    keyed = np.where(signs > 0, facets["positive_mean"], facets["negative_mean"])
    keyed += _spread(generator, groups, taken.mean_spread)
    means = np.where(signs > 0, keyed, 6 - keyed)
    deviations = facets["deviation"].to_numpy() + _spread(generator, groups, taken.deviation_spread)
    domain_correlations = np.array(taken.domain_correlations, dtype=float)
    facet_loadings = taken.facets.loc[list(inventory.subscales), DOMAINS].to_numpy()
    shared = np.sqrt(_COARSENING * facets["correlation"].to_numpy()) + _spread(generator, groups, taken.loading_spread)
    facet_of = np.array([inventory.subscales.index(str(item.subscale)) for item in inventory.items])
    contrast = signs - np.array([signs[facet_of == facet].mean() for facet in facet_of])  # cancels within a facet
    wording = taken.wording_loading * generator.standard_normal((len(inventory.subscales), len(inventory.subscales)))
    loadings = contrast[:, None] * wording[facet_of]
    loadings += np.array([_spread(generator, groups, taken.cross_loading) for _ in inventory.subscales]).T
    loadings[range(len(groups)), facet_of] += 1
    variance = ((loadings @ _facet_correlations(facet_loadings, domain_correlations)) * loadings).sum(axis=1)
    loadings *= (np.clip(shared, 0.2, 0.95) / np.sqrt(variance))[:, None]
    return FactorModel(
        inventory=inventory,
        domain_correlations=domain_correlations,
        facet_loadings=facet_loadings,
        item_loadings=signs[:, None] * loadings,
        thresholds=_thresholds(means, np.clip(deviations, 0.45, None), np.array(taken.cuts), taken.extremity),
        acquiescence=taken.acquiescence,
        extremity=taken.extremity,
    )


def _spread(generator: np.random.RandomState, groups: list[str], deviation: float) -> Array:
    """Seeded differences between items, centred within each group so that the group's mean stays as measured."""
    drawn = deviation * generator.standard_normal(len(groups))
    for group in set(groups):
        members = [row for row, each in enumerate(groups) if each == group]
        drawn[members] -= drawn[members].mean()
    return drawn


def _thresholds(means: Array, deviations: Array, cuts: Array, extremity: float) -> Array:
    """(items, 4) thresholds that give each item's answers this mean and standard deviation over people."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    stretch, weights = np.exp(extremity * nodes), weights / weights.sum()
    location, scale, erfc = means.copy(), deviations.copy(), np.vectorize(math.erfc)
    for _ in range(40):
        # An answer is above a cut where stretch · (location + scale · z - 3) > cut - 3, z standard normal.
        distance = ((cuts - 3) / stretch[:, None] + 3 - location[:, None, None]) / scale[:, None, None]
        above = np.tensordot(0.5 * erfc(distance / math.sqrt(2)), weights, axes=(1, 0))  # (items, 4)
        mean = 1 + above.sum(axis=1)
        square = 1 + above @ np.array([3.0, 5.0, 7.0, 9.0])
        location += means - mean
        scale *= deviations / np.sqrt(square - mean**2)
    return (cuts - location[:, None]) / scale[:, None]


def simulate(count: int = 300, seed: int = 0, figures: str = "measured") -> RespondentSource:
    """``count`` simulated people with complete answers; the first n are the same whatever the count.

    Raises `RespondentsError` for a count below 1, a seed below 0 or figures that do not exist.
    """
    for key, value, lowest in (("count", count, 1), ("seed", seed, 0)):
        if not is_whole(value, lowest):
            raise RespondentsError(f"respondents.{key}={value}: give a whole number of at least {lowest}")
    model = factor_model(figures)
    numbers = [item.number for item in model.inventory.items]
    people = []
    for index in range(count):
        # RandomState's stream is frozen by NumPy's policy; Generator's is not.
        stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, index])))
        answers = dict(zip(numbers, model.answers(stream).tolist(), strict=True))
        people.append(Respondent(f"simulated-{index + 1:04d}", answers))
    described = counted(count, "simulated person", "simulated people") + (
        "" if figures == "measured" else f", {figures} figures"
    )
    return RespondentSource("simulated", described, tuple(people))
