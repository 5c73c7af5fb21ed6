"""Costs relative to PAS: the rows of one measurement as CSV, Markdown, LaTeX and pictures."""

from collections.abc import Sequence
from statistics import median

import pandas as pd

from palign_bench.costs.figures import FIGURES
from palign_bench.ledger.plan import Plan
from palign_bench.ledger.record import Record
from palign_bench.report import measures
from palign_bench.report.data import read_data
from palign_bench.report.document import Picture, Table, Written, table_of, write_page, written_out
from palign_bench.report.names import UNIT
from palign_bench.report.paper import PAPER_PEOPLE, RELATIVE_TIMES
from palign_bench.report.pictures.efficiency import cost_figures
from palign_bench.report.rows import RowNumbers, page_title, read_rows

SPREAD = tuple(figure.name for figure in FIGURES if figure.varies and figure.unit == "seconds")
PER_STEP = {"align_seconds": "seconds_per_step", "training_tokens": "tokens_per_step", "joules": "joules_per_step"}
KEPT = tuple(figure.name for figure in FIGURES if figure.name not in SPREAD)


def write_efficiency(plan: Plan) -> str:
    """Write ``costs.csv``, ``.md``, ``.tex``, ``.html`` and pictures into the plan's folder; return the printed text.

    Raises LedgerError for an empty plan.
    """
    rows, about = read_rows(plan)
    costs = relative([measured_costs(row) for row in rows])
    random = any(cost["weights"] == "random" for cost in costs)
    frame = pd.DataFrame(costs)
    base = plan.folder / "costs"
    title = page_title("efficiency", about, rows)
    written = Written()
    written.add(base.with_suffix(".csv"), frame.to_csv(index=False))
    figures = cost_figures(costs, title, scores=not random)
    pictures = [path for name, each in figures.items() for path in written.draw(each, base.with_name(f"costs_{name}"))]
    images = [Picture(path.name) for path in pictures if path.suffix == ".png"]
    return write_page(title, [display(costs), *images], _notes(costs, rows, random), base, written)


def measured_costs(row: RowNumbers) -> Record:
    """One method's costs. ``full_…`` are those of the full training budget, extrapolated where it was not run."""
    identity, shared = row.identity, row.folder.shared()
    costs = measures.costs(row)
    cells = [record["cost"] for _, record in row.folder.read_all(row.respondents)]
    method, model = identity["method"], identity["model"] or {}
    found: Record = {
        "method": row.name,
        "label": row.label,
        "model": model.get("name"),
        "weights": model.get("weights"),
        "quantization": model.get("quantization"),
        "people": len(row.respondents),
        "missing_cells": row.missing_cells,
        "batch_size": method.get("batch_size"),
        "steps": method.get("steps"),
        "full_steps": measures.full_steps(row),
        "extrapolated": measures.steps_not_taken(row) != 0,
        "load_seconds": shared.get("load_seconds"),
        "prepare_seconds": shared.get("prepare_seconds"),
    }
    for name in SPREAD:
        found[name] = costs[name]
        for end, suffix in enumerate(("low", "high")):
            ends = [cost["quartiles"][name][end] for cost in cells if name in cost.get("quartiles", {})]
            found[f"{name}_{suffix}"] = float(median(ends)) if ends else None
    found |= {name: costs[name] for name in KEPT}
    for name, of_a_step in PER_STEP.items():
        found[f"full_{name}"] = measures.with_all_steps(row, costs[name], costs[of_a_step])
    phases = (costs["shared_seconds"], found["full_align_seconds"], found["answer_seconds"])
    found["seconds_for_one"] = measures.seconds_for(1, *phases)
    found[f"seconds_for_{PAPER_PEOPLE}"] = measures.seconds_for(PAPER_PEOPLE, *phases)
    bare, peak = shared.get("bare_memory_mib"), costs["peak_memory_mib"]
    prepared = shared.get("prepare_peak_memory_mib") or 0.0
    found["bare_memory_mib"] = bare
    found["total_memory_mib"] = None if bare is None or peak is None else bare + max(peak, prepared)
    return found | {"composite": row.composite}


def relative(costs: Sequence[Record]) -> list[Record]:
    """The rows with their ratios to PAS, None where either is missing, and the paper's claims beside them."""
    unit = _unit(costs)
    ratios = {
        "relative_align": "full_align_seconds",
        "relative_one": "seconds_for_one",
        f"relative_{PAPER_PEOPLE}": f"seconds_for_{PAPER_PEOPLE}",
        "relative_memory": "total_memory_mib",
    }
    return [
        cost
        | {ratio: _ratio(cost[name], unit.get(name)) for ratio, name in ratios.items()}
        | {"paper_relative_time": RELATIVE_TIMES.get(cost["method"])}
        for cost in costs
    ]


def _unit(costs: Sequence[Record]) -> Record:
    """The row that ratios are to: the first of PAS; empty where there is none."""
    return next((cost for cost in costs if cost["method"] == UNIT), {})


def _notes(costs: Sequence[Record], rows: Sequence[RowNumbers], random: bool) -> list[str]:
    """What a reader must know to judge the numbers: what was extrapolated, hardware, and how busy the machine was."""
    measured = [state for row in rows for state in row.folder.measurement()]
    origin = rows[0].folder.provenance()[-1] if measured else {}
    return written_out(
        "efficiency",
        costs=costs,
        unit=_unit(costs).get("label", "PAS"),
        without=[cost["label"] for cost in costs if "no NF4" in cost["label"]],
        random=random,
        origin=origin,
        gpus=origin.get("gpus"),
        state=measured[0] if measured else None,
        loads=[state["load_averages"][0] for state in measured],
    )


def display(costs: Sequence[Record]) -> Table:
    """The columns that are worth reading, as text."""
    columns = [each for each in read_data("costs") if "optional" not in each or any(c[each["figure"]] for c in costs)]
    gives_way = sorted((each for each in columns if "gives_way" in each), key=lambda each: int(each["gives_way"]))
    rows = [
        {"method": cost["label"] + (" *" if cost["extrapolated"] else "")}
        | {each["heading"]: _cell(cost, each) for each in columns}
        for cost in costs
    ]
    return table_of(rows, left_out_first=[each["heading"] for each in gives_way])


def _cell(cost: Record, column: Record) -> str:
    ends = ("_low", "_high") if column.get("quartiles") else ("",)
    return "–".join(filter(None, (_text(cost[column["figure"] + end]) for end in ends)))


def _ratio(value: float | None, unit: float | None) -> float | None:
    return None if value is None or not unit else value / unit


def _text(value: float | None) -> str:
    if value is None:
        return ""
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
