"""Reading W&B's files back while its service still writes them."""

from pathlib import Path

from palign_bench.tracking.wandb import WandbTracker
from tests.tracking.wandb_runs import finished_records, records


def test_a_file_cut_anywhere_has_the_whole_records_before_the_cut(tmp_path: Path) -> None:
    """W&B's service writes a file bit by bit: half a record is none yet, and no whole one is lost."""
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    tracker.start_row({}, "row", "table1", key="k", scale_of={})
    tracker.finish_row({"missing_cells": 0})
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    whole, data, cut, found = finished_records(path), path.read_bytes(), tmp_path / "cut.wandb", set()
    for length in range(7, len(data) + 1):
        cut.write_bytes(data[:length])
        read = list(records(cut))
        assert read == whole[: len(read)]
        found.add(len(read))
    assert found == set(range(len(whole) + 1))
