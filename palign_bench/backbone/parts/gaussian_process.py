"""Gaussian-process regression from known items to any others, with leave-one-out predictions in closed form.

Rasmussen & Williams (2006), eqs. 2.25, 2.26 and 5.12. Its mean is that of kernel ridge regression.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """Targets fitted for several noises, all ``(noises, items)``; ``means`` and ``variances`` are leave-one-out."""

    coefficients: Tensor
    means: Tensor
    variances: Tensor


def fit(kernel: Tensor, targets: Tensor, noises: Tensor) -> Fit:
    """Fit ``targets`` ``(items,)`` with this kernel ``(items, items)``; one eigendecomposition serves every noise."""
    values, vectors = torch.linalg.eigh(kernel)
    precisions = 1 / (values.clamp_min(0) + noises[:, None])  # (noises, items)
    solved = ((targets[None] @ vectors) * precisions) @ vectors.T
    diagonal = precisions @ (vectors**2).T  # of the inverse
    return Fit(solved, targets - solved / diagonal, 1 / diagonal)


def predictive_variance(prior: Tensor, cross: Tensor, kernel: Tensor, noise: float) -> Tensor:
    """Variance of new noisy values: ``prior`` ``(new,)`` without data, ``cross`` ``(new, items)``; ``(new,)``."""
    inner = kernel + noise * torch.eye(len(kernel), dtype=kernel.dtype)
    return prior + noise - (cross * torch.linalg.solve(inner, cross.T).T).sum(-1)
