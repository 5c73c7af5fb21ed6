"""What a sweep over many people would cost: time, files, bytes and W&B rows, from a table's measured costs.

Other models' seconds are arithmetic, not measurement: the measured ones times the ratio of the parameter counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from palign_bench.costs.machine import hardware
from palign_bench.files import LedgerError
from palign_bench.ledger.plan import Plan
from palign_bench.report import measures
from palign_bench.report.document import Document, Text, Written, render, table_of, terminal, written_out
from palign_bench.report.names import PEOPLE_FLOORS, PEOPLE_METHODS
from palign_bench.report.rows import RowNumbers, read_rows
from palign_bench.report.words import significant
from palign_bench.settings import counted, read_option

PEOPLE = (300, 300_000)
MODELS = ("llama3_8b", "llama3_70b")  # the paper's, beside the measured one
ALL_ROWS = "all rows"
_GIB = 2.0**30
_MARK_BYTES = 32  # of a cell, in its folder's digest
_NARROW = (("W&B\nruns", "W&B\nrows"), "GiB", "files", "cells")


@dataclass(frozen=True)
class MeasuredRow:
    """One row's measured costs. ``prepare_seconds`` are once for all people, without loading the model.

    ``cell_bytes``: of a person's file and share of the digest; ``files`` and ``file_bytes``: what is not a person's.
    ``budget``: of a trained row's that is neither the paper's nor the testbed's: the extrapolated steps, "" where
    none are; None of any other.
    """

    label: str
    reads_a_model: bool
    prepare_seconds: float
    person_seconds: float
    cell_bytes: float
    files: int
    file_bytes: int
    budget: str | None = None

    def hours(self, people: int, factor: float) -> float:
        """One machine's hours for so many people, with a model that takes ``factor`` times as long."""
        seconds = self.prepare_seconds + people * self.person_seconds
        return seconds * (factor if self.reads_a_model else 1.0) / 3600


def measured_rows(rows: Sequence[RowNumbers]) -> list[MeasuredRow]:
    """The costs of the rows that have a finished cell and whose preparing is known."""
    found = []
    for row in rows:
        costs, shared = measures.costs(row), row.folder.shared()
        if not row.respondents or not shared:
            continue
        align = measures.with_all_steps(row, costs["align_seconds"], costs["seconds_per_step"])
        sizes = row.folder.cell_bytes(row.respondents)
        others = [path.stat().st_size for path in row.folder.path.iterdir() if path.is_file()]
        digest = row.digest
        kept = digest.packed_answers.nbytes + digest.packed_truth.nbytes + digest.figures.nbytes
        found.append(
            MeasuredRow(
                label=row.label,
                reads_a_model=_reads_a_model(row),
                prepare_seconds=shared["prepare_seconds"],
                person_seconds=(costs["align_seconds"] if align is None else align) + costs["answer_seconds"],
                cell_bytes=(sum(sizes) + kept) / len(sizes) + _MARK_BYTES,
                files=len(others),
                file_bytes=sum(others),
                budget=_budget(row, is_extrapolated=align not in (None, costs["align_seconds"])),
            )
        )
    return found


def forecast(
    rows: Sequence[MeasuredRow], people: Sequence[int], factors: Mapping[str, float], shards: int
) -> pd.DataFrame:
    """One line per number of people, model and row, and one for all rows.

    ``factors``: by model, its parameters relative to those of the measured one, whose factor is 1. ``hours`` are one
    machine's; ``days`` pass when ``shards`` machines share the people, each with preparations of its own.
    """
    lines: list[dict[str, Any]] = []
    for count in people:
        for model, factor in factors.items():
            lines_of_model: list[dict[str, Any]] = [
                {
                    "people": count,
                    "model": model,
                    "method": row.label,
                    "cells": count,
                    "files": row.files + count,
                    "gib": (row.file_bytes + count * row.cell_bytes) / _GIB,
                    "wandb_runs": 1,
                    "wandb_rows": count,
                    "hours": row.hours(count, factor),
                    "days": row.hours(math.ceil(count / shards), factor) / 24,
                }
                for row in rows
            ]
            total = {key: sum(line[key] for line in lines_of_model) for key in list(lines_of_model[0])[3:]}
            total["wandb_runs"] += 1  # the table's own, which has a row for each of the table's
            total["wandb_rows"] += len(rows)
            lines += [*lines_of_model, {"people": count, "model": model, "method": ALL_ROWS, **total}]
    return pd.DataFrame(lines)


