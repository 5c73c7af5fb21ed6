"""Do a method's answers follow what it is told? Effects of changed known answers (the paper's appendix D, figure 14).

For person i, scale d and sign ±, the method is told the person's known answers with those of d raised or lowered by one
(`questionnaire/intervention.py`); Ŷ is the trait score of its held-out answers, D the dose, how far the known answers
moved after clipping. The effect of d on k is Σ_i (Ŷ⁺_ik − Ŷ⁻_ik) / Σ_i (D⁺_id − D⁻_id): 1 on the diagonal for a method
that answers with the person's own scale means, 0 everywhere for one that ignores the person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from palign_bench.files import canonical
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.intervention import INVERTED
from palign_bench.report.document import Table, Text, Written, table_of, write_page
from palign_bench.report.rows import RowNumbers, page_title, read_rows
from palign_bench.report.statistics import mean, paired_differences

Array = NDArray[np.float64]
UNCHANGED = None
DRAWS = 2_000  # of the bootstrap over people
_FEWEST = 10  # people, below which no interval is given

NOTES = (
    "Steerability: mean effect of a scale's known answers on its own held-out trait score, per point of realised dose. "
    "Leakage: mean absolute effect on the other scales; some is right, as traits are related. "
    "Selectivity: their ratio.",
    "Asymmetry: steerability of raising minus that of lowering.",
    "All +1: the summed change of the trait scores when every scale is raised by one (the paper's ATE, whose figure 14 "
    "prints 2.70 for PAS, 2.47 for Few-Shot and 0.75 for Vanilla), beside the dose that clipping leaves.",
    "Inverted: composite against the real person when told the person's opposite, minus that when told the truth.",
)


@dataclass(frozen=True)
class Told:
    """One method under one intervention: trait scores of its answers and doses, (people, scales), NaN where absent."""

    traits: Array
    dose: Array
    composites: Mapping[str, float]


@dataclass(frozen=True)
class Effects:
    """One method's effects. ``matrix``: (changed, scales), a row for each scale whose known answers were changed."""

    title: str
    people: int
    scales: tuple[str, ...]
    changed: tuple[str, ...]
    matrix: Array
    steerability: float
    interval: tuple[float, float] | None
    leakage: float
    asymmetry: float
    ate: float
    ate_dose: float
    inverted: float | None


def write_effects(plan: Plan, scales: Mapping[str, str], written: Written) -> str:
    """Write ``effects_matrix.csv`` and ``effects.md``, ``.tex`` and ``.html`` into the plan's folder; return the text.

    ``scales``: full name by short one (`Inventory.scales`). ``written``: with the files of the report so far. Raises
    LedgerError for an empty plan.
    """
    rows, about = read_rows(plan)
    found = effects(rows, scales)
    moving = [each for each in found if each.matrix.any()]
    notes = list(NOTES)
    if still := [each.title for each in found if not each.matrix.any()]:
        notes.append(f"Every effect is exactly 0: {', '.join(still)}.")
    if not found:
        notes.append("No method has finished people with and without changed answers yet.")
    lines = [line for each in moving for line in _matrix(each)]
    narrow = ("people", "asymmetry", "selectivity")
    tables = [
        table_of([_summary(each) for each in found], left_out_first=narrow),
        table_of(lines, "Effect of known answers on held-out trait scores"),
    ]
    base = plan.folder / "effects"
    everything = pd.DataFrame([line for each in found for line in _matrix(each)])
    written.add(base.with_name("effects_matrix.csv"), everything.to_csv(index=False))
    blocks: list[Table | Text] = [*(table for table in tables if table.rows), Text(notes, listed=True)]
    return write_page(page_title("effects", about), blocks, base, written)


def effects(rows: Sequence[RowNumbers], scales: Mapping[str, str]) -> list[Effects]:
    """The effects of every method that was told both raised and lowered answers of some scale."""
    methods: dict[str, dict[str | None, RowNumbers]] = {}
    for row in rows:
        methods.setdefault(canonical(row.identity["method"]), {})[row.intervention] = row
    return [found for told in methods.values() if (found := _effects(told, scales)) is not None]


