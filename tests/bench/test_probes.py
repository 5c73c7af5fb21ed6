"""The benchmark measures what it says: both solvers on the same data."""

import torch

from bench.probes import time_probes


def test_both_solvers_see_the_same_data() -> None:
    generator, labels = torch.Generator().manual_seed(0), torch.arange(30) % 2
    features = torch.randn(3, 30, 4, generator=generator) + 0.5 * labels[:, None] + 3
    times = time_probes(features, labels)
    assert (times.heads, times.samples) == (3, 30)
    assert times.batched_seconds > 0
    assert times.scikit_learn_seconds > 0
    assert times.ratio == times.scikit_learn_seconds / times.batched_seconds
    assert times.largest_weight_difference < 1e-2
