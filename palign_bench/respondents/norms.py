"""Figures about IPIP-NEO-300 from which a factor model is made (`simulated.py`): measured ones and published ones.

`MEASURED` repeats the 300 people of PAPI: for tests, and where those people cannot be had. `PUBLISHED` owes nothing to
them: what is trained on people drawn from it (`organism/`) has never seen the 300, not even as aggregates.
"""

import io
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd

DOMAINS = ["A", "C", "E", "N", "O"]


@dataclass(frozen=True)
class Figures:
    """All that the factor model takes from data; what it adds is in `simulated.py`.

    ``domain_correlations``: (5, 5), rows and columns A, C, E, N, O. ``facets``: by facet, of its ten items in the keyed
    direction: ``positive_mean`` and ``negative_mean`` of the positively and of the negatively keyed ones, ``deviation``
    (mean standard deviation of an item over people), ``correlation`` (mean between its items), and the facet's loadings
    on the domains ``A`` … ``O`` (a pattern: may exceed 1). ``mean_spread``, ``deviation_spread``: standard
    deviation, between items of one facet and sign, of their means and standard deviations. ``loading_spread``,
    ``cross_loading``, ``wording_loading``: likewise of their loadings on the facet, on each other facet, and of half
    the difference there between positively and negatively keyed items. ``acquiescence``: loading of every answer on a
    tendency to agree. ``extremity``: standard deviation of the log of a person's stretch around the neutral point.
    ``cuts``: between the five options, on an axis on which the options are 1…5.
    """

    domain_correlations: tuple[tuple[float, ...], ...]
    facets: pd.DataFrame
    acquiescence: float
    extremity: float
    cuts: tuple[float, ...]
    mean_spread: float = 0.0
    deviation_spread: float = 0.0
    loading_spread: float = 0.0
    cross_loading: float = 0.0
    wording_loading: float = 0.0


def _facets(figures: str) -> pd.DataFrame:
    """The numbers of ``data/facets_<figures>.csv`` by facet."""
    text = files("palign_bench.respondents").joinpath(f"data/facets_{figures}.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text), index_col="facet", float_precision="round_trip")


# Measured on the 300 people of PAPI (Zhu et al. 2025), kept as aggregates per facet. Facet correlations, corrected for
# reliability, were factored into five minres factors (root mean square residual 0.024), turned so that a domain is the
# sum of what its six facets share. Spreads of means and deviations are measured too; the other spreads, acquiescence,
# extremity and cuts are chosen so that the spread of the correlations between items, the share of each option and
# people's spread in it, and what one item tells about another (the floors) come out as measured.
MEASURED = Figures(
    domain_correlations=(
        (1.00, 0.47, 0.12, -0.24, 0.24),
        (0.47, 1.00, 0.31, -0.62, -0.04),
        (0.12, 0.31, 1.00, -0.53, 0.40),
        (-0.24, -0.62, -0.53, 1.00, -0.10),
        (0.24, -0.04, 0.40, -0.10, 1.00),
    ),
    facets=_facets("measured"),
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
_PUBLISHED = _facets("published")


def _of_items(scales: pd.DataFrame) -> pd.DataFrame:
    """What the published figures of ten-item scales say about their items (Spearman-Brown; variance of a mean)."""
    correlation = scales["alpha"] / (10 - 9 * scales["alpha"])
    deviation = scales["deviation"] * np.sqrt(10 / (1 + 9 * correlation))
    # The factors explain the facet as it was measured; of what is reliable in it they explain more.
    reliable = scales[DOMAINS].div(np.sqrt(scales["alpha"]), axis=0)
    scale = np.minimum(1, np.sqrt(0.95 / (reliable**2).to_numpy().sum(axis=1)))  # something stays the facet's own
    means = {"positive_mean": scales["mean"], "negative_mean": scales["mean"]}
    return pd.DataFrame(means | {"deviation": deviation, "correlation": correlation}).join(reliable.mul(scale, axis=0))


# No figures are published for single items here: a facet's items differ in their sign alone. Agreeing and stretching
# have no published figure either; these are common sizes, the latter wide enough for people who avoid the extremes.
PUBLISHED = Figures(
    domain_correlations=tuple(tuple(float(row == column) for column in range(5)) for row in range(5)),
    facets=_of_items(_PUBLISHED),
    acquiescence=0.2,
    extremity=0.35,
    cuts=(1.5, 2.5, 3.5, 4.5),
)

FIGURES: dict[str, Figures] = {"measured": MEASURED, "published": PUBLISHED}

# By facet, ``mean`` and ``deviation`` over people of the mean answer to its ten items: Johnson's norms, pooled.
FACET_NORMS = _PUBLISHED[["mean", "deviation"]]
