"""What the stages' ledgers say: each one's tables, and together seconds, ratios, and memory beside its forecast."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from palign_bench.report.efficiency import measured_costs, relative
from palign_bench.report.rows import RowNumbers, ledger_notes, read_rows
from palign_bench.report.table import Report, build_report
from palign_bench.report.words import cost_table, score_table, significant

FORECAST = ("lora", "qlora", "full_finetuning", "dpo")  # whose memory is: nothing is sampled
SHAPES = ("random_8b", "random_8b_others", "random_8b_nf4", "random_70b_nf4")
_MIB = 2.0**20

Reports = Mapping[str, Report]  # by stage


def last_plan(ledger: Path, stage: str) -> Plan | None:
    """What the stage's last command planned; None where there is none."""
    try:
        return Plan.all(ledger, stage)[-1]
    except LedgerError:
        return None


def table_of(ledger: Path, stage: str) -> Report | None:
    """The stage's report, with the rows that have a finished cell; None where there is no such row."""
    plan = last_plan(ledger, stage)
    if plan is None:
        return None
    report = build_report(plan)
    begun = [index for index, row in enumerate(report.read) if row.respondents]
    chosen: dict[str, Any] = {name: tuple(getattr(report, name)[i] for i in begun) for name in ("rows", "read")}
    return replace(report, **chosen) if begun else None


def notes_of(ledger: Path, stage: str) -> list[str]:
    """What is missing of the stage, and why."""
    plan = last_plan(ledger, stage)
    return [f"{stage}: {note}" for note in ledger_notes(*read_rows(plan))] if plan else []


def figures(ledger: Path, reports: Reports) -> list[Table | Text]:
    """The tables that have something to show."""
    found: list[Table | Text | None] = [
        matrix_rate(ledger),
        together(reports),
        seconds_of_shapes(reports),
        memory(reports),
    ]
    for stage, report in reports.items():
        if stage not in SHAPES:
            found.append(replace(score_table(report), heading=f"{stage}: scores"))
            found.append(replace(cost_table(report), heading=f"{stage}: costs"))
    return [each for each in found if each is not None]


def costs_of(reports: Reports) -> list[dict[str, Any]]:
    """What every row of every stage cost, and that relative to the stage's own PAS."""
    return [{"stage": stage} | costs for stage in reports for costs in _costs(reports, stage)]


def _costs(reports: Reports, stage: str) -> list[dict[str, Any]]:
    """A stage's rows; training beyond the measured steps is extrapolated."""
    return relative([measured_costs(row) for row in _rows(reports, stage)])


def _rows(reports: Reports, stage: str) -> Sequence[RowNumbers]:
    """A stage's rows; none where it has not been begun."""
    report = reports.get(stage)
    return () if report is None else report.read


def benchmarks(ledger: Path) -> pd.DataFrame | None:
    """What `python -m bench` measured: seconds, ratios and the share of the device's matrix rate, by stage."""
    places = {"bench": ledger / "bench" / "bench.csv", "bench_8b": ledger / "bench_8b" / "bench" / "bench.csv"}
    found = {stage: pd.read_csv(path) for stage, path in places.items() if path.exists()}
    return pd.concat(found, names=["stage", "line"]).reset_index("stage") if found else None


def matrix_rate(ledger: Path) -> Text | None:
    """The benchmarks in words."""
    found = benchmarks(ledger)
    if found is None:
        return None
    rows = found[found["seconds"].notna()].fillna("").to_dict("records")
    lines = [f"{row['stage']}, {row['name']}: {row['seconds']:.3g} s. {row['note']}" for row in rows]
    return Text(lines, "Answering", listed=True)


def together(reports: Reports) -> Table | None:
    """Seconds a person, several people in one pass against one by one."""
    passes, alone = (
        {costs["method"]: costs for costs in _costs(reports, stage)} for stage in ("together", "one_by_one")
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


def seconds_of_shapes(reports: Reports) -> Table | None:
    """What one person and 300 take with the paper's models; training beyond the measured steps is extrapolated."""
    rows = []
    for stage in SHAPES:
        for costs in _costs(reports, stage):
            star = " *" if costs["extrapolated"] else ""
            seconds = ("prepare_seconds", "full_align_seconds", "answer_seconds", "seconds_for_300")
            ratios = [f"{costs[name]:.2g}" if costs[name] else "" for name in ("relative_one", "relative_300")]
            memory = [f"{costs[name]:,.0f}" if costs[name] else "" for name in ("bare_memory_mib", "total_memory_mib")]
            cells = [str(costs["people"]), *(significant(costs[name]) for name in seconds), *ratios, *memory]
            rows.append([stage, f"{costs['label']}{star}", *cells])
    columns = ["stage", "method", "people", "prepare seconds", "align seconds", "answer seconds", "300 people seconds",
               "× PAS, 1", "× PAS, 300", "bare MiB", "peak MiB"]  # fmt: skip
    heading = "The paper's shapes with random weights: seconds a person (*: training extrapolated to the paper's steps)"
    return Table(columns, rows, heading) if rows else None


def memory(reports: Reports) -> Table | None:
    """Peak memory of training on given texts beside what `baselines.training.memory` forecasts from shapes alone."""
    rows = []
    for stage in ("trained", *SHAPES):
        for row in _rows(reports, stage):
            costs = measured_costs(row)
            peak, bare = costs["total_memory_mib"], costs["bare_memory_mib"]
            if row.name in FORECAST and peak and bare and costs["tokens_per_step"]:
                expected = _forecast_mib(row, bare, costs["tokens_per_step"])
                cells = [f"{bare:,.0f}", f"{peak:,.0f}", f"{expected:,.0f}", f"{peak / expected:.2f}"]
                rows.append([stage, row.label, *cells])
    columns = ["stage", "method", "bare MiB", "peak MiB", "forecast MiB", "peak / forecast"]
    return Table(columns, rows, "Peak memory against the forecast") if rows else None


def _forecast_mib(row: RowNumbers, bare_mib: float, tokens: float) -> float:
    """The forecast for all tokens of an optimizer step in one pass, the bare model taken as it was measured; of people
    who were trained together, for all of them.
    """
    settings = row.folder.config()
    model, method = resolve_model(settings["model"]), settings["method"]
    adapter = peft_config(method["peft"]) if method.get("peft") else None
    dtype = DTYPES.get(model["dtype"], DTYPES["bfloat16"])
    shape = shape_of_training(config_of(model), dtype, bare_mib * _MIB, adapter, round(tokens))
    one = forecast(shape, checkpointing=bool(method.get("gradient_checkpointing"))).total / _MIB
    together = max(summary.get("cohort") or 1 for summary in row.summaries())
    return bare_mib + together * (one - bare_mib)
