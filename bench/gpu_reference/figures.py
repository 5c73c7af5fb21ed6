"""What the tables of `make gpu-reference` say together: seconds, ratios, and memory beside its forecast."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from baselines.training.memory import forecast, shape_of_training
from palign_bench.backbone.loading.settings import DTYPES, resolve_model
from palign_bench.backbone.loading.sources import config_of
from palign_bench.backbone.parts.adapters import peft_config
from palign_bench.files import LedgerError
from palign_bench.ledger.plan import Plan
from palign_bench.report.document import Table, Text
from palign_bench.report.efficiency import full_steps, measured_costs
from palign_bench.report.rows import RowNumbers, read_rows, row_labels
from palign_bench.report.words import significant

SUPERVISED = ("lora", "qlora", "full_finetuning")  # whose memory is forecast
SHAPES = ("random_8b", "random_8b_others", "random_8b_nf4", "random_70b_nf4")
_MIB = 2.0**20


def figures(ledger: Path) -> list[Table | Text]:
    """The tables that have something to show."""
    found = [matrix_rate(ledger), together(ledger), seconds_of_shapes(ledger), memory(ledger)]
    return [each for each in found if each is not None]


def matrix_rate(ledger: Path) -> Text | None:
    """The share of the device's matrix rate that answering reaches, as `python -m bench` measured it."""
    path = ledger / "bench" / "bench.csv"
    if not path.exists():
        return None
    rows = pd.read_csv(path).fillna("").to_dict("records")
    return Text([f"{row['name']}: {row['seconds']:.3g} s. {row['note']}" for row in rows], "Answering", listed=True)


def together(ledger: Path) -> Table | None:
    """Seconds a person, several people in one pass against one by one."""
    passes, alone = (
        {row.name: measured_costs(row, label, None) for row, label in _rows(ledger, stage)}
        for stage in ("together", "one_by_one")
    )
    rows = []
    for name in alone:
        one, many = _per_person(alone[name]), _per_person(passes.get(name, {}))
        if one and many:
            people = passes[name]["people"]
            rows.append([alone[name]["label"], str(people), significant(many), significant(one), f"{one / many:.1f}"])
    columns = ["method", "people", "seconds, in one pass", "seconds, one by one", "ratio"]
    return Table(columns, rows, "People in one pass against one by one") if rows else None


def _per_person(costs: dict[str, Any]) -> float | None:
    align, answer = costs.get("align_seconds"), costs.get("answer_seconds")
    return None if align is None or answer is None else float(align + answer)


def seconds_of_shapes(ledger: Path) -> Table | None:
    """What one person and 300 take with the paper's models; training beyond the measured steps is extrapolated."""
    rows = []
    for stage in SHAPES:
        for row, label in _rows(ledger, stage):
            costs = measured_costs(row, label, full_steps(row))
            if costs["people"]:
                star = " *" if costs["extrapolated"] else ""
                seconds = ("prepare_seconds", "full_align_seconds", "answer_seconds", "seconds_for_300")
                rows.append([stage, f"{label}{star}", *(significant(costs[name]) for name in seconds)])
    columns = ["stage", "method", "prepare seconds", "align seconds", "answer seconds", "300 people seconds"]
    return Table(columns, rows, "The paper's shapes with random weights (*: training extrapolated)") if rows else None


def memory(ledger: Path) -> Table | None:
    """Peak memory of supervised training beside what `baselines.training.memory` forecasts from shapes alone."""
    rows = []
    for stage in ("trained", *SHAPES):
        for row, label in _rows(ledger, stage):
            costs = measured_costs(row, label, None)
            peak, bare = costs["total_memory_mib"], costs["bare_memory_mib"]
            if row.name in SUPERVISED and peak and bare and costs["tokens_per_step"]:
                expected = _forecast_mib(row, bare, costs["tokens_per_step"])
                cells = [f"{bare:,.0f}", f"{peak:,.0f}", f"{expected:,.0f}", f"{peak / expected:.2f}"]
                rows.append([stage, label, *cells])
    columns = ["stage", "method", "bare MiB", "peak MiB", "forecast MiB", "peak / forecast"]
    return Table(columns, rows, "Peak memory against the forecast") if rows else None


def _forecast_mib(row: RowNumbers, bare_mib: float, tokens: float) -> float:
    """The forecast for all tokens of an optimizer step in one pass, the bare model taken as it was measured."""
    settings = row.folder.config()
    model, method = resolve_model(settings["model"]), settings["method"]
    adapter = peft_config(method["peft"]) if method.get("peft") else None
    dtype = DTYPES.get(model["dtype"], DTYPES["bfloat16"])
    shape = shape_of_training(config_of(model), dtype, bare_mib * _MIB, adapter, round(tokens))
    return forecast(shape, checkpointing=bool(method.get("gradient_checkpointing"))).total / _MIB


def _rows(ledger: Path, stage: str) -> Sequence[tuple[RowNumbers, str]]:
    """The stage's rows that have a finished cell, with their labels; none where it has not been begun."""
    try:
        plans = Plan.all(ledger, stage)
    except LedgerError:
        return []
    rows = [row for plan in plans for row in read_rows(plan)[0] if row.respondents]
    return list(zip(rows, row_labels(rows), strict=True))
