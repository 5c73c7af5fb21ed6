"""The rows of a table while the command still computes the others: one line as each finishes, now and then all of them.

What is told is computed as the table at the end is, from the ledger alone.
"""

import time
from collections.abc import Collection, Mapping
from typing import Any

from palign_bench.ledger.plan import Command, Row
from palign_bench.report.document import Document, Table, terminal
from palign_bench.report.names import CHECKS
from palign_bench.report.table import Report, build_report
from palign_bench.report.words import interval_text
from palign_bench.settings import counted

SECONDS_BETWEEN = 60.0  # two tables of all rows so far; between them each row has a line
_MOST_OF_THE_TIME = 0.1  # that reading the ledger for this may take, of a command over very many people


class Standings:
    """What a command tells of its finished rows, the best first."""

    def __init__(self, command: Command):
        self.command = command
        self._shown: float | None = None  # when the last table of all rows was
        self._free = 0.0  # when the ledger may be read again

    def after(self, rows: Collection[Row], last: bool) -> str:
        """What to tell once these rows have been computed; nothing after the last ones, which the table follows."""
        started = time.monotonic()
        if last or started < self._free:
            return ""
        folders = {row.folder for row in rows}
        plans = [plan for plan in self.command.tables() if folders & {row.folder for row in plan.read()[0]}]
        reports = [build_report(plan) for plan in plans[:1]]
        self._free = time.monotonic() + (time.monotonic() - started) / _MOST_OF_THE_TIME
        if not reports or any(row.variant or row.intervention for row in reports[0].read):
            return ""  # these have tables of another form
        if self._shown is None or started - self._shown >= SECONDS_BETWEEN:
            self._shown = started
            return so_far(reports[0])
        new = {row.name for row in rows}
        return "\n".join(line_of(reports[0], row) for row in ranked(reports[0]) if row["method"] in new)


def ranked(report: Report) -> list[Mapping[str, Any]]:
    """The rows that have a composite, the lowest first; a person's own answers, which are a check, are none of them."""
    found = [row for row in report.rows if row["composite"] is not None and row["block"] != CHECKS]
    return sorted(found, key=lambda row: float(row["composite"]))


def line_of(report: Report, row: Mapping[str, Any]) -> str:
    """One finished row, and its place among those that are there."""
    rows = ranked(report)
    told = [f"{row['label']}: composite {row['composite']:.2f}"]
    told += (
        [f"95 % interval {interval}"]
        if (interval := interval_text(row["composite_low"], row["composite_high"]))
        else []
    )
    told += [f"distinctive r {r:+.2f}"] if (r := row["distinctive_profile_correlation"]) is not None else []
    return f"{', '.join(told)} (place {rows.index(row) + 1} of {len(rows)} so far)"


def so_far(report: Report) -> str:
    """All finished rows as a table for the terminal."""
    cells = [
        [
            str(row["label"]),
            str(row["respondents"]),
            f"{row['composite']:.2f}",
            interval_text(row["composite_low"], row["composite_high"]),
            "" if (r := row["distinctive_profile_correlation"]) is None else f"{r:+.2f}",
        ]
        for row in ranked(report)
    ]
    if not cells:
        return ""
    waiting = sum(not row["respondents"] for row in report.rows)
    title = f"So far, the best first ({counted(waiting, 'row', 'rows')} to come; lower is better)"
    columns = ["row", "n", "composite", "95 %\ninterval", "distinc-\ntive r"]
    return terminal(Document(title, [Table(columns, cells)])).rstrip()
