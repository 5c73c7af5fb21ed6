"""How methods do with the number of known answers that they were told: composite against answers, a line a method."""

from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from palign_bench.report.pictures.style import COLOURS, STYLE
from palign_bench.report.rows import by_method, label_without
from palign_bench.report.table import Report

_MARKERS = "osD^vPX"


@rc_context(fname=STYLE)
def learning_curve_figure(report: Report) -> Figure:
    """The picture; a row that was told everything stands at the end."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    ticks: set[int] = set()
    for number, rows in enumerate(learning_curves(report)):
        counts = sorted(rows)
        ticks |= set(counts)
        colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]
        scores = [rows[count]["composite"] for count in counts]
        axes.plot(
            counts,
            scores,
            f"-{marker}",
            color=colour,
            markersize=5,
            linewidth=1.4,
            label=label_without(rows[counts[0]]["label"], "known"),
        )
        if all(rows[count]["composite_low"] is not None for count in counts):
            low, high = ([rows[count][f"composite_{end}"] for count in counts] for end in ("low", "high"))
            axes.fill_between(counts, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    axes.minorticks_off()
    axes.set_xlabel("known answers that the method was told")
    axes.set_ylabel("composite aligned score (lower is better)")
    axes.set_title(report.setting, wrap=True)
    axes.grid()
    axes.legend()
    return figure


def learning_curves(report: Report) -> list[dict[int, Mapping[str, Any]]]:
    """The table's rows by how many known answers they were told, of each method (and setting) with several counts."""
    everything = len(report.inventory.known)
    row_of = {id(numbers): row for row, numbers in zip(report.rows, report.read, strict=True)}
    curves = [
        {everything if told is None else told: row_of[id(numbers)] for told, numbers in rows.items()}
        for rows in by_method(report.read, "known_answers")
    ]
    scored = [{told: row for told, row in rows.items() if row["composite"] is not None} for rows in curves]
    return [rows for rows in scored if len(rows) > 1]
