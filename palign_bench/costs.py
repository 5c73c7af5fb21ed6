"""What a phase costs: wall-clock seconds and peak memory.

`measure` times a block and finds the highest memory level inside it: of the CUDA allocator where anything lies on a GPU
(the devices' peaks summed), else the resident set of this process. Blocks may nest; an inner block never hides the
outer one's peak. Blocks that overlap in several threads share one process and so one peak.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from types import ModuleType

MIB = 1024.0**2
_SAMPLING_SECONDS = 0.005  # between two looks at the resident set where the kernel keeps no mark that can be reset


@dataclass
class Cost:
    """Filled in when the block ends, also when it ends in an exception."""

    seconds: float = 0.0
    peak_memory_mib: float = 0.0
    _highest: dict[str, float] = field(default_factory=dict, init=False, repr=False)  # MiB by kind of memory, so far

    def memory_above(self, bare_mib: float) -> float:
        """Peak memory above a level taken with `bare_memory_mib`, in MiB; never negative."""
        return max(self.peak_memory_mib - bare_mib, 0.0)

    def _raise_to(self, peaks: dict[str, float]) -> None:
        for kind, mib in peaks.items():
            self._highest[kind] = max(self._highest.get(kind, 0.0), mib)


class _HighWaterMark(Protocol):
    """The highest resident set since the last reset, in MiB."""

    def start(self) -> None: ...

    def reset(self) -> None: ...

    def read(self) -> float: ...

    def stop(self) -> None: ...


class KernelMark:
    """Linux keeps the mark itself: VmHWM, reset by writing 5 to ``clear_refs`` (man 5 proc)."""

    _reset = Path("/proc/self/clear_refs")
    _status = Path("/proc/self/status")

    @classmethod
    def available(cls) -> bool:
        """Whether this process may reset and read its mark."""
        try:
            cls().reset()
            return cls().read() > 0
        except (OSError, ValueError):
            return False

    def start(self) -> None:
        pass

    def reset(self) -> None:
        self._reset.write_text("5")

    def read(self) -> float:
        match = re.search(r"^VmHWM:\s*(\d+) kB", self._status.read_text(), re.MULTILINE)
        if match is None:
            raise ValueError(f"{self._status} tells no VmHWM")
        return int(match.group(1)) / 1024

    def stop(self) -> None:
        pass


class SampledMark:
    """Everywhere else a thread looks at the resident set; a peak shorter than its interval can escape it."""

    def __init__(self) -> None:
        self._highest = 0.0
        self._lock = threading.Lock()  # a reset must not be undone by a look that began before it
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(self._stopped,), name="memory", daemon=True)
        self._thread.start()

    def _sample(self, stopped: threading.Event) -> None:
        while not stopped.wait(_SAMPLING_SECONDS):
            self.read()

    def reset(self) -> None:
        with self._lock:
            self._highest = _resident_mib()

    def read(self) -> float:
        with self._lock:
            self._highest = max(self._highest, _resident_mib())
            return self._highest

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


@lru_cache(maxsize=1)
def _mark() -> _HighWaterMark:
    return KernelMark() if KernelMark.available() else SampledMark()


_open: list[Cost] = []
_lock = threading.Lock()


@contextmanager
def measure() -> Iterator[Cost]:
    """Measure the block: ``with measure() as cost: …``, then ``cost.seconds`` and ``cost.peak_memory_mib``."""
    cost = Cost()
    mark = _mark()
    with _lock:
        if _open:
            _keep_peaks(mark)
        else:
            mark.start()
        _return_freed_memory()  # pages that an earlier phase freed are not this one's
        _reset(mark)
        _open.append(cost)
    _synchronize()
    start = time.perf_counter()
    try:
        yield cost
    finally:
        try:
            _synchronize()
        finally:  # a fault on the device surfaces here, and must not leave the block open
            cost.seconds = time.perf_counter() - start
            with _lock:
                _keep_peaks(mark)
                # By identity: two blocks that have just begun are equal.
                _open[:] = [each for each in _open if each is not cost]
                if not _open:
                    mark.stop()
            highest = cost._highest
            cost.peak_memory_mib = highest.get("cuda") or highest["resident"]


def bare_memory_mib() -> float:
    """The level now, in MiB, of the memory that `measure` watches: taken with the bare model loaded, to subtract.

    What earlier work has freed is first given back to the system, else a row after a greedy one would look frugal.
    """
    gc.collect()
    _return_freed_memory()
    allocated = sum(cuda.memory_allocated(device) for cuda, device in _gpus()) / MIB
    return allocated or _resident_mib()


def _return_freed_memory() -> None:
    """glibc keeps freed pages for itself until told otherwise; other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _keep_peaks(mark: _HighWaterMark) -> None:
    """Credit every open block with the peaks since the last reset: all of them were open all that time."""
    allocated = sum(cuda.max_memory_allocated(device) for cuda, device in _gpus()) / MIB
    for cost in _open:
        cost._raise_to({"resident": mark.read(), "cuda": allocated})


def _reset(mark: _HighWaterMark) -> None:
    mark.reset()
    for cuda, device in _gpus():
        cuda.reset_peak_memory_stats(device)


def _synchronize() -> None:
    """Wait for the devices: kernels run behind the Python program, and belong to the phase that started them."""
    for cuda, device in _gpus():
        cuda.synchronize(device)


def _gpus() -> list[tuple[ModuleType, int]]:
    """``torch.cuda`` with every device that holds or held anything of ours.

    Never imports torch, never starts CUDA and never touches an idle device: each of these costs memory.
    """
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # a half-imported torch has none yet
    if cuda is None or not cuda.is_initialized():
        return []
    return [(cuda, device) for device in range(cuda.device_count()) if cuda.max_memory_reserved(device)]


def _resident_mib() -> float:
    import psutil

    return float(psutil.Process(os.getpid()).memory_info().rss) / MIB
