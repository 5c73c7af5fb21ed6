"""Several measurements of one thing: medians and quartiles. The record of a cell measured once looks the same."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from palign_bench.costs.clock import Cost
from palign_bench.costs.figures import BY_NAME


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, interpolated with the extremes included; of a single value, that value twice."""
    first, third = np.quantile(values, (0.25, 0.75)).tolist()
    return first, third


def median_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One cell's cost from several: the median of every number, quartiles of what varies, and how often measured.

    A figure that some repeats lack is that of the others; None where all lack it.
    """
    merged: dict[str, Any] = dict(costs[0])
    spread = {}
    for name in costs[0]:
        values = [cost[name] for cost in costs if cost[name] is not None]
        if not values or isinstance(values[0], bool):
            continue
        merged[name] = round(median(values)) if isinstance(values[0], int) else float(median(values))
        if name in BY_NAME and BY_NAME[name].varies:
            spread[name] = list(quartiles(values))
    return merged | {"cost_repeats": len(costs), "quartiles": spread}


def shared_cost(preparations: Sequence[Cost]) -> dict[str, Any]:
    """What `prepare` costs, for the ledger's shared.json."""
    return {
        "prepare_seconds": float(median(cost.seconds for cost in preparations)),
        "prepare_peak_memory_mib": max(cost.peak_memory_mib for cost in preparations),
    }
