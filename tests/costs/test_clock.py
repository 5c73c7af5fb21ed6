"""Measured blocks against known allocations, on the kernel's mark and on the sampled one."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace

import pytest

from palign_bench.costs.clock import Cost, charge, measure, part
from palign_bench.costs.memory import KernelMark, MemoryLevel, bare_memory


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
        before = bare_memory()
        near(peak_above(before, lambda: touch(200)), 200)
        near(peak_above(before, lambda: None), 0)  # the mark was reset: the first block's peak does not stay
    """)


def test_nested_blocks_keep_their_own_peaks(blocks: Callable[[str], None]) -> None:
    blocks("""
        before = bare_memory()
        with measure() as outer:
            touch(200)
            with measure() as small:
                touch(60)
            with measure() as large:
                touch(300)
            with measure() as idle:
                pass
        near(small.above(before).peak_memory_mib, 60)
        near(large.above(before).peak_memory_mib, 300)
        near(idle.above(before).peak_memory_mib, 0)
        near(outer.above(before).peak_memory_mib, 300)
    """)


def test_a_peak_before_an_inner_block_is_the_outer_ones(blocks: Callable[[str], None]) -> None:
    blocks("""
        before = bare_memory()
        with measure() as outer:
            touch(200)
            with measure():
                pass
        near(outer.above(before).peak_memory_mib, 200)
    """)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shows what glibc does")
def test_pages_that_an_earlier_block_freed_but_kept_are_not_the_next_ones(blocks: Callable[[str], None]) -> None:
    blocks("""
        leave_a_hole_in_the_heap(100)
        before = bare_memory()
        with measure() as small:
            touch(60)  # fits the hole: glibc takes it from the heap, and keeps its pages when it is freed
        kept = resident_mib() - before.mib
        assert kept > 40, kept  # else this test shows nothing
        with measure() as large:
            touch(300)
        near(small.above(before).peak_memory_mib, 60)
        near(large.above(before).peak_memory_mib, 300)
    """)


