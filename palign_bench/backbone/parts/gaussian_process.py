"""Gaussian-process regression from known items to any others, with leave-one-out predictions in closed form.

Rasmussen & Williams (2006), eqs. 2.25, 2.26 and 5.12. Its mean is that of kernel ridge regression.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """Rows of targets fitted over the same items, for each of several noise levels.

    ``coefficients``: ``(noises, rows, items)``, 0 where the target is missing. ``means``, ``variances``: leave-one-out
    predictions of the targets from the row's others, NaN where missing.
    """

    coefficients: Tensor
    means: Tensor
    variances: Tensor


def fit(kernel: Tensor, targets: Tensor, noises: Tensor) -> Fit:
    """Fit rows ``(rows, items)`` of targets, NaN where missing, over items with this kernel ``(items, items)``.

    Rows in which the same items are missing share one eigendecomposition, which serves every noise level.
    """
    shape = (len(noises), *targets.shape)
    result = Fit(
        torch.zeros(shape).double(), torch.full(shape, torch.nan).double(), torch.full(shape, torch.nan).double()
    )
    patterns, pattern_of = targets.isnan().unique(dim=0, return_inverse=True)
    for index, missing in enumerate(patterns):
        rows, items = (pattern_of == index).nonzero()[:, 0], (~missing).nonzero()[:, 0]
        present = targets[rows][:, items]
        values, vectors = torch.linalg.eigh(kernel[items][:, items])
        precisions = 1 / (values.clamp_min(0) + noises[:, None])  # (noises, items)
        solved = ((present @ vectors) * precisions[:, None]) @ vectors.T
        diagonal = (precisions @ (vectors**2).T)[:, None]  # of the inverse
        at = torch.arange(len(noises))[:, None, None], rows[None, :, None], items[None, None, :]
        result.coefficients[at] = solved
        result.means[at] = present - solved / diagonal
        result.variances[at] = (1 / diagonal).expand_as(solved)
    return result


def predictive_variance(prior: Tensor, cross: Tensor, kernel: Tensor, noise: float) -> Tensor:
    """Variance of new noisy values: ``prior`` ``(new,)`` without data, ``cross`` ``(new, items)``; ``(new,)``."""
    inner = kernel + noise * torch.eye(len(kernel), dtype=kernel.dtype)
    return prior + noise - (cross * torch.linalg.solve(inner, cross.T).T).sum(-1)
