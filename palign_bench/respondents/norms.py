"""Norms of IPIP-NEO-300 from which a factor model is made (`simulated.py`): measured ones and published ones.

``measured`` repeats the 300 people of PAPI: for tests, and where those people cannot be had. ``published`` owes nothing
to them: what is trained on people drawn from it (`organism/`) has never seen the 300, not even as aggregates. Where the
numbers come from is said beside them, in ``data/norms.yaml``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

DOMAINS = ["A", "C", "E", "N", "O"]


@dataclass(frozen=True)
class Norms:
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

    domain_correlations: list[list[float]]
    facets: pd.DataFrame
    acquiescence: float
    extremity: float
    cuts: list[float]
    mean_spread: float
    deviation_spread: float
    loading_spread: float
    cross_loading: float
    wording_loading: float


def _of_items(scales: pd.DataFrame) -> pd.DataFrame:
    """What the published figures of ten-item scales say about their items (Spearman-Brown; variance of a mean)."""
    correlation = scales["alpha"] / (10 - 9 * scales["alpha"])
    deviation = scales["deviation"] * np.sqrt(10 / (1 + 9 * correlation))
    # The factors explain the facet as it was measured; of what is reliable in it they explain more.
    reliable = scales[DOMAINS].div(np.sqrt(scales["alpha"]), axis=0)
    scale = np.minimum(1, np.sqrt(0.95 / (reliable**2).to_numpy().sum(axis=1)))  # something stays the facet's own
    means = {"positive_mean": scales["mean"], "negative_mean": scales["mean"]}
    return pd.DataFrame(means | {"deviation": deviation, "correlation": correlation}).join(reliable.mul(scale, axis=0))


_DATA = Path(__file__).parent / "data"
_measured, _published = (
    pd.read_csv(_DATA / f"facets_{name}.csv", index_col="facet", dtype=str).astype(float)  # to the last bit
    for name in ("measured", "published")
)
_read = yaml.safe_load((_DATA / "norms.yaml").read_text(encoding="utf-8"))

NORMS: dict[str, Norms] = {
    "measured": Norms(facets=_measured, **_read["measured"]),
    "published": Norms(facets=_of_items(_published), **_read["published"]),
}

# By facet, ``mean`` and ``deviation`` over people of the mean answer to its ten items: Johnson's norms, pooled.
FACET_NORMS = _published[["mean", "deviation"]]
