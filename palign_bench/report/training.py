"""What the summaries of trained rows tell a reader: weights that hardly moved, and DPO's displacement."""

from collections.abc import Sequence
from statistics import median

from palign_bench.report.rows import RowNumbers

FEW_MOVED = 0.5  # share of the trained weights; float32 training of full budgets moves 85 % and more


def training_notes(rows: Sequence[RowNumbers]) -> list[str]:
    """One line per trained row whose weights hardly moved, or whose preferred answers became less likely."""
    notes = []
    for row in rows:
        summaries = row.summaries() if row.budget is not None else []
        notes += _moved_note(row.label, [each["moved_share"] for each in summaries if "moved_share" in each])
        changes = [(each["chosen_change"], each["rejected_change"]) for each in summaries if "chosen_change" in each]
        notes += _displacement_note(row.label, changes)
    return notes


def _moved_note(label: str, shares: Sequence[float]) -> list[str]:
    if not shares or median(shares) >= FEW_MOVED:
        return []
    return [f"{label}: only {100 * median(shares):.0f} % of the trained weights moved at all."]


def _displacement_note(label: str, changes: Sequence[tuple[float, float]]) -> list[str]:
    fallen = [each for each in changes if each[0] < 0]
    if not fallen:
        return []
    chosen, rejected = (median(each[i] for each in fallen) for i in (0, 1))
    return [
        f"{label}: for {len(fallen)} of {len(changes)} people the preferred answers became less likely too (median "
        f"{chosen:+.1f} nats, the rejected ones {rejected:+.1f}): displacement; what gained is an answer nobody gave."
    ]
