"""Where numbers come from."""

import subprocess
from pathlib import Path

import pytest

from palign_bench.costs.machine import git_state, hardware

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_the_commit_is_the_checkouts() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode != 0
    assert git_state() == (head.strip(), changed)


def test_hardware_names_boards_processor_and_cores() -> None:
    boards = {"names": ["NVIDIA H100", "NVIDIA H100"], "driver": "580", "cuda": "13.0"}
    assert hardware({"processor": "Xeon", "gpus": boards, "cores": 16}) == "NVIDIA H100, Xeon, 16 cores"
    assert hardware({"processor": "Xeon", "gpus": None, "cores": 2}) == "Xeon, 2 cores"
    assert hardware({}) == "an unnamed processor, ? cores"
