"""What a phase costs: wall-clock seconds, peak memory and, on a GPU, energy.

`measure` times a block and finds the highest memory level inside it: of the CUDA allocator where anything lies on a GPU
(the devices' peaks summed), else the resident set of this process. Blocks may nest; an inner block never hides the
outer one's peak. Blocks that overlap in several threads share one process and so one peak. `charge` adds to the open
blocks what is counted where it arises (tokens, optimizer steps), `part` the seconds of a stretch of them.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

from palign_bench.costs.energy import joules_by_device
from palign_bench.costs.memory import MIB, HighWaterMark, MemoryLevel, gpus_in_use, high_water_mark, return_freed_memory


@dataclass
class Cost:
    """Filled in when the block ends, also when it ends in an exception.

    ``peak_memory_mib``: of what was allocated. ``reserved_memory_mib``: of what the CUDA allocator held, None on a CPU.
    ``joules``: of the GPUs in use when the block began, None where nobody counts them. ``amounts``: what was charged.
    """

    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    reserved_memory_mib: float | None = None
    joules: float | None = None
    amounts: dict[str, float] = field(default_factory=dict)
    _highest: dict[str, float] = field(default_factory=dict, init=False, repr=False)  # MiB by kind of memory, so far

    def above(self, bare: MemoryLevel) -> Self:
        """The same cost with memory counted from a level taken with `bare_memory`; never negative."""
        reserved = self.reserved_memory_mib
        if reserved is not None:
            reserved = max(reserved - bare.reserved_mib, 0.0)
        return replace(self, peak_memory_mib=max(self.peak_memory_mib - bare.mib, 0.0), reserved_memory_mib=reserved)

    def followed_by(self, later: Self) -> Self:
        """Both in one: time, energy and amounts added, the higher of each peak."""
        reserved = [c.reserved_memory_mib for c in (self, later) if c.reserved_memory_mib is not None]
        return replace(
            self,
            seconds=self.seconds + later.seconds,
            peak_memory_mib=max(self.peak_memory_mib, later.peak_memory_mib),
            reserved_memory_mib=max(reserved, default=None),
            joules=_total(self.joules, later.joules),
            amounts={n: self.amounts.get(n, 0) + later.amounts.get(n, 0) for n in self.amounts | later.amounts},
        )

    def share(self, people: int) -> Self:
        """The cost of each of several people treated at once: time, energy and amounts divided, memory shared."""
        joules = None if self.joules is None else self.joules / people
        amounts = {name: amount / people for name, amount in self.amounts.items()}
        return replace(self, seconds=self.seconds / people, joules=joules, amounts=amounts)


_open: list[Cost] = []
_lock = threading.Lock()


@contextmanager
def measure() -> Iterator[Cost]:
    """Measure the block: ``with measure() as cost: …``, then ``cost.seconds`` and ``cost.peak_memory_mib``."""
    cost = Cost()
    mark = high_water_mark()
    with _lock:
        if _open:
            _keep_peaks(mark)
        else:
            mark.start()
        return_freed_memory()  # pages that an earlier phase freed are not this one's
        _reset(mark)
        _open.append(cost)
    energy = _joules()
    _synchronize()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        try:
            _synchronize()
        finally:  # a fault on the device surfaces here, and must not leave the block open
            cost.seconds += time.perf_counter() - start
            cost.joules = _total(cost.joules, _joules_since(energy))
            with _lock:
                _keep_peaks(mark)
                # By identity: two blocks that have just begun are equal.
                _open[:] = [each for each in _open if each is not cost]
                if not _open:
                    mark.stop()
            highest = cost._highest
            cost.peak_memory_mib = highest.get("cuda") or highest["resident"]
            cost.reserved_memory_mib = highest.get("reserved") or None


def charge(seconds: float = 0.0, joules: float | None = None, **amounts: float) -> None:
    """Add amounts to the blocks open now; ``seconds`` and ``joules`` for work that was done earlier and is reused."""
    with _lock:
        for cost in _open:
            cost.seconds += seconds
            cost.joules = _total(cost.joules, joules)
            for name, amount in amounts.items():
                cost.amounts[name] = cost.amounts.get(name, 0.0) + amount


@contextmanager
def part(name: str) -> Iterator[None]:
    """Time a stretch of the blocks that are open now: their amount ``<name>_seconds`` grows."""
    _synchronize()
    start = time.perf_counter()
    try:
        yield
    finally:
        _synchronize()
        charge(**{f"{name}_seconds": time.perf_counter() - start})


def _keep_peaks(mark: HighWaterMark) -> None:
    """Credit every open block with the peaks since the last reset: all of them were open all that time."""
    allocated = sum(cuda.max_memory_allocated(device) for cuda, device in gpus_in_use()) / MIB
    reserved = sum(cuda.max_memory_reserved(device) for cuda, device in gpus_in_use()) / MIB
    for cost in _open:
        for kind, mib in {"resident": mark.read(), "cuda": allocated, "reserved": reserved}.items():
            cost._highest[kind] = max(cost._highest.get(kind, 0.0), mib)


def _joules() -> dict[int, float]:
    gpus = gpus_in_use()
    return joules_by_device(gpus[0][0], [device for _, device in gpus]) if gpus else {}


def _joules_since(before: dict[int, float]) -> float | None:
    now = _joules() if before else {}
    return sum(now[device] - before[device] for device in before) if before and before.keys() <= now.keys() else None


def _total(*joules: float | None) -> float | None:
    counted = [each for each in joules if each is not None]
    return sum(counted) if counted else None


def _reset(mark: HighWaterMark) -> None:
    mark.reset()
    for cuda, device in gpus_in_use():
        cuda.reset_peak_memory_stats(device)


def _synchronize() -> None:
    """Wait for the devices: kernels run behind the Python program, and belong to the phase that started them."""
    for cuda, device in gpus_in_use():
        cuda.synchronize(device)
