"""Bootstrap intervals, paired differences and correlations over respondents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

FEWEST_FOR_AN_INTERVAL = 10
FEWEST_FOR_A_CORRELATION = 3
_CHUNK = 2_000_000  # resampled values held in memory at a time


def bootstrap_interval(
    values: ArrayLike, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of ``values`` (one per respondent), resampling respondents.

    Seeded, so that the same values always give the same interval. None below 10 respondents, where a percentile
    interval is too narrow to be told. Raises ValueError on values that are not finite.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError("a bootstrap needs one finite value per respondent")
    people = len(sample)
    if people < FEWEST_FOR_AN_INTERVAL:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, _CHUNK // people)
    for start in range(0, draws, step):
        chunk = means[start : start + step]
        chunk[:] = sample[generator.integers(0, people, (len(chunk), people))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """``first - second`` for every respondent that both hold, in the order of ``first``."""
    return {respondent: value - second[respondent] for respondent, value in first.items() if respondent in second}


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def pearson(first: ArrayLike, second: ArrayLike) -> float | None:
    """Pearson's r of two equally long samples; None below three pairs or where one of them is constant.

    Raises ValueError when the lengths differ.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a correlation needs two equally long samples, got {x.shape} and {y.shape}")
    if len(x) < FEWEST_FOR_A_CORRELATION or _constant(x) or _constant(y):
        return None
    x, y = x - x.mean(), y - y.mean()
    r = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return min(1.0, max(-1.0, r))


def _constant(sample: np.ndarray) -> bool:
    # Means of the same answers added up in another order differ in the last bits: that is no variance.
    return bool(np.ptp(sample) <= 1e-9 * max(1.0, float(np.abs(sample).max())))
