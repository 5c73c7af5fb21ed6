"""What a command planned: the rows of its table and the people of each, as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from palign_bench.files import LedgerError, read_json, write_json
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.record import Record


@dataclass(frozen=True)
class PlannedCells:
    """One row of a table: a cell folder and the respondents that the command asked for."""

    row: str
    folder: CellFolder
    respondent_ids: tuple[str, ...]

    def missing(self) -> list[str]:
        """Planned respondents without a finished cell, in plan order."""
        finished = self.folder.finished()
        return [i for i in self.respondent_ids if i not in finished]


class Plan:
    """What the last command asked for under one experiment, model and protocol; the table shows exactly this.

    Every job of a command adds its rows under the command's id, so that the jobs of a Hydra multirun (also those in
    other processes) make one table, and rows of an earlier command do not stay in it.
    """

    def __init__(self, runs: Path, experiment: str, model: str, protocol: str):
        self.runs = runs
        self.experiment = experiment
        self.model = model
        self.protocol = protocol
        self.folder = runs / experiment / f"{model}-{protocol}"

    @classmethod
    def all(cls, runs: Path, experiment: str | None) -> list[Plan]:
        """The plans of one experiment (None: of all in the ledger), one for each of its tables.

        Raises LedgerError when there is none.
        """
        folders = sorted(path.parent.parent for path in runs.glob(f"{experiment or '*'}/*/plan/last.json"))
        if not folders:
            what, name = (runs / experiment, experiment) if experiment else (runs, "table1")
            raise LedgerError(f"{what} holds no table: run `palign-bench experiment={name}` first.")
        named = [(folder.parent.name, *folder.name.rpartition("-")) for folder in folders]
        return [cls(runs, name, model, protocol) for name, model, _, protocol in named]

    def add(
        self,
        command: str,
        cells: Iterable[PlannedCells],
        order: int,
        about: Mapping[str, Any],
        shard: tuple[int, int] | None = None,
    ) -> None:
        """Store one job's rows. ``about`` describes the table: model, protocol, source of people, notes.

        ``shard``: (index, count) of the part of the people that the job has. Shards carry one command id.
        """
        rows: list[Record] = [
            {
                "row": planned.row,
                "cells": planned.folder.path.relative_to(self.runs).as_posix(),
                "respondents": list(planned.respondent_ids),
            }
            for planned in cells
        ]
        document = {"command": command, "order": order, "about": dict(about), "rows": rows}
        name = "+".join(row["row"] for row in rows) if len(rows) < 4 else rows[0]["row"] + "+more"
        if shard is not None:
            document["shard"] = list(shard)
            name += f"-{shard[0]}of{shard[1]}"
        write_json(self.folder / "plan" / f"{order:03d}-{quote(name, safe='+')}.json", document)
        write_json(self.folder / "plan" / "last.json", {"command": command})

    def last_command(self) -> str:
        """The id of the command that planned last. Raises LedgerError when there is no plan."""
        last = self.folder / "plan" / "last.json"
        if not last.exists():
            raise LedgerError(f"{self.folder} holds no plan: run the experiment first, e.g. `make table1`.")
        try:
            return str(read_json(last)["command"])
        except (KeyError, TypeError) as error:
            raise LedgerError(f"{last} is damaged: delete {last.parent} and run the same command again.") from error

    def read(self, shard: tuple[int, int] | None = None) -> tuple[list[PlannedCells], Record]:
        """The last command's rows in order (of one shard, where one is named), and what is said about them.

        Raises LedgerError when there is no plan, or none that can be read.
        """
        try:
            return self._read(shard)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise LedgerError(
                f"the plan in {self.folder / 'plan'} is damaged ({type(error).__name__}: {error}). "
                "Delete that folder and run the same command again."
            ) from error

    def _read(self, shard: tuple[int, int] | None) -> tuple[list[PlannedCells], Record]:
        command = self.last_command()
        documents = [read_json(p) for p in sorted((self.folder / "plan").glob("[0-9]*.json"))]
        documents = [d for d in documents if d["command"] == command]
        if shard is not None:
            documents = [d for d in documents if d.get("shard") == list(shard)]
        documents.sort(key=lambda d: (d["order"], d.get("shard", [0, 0])[0]))
        cells = [
            PlannedCells(row["row"], CellFolder(self.runs / row["cells"]), tuple(row["respondents"]))
            for document in documents
            for row in document["rows"]
        ]
        if not documents:
            return cells, {}
        notes = [note for document in documents for note in document["about"].get("notes", ())]
        notes += _absent_shards([d["shard"] for d in documents if "shard" in d]) if shard is None else []
        return cells, dict(documents[-1]["about"]) | ({"notes": list(dict.fromkeys(notes))} if notes else {})


def _absent_shards(planned: list[list[int]]) -> list[str]:
    """A note on the shards of one experiment that nobody has started: their people are in no row yet."""
    notes = []
    for count in sorted({count for _, count in planned}):
        absent = [str(index) for index in range(1, count + 1) if [index, count] not in planned]
        if absent:
            named = ", ".join(absent[:10]) + (" …" if len(absent) > 10 else "")
            notes.append(f"Shards not started yet: {named} of {count}; the table lacks their people.")
    return notes
