"""Which cells of a folder are whole. What is known of a file holds as long as its marks do not change.

The digest of verified cells is kept beside them with the marks of their files. It is derived: it may be deleted at any
time, one that cannot be read or does not fit is made anew, and of two processes that write it the later one's stays,
in which each cell still stands for itself.
"""

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from palign_bench.files import WriteError, write_atomically
from palign_bench.ledger.columns import VERSION, Digest
from palign_bench.ledger.record import Record, intact_record

# Of a cell's file, what changes when it is edited: size, times (no program can set the second), and inode.
Marks = tuple[int, ...]

KEPT = "digest.npz"
_WORTH_KEEPING = 100  # newly verified cells; fewer are verified again about as fast as a digest is written and synced
_BATCH = 500  # records in memory at a time
_UNSIGNED = 2**64 - 1  # times before 1970 and the inodes of some file systems need the 64th bit


@dataclass(frozen=True)
class KeptDigest:
    """Verified cells: the names of their files, these files' marks, and their digest, row by row."""

    names: Sequence[str]
    marks: Sequence[Marks]
    digest: Digest

    @classmethod
    def read(cls, path: Path) -> Self:
        """What is kept at ``path``; nothing where there is no file, a damaged one, or one of another version."""
        try:
            with np.load(path, allow_pickle=False) as kept:
                names = kept["names"].tobytes().decode("utf-8", "surrogateescape").split("\n")
                marks = [tuple(each) for each in kept["marks"].tolist()]
                arrays = (kept[part] for part in ("items", "answers", "truth", "figures"))
                digest = replace(Digest(*arrays), columns=tuple(kept["columns"].tolist()))
                fits = (
                    kept["version"].tolist() == [VERSION]
                    and digest.has_known_columns
                    and len(set(names)) == len(names) == len(marks)
                    and digest.figures.shape == (len(names), len(digest.columns))
                    and digest.packed_answers.shape == digest.packed_truth.shape == (len(names), len(digest.items))
                )
        except Exception:  # NumPy raises all sorts of things over a damaged file, and no digest is worth a report
            fits = False
        return cls(names, marks, digest) if fits else cls([], [], Digest.of([]))

    def write(self, path: Path) -> None:
        """Keep it. Raises WriteError where nothing can be written."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            version=np.array([VERSION]),
            columns=np.array(self.digest.columns),
            names=np.frombuffer("\n".join(self.names).encode("utf-8", "surrogateescape"), dtype=np.uint8),
            marks=np.array(self.marks, dtype=np.uint64).reshape(len(self.names), 4),
            items=self.digest.items,
            answers=self.digest.packed_answers,
            truth=self.digest.packed_truth,
            figures=self.digest.figures,
        )
        write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class VerifiedCells:
    """The names of a folder's whole cell files and of those that are none, and the digest of whole ones."""

    names: list[str]
    damaged: list[str]
    kept: KeptDigest


def verify(folder: Path, digested: bool = False) -> VerifiedCells:
    """Verify the cell files of ``folder`` that have changed since they were last verified.

    With ``digested`` the digest covers every whole cell whose record has the shape of one; else it may lack cells that
    are quickly verified again.
    """
    kept = KeptDigest.read(folder / KEPT)
    files = marks_of_cells(folder / "respondents")
    unchanged = [row for row, name in enumerate(kept.names) if files.get(name) == kept.marks[row]]
    names = [kept.names[row] for row in unchanged]
    known = set(names)
    changed = [name for name in files if name not in known]
    digesting = digested or len(changed) >= _WORTH_KEEPING
    parts, covered, damaged = [kept.digest.take(unchanged)], list(names), list[str]()
    for start in range(0, len(changed), _BATCH):
        records = {name: intact_record(folder / "respondents" / name) for name in changed[start : start + _BATCH]}
        whole = {name: record for name, record in records.items() if record is not None}
        names += whole
        damaged += [name for name in records if name not in whole]
        if digesting:
            digested_names, digest = _digest(whole)
            covered += digested_names
            parts.append(digest)
    kept = KeptDigest(covered, [files[name] for name in covered], Digest.joined(parts))
    if len(covered) - len(unchanged) >= _WORTH_KEEPING:
        with suppress(WriteError):  # of a ledger that can only be read, everything is verified again next time
            kept.write(folder / KEPT)
    return VerifiedCells(names, damaged, kept)


def marks_of_cells(folder: Path) -> dict[str, Marks]:
    """The marks of the cell files in ``folder``, by name in order; empty where there is no such folder."""
    files = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(".json") or entry.name.endswith(".error.json"):
                    continue
                with suppress(FileNotFoundError):  # set aside by another process
                    status = entry.stat()
                    marks = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                    files[entry.name] = tuple(mark & _UNSIGNED for mark in marks)
    except FileNotFoundError:
        return {}
    return dict(sorted(files.items()))


def _digest(records: Mapping[str, Record]) -> tuple[list[str], Digest]:
    """The digest of these records, and the names of those that it covers: a record of another shape has none."""
    shapes = (AttributeError, KeyError, TypeError, ValueError)
    try:
        return list(records), Digest.of(list(records.values()))
    except shapes:
        parts = {}
        for name, record in records.items():
            with suppress(*shapes):
                parts[name] = Digest.of([record])
        return list(parts), Digest.joined(list(parts.values()))
