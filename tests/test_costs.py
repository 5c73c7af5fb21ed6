"""Measured blocks against known allocations, on the kernel's mark and on the sampled one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest

from palign_bench.costs import KernelMark, bare_memory_mib, measure


@pytest.fixture(params=["KernelMark", "SampledMark"])
def blocks(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """Run statements in a new small process, with either way of reading the peak.

    In this one, with its libraries and what a thousand tests left behind, tens of MiB come and go by themselves.
    """
    if request.param == "KernelMark" and not KernelMark.available():
        pytest.skip("this system does not let a process reset its high-water mark")

    def run(statements: str) -> None:
        code = f"from tests.known_allocations import *\nuse({request.param})\n{textwrap.dedent(statements)}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr

    yield run


def test_peak_of_a_known_allocation_and_none_after_it(blocks: Callable[[str], None]) -> None:
    blocks("""
        before = bare_memory_mib()
        near(peak_above(before, lambda: touch(200)), 200)
        near(peak_above(before, lambda: None), 0)  # the mark was reset: the first block's peak does not stay
    """)


def test_nested_blocks_keep_their_own_peaks(blocks: Callable[[str], None]) -> None:
    blocks("""
        before = bare_memory_mib()
        with measure() as outer:
            touch(200)
            with measure() as small:
                touch(60)
            with measure() as large:
                touch(300)
            with measure() as idle:
                pass
        near(small.memory_above(before), 60)
        near(large.memory_above(before), 300)
        near(idle.memory_above(before), 0)
        near(outer.memory_above(before), 300)
    """)


def test_a_peak_before_an_inner_block_is_the_outer_ones(blocks: Callable[[str], None]) -> None:
    blocks("""
        before = bare_memory_mib()
        with measure() as outer:
            touch(200)
            with measure():
                pass
        near(outer.memory_above(before), 200)
    """)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shows what glibc does")
def test_pages_that_an_earlier_block_freed_but_kept_are_not_the_next_ones(blocks: Callable[[str], None]) -> None:
    blocks("""
        leave_a_hole_in_the_heap(100)
        before = bare_memory_mib()
        with measure() as small:
            touch(60)  # fits the hole: glibc takes it from the heap, and keeps its pages when it is freed
        kept = resident_mib() - before
        assert kept > 40, kept  # else this test shows nothing
        with measure() as large:
            touch(300)
        near(small.memory_above(before), 60)
        near(large.memory_above(before), 300)
    """)


def test_costs_are_filled_in_after_an_exception_and_the_next_block_starts_afresh(
    blocks: Callable[[str], None],
) -> None:
    blocks("""
        before = bare_memory_mib()
        try:
            with measure() as failed:
                touch(200)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert failed.seconds >= 0.02
        near(failed.memory_above(before), 200)
        assert costs._open == []
        near(peak_above(before, lambda: None), 0)
    """)


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