def test_costs_are_filled_in_after_an_exception_and_the_next_block_starts_afresh(
    blocks: Callable[[str], None],
) -> None:
    blocks("""
        before = bare_memory()
        try:
            with measure() as failed:
                touch(200)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        assert failed.seconds >= 0.02
        near(failed.above(before).peak_memory_mib, 200)
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
    assert cost.above(MemoryLevel(cost.peak_memory_mib + 1000)).peak_memory_mib == 0


def test_measuring_does_not_import_torch() -> None:
    code = (
        "import sys; from palign_bench.costs.clock import measure\n"
        "with measure(): pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class FakeCuda:
    """The calls of ``torch.cuda`` that matter, over two devices of which one is idle."""

    def __init__(self) -> None:
        self.now, self.peak, self.reserved, self.synchronized = 0, 0, 0, []  # type: ignore[var-annotated]

    def allocate(self, mib: int) -> None:
        self.now += mib * 1024 * 1024
        self.peak = max(self.peak, self.now)
        self.reserved = max(self.reserved, 2 * self.now)  # an allocator that takes twice what it needs, and keeps it

    def empty_cache(self) -> None:
        self.reserved = 2 * self.now

    def memory_reserved(self, device: int) -> int:
        return self.reserved if device == 0 else 0

    def get_device_properties(self, device: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"0000-{device}")

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def max_memory_reserved(self, device: int) -> int:
        return self.reserved if device == 0 else 0

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
    bare = bare_memory()
    with measure() as outer:
        Torch.cuda.allocate(50)
        Torch.cuda.allocate(-50)
        with measure() as inner:
            Torch.cuda.allocate(20)
            Torch.cuda.allocate(-20)
    assert bare.mib == 100
    assert (outer.above(bare).peak_memory_mib, inner.above(bare).peak_memory_mib) == (50, 20)
    assert Torch.cuda.synchronized == [0, 0, 0, 0]


def test_reserved_memory_is_the_allocators_above_what_it_holds_for_the_bare_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Torch:
        cuda = FakeCuda()

    monkeypatch.setitem(sys.modules, "torch", Torch)
    Torch.cuda.allocate(400)  # an earlier method's, given back
    Torch.cuda.allocate(-300)
    bare = bare_memory()
    with measure() as cost:
        Torch.cuda.allocate(50)
        Torch.cuda.allocate(-50)
    assert (bare.mib, bare.reserved_mib) == (100, 200)
    assert (cost.above(bare).peak_memory_mib, cost.above(bare).reserved_memory_mib) == (50, 100)


def test_energy_is_the_counters_difference_over_the_devices_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torch:
        cuda = FakeCuda()

    class Nvml(ModuleType):
        """Counts 3 J a look on the first board; the second is never asked."""

        NVMLError = type("NVMLError", (Exception,), {})
        millijoules = 1_000_000
        tells = True

        def nvmlInit(self) -> None: ...  # noqa: N802

        def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
            assert uuid == "GPU-0000-0"
            return uuid

        def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
            if not self.tells:
                raise self.NVMLError
            self.millijoules += 3000
            return self.millijoules

    monkeypatch.setitem(sys.modules, "torch", Torch)
    monkeypatch.setitem(sys.modules, "pynvml", Nvml("pynvml"))
    with measure() as cost:
        pass
    assert cost.joules is None, "no device is in use"
    Torch.cuda.allocate(1)
    with measure() as cost:
        pass
    assert cost.joules == 3
    assert cost.share(4).joules == 0.75
    with measure() as cost:
        charge(joules=40.0)
    assert cost.joules == 43, "reused work's beside what was counted"
    monkeypatch.setattr(Nvml, "tells", False)
    with measure() as cost:
        pass
    assert cost.joules is None
    with measure() as cost:
        charge(seconds=1.0)
        charge(joules=40.0)
    assert cost.joules == 40


def test_a_part_is_charged_to_every_open_block() -> None:
    with measure() as outer:
        with measure() as closed:
            pass
        with measure() as inner, part("search"):
            time.sleep(0.03)
        with part("search"):
            time.sleep(0.02)
    assert closed.amounts == {}
    assert 0.03 <= inner.amounts["search_seconds"] <= inner.seconds
    assert inner.amounts["search_seconds"] + 0.02 <= outer.amounts["search_seconds"] <= outer.seconds


def test_what_is_charged_reaches_every_open_block_and_no_other() -> None:
    charge(tokens_read=1000)
    with measure() as outer:
        charge(tokens_read=5)
        with measure() as inner:
            charge(seconds=60.0, tokens_read=2, optimizer_steps=3)
    assert inner.amounts == {"tokens_read": 2, "optimizer_steps": 3} and 60 <= inner.seconds < 61
    assert outer.amounts == {"tokens_read": 7, "optimizer_steps": 3} and 60 <= outer.seconds < 61


def test_two_phases_in_one_and_a_cohort_s_share() -> None:
    first = Cost(seconds=2.0, peak_memory_mib=5.0, reserved_memory_mib=9.0, joules=4.0, amounts={"tokens_read": 3.0})
    second = Cost(seconds=1.0, peak_memory_mib=7.0, amounts={"tokens_read": 4.0, "search_seconds": 0.5})
    both = first.followed_by(second)
    assert (both.seconds, both.peak_memory_mib, both.reserved_memory_mib, both.joules) == (3.0, 7.0, 9.0, 4.0)
    assert both.amounts == {"tokens_read": 7.0, "search_seconds": 0.5}
    nothing = Cost(amounts={"tokens_generated": 0.0})
    assert nothing.followed_by(nothing).amounts == {"tokens_generated": 0.0}, "counted, and none"
    assert second.followed_by(second).joules is None
    share = Cost(seconds=8.0, peak_memory_mib=5.0, amounts={"search_seconds": 4.0}).share(4)
    assert (share.seconds, share.peak_memory_mib, share.joules) == (2.0, 5.0, None)
    assert share.amounts == {"search_seconds": 1.0}


def test_cuda_peak_on_a_real_device() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    held = torch.ones(8, device="cuda")
    bare = bare_memory()
    with measure() as outer:
        torch.ones(200 * 1024 * 1024, dtype=torch.uint8, device="cuda")
        with measure() as inner:
            torch.ones(50 * 1024 * 1024, dtype=torch.uint8, device="cuda")
    assert held.sum() == 8
    assert inner.above(bare).peak_memory_mib == pytest.approx(50, rel=0.1)
    assert outer.above(bare).peak_memory_mib == pytest.approx(200, rel=0.1)
