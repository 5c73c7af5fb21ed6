"""The benchmark measures what it says: both solvers on the same data."""

from collections.abc import Callable

import torch

from bench.__main__ import seconds_of
from bench.probes import time_probes


def test_both_solvers_see_the_same_data() -> None:
    generator, labels = torch.Generator().manual_seed(0), torch.arange(30) % 2
    features = torch.randn(3, 30, 4, generator=generator) + 0.5 * labels[:, None] + 3
    times = time_probes(features, labels, seconds_of)
    assert (times.heads, times.samples) == (3, 30)
    assert times.batched_seconds > 0
    assert times.scikit_learn_seconds > 0
    assert times.ratio == times.scikit_learn_seconds / times.batched_seconds
    assert times.largest_weight_difference < 1e-2


def test_both_are_timed_by_the_clock_that_is_given() -> None:
    told = iter([2.0, 6.0])

    def clock(work: Callable[[], object]) -> float:
        work()
        return next(told)

    times = time_probes(torch.randn(3, 30, 4), torch.arange(30) % 2, clock)
    assert (times.batched_seconds, times.scikit_learn_seconds, times.ratio) == (2.0, 6.0, 3.0)
