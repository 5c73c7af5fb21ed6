"""The benchmark measures what it says: both solvers on the same data."""

import torch

from bench.probes import synthetic_probe_data, time_probes


def test_both_solvers_see_the_same_data() -> None:
    features, labels = synthetic_probe_data(heads=3, samples=30, head_dim=4)
    assert torch.equal(features, synthetic_probe_data(heads=3, samples=30, head_dim=4)[0])
    times = time_probes(features, labels)
    assert (times.heads, times.samples) == (3, 30)
    assert times.batched_seconds > 0
    assert times.scikit_learn_seconds > 0
    assert times.ratio == times.scikit_learn_seconds / times.batched_seconds
    assert times.largest_weight_difference < 1e-2
