"""Measured blocks against known allocations, on the kernel's mark and on the sampled one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from palign_bench import costs
from palign_bench.costs import KernelMark, SampledMark, bare_memory_mib, measure


@pytest.fixture(params=[KernelMark, SampledMark])
def each_mark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test runs with both ways of reading the peak, the first where the kernel allows it."""
    if request.param is KernelMark and not KernelMark.available():
        pytest.skip("this system does not let a process reset its high-water mark")
    mark = request.param()
    monkeypatch.setattr(costs, "_mark", lambda: mark)
    yield


def touch(mib: int, seconds: float = 0.5) -> None:
    """Hold so much memory for a moment, every page of it written, and give it back."""
    block = np.ones(mib * 1024 * 1024, dtype=np.uint8)
    time.sleep(seconds)  # long enough to be seen by a sample, also on a crowded machine
    del block


def peak_above(before: float, block: Callable[[], None]) -> float:
    with measure() as cost:
        block()
    return cost.memory_above(before)


@pytest.mark.usefixtures("each_mark")
def test_peak_of_a_known_allocation_and_none_after_it() -> None:
    before = bare_memory_mib()
    assert peak_above(before, lambda: touch(200)) == pytest.approx(200, rel=0.1)
    assert peak_above(before, lambda: None) < 20  # the mark was reset: the first block's peak does not stay


@pytest.mark.usefixtures("each_mark")
def test_nested_blocks_keep_their_own_peaks() -> None:
    before = bare_memory_mib()
    with measure() as outer:
        touch(200)
        with measure() as small:
            touch(60)
        with measure() as large:
            touch(300)
        with measure() as idle:
            pass
    assert small.memory_above(before) == pytest.approx(60, rel=0.1)
    assert large.memory_above(before) == pytest.approx(300, rel=0.1)
    assert idle.memory_above(before) < 20
    assert outer.memory_above(before) == pytest.approx(300, rel=0.1)


@pytest.mark.usefixtures("each_mark")
def test_a_peak_before_an_inner_block_is_the_outer_ones() -> None:
    before = bare_memory_mib()
    with measure() as outer:
        touch(200)
        with measure():
            pass
    assert outer.memory_above(before) == pytest.approx(200, rel=0.1)


@pytest.mark.usefixtures("each_mark")
def test_costs_are_filled_in_after_an_exception_and_the_next_block_starts_afresh() -> None:
    before = bare_memory_mib()
    with pytest.raises(ZeroDivisionError), measure() as failed:
        time.sleep(0.02)
        touch(200)
        raise ZeroDivisionError
    assert failed.seconds >= 0.02
    assert failed.memory_above(before) == pytest.approx(200, rel=0.1)
    assert costs._open == []
    assert peak_above(before, lambda: None) < 20


def test_seconds_of_nested_blocks() -> None:
    with measure() as outer:
        with measure() as inner:
            time.sleep(0.05)
        time.sleep(0.05)
    assert inner.seconds >= 0.05
    assert outer.seconds >= inner.seconds + 0.05


def test_memory_above_a_level_is_never_negative() -> None:
    with measure() as cost:
        pass
    assert cost.peak_memory_mib > 0
    assert cost.memory_above(cost.peak_memory_mib + 1000) == 0


def test_measuring_does_not_import_torch() -> None:
    code = "import sys; from palign_bench.costs import measure\nwith measure(): pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class FakeCuda:
    """The calls of ``torch.cuda`` that matter, over two devices of which one is idle."""

    def __init__(self) -> None:
        self.now, self.peak, self.synchronized = 0, 0, []  # type: ignore[var-annotated]

    def allocate(self, mib: int) -> None:
        self.now += mib * 1024 * 1024
        self.peak = max(self.peak, self.now)

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def max_memory_reserved(self, device: int) -> int:
        return self.peak if device == 0 else 0

    def max_memory_allocated(self, device: int) -> int:
        return self.peak

    def memory_allocated(self, device: int) -> int:
        return self.now

    def reset_peak_memory_stats(self, device: int) -> None:
        self.peak = self.now

    def synchronize(self, device: int) -> None:
        self.synchronized.append(device)


def test_cuda_peaks_nest_and_idle_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torch:
        cuda = FakeCuda()

    monkeypatch.setitem(sys.modules, "torch", Torch)
    Torch.cuda.allocate(100)  # the bare model
    bare = bare_memory_mib()
    with measure() as outer:
        Torch.cuda.allocate(50)
        Torch.cuda.allocate(-50)
        with measure() as inner:
            Torch.cuda.allocate(20)
            Torch.cuda.allocate(-20)
    assert bare == 100
    assert (outer.memory_above(bare), inner.memory_above(bare)) == (50, 20)
    assert Torch.cuda.synchronized == [0, 0, 0, 0]


def test_cuda_peak_on_a_real_device() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    held = torch.ones(8, device="cuda")
    bare = bare_memory_mib()
    with measure() as outer:
        torch.ones(200 * 1024 * 1024, dtype=torch.uint8, device="cuda")
        with measure() as inner:
            torch.ones(50 * 1024 * 1024, dtype=torch.uint8, device="cuda")
    assert held.sum() == 8
    assert inner.memory_above(bare) == pytest.approx(50, rel=0.1)
    assert outer.memory_above(bare) == pytest.approx(200, rel=0.1)
