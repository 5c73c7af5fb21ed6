"""What the summaries of trained rows tell a reader: weights that hardly moved, and DPO's displacement."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from palign_bench.ledger.record import Record
from palign_bench.report.document import written_out
from palign_bench.report.rows import RowNumbers

FEW_MOVED = 0.5  # share of the trained weights; float32 training of full budgets moves 85 % and more


def training_notes(rows: Sequence[RowNumbers]) -> list[str]:
    """One line per trained row whose weights hardly moved, or whose preferred answers became less likely."""
    trained = [row for row in rows if row.budget is not None]
    told = [{"label": row.label, "first": row.of_first} | _figures(row.summaries()) for row in trained]
    return written_out("training", rows=told, few_moved=FEW_MOVED)


def _figures(summaries: Sequence[Record]) -> dict[str, Any]:
    moved = [each["moved_share"] for each in summaries if "moved_share" in each]
    changes = [each for each in summaries if "chosen_change" in each]
    fallen = [each for each in changes if each["chosen_change"] < 0]
    medians = {kind: median(each[f"{kind}_change"] for each in fallen) for kind in ("chosen", "rejected") if fallen}
    return {"moved": median(moved) if moved else None, "people": len(changes), "fallen": len(fallen)} | medians
