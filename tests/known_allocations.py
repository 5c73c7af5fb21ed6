"""What the memory tests run in a process of their own: allocations of a known size, seen by either mark."""

import mmap
import time
from collections.abc import Callable

from palign_bench.costs import clock as costs
from palign_bench.costs.clock import measure
from palign_bench.costs.memory import KernelMark, MemoryLevel, SampledMark, _resident_mib, bare_memory

__all__ = [
    "KernelMark",
    "SampledMark",
    "bare_memory",
    "costs",
    "leave_a_hole_in_the_heap",
    "measure",
    "near",
    "peak_above",
    "resident_mib",
    "touch",
    "use",
]
MIB = 1024 * 1024
_kept: list[bytearray] = []
resident_mib = _resident_mib


def use(mark: type[KernelMark] | type[SampledMark]) -> None:
    """Read peaks this way from now on."""
    chosen = mark()
    costs.high_water_mark = lambda: chosen  # type: ignore[assignment]


def touch(mib: int, seconds: float = 0.5) -> None:
    """Hold so much memory for a moment, every page of it written, and give it back."""
    block = bytearray(mib * MIB)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    time.sleep(seconds)  # long enough to be seen by a sample, also on a crowded machine
    del block


def leave_a_hole_in_the_heap(mib: int) -> None:
    """Free so much in the middle of glibc's heap: it stays there as one free chunk, for the next block that fits."""
    _kept.append(bytearray(20 * MIB))
    _kept.pop()  # freeing a mapped block of 20 MiB makes glibc serve smaller ones from the heap
    blocks = [bytearray(MIB) for _ in range(mib)]
    _kept.append(bytearray(MIB))  # keeps the hole from being the heap's end, which would shrink
    del blocks


def peak_above(before: MemoryLevel, block: Callable[[], None]) -> float:
    with measure() as cost:
        block()
    return cost.above(before).peak_memory_mib


def near(mib: float, expected: float) -> None:
    """Within a tenth, or 10 MiB."""
    assert abs(mib - expected) <= max(expected / 10, 10), f"{mib:.1f} MiB where {expected} were expected"
