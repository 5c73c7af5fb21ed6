"""Figures about IPIP-NEO-300 from which a factor model is made (`simulated.py`): measured ones and published ones.

`MEASURED` repeats the 300 people of PAPI: for tests, and where those people cannot be had. `PUBLISHED` owes nothing to
them: what is trained on people drawn from it (`organism/`) has never seen the 300, not even as aggregates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


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
    mean_spread: float
    deviation_spread: float
    loading_spread: float
    cross_loading: float
    wording_loading: float
    acquiescence: float
    extremity: float
    cuts: tuple[float, ...]


# Measured on the 300 people of PAPI (Zhu et al. 2025), kept as aggregates per facet. Facet correlations, corrected for
# reliability, were factored into five minres factors (root mean square residual 0.024), turned so that a domain is the
# sum of what its six facets share. Spreads of means and deviations are measured too; the other spreads, acquiescence,
# extremity and cuts are chosen so that the spread of the correlations between items, the share of each option and
# people's spread in it, and what one item tells about another (the floors) come out as measured.
_MEASURED_FACETS: dict[str, tuple[float, ...]] = {
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
_PUBLISHED_FACETS: dict[str, tuple[float, ...]] = {
    "A1": (3.362, 0.754, 0.82, 0.56, 0.03, 0.22, -0.35, 0.15),
    "A2": (3.698, 0.649, 0.75, 0.68, 0.24, -0.15, -0.03, -0.11),
    "A3": (3.877, 0.648, 0.77, 0.55, 0.27, 0.52, -0.06, -0.05),
    "A4": (3.323, 0.723, 0.73, 0.77, 0.01, -0.08, -0.16, 0.00),
    "A5": (2.938, 0.702, 0.77, 0.59, -0.08, -0.12, 0.19, -0.18),
    "A6": (3.452, 0.672, 0.75, 0.62, 0.00, 0.27, 0.04, 0.13),
    "C1": (3.888, 0.576, 0.78, 0.03, 0.64, 0.17, -0.41, 0.13),
    "C2": (3.205, 0.823, 0.82, 0.01, 0.70, 0.06, 0.04, -0.19),
    "C3": (3.955, 0.592, 0.71, 0.29, 0.68, -0.04, -0.20, 0.01),
    "C4": (3.775, 0.676, 0.78, -0.13, 0.74, 0.23, -0.09, 0.15),
    "C5": (3.052, 0.831, 0.85, 0.06, 0.75, 0.17, -0.33, -0.08),
    "C6": (3.220, 0.749, 0.76, 0.22, 0.57, -0.28, -0.23, -0.04),
    "E1": (3.422, 0.821, 0.87, 0.38, 0.13, 0.66, -0.12, 0.18),
    "E2": (2.933, 0.884, 0.79, 0.07, -0.03, 0.66, -0.18, 0.04),
    "E3": (3.420, 0.761, 0.84, -0.32, 0.32, 0.44, -0.32, 0.23),
    "E4": (3.067, 0.584, 0.71, -0.27, 0.42, 0.54, 0.04, 0.16),
    "E5": (3.183, 0.825, 0.78, -0.38, -0.06, 0.58, 0.00, 0.11),
    "E6": (3.740, 0.708, 0.81, 0.10, 0.10, 0.74, -0.04, 0.19),
    "N1": (2.938, 0.802, 0.83, -0.01, -0.10, 0.02, 0.81, -0.01),
    "N2": (2.810, 0.897, 0.88, -0.48, -0.08, -0.03, 0.63, 0.01),
    "N3": (2.655, 0.954, 0.88, -0.03, -0.26, -0.10, 0.80, 0.02),
    "N4": (2.923, 0.762, 0.80, 0.04, -0.16, -0.18, 0.73, -0.09),
    "N5": (3.050, 0.689, 0.77, -0.21, -0.32, 0.35, 0.49, 0.02),
    "N6": (2.490, 0.745, 0.82, 0.04, -0.38, -0.15, 0.70, -0.09),
    "O1": (3.992, 0.703, 0.83, -0.14, -0.31, 0.18, 0.18, 0.58),
    "O2": (4.010, 0.674, 0.84, 0.17, 0.14, 0.04, 0.14, 0.73),
    "O3": (3.758, 0.681, 0.81, -0.01, 0.12, 0.41, 0.37, 0.50),
    "O4": (3.592, 0.651, 0.77, 0.04, -0.04, 0.22, -0.19, 0.57),
    "O5": (3.983, 0.701, 0.86, -0.09, 0.16, -0.01, -0.15, 0.75),
    "O6": (2.940, 0.775, 0.86, -0.07, -0.15, 0.08, -0.13, 0.49),
}


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
    mean_spread=0.0,
    deviation_spread=0.0,
    loading_spread=0.0,
    cross_loading=0.0,
    wording_loading=0.0,
    acquiescence=0.2,
    extremity=0.35,
    cuts=(1.5, 2.5, 3.5, 4.5),
)

FIGURES: dict[str, Figures] = {"measured": MEASURED, "published": PUBLISHED}