def write_forecast(plan: Plan, people: Sequence[int], models: Sequence[str], shards: int) -> str:
    """Write ``forecast.csv`` and ``forecast.md`` into the plan's folder; return the text for the terminal.

    ``models``: options of ``model=``, beside the measured one. Raises LedgerError where nothing is measured and
    UserError for an unknown model.
    """
    rows, about = read_rows(plan)
    measured = measured_rows(rows)
    if not measured:
        raise LedgerError(f"{plan.folder} has no finished cell of a row with a shared.json: no costs to forecast from.")
    parameters = _parameters(rows, about["model"], models)
    factors = {model: count / parameters[about["model"]] for model, count in parameters.items()}
    frame = forecast(measured, people, factors, shards)
    title = f"forecast of {about['experiment']} from costs measured with {about['model_title']}"
    notes = written_out(
        "forecast",
        measured=about["model"],
        parameters=parameters,
        factors=factors,
        shards=shards,
        people=max(len(row.respondents) for row in rows),
        unfinished=[row.label for row in rows if not row.respondents],
        unprepared=[row.label for row in rows if row.respondents and not row.folder.shared()],
        hardware=hardware(next((row.folder.provenance()[-1] for row in rows if row.folder.provenance()), {})),
        learning=[row.label for row in rows if row.block in (PEOPLE_FLOORS, PEOPLE_METHODS)],
        budgets=[f"{row.label} {row.budget}".strip() for row in measured if row.budget is not None],
    )
    shown = {count: _display(frame[frame["people"] == count], about["model"], shards) for count in people}
    hours = tuple(column for column in shown[people[0]][0] if column.endswith("\nhours"))
    narrow = (*_NARROW, hours) if shards > 1 else _NARROW
    blocks = [table_of(lines, counted(count), left_out_first=narrow) for count, lines in shown.items()]
    hint = f"All columns are in {plan.folder / 'forecast.md'}."
    document, written = Document(title, [*blocks, Text(notes, listed=True)], hint), Written()
    written.add(plan.folder / "forecast.csv", frame.to_csv(index=False))
    written.add(plan.folder / "forecast.md", render(document, "md"))
    return f"{terminal(document)}\n{written.told(plan.folder)}\n"


def _parameters(rows: Sequence[RowNumbers], measured: str, models: Sequence[str]) -> dict[str, int]:
    """Number of parameters by model, the measured one first."""
    from palign_bench.backbone.loading.settings import resolve_model  # torch and transformers take seconds to import
    from palign_bench.backbone.loading.weights import parameters_of

    reading = next(filter(_reads_a_model, rows), None)
    settings = {measured: reading.folder.config()["model"] if reading else read_option("model", measured)} | {
        name: read_option("model", name) for name in models if name != measured
    }
    return {name: parameters_of(resolve_model(each)) for name, each in settings.items()}


def _budget(row: RowNumbers, is_extrapolated: bool) -> str | None:
    if not (row.budget or "").startswith(("quick", "measured", "custom")):
        return None
    method = row.identity["method"]
    steps = f"{method.get('steps')} of {measures.full_steps(row)} steps of {method.get('batch_size')}"
    return steps if is_extrapolated else ""


def _reads_a_model(row: RowNumbers) -> bool:
    return row.identity["model"] is not None


def _display(frame: pd.DataFrame, measured: str, shards: int) -> list[dict[str, str]]:
    """One line per row: what every model shares, then each model's time."""
    lines = []
    for method, by_model in frame.groupby("method", sort=False):
        own = by_model[by_model["model"] == measured].iloc[0]
        line = {"method": str(method), "cells": f"{own['cells']:,}", "files": f"{own['files']:,}"}
        line["GiB"] = significant(own["gib"])
        line |= {f"W&B\n{what}": f"{own[f'wandb_{what}']:,}" for what in ("runs", "rows")}
        for _, times in by_model.iterrows():
            model = times["model"] + ("" if times["model"] == measured else " *")
            line[f"{model}\nhours"] = significant(times["hours"])
            if shards > 1:
                line[f"{model}\ndays with\n{shards} shards"] = significant(times["days"])
        lines.append(line)
    return lines
