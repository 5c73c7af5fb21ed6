"""Figures about IPIP-NEO-300 from which a factor model is made (`simulated.py`): measured ones and published ones.

`MEASURED` repeats the 300 people of PAPI: for tests, and where those people cannot be had. `PUBLISHED` owes nothing to
them: what is trained on people drawn from it (`organism/`) has never seen the 300, not even as aggregates.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class FacetFigures:
    """Of one facet's ten items, answers 1…5 in the keyed direction."""

    positive_mean: float  # of its positively keyed items
    negative_mean: float  # of its negatively keyed items
    deviation: float  # mean standard deviation of an item over people
    correlation: float  # mean correlation between its items
    loadings: tuple[float, ...]  # of the facet on the domains A, C, E, N, O (a pattern: may exceed 1)


@dataclass(frozen=True)
class Figures:
    """All that the factor model takes from data; what it adds is in `simulated.py`.

    ``domain_correlations``: (5, 5), rows and columns A, C, E, N, O. ``mean_spread``, ``deviation_spread``: standard
    deviation, between items of one facet and sign, of their means and standard deviations. ``loading_spread``,
    ``cross_loading``, ``wording_loading``: likewise of their loadings on the facet, on each other facet, and of half
    the difference there between positively and negatively keyed items. ``acquiescence``: loading of every answer on a
    tendency to agree. ``extremity``: standard deviation of the log of a person's stretch around the neutral point.
    ``cuts``: between the five options, on an axis on which the options are 1…5.
    """

    domain_correlations: tuple[tuple[float, ...], ...]
    facets: Mapping[str, FacetFigures]
    acquiescence: float
    extremity: float
    cuts: tuple[float, ...]
    mean_spread: float = 0.0
    deviation_spread: float = 0.0
    loading_spread: float = 0.0
    cross_loading: float = 0.0
    wording_loading: float = 0.0


def _facet_rows(figures: str) -> dict[str, tuple[float, ...]]:
    """The numbers of ``data/facets_<figures>.csv`` by facet, in the order of its columns."""
    text = files("palign_bench.respondents").joinpath(f"data/facets_{figures}.csv").read_text(encoding="utf-8")
    return {facet: tuple(map(float, numbers)) for facet, *numbers in list(csv.reader(text.splitlines()))[1:]}


# Measured on the 300 people of PAPI (Zhu et al. 2025), kept as aggregates per facet. Facet correlations, corrected for
# reliability, were factored into five minres factors (root mean square residual 0.024), turned so that a domain is the
# sum of what its six facets share. Spreads of means and deviations are measured too; the other spreads, acquiescence,
# extremity and cuts are chosen so that the spread of the correlations between items, the share of each option and
# people's spread in it, and what one item tells about another (the floors) come out as measured.
_MEASURED_FACETS = _facet_rows("measured")

MEASURED = Figures(
    domain_correlations=(
        (1.00, 0.47, 0.12, -0.24, 0.24),
        (0.47, 1.00, 0.31, -0.62, -0.04),
        (0.12, 0.31, 1.00, -0.53, 0.40),
        (-0.24, -0.62, -0.53, 1.00, -0.10),
        (0.24, -0.04, 0.40, -0.10, 1.00),
    ),
    facets={
        facet: FacetFigures(positive, negative, deviation, correlation, tuple(loadings))
        for facet, (positive, negative, deviation, correlation, *loadings) in _MEASURED_FACETS.items()
    },
    mean_spread=0.28,
    deviation_spread=0.09,
    loading_spread=0.10,
    cross_loading=0.09,
    wording_loading=0.04,
    acquiescence=0.17,
    extremity=0.25,
    cuts=(3 - 1.66, 3 - 0.36, 3 + 0.36, 3 + 1.66),
)

# Mean and standard deviation of the facet's mean answer: Johnson's norms for the 300 items, his four groups (women and
# men, of college age and older) pooled. Reliability (coefficient alpha): the table of the 30 facet scales at
# ipip.ori.org. Loadings on A, C, E, N, O: the normative sample of the NEO PI-R, whose facets these scales measure
# (Costa & McCrae 1992; orthogonal factors).
_PUBLISHED_FACETS = _facet_rows("published")


def _published(mean: float, deviation: float, alpha: float, *loadings: float) -> FacetFigures:
    """What the published figures of a ten-item scale say about its items (Spearman-Brown; variance of a mean)."""
    correlation = alpha / (10 - 9 * alpha)
    of_an_item = deviation * math.sqrt(10 / (1 + 9 * correlation))
    # The factors explain the facet as it was measured; of what is reliable in it they explain more.
    reliable = [loading / math.sqrt(alpha) for loading in loadings]
    scale = min(1.0, math.sqrt(0.95 / sum(each**2 for each in reliable)))  # something stays the facet's own
    return FacetFigures(mean, mean, of_an_item, correlation, tuple(scale * each for each in reliable))


# No figures are published for single items here: a facet's items differ in their sign alone. Agreeing and stretching
# have no published figure either; these are common sizes, the latter wide enough for people who avoid the extremes.
PUBLISHED = Figures(
    domain_correlations=tuple(tuple(float(row == column) for column in range(5)) for row in range(5)),
    facets={facet: _published(*row) for facet, row in _PUBLISHED_FACETS.items()},
    acquiescence=0.2,
    extremity=0.35,
    cuts=(1.5, 2.5, 3.5, 4.5),
)

FIGURES: dict[str, Figures] = {"measured": MEASURED, "published": PUBLISHED}

# Mean and standard deviation over people of a facet's mean answer (ten items): Johnson's norms, pooled.
FACET_NORMS: dict[str, tuple[float, float]] = {facet: (row[0], row[1]) for facet, row in _PUBLISHED_FACETS.items()}
