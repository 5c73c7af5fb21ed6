"""Peak memory of a block: the kernel's high-water mark, or a sampling thread where it keeps none; GPUs beside it."""

import ctypes
import gc
import os
import re
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

MIB = 1024.0**2


_SAMPLING_SECONDS = 0.005  # between two looks at the resident set where the kernel keeps no mark that can be reset


@dataclass(frozen=True)
class MemoryLevel:
    """Memory in use at one moment, in MiB; ``reserved_mib`` is the CUDA allocator's, 0 on a CPU."""

    mib: float
    reserved_mib: float = 0.0


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


HighWaterMark = KernelMark | SampledMark  # the highest resident set since the last reset, in MiB


@lru_cache(maxsize=1)
def high_water_mark() -> HighWaterMark:
    """This process's, kept by the kernel where that can be reset."""
    return KernelMark() if KernelMark.available() else SampledMark()


def bare_memory(collect: bool = True) -> MemoryLevel:
    """The level now of the memory that `measure` watches: taken with the bare model loaded, to subtract.

    What earlier work has freed is first given back to the system, else a row after a greedy one would look frugal.
    ``collect``: false where nothing since the last call can have left much; a collection takes a fifth of a second.
    """
    if collect:
        gc.collect()
    return_freed_memory()
    for cuda, _ in gpus_in_use()[:1]:
        cuda.empty_cache()
    allocated = sum(cuda.memory_allocated(device) for cuda, device in gpus_in_use()) / MIB
    reserved = sum(cuda.memory_reserved(device) for cuda, device in gpus_in_use()) / MIB
    return MemoryLevel(allocated or _resident_mib(), reserved)


def return_freed_memory() -> None:
    """glibc keeps freed pages for itself until told otherwise; other C libraries have no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def gpus_in_use() -> list[tuple[ModuleType, int]]:
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
