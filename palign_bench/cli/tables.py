"""The tables that a command planned, built and printed at its end."""

from __future__ import annotations

from pathlib import Path

from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report
from palign_bench.run.session import _tracker
from palign_bench.run.shard import Shard
from palign_bench.settings import Settings


def show_tables(runs: Path, name: str, command: str, tracking: Settings, shard: str | None = None) -> int | None:
    """Build, print and track every table that has rows of this command. Returns how many of their cells are missing.

    With a shard: how many of the shard's own; the table shows what there is of all of them. None: no such table.
    """
    missing = shown = 0
    planned = any((runs / name).glob("*/plan/last.json"))  # not where every job was refused
    for plan in Plan.all(runs, name) if planned else ():
        if plan.last_command() != command:
            continue
        report, pictures, text = make_report(plan)
        print(text, flush=True)
        _tracker(tracking, runs).log_table(report.frame, pictures, report.title)
        shown += 1
        part = Shard.parse(shard)
        if part is None:
            missing += int(report.frame["missing_cells"].sum())
        else:
            missing += sum(len(cells.missing()) for cells in plan.read((part.index, part.count))[0])
    return missing if shown else None
