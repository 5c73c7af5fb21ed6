"""No method mixes tensors of the model's device with tensors of the CPU; seen without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.rehearsal import PARTS

IN_SECONDS = ("answering", "training")


@pytest.mark.parametrize(
    "parts", [IN_SECONDS, pytest.param(tuple(each for each in PARTS if each not in IN_SECONDS), marks=pytest.mark.slow)]
)
def test_methods_run_on_a_device_of_its_own(parts: tuple[str, ...]) -> None:
    """In a process of its own: PyTorch cannot forget a device again."""
    program = [sys.executable, "-m", "tests.rehearsal", *parts]
    ran = subprocess.run(
        program, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = [line.split(":")[0] for line in ran.stdout.splitlines() if line.endswith("are the same")]
    assert told == list(parts) and told
