"""Where numbers come from."""

import subprocess
from pathlib import Path

import pytest

from palign_bench.costs.machine import git_state

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout")
def test_the_commit_is_the_checkouts() -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=ROOT, check=False).returncode != 0
    assert git_state() == (head.strip(), changed)
