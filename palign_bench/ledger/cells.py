"""runs/ on disk: finished cells, failures, provenance, and what is left to do.

A *cell* is one aligner × backbone × respondents source × protocol × seed × respondent. Cells that share everything
but the respondent share a folder, ``runs/cells/<method>-<model>-<respondents>-<protocol>-<fingerprint>/``; the
fingerprint is a hash of everything that can change a number. A finished cell is one file, written to a temporary name,
synced and renamed, so that a process killed at any moment leaves either a whole cell or none.
"""

import hashlib
import json
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import yaml

from palign_bench.files import LedgerError, canonical, read_json, write_atomically, write_json
from palign_bench.ledger.columns import Digest
from palign_bench.ledger.index import verify
from palign_bench.ledger.locks import CellLocks, guarded
from palign_bench.ledger.record import Record, content_of, file_name, intact_record, respondent_of


def fingerprint(config: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that change with anything in ``config``."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class CellFolder:
    """The cells of one method × model × respondents × protocol × settings; one file a respondent."""

    path: Path

    @classmethod
    def at(cls, runs: Path, name: str, identity: Mapping[str, Any]) -> Self:
        """The folder ``runs/cells/<name>-<fingerprint of identity>/``, whether it is there yet or not."""
        return cls(runs / "cells" / f"{quote(name, safe='')}-{fingerprint(identity)}")

    def keep(self, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Make the folder and keep in it whose cells they are, unless that is there already."""
        if not (self.path / "config.yaml").exists():
            config_text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
            write_atomically(self.path / "config.yaml", config_text)
        if not (self.path / "identity.json").exists():
            write_json(self.path / "identity.json", dict(identity))

    def identity(self) -> Record:
        """Everything that the fingerprint covers. Raises LedgerError for a damaged file, as all of these do."""
        path = self.path / "identity.json"
        return _record(path, read_json(path))

    def config(self) -> Record:
        """The settings of the command that opened the folder."""
        path = self.path / "config.yaml"
        try:
            return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise LedgerError(f"cannot read {path}: delete it and run the same command again.") from error

    def cell_bytes(self, respondent_ids: Iterable[str]) -> list[int]:
        """The sizes of these finished cells' files."""
        return [self._file(respondent_id).stat().st_size for respondent_id in respondent_ids]

    def _file(self, respondent_id: str, suffix: str = ".json") -> Path:
        return self.path / "respondents" / file_name(respondent_id, suffix)

    def finished(self) -> set[str]:
        """Ids with a whole, untouched record. A damaged one is set aside as ``*.damaged`` and said so on stderr."""
        verified = verify(self.path)
        whole = set(verified.names)
        for name in verified.damaged:
            path = self.path / "respondents" / name
            if intact_record(path) is None:
                self._set_aside(path)
            else:  # another process has computed it anew since
                whole.add(name)
        return set(map(respondent_of, whole))

    def digest(self, respondent_ids: Iterable[str]) -> tuple[list[str], Digest]:
        """The finished among these, in order, and their digest. Only reads, never repairs.

        Raises LedgerError for a whole record that is not one of a cell.
        """
        verified = verify(self.path, digested=True)
        rows = {respondent_of(name): row for row, name in enumerate(verified.kept.names)}
        strange = {respondent_of(name) for name in verified.names}.difference(rows)
        found = []
        for respondent_id in respondent_ids:
            if respondent_id in strange:
                raise LedgerError(
                    f"{self._file(respondent_id)} is no record of a cell: delete it and run the same command again."
                )
            if respondent_id in rows:
                found.append(respondent_id)
        return found, verified.kept.digest.take([rows[each] for each in found])

    @staticmethod
    def _set_aside(path: Path) -> None:
        aside = path.with_suffix(".damaged")
        what = f"set aside as {aside.name}, will be computed again"
        try:
            path.replace(aside)
        except FileNotFoundError:  # another process has just done so
            return
        except OSError as error:  # a ledger that can only be read
            what = f"counts as missing; it stays, as nothing can be written here ({error.strerror})"
        print(f"{path} was damaged or edited: {what}", file=sys.stderr)

    def record(self, respondent_id: str, body: Record) -> None:
        """Store a finished cell and forget an earlier failure of it."""
        write_atomically(self._file(respondent_id), content_of(body))
        self._file(respondent_id, ".error.json").unlink(missing_ok=True)

    def read(self, respondent_id: str) -> Record | None:
        """A finished cell's record, or None when there is no whole one."""
        return intact_record(self._file(respondent_id))

    def read_all(self, respondent_ids: Iterable[str]) -> Iterator[tuple[str, Record]]:
        """The finished records among these, in order."""
        for respondent_id in respondent_ids:
            record = self.read(respondent_id)
            if record is not None:
                yield respondent_id, record

    def fail(self, respondent_id: str, error: BaseException) -> None:
        """Leave a failed cell's traceback."""
        write_json(
            self._file(respondent_id, ".error.json"),
            {"error": f"{type(error).__name__}: {error}", "traceback": "".join(traceback.format_exception(error))},
        )

    def failures(self) -> dict[str, str]:
        """Error message by respondent id, for cells that failed and have not been finished since."""
        found = {}
        for path in sorted((self.path / "respondents").glob("*.error.json")):
            respondent_id = respondent_of(path.name)
            if not self._file(respondent_id).exists():  # a kill between the two steps of `record` leaves both files
                try:
                    found[respondent_id] = str(json.loads(path.read_text(encoding="utf-8"))["error"])
                except FileNotFoundError:  # finished a moment ago, by another process
                    continue
                except (OSError, ValueError, KeyError, TypeError, RecursionError):
                    found[respondent_id] = f"unreadable {path.name}"
        return found

    def failure_mark(self, respondent_id: str) -> tuple[int, int] | None:
        """What changes when a cell fails once more, None while it has not: no clock tells which failure is new."""
        try:
            status = self._file(respondent_id, ".error.json").stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def failure_marks(self) -> dict[str, tuple[int, int]]:
        """`failure_mark` of every cell that has one, by respondent id: one look at the folder, however many cells."""
        failed = (respondent_of(path.name) for path in (self.path / "respondents").glob("*.error.json"))
        return {each: mark for each in failed if (mark := self.failure_mark(each)) is not None}

    def locks(self) -> CellLocks:
        """The locks of this folder's cells, under `lock_name`."""
        return CellLocks(self.path / "locks")

    def lock_name(self, respondent_id: str) -> str:
        """The file name of a cell's lock."""
        return self._file(respondent_id, ".lock").name

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Keep where the numbers come from; a later run from another commit adds an entry, none is overwritten."""
        path = self.path / "provenance.json"
        with guarded(self.path / "locks" / ".guard"):  # of two processes that add theirs, neither forgets the other's
            entries = self.provenance()
            if dict(provenance) not in entries:
                write_json(path, [*entries, dict(provenance)])

    def provenance(self) -> list[Record]:
        """What `write_provenance` kept."""
        return self._records("provenance.json")

    def write_shared(self, cost: Mapping[str, Any]) -> None:
        """Keep the cost of load and prepare, shared by all respondents; the first measurement stays."""
        if not (self.path / "shared.json").exists():
            write_json(self.path / "shared.json", dict(cost))

    def add_measurement(self, conditions: Mapping[str, Any]) -> None:
        """Keep under what conditions costs are measured at this moment (cost=isolated), beside those of before."""
        with guarded(self.path / "locks" / ".guard"):
            write_json(self.path / "measurement.json", [*self.measurement(), dict(conditions)])

    def measurement(self) -> list[Record]:
        """What `add_measurement` kept, in order; empty where the costs were taken in passing."""
        return self._records("measurement.json")

    def shared(self) -> Record:
        """What `write_shared` kept."""
        try:
            return _record(self.path / "shared.json", self._kept("shared.json", otherwise={}))
        except LedgerError as error:
            raise LedgerError(
                f"{self.path / 'shared.json'} is damaged: delete it. The table then lacks the seconds of loading and "
                "preparing until a cell beside it is computed anew."
            ) from error

    def _records(self, name: str) -> list[Record]:
        """The records in a JSON list beside the cells."""
        kept = self._kept(name, otherwise=[])
        return [_record(self.path / name, each) for each in (kept if isinstance(kept, list) else [None])]

    def _kept(self, name: str, otherwise: Any) -> Any:
        """A JSON file beside the cells, if there is one."""
        path = self.path / name
        return read_json(path) if path.exists() else otherwise


def _record(path: Path, kept: Any) -> Record:
    if not isinstance(kept, dict):
        raise LedgerError(f"{path} is damaged: delete it and run the same command again.")
    return kept
