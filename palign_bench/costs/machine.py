"""Where a number comes from: code, packages, hardware. Recorded beside the cells, and no part of their identity."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from palign_bench.costs.energy import driver_version

PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "hydra-core", "wandb")
TOLD_PACKAGES = ("palign-bench", "torch", "transformers", "trl", "peft")  # whose versions are told where they differ


def provenance() -> dict[str, Any]:
    """Git commit and dirty flag (None outside a checkout), packages, Python, platform, processor, GPUs, cores."""
    commit, dirty = git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "packages": {name: version_of(name) for name in ("palign-bench", *PACKAGES)},
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": processor(),
        "gpus": gpus(),
        "cores": os.cpu_count(),
    }


def machine_state() -> dict[str, Any]:
    """What may slow a measurement down at this moment: load averages, processor clock (MHz), memory, threads.

    None where the system does not tell.
    """
    import psutil
    import torch

    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_averages": list(psutil.getloadavg()),
        "processor_mhz": frequency.current if frequency else None,
        "memory_total_mib": psutil.virtual_memory().total / 2**20,
        "torch_threads": torch.get_num_threads(),
    }


def git_state() -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; (None, None) when the code is in no git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):  # no git program, or no commit yet
        return None, None


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def gpus() -> dict[str, Any] | None:
    """Names of the visible GPUs, their driver (None if NVML does not tell) and torch's CUDA; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"names": names, "driver": driver_version(), "cuda": torch.version.cuda}


def hardware(origin: Mapping[str, Any]) -> str:
    """GPUs, processor and cores of what `provenance` gave, in words."""
    names = [*(origin.get("gpus") or {}).get("names", ()), origin.get("processor", "an unnamed processor")]
    return ", ".join([*dict.fromkeys(names), f"{origin.get('cores', '?')} cores"])


def version_of(name: str) -> str | None:
    """The version of an installed package; None for one that is not."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
