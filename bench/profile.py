"""Where the time of answering, of PAS and of training goes, operator by operator."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

ROWS = 14


def profiled(title: str, work: Callable[[], Any]) -> str:
    """Run ``work`` under torch's profiler: wall-clock seconds, the share of matrix products, and the largest operators.

    Shares are of the operators' own time, on the GPU where there is one.
    """
    on_cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_cuda else [])
    with profile(activities=activities) as recorded:
        started = time.perf_counter()
        work()
        if on_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    column = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    found: list[Any] = sorted(recorded.key_averages(), key=lambda each: getattr(each, column), reverse=True)
    total = sum(getattr(each, column) for each in found)
    lines = [f"{title}: {seconds:.2f} s, of which {total / 1e6:.2f} s in operators", ""]
    lines += [f"{'operator':48} {'share':>6} {'seconds':>8} {'calls':>7}"]
    for each in found[:ROWS]:
        own = getattr(each, column)
        lines.append(f"{each.key[:48]:48} {own / total:6.1%} {own / 1e6:8.3f} {each.count:7d}")
    return "\n".join(lines) + "\n"
