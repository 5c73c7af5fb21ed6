"""Answers as cuts through a normal variable: the cumulative (ordered) probit model of McCullagh (1980).

An answer is ``1 + the number of thresholds below a latent normal value``. A prediction is a row of *cuts*: the
thresholds between the options in standard deviations from the predicted mean, so that ``P(answer ≤ k) = Φ(cut k)``.
"""

import math

import torch
from torch import Tensor

PSEUDO_COUNT = 1.0  # added to each option's count, so that one never picked keeps a place


def option_shares(answers: Tensor, options: int = 5) -> Tensor:
    """How often each option 1… was picked along the last dimension, NaN left out: ``(…, n)`` to ``(…, options)``."""
    counts = torch.stack([(answers == value).sum(-1) for value in range(1, options + 1)], dim=-1).double()
    counts = counts + PSEUDO_COUNT
    return counts / counts.sum(-1, keepdim=True)


def thresholds_of(shares: Tensor) -> Tensor:
    """Thresholds that give a standard normal value these shares: ``(…, options)`` to ``(…, options − 1)``."""
    return torch.special.ndtri(shares.cumsum(-1)[..., :-1])


def normal_scores(answers: Tensor, shares: Tensor) -> Tensor:
    """Every answer's mean latent value under its row's shares: ``(rows, n)``; NaN where the answer is."""
    density = torch.exp(-(thresholds_of(shares) ** 2) / 2) / math.sqrt(2 * math.pi)
    edge = torch.zeros_like(density[..., :1])
    means = (torch.cat([edge, density], -1) - torch.cat([density, edge], -1)) / shares
    index = (torch.nan_to_num(answers, nan=1.0) - 1).long()
    return torch.where(answers.isnan(), torch.nan, means.gather(-1, index))


def variance_within(shares: Tensor) -> Tensor:
    """Variance of the latent value that is left when the answer is known, averaged over the shares: ``(…, )``."""
    values = torch.arange(1, shares.shape[-1] + 1, dtype=torch.float64).expand_as(shares)
    return 1 - (shares * normal_scores(values, shares) ** 2).sum(-1)


def cuts_of(thresholds: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Cuts ``(items, options − 1)`` of latent values with these means and variances ``(items,)``."""
    return (thresholds - mean[:, None]) / variance.sqrt()[:, None]


def medians(cuts: Tensor) -> Tensor:
    """The answer of least expected absolute error: ``(…, options − 1)`` to ``(…, )``."""
    return 1 + (cuts < 0).sum(-1)


def option_log_scores(cuts: Tensor, loss: Tensor) -> Tensor:
    """Log-probabilities of the options from A on (the highest value) that favour a small absolute error.

    ``(…, options − 1)`` to ``(…, options)``.

    A Gibbs distribution over the expected absolute error in units of ``loss``, the person's mean absolute error, which
    broadcasts. Its likeliest option is the median, which the scores reward; the probabilities' own mode would not be.
    """
    below = torch.special.ndtr(cuts)
    edge = torch.zeros_like(below[..., :1])
    shares = torch.cat([below, edge + 1], -1) - torch.cat([edge, below], -1)
    values = torch.arange(1, cuts.shape[-1] + 2, dtype=cuts.dtype)
    expected = shares @ (values[:, None] - values[None]).abs()
    return (-expected / loss[..., None]).log_softmax(-1).flip(-1)
