"""Simulated people by the batch, with how likely each of their answers was."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palign_bench.respondents.posterior import cumulative
from palign_bench.respondents.simulated import FactorModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class People:
    """``answers``: literal, ``(people, items)``. ``chances``: of each option, ``(people, items, 5)``.

    An answer's chances are those given the person's facets and answering style: what answers teach, without the luck
    of the draw.
    """

    answers: NDArray[np.int64]
    chances: Array


def draw_people(
    model: FactorModel, count: int, generator: np.random.Generator, vagueness: Array | float = 1.0
) -> People:
    """``count`` people of the model; see `FactorModel` for how an answer comes about.

    ``vagueness``, one number or ``(count, 1)``: factor on `FactorModel.rest`; below 1, answers follow the facets
    closer.
    """
    root = np.linalg.cholesky(model.facet_correlations)
    facets = generator.standard_normal((count, len(root))) @ root.T
    expected = facets @ model.item_loadings.T + model.acquiescence * generator.standard_normal((count, 1))
    deviation = np.broadcast_to(vagueness * model.rest, expected.shape)
    stretch = np.exp(model.extremity * generator.standard_normal((count, 1)))
    latent = expected + deviation * generator.standard_normal(expected.shape)
    neutral = model.neutral_points
    stretched = neutral + stretch * (latent - neutral)
    answers = 1 + (stretched[:, :, None] > model.thresholds).sum(axis=2)
    cuts = neutral[:, None] + (model.thresholds - neutral[:, None]) / stretch[:, :, None]  # on the unstretched answer
    below = cumulative((cuts - expected[:, :, None]) / deviation[:, :, None])
    return People(answers, np.diff(below, axis=2, prepend=0.0, append=1.0))
