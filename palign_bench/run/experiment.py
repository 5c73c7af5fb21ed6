"""What one command runs: its rows, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.backbone.base import Backbone
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import PlannedCells
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.respondents.source import RespondentSource
from palign_bench.run.shard import Shard
from palign_bench.tracking.tracker import Tracker

LoadBackbone = Callable[[], tuple[Backbone, float]]


@dataclass(frozen=True)
class Row:
    """One row of a table: an aligner and everything that identifies its cells."""

    name: str
    aligner: Aligner
    identity: Mapping[str, Any]  # what the fingerprint covers
    config: Mapping[str, Any]  # the resolved configuration, for readers


@dataclass(frozen=True)
class Experiment:
    """What the rows of one command share."""

    runs: Path
    protocol: EvaluationProtocol
    source: RespondentSource
    people: Sequence[Respondent]
    model_name: str
    seed: int
    load_backbone: LoadBackbone  # loads at most once; returns the backbone and the seconds that loading took
    provenance: Mapping[str, Any]
    tracker: Tracker
    group: str
    known_answers: int | None = None  # how many of them a method is told; None: all
    repeats: int | None = None  # cost=isolated: every cell is computed so often, after a warm-up, and none taken over
    retry: str = "all"  # which missing cells are computed; see `claims.RETRIES`
    shard: Shard | None = None  # the part of a larger run that ``people`` are

    def row_name(self, row: Row) -> str:
        """What trackers call the row: method, model, protocol, seed, and the shard where there is one."""
        part = f"-{self.shard.index}of{self.shard.count}" if self.shard else ""
        return f"{row.name}-{self.model_name}-{self.protocol.name}-{self.seed}{part}"

    def tags(self, row: Row) -> tuple[str, ...]:
        """What trackers can filter the row by."""
        part = (f"shard-{self.shard.index}of{self.shard.count}",) if self.shard else ()
        return row.name, self.model_name, self.protocol.name, self.source.name, f"seed-{self.seed}", *part

    def planned(self, row: Row) -> PlannedCells:
        """The row's cell folder and the people asked for."""
        name = f"{row.name}-{self.model_name}-{self.source.name}-{self.protocol.name}"
        folder = CellFolder.open(self.runs, name, row.config, row.identity)
        return PlannedCells(row.name, folder, tuple(person.id for person in self.people))
