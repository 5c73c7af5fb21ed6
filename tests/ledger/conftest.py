"""A row's folder."""

from pathlib import Path

import pytest

from palign_bench.ledger.cells import CellFolder
from tests.ledger.cells import IDENTITY
from tests.ledgers import kept_folder


@pytest.fixture
def folder(tmp_path: Path) -> CellFolder:
    return kept_folder(tmp_path / "runs", "few_shot-tiny-simulated-corrected", IDENTITY, {"seed": 0})
