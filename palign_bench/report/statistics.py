"""Intervals and correlations over respondents."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # the quantiles of Student's t; scipy.stats takes half a second to import

FEWEST_FOR_A_BOOTSTRAP = 10
FEWEST_FOR_A_CORRELATION = 3
MOST_TO_DRAW = 1_000  # people; beyond, 10,000 draws of each of them would take seconds for every interval
_CHUNK = 2_000_000  # resampled values held in memory at a time
_GRID = 2**18  # points on which the distribution of a mean stands
_GRID_WIDTH = 16.0  # in standard deviations of the mean
_TOLERANCE = 1e-4  # of an interval's width, to which its ends are known where nothing is drawn


def mean_interval(
    values: ArrayLike,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float] | None:
    """Confidence interval of the mean of ``values`` (one per respondent): a percentile bootstrap over respondents.

    Seeded, so that the same values always give the same interval. Below 10 respondents, where a percentile interval is
    too narrow, Student's t, kept within the ``bounds`` of what a mean can be; None below 2. Beyond `MOST_TO_DRAW`
    respondents nothing is drawn: see `_undrawn_interval`. An end that is 0 but for rounding is 0, so that rounding
    decides nothing. Raises ValueError on values that are not finite.
    """
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or not np.isfinite(sample).all():
        raise ValueError("an interval needs one finite value per respondent")
    people = len(sample)
    if people < 2:
        return None
    if people < FEWEST_FOR_A_BOOTSTRAP:
        half = float(stdtrit(people - 1, (1 + level) / 2) * sample.std(ddof=1) / np.sqrt(people))
        return max(bounds[0], float(sample.mean()) - half), min(bounds[1], float(sample.mean()) + half)
    low, high = _undrawn_interval(sample, level) if people > MOST_TO_DRAW else _drawn(sample, level, draws, seed)
    near = _TOLERANCE * (high - low)
    return 0.0 if abs(low) <= near else low, 0.0 if abs(high) <= near else high


def _drawn(sample: NDArray[np.float64], level: float, draws: int, seed: int) -> tuple[float, float]:
    people, generator = len(sample), np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, _CHUNK // people)
    for start in range(0, draws, step):
        chunk = means[start : start + step]
        chunk[:] = sample[generator.integers(0, people, (len(chunk), people))].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _undrawn_interval(sample: NDArray[np.float64], level: float) -> tuple[float, float]:
    """What `mean_interval` tends to with the number of draws, to `_TOLERANCE`.

    A resampled sum is one of n independent draws from the sample, so its distribution is the sample's convolved n times
    with itself: the n-th power of its Fourier transform. Values stand on a grid from their median, which most people
    may share and which is met exactly, each between two points shared by both so that the mean stays; sums further off
    than the grid is wide come round again, but have no mass. The time grows with the people alone, and unlike a normal
    interval it is right for lumpy differences too.
    """
    people, origin = len(sample), float(np.median(sample))
    step = _GRID_WIDTH * sample.std() * np.sqrt(people) / _GRID
    if step == 0:
        return origin, origin
    below, share = np.divmod((sample - origin) / step, 1.0)
    weights = np.zeros(_GRID)
    for point, weight in ((below, 1 - share), (below + 1, share)):
        weights += np.bincount(point.astype(np.int64) % _GRID, weight / people, minlength=_GRID)
    first = round(people * (sample.mean() - origin) / step) - _GRID // 2  # of the points around the expected sum
    sums = np.roll(np.fft.irfft(np.fft.rfft(weights) ** people, _GRID), -first)
    low, high = first + np.searchsorted(np.cumsum(sums), [(1 - level) / 2, (1 + level) / 2])
    return float(origin + low * step / people), float(origin + high * step / people)


def mean(values: Sequence[float] | NDArray[np.floating[Any]]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return float(np.mean(values)) if len(values) else None


def pearson(first: ArrayLike, second: ArrayLike) -> float | None:
    """Pearson's r of two equally long samples; None below three pairs or where one of them is constant.

    Raises ValueError when the lengths differ.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a correlation needs two equally long samples, got {x.shape} and {y.shape}")
    if len(x) < FEWEST_FOR_A_CORRELATION or not (varies(x) and varies(y)):
        return None
    x, y = x - x.mean(), y - y.mean()
    r = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return min(1.0, max(-1.0, r))


def varies(sample: NDArray[np.floating[Any]]) -> bool:
    """Whether a sample has variance; nothing has none."""
    # Means of the same answers added up in another order differ in the last bits: that is no variance.
    return len(sample) > 0 and bool(np.ptp(sample) > 1e-9 * max(1.0, float(np.abs(sample).max())))
