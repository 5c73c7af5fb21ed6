"""Runs of W&B, read back from the files that it writes offline."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")  # LevelDB's log format; checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """The whole records of a ``.wandb`` file: after a 7-byte file header, chunks in 32 KiB blocks make up records.

    A last chunk of which not every byte is there yet is still being written, and left out.
    """
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + HEADER.size <= len(data):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < HEADER.size:
            position += left_in_block
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if position + length > len(data):
            return
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def finished_records(path: Path) -> list[Any]:
    """All records of a finished run. W&B's service writes its file out a few milliseconds after ``finish`` returns."""
    for _ in range(1000):
        if path.exists() and path.stat().st_size > 7:
            found = list(records(path))
            if any(record.WhichOneof("record_type") == "exit" for record in found):
                return found
        time.sleep(0.02)
    raise AssertionError(f"{path} never received the record that ends a run")


class RunRead:
    """One run as its files tell it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        for record in finished_records(folder / f"run-{folder.name.rpartition('-')[2]}.wandb"):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                updates = record.run.config.update
                self.config.update({each.key: json.loads(each.value_json) for each in updates})
            elif kind == "history":
                self.history.append(self._items(record.history.item))
            elif kind == "summary":
                self.summary.update(self._items(record.summary.update))
                for each in record.summary.remove:
                    self.summary.pop(each.key or "/".join(each.nested_key), None)

    @staticmethod
    def _items(items: Any) -> dict[str, Any]:
        return {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}

    def table(self, name: str) -> dict[str, Any]:
        (path,) = (self.folder / "files/media/table").glob(f"{name}_*.table.json")
        return dict(json.loads(path.read_text()))


def runs_of(folder: Path) -> list[RunRead]:
    found = [RunRead(each) for each in (folder / "wandb").glob("offline-run-*")]
    return sorted(found, key=lambda read: str(read.run.job_type))  # rows, then tables