def _effects(told: Mapping[str | None, RowNumbers], scales: Mapping[str, str]) -> Effects | None:
    changed = [scale for scale in scales if f"{scale}+1" in told and f"{scale}-1" in told]
    if UNCHANGED not in told or not changed:
        return None
    moved = {f"{scale}{sign}1" for scale in changed for sign in "+-"}
    wanted = [name for name in told if name in moved | {UNCHANGED, "all+1", INVERTED}]
    shared = set.intersection(*(set(told[name].respondents) for name in wanted))
    people = [respondent for respondent in told[UNCHANGED].respondents if respondent in shared]
    if not people:
        return None
    read = {name: _read(told[name], people, tuple(scales.values())) for name in wanted}
    base = read[UNCHANGED].traits
    rises = np.stack([read[f"{scale}+1"].traits - base for scale in changed])  # (changed, people, scales)
    falls = np.stack([base - read[f"{scale}-1"].traits for scale in changed])
    diagonal = np.arange(len(changed)), np.array([list(scales).index(scale) for scale in changed])
    up, down = (
        np.stack(
            [step * read[f"{scale}{step:+d}"].dose[:, own] for scale, own in zip(changed, diagonal[1], strict=True)]
        )
        for step in (1, -1)
    )  # (changed, people)
    matrix = _ratio(rises + falls, up + down)
    others = np.ones(matrix.shape, dtype=bool)
    others[diagonal] = False
    every = read.get("all+1")
    return Effects(
        title=told[UNCHANGED].title,
        people=len(people),
        scales=tuple(scales),
        changed=tuple(changed),
        matrix=matrix,
        steerability=float(matrix[diagonal].mean()),
        interval=_interval(
            np.stack([(rises + falls)[line, :, own] for line, own in zip(*diagonal, strict=True)]), up + down
        ),
        leakage=float(np.abs(matrix[others]).mean()),
        asymmetry=float((_ratio(rises, up) - _ratio(falls, down))[diagonal].mean()),
        ate=_mean_sum(every.traits - base) if every else float("nan"),
        ate_dose=_mean_sum(every.dose) if every else float("nan"),
        inverted=_discriminability(read, people),
    )


def _read(row: RowNumbers, people: Sequence[str], scales: Sequence[str]) -> Told:
    records = dict(row.folder.read_all(people))
    return Told(
        traits=np.array([[records[each]["traits"].get(scale, np.nan) for scale in scales] for each in people]),
        dose=np.array([[(records[each].get("dose") or {}).get(scale, 0.0) for scale in scales] for each in people]),
        composites=row.composites,
    )


def _ratio(changes: Array, doses: Array) -> Array:
    """Summed changes (changed, people, scales) per summed dose (changed, people)."""
    return np.nansum(changes, axis=1) / doses.sum(axis=1)[:, None]


def _interval(own: Array, doses: Array) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval over people of the steerability; ``own``: changes, (changed, people)."""
    people = own.shape[1]
    if people < _FEWEST:
        return None
    drawn = np.random.default_rng(0).integers(0, people, (DRAWS, people))
    values = (np.nansum(own[:, drawn], axis=2) / doses[:, drawn].sum(axis=2)).mean(axis=0)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _mean_sum(values: Array) -> float:
    return float(np.nansum(values, axis=1).mean())


def _discriminability(read: Mapping[str | None, Told], people: Sequence[str]) -> float | None:
    if INVERTED not in read:
        return None
    opposite = {each: score for each, score in read[INVERTED].composites.items() if each in people}
    return mean(list(paired_differences(opposite, read[UNCHANGED].composites).values()))


def _summary(found: Effects) -> dict[str, Any]:
    low, high = found.interval or (None, None)
    return {
        "method": found.title,
        "people": found.people,
        "steerability": found.steerability,
        "low": low,
        "high": high,
        "leakage": found.leakage,
        "selectivity": found.steerability / found.leakage if found.leakage else float("nan"),
        "asymmetry": found.asymmetry,
        "all +1": found.ate,
        "of a dose": found.ate_dose,
        "inverted": found.inverted,
    }


def _matrix(found: Effects) -> list[dict[str, Any]]:
    return [
        {"method": found.title, "changed": scale, **dict(zip(found.scales, line, strict=True))}
        for scale, line in zip(found.changed, found.matrix.tolist(), strict=True)
    ]
