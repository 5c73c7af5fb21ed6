"""What is finished, running, failed and missing of the last commands, and how long the rest takes. Loads no model."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Plan, Row
from palign_bench.settings import counted, shortened

_SAMPLED = 100  # finished cells whose measured cost the estimate is made of
_MOST_FAILURES = 5
_LONGEST_MESSAGE = 90


class RowStatus(NamedTuple):
    """How far one row is.

    ``missing``: cells that are not finished, the failed and the running ones among them; ``seconds_left``: time for
    these one after the other, at the mean measured cost of a cell, None before the first is finished.
    """

    label: str
    planned: int
    finished: int
    running: int
    failures: dict[str, str]
    missing: int
    seconds_left: float | None


def _row_status(row: Row) -> RowStatus:
    folder, ids = row.folder, row.ids
    present, wanted = folder.finished(), set(ids)
    finished = [each for each in ids if each in present]
    failures = {each: message for each, message in folder.failures().items() if each in wanted}
    locks = folder.locks()
    locked = {path.name for path in locks.folder.glob("*.lock")}
    open_cells = {each: folder.lock_name(each) for each in ids if each not in present}
    running = [each for each, lock in open_cells.items() if lock in locked and locks.is_held(lock)]
    seconds, missing = _seconds_of_a_cell(folder, finished), len(ids) - len(finished)
    left = missing * seconds if seconds is not None else None if missing else 0.0
    return RowStatus(row.title, len(ids), len(finished), len(running), failures, missing, left)


def _seconds_of_a_cell(folder: CellFolder, finished: Sequence[str]) -> float | None:
    step = max(1, len(finished) // _SAMPLED)
    costs = [record["cost"] for each in finished[::step] if (record := folder.read(each)) is not None]
    if not costs:
        return None
    # An answer taken over from another row is charged in full but takes no time now.
    answered = [0.0 if cost["reused_answers"] else cost["answer_seconds"] for cost in costs]
    return statistics.fmean(cost["align_seconds"] + spent for cost, spent in zip(costs, answered, strict=True))


def status_of(runs: Path, name: str | None) -> str:
    """The status of one experiment, or of all in the ledger, for a terminal. Raises LedgerError when none is there."""
    return "\n\n".join(map(_table_status, Plan.all(runs, name)))


def _table_status(plan: Plan) -> str:
    planned, about = plan.read()
    rows = [_row_status(row) for row in planned]
    lines = [f"{plan.command.experiment}, {plan.name}: model {about['model']}, protocol {about['protocol']}"]
    lines.append(f"  {'':24} {'planned':>8} {'finished':>8} {'running':>8} {'failed':>8} {'missing':>8}  time left")
    for row in rows:
        counts = (row.planned, row.finished, row.running, len(row.failures), row.missing)
        left = _duration(row.seconds_left) if row.missing else "-"
        lines.append(f"  {row.label:24} {' '.join(f'{n:8}' for n in counts)}  {left}")
    lines.append(f"  {_summary(rows)}")
    lines += [f"  {note}" for note in about.get("notes", ()) if note.startswith("Shards")]
    failures = Counter(
        (row.label, shortened(message, _LONGEST_MESSAGE)) for row in rows for message in row.failures.values()
    ).most_common(_MOST_FAILURES)
    lines += [f"  failed: {label}, {count} × {message}" for (label, message), count in failures]
    if failures:
        lines.append("  The same command with retry=failed computes these alone.")
    return "\n".join(lines)


def _summary(rows: Sequence[RowStatus]) -> str:
    missing = sum(row.missing for row in rows)
    if not missing:
        return "Everything is finished."
    known = [row.seconds_left for row in rows if row.missing and row.seconds_left is not None]
    unknown = sum(row.seconds_left is None for row in rows)
    cells = counted(missing, "cell", "cells")
    if not known:
        return f"{cells} missing, of which nothing is measured yet."
    more = f", and {counted(unknown, 'row', 'rows')} of which nothing is measured yet" if unknown else ""
    return f"{cells} missing: {_duration(sum(known))} on one machine like those that computed the others{more}."


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
