"""Medians and quartiles of repeated measurements."""

import numpy as np
import pytest

from palign_bench.costs.clock import Cost
from palign_bench.costs.repeats import median_cost, quartiles, shared_cost


@pytest.mark.parametrize("values", [[1.0], [4.0, 1.0], [5.0, 1.0, 2.0], [3.0, 9.0, 1.0, 2.0], list(range(11))])
def test_quartiles_are_numpy_s(values: list[float]) -> None:
    assert quartiles(values) == pytest.approx(tuple(np.percentile(values, [25, 75])))


def test_the_median_of_every_number_and_the_spread_of_what_varies() -> None:
    costs = [
        {"align_seconds": seconds, "tokens_read": 7, "joules": None, "reused_answers": False, "optimizer_steps": 2}
        for seconds in (9.0, 1.0, 2.0)
    ]
    assert median_cost(costs) == {
        "align_seconds": 2.0,
        "tokens_read": 7,
        "joules": None,
        "reused_answers": False,
        "optimizer_steps": 2,
        "cost_repeats": 3,
        "quartiles": {"align_seconds": [1.5, 5.5]},
    }


def test_preparation() -> None:
    cost = shared_cost([Cost(seconds=3.0, peak_memory_mib=1.0), Cost(seconds=1.0, peak_memory_mib=4.0)])
    assert cost == {"prepare_seconds": 2.0, "prepare_peak_memory_mib": 4.0}


def test_a_repeat_that_lacks_a_figure_leaves_it_to_the_others() -> None:
    """NVML's counter can fail once: 5 and 9 joules are 7, and nobody's are nobody's."""
    for joules in ([None, 5.0, 9.0], [5.0, None, 9.0], [9.0, 5.0, None]):
        cost = median_cost([{"joules": each, "tokens_per_step": None} for each in joules])
        assert cost["joules"] == 7.0 and cost["quartiles"] == {"joules": [6.0, 8.0]}
        assert cost["tokens_per_step"] is None and cost["cost_repeats"] == 3
