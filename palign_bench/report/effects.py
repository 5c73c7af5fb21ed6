"""Do a method's answers follow what it is told? Effects of changed known answers (the paper's appendix D, figure 14).

For person i, scale d and sign ±, the method is told the person's known answers with those of d raised or lowered by one
(`questionnaire/intervention.py`); Ŷ is the trait score of its held-out answers, D the dose, how far the known answers
moved after clipping. The effect of d on k is Σ_i (Ŷ⁺_ik − Ŷ⁻_ik) / Σ_i (D⁺_id − D⁻_id): 1 on the diagonal for a method
that answers with the person's own scale means, 0 everywhere for one that ignores the person.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from palign_bench.ledger.columns import Array
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.intervention import INVERTED
from palign_bench.report.document import Written, table_of, write_page, written_out
from palign_bench.report.rows import (
    RowNumbers,
    by_method,
    label_without,
    ledger_notes,
    page_title,
    people_of_all,
    read_rows,
)
from palign_bench.report.statistics import FEWEST_FOR_A_BOOTSTRAP, mean

UNCHANGED = None
DRAWS = 2_000  # of the bootstrap over people


class Effects(NamedTuple):
    """One method's effects.

    ``summary``: what the page tells of it. ``matrix``: (changed, scales), a row for each scale whose known answers were
    changed, by short names.
    """

    summary: dict[str, Any]
    matrix: pd.DataFrame

    @property
    def lines(self) -> list[dict[Any, Any]]:
        """The matrix, a row for each changed scale."""
        method = self.summary["method"]
        return [{"method": method, "changed": scale} | row for scale, row in self.matrix.to_dict("index").items()]


def write_effects(plan: Plan, scales: Mapping[str, str], written: Written) -> str:
    """Write ``effects_matrix.csv`` and ``effects.md``, ``.tex`` and ``.html`` into the plan's folder; return the text.

    ``scales``: full name by short one (`Inventory.scales`). ``written``: with the files of the report so far. Raises
    LedgerError for an empty plan.
    """
    rows, about = read_rows(plan)
    found = effects(rows, scales)
    moving = [each for each in found if each.matrix.any(axis=None)]
    still = [each.summary["method"] for each in found if not each.matrix.any(axis=None)]
    notes = written_out("effects", found=found, still=still)
    notes += [*about.get("notes", ()), *ledger_notes(rows, about)]
    narrow = ("people", "asymmetry", "selectivity")
    lines = [line for each in moving for line in each.lines]
    tables = [
        table_of([each.summary for each in found], left_out_first=narrow),
        table_of(lines, "Effect of known answers on held-out trait scores"),
    ]
    everything = pd.DataFrame([line for each in found for line in each.lines])
    written.add(plan.folder / "effects_matrix.csv", everything.to_csv(index=False))
    return write_page(page_title("effects", about, rows), tables, notes, plan.folder / "effects", written)


def have_effects(rows: Sequence[RowNumbers], scales: Mapping[str, str]) -> bool:
    """Whether there is a method with people who were told raised, lowered and unchanged answers of a scale."""
    return any(_told_both(told, scales)[2] for told in by_method(rows, "intervention"))


def _told_both(
    told: Mapping[str | None, RowNumbers], scales: Mapping[str, str]
) -> tuple[list[str], list[Any], list[str]]:
    """Of one method: scales that were raised and lowered, the rows that this takes, and the people of all of these."""
    changed = [scale for scale in scales if {UNCHANGED, f"{scale}+1", f"{scale}-1"} <= told.keys()]
    moved = [f"{scale}{sign}1" for scale in changed for sign in "+-"]
    wanted = [name for name in (UNCHANGED, *moved, "all+1", INVERTED) if changed and name in told]
    return changed, wanted, people_of_all([told[name] for name in wanted])


def effects(rows: Sequence[RowNumbers], scales: Mapping[str, str]) -> list[Effects]:
    """The effects of every method that was told both raised and lowered answers of some scale."""
    return [found for told in by_method(rows, "intervention") if (found := _effects(told, scales)) is not None]


def _effects(told: Mapping[str | None, RowNumbers], scales: Mapping[str, str]) -> Effects | None:
    changed, wanted, people = _told_both(told, scales)
    if not people:
        return None
    read = {name: _traits_and_dose(told[name], people, tuple(scales.values())) for name in wanted}
    base = read[UNCHANGED][0]
    rises = np.stack([read[f"{scale}+1"][0] - base for scale in changed])  # (changed, people, scales)
    falls = np.stack([base - read[f"{scale}-1"][0] for scale in changed])
    own = [list(scales).index(scale) for scale in changed]
    diagonal = np.arange(len(changed)), np.array(own)
    up, down = (
        np.stack([step * read[f"{scale}{step:+d}"][1][:, at] for scale, at in zip(changed, own, strict=True)])
        for step in (1, -1)
    )  # (changed, people)
    matrix = _ratio(rises + falls, up + down)
    others = np.ones(matrix.shape, dtype=bool)
    others[diagonal] = False
    steerability, leakage = float(matrix[diagonal].mean()), float(np.abs(matrix[others]).mean())
    low, high = _interval((rises + falls)[diagonal[0], :, diagonal[1]], up + down) or (None, None)
    every, every_dose = read.get("all+1", (base * np.nan, base * np.nan))
    opposite = told[INVERTED].composites if INVERTED in told else {}
    real = told[UNCHANGED].composites
    inverted = [opposite[each] - real[each] for each in people if each in opposite and each in real]
    summary = {
        "method": label_without(told[UNCHANGED].label, "intervention"),
        "people": len(people),
        "steerability": steerability,
        "low": low,
        "high": high,
        "leakage": leakage,
        "selectivity": steerability / leakage if leakage else float("nan"),
        "asymmetry": float((_ratio(rises, up) - _ratio(falls, down))[diagonal].mean()),
        "all +1": _mean_sum(every - base),
        "of a dose": _mean_sum(every_dose),
        "inverted": mean(inverted),
    }
    return Effects(summary, pd.DataFrame(matrix, changed, list(scales)))


def _traits_and_dose(row: RowNumbers, people: Sequence[str], scales: Sequence[str]) -> tuple[Array, Array]:
    """Trait scores of the answers, NaN where absent, and doses, both (people, scales)."""
    records = dict(row.folder.read_all(people))
    return (
        np.array([[records[each]["traits"].get(scale, np.nan) for scale in scales] for each in people]),
        np.array([[(records[each].get("dose") or {}).get(scale, 0.0) for scale in scales] for each in people]),
    )


def _ratio(changes: Array, doses: Array) -> Array:
    """Summed changes (changed, people, scales) per summed dose (changed, people), over the people with a change."""
    return np.nansum(changes, axis=1) / np.where(np.isnan(changes), 0.0, doses[:, :, None]).sum(axis=1)


def _interval(own: Array, doses: Array) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval over people of the steerability; ``own``: changes, (changed, people)."""
    people = own.shape[1]
    if people < FEWEST_FOR_A_BOOTSTRAP:
        return None
    drawn = np.random.default_rng(0).integers(0, people, (DRAWS, people))
    felt = np.where(np.isnan(own), 0.0, doses)
    with np.errstate(invalid="ignore"):
        values = (np.nansum(own[:, drawn], axis=2) / felt[:, drawn].sum(axis=2)).mean(axis=0)
    values = values[~np.isnan(values)]  # nobody who was drawn answers anything
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _mean_sum(values: Array) -> float:
    """Mean over people of the sum over scales; NaN where there is nothing at all."""
    return float("nan") if np.isnan(values).all() else float(np.nansum(values, axis=1).mean())
