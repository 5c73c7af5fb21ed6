"""The pictures of `palign_bench.report.efficiency`: relative time, relative memory, score against cost."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from palign_bench.ledger.record import Record
from palign_bench.report.paper import PAPER_PEOPLE
from palign_bench.report.pictures.style import BLUE, SKY, STYLE, VERMILION
from palign_bench.settings import counted

_ONE, _MANY, _CLAIM, _BARE = SKY, BLUE, VERMILION, "#BBBBBB"
_ROW_INCHES, _WIDTH_INCHES = 0.5, 8.0


@rc_context(fname=STYLE)
def cost_figures(costs: Sequence[Record], title: str, scores: bool) -> dict[str, Figure]:
    """The pictures by name: time, memory and, with ``scores``, score; without those that no row has anything for."""
    found = {}
    for name, needed, draw in _DRAWINGS if scores else _DRAWINGS[:2]:
        rows = [cost for cost in costs if cost[needed] is not None and cost["answer_seconds"] is not None]
        if rows:
            found[name] = draw(rows, title)
    return found


def time_figure(rows: Sequence[Record], title: str) -> Figure:
    """Time for one person and for 300 relative to PAS; hatched where extrapolated; the paper's claims as diamonds."""
    figure, axes = _axes(rows, title)
    for position, row in enumerate(rows):
        bars = ((0.2, "relative_one", _ONE), (-0.2, f"relative_{PAPER_PEOPLE}", _MANY))
        for offset, name, colour in bars:
            _bar(axes, position + offset, row[name], colour, hatched=row["extrapolated"])
        if row["paper_relative_time"] is not None:
            axes.plot(row["paper_relative_time"], position, "D", color=_CLAIM, markersize=8, zorder=4)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("time relative to PAS (logarithmic)")
    axes.barh([0], [0], color=_ONE, label="1 person")
    axes.barh([0], [0], color=_MANY, label=f"{PAPER_PEOPLE} people")
    axes.barh([0], [0], color="white", edgecolor="black", hatch="///", label="extrapolated to the full budget")
    axes.plot([], [], "D", color=_CLAIM, label="the paper's claim")
    figure.legend(loc="lower center", ncols=4)
    return figure


def memory_figure(rows: Sequence[Record], title: str) -> Figure:
    """Peak memory relative to PAS; what the bare model takes is grey."""
    figure, axes = _axes(rows, title)
    for position, row in enumerate(rows):
        bare = row["relative_memory"] * row["bare_memory_mib"] / row["total_memory_mib"]
        _bar(axes, position, row["relative_memory"], _MANY)
        axes.barh(position, bare, height=0.38, color=_BARE, zorder=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("peak memory relative to PAS")
    on_gpu = any(row["reserved_memory_mib"] is not None for row in rows)
    axes.barh([0], [0], color=_BARE, label="bare model" + ("" if on_gpu else " and program"))
    axes.barh([0], [0], color=_MANY, label="the method")
    figure.legend(loc="lower center", ncols=4)
    return figure


def score_figure(rows: Sequence[Record], title: str) -> Figure:
    """Composite against the seconds per person that it took (nothing extrapolated), with the Pareto front."""
    figure = Figure(figsize=(_WIDTH_INCHES, 4.8))
    axes = figure.add_axes((0.1, 0.14, 0.86, 0.7))
    points = [(row["align_seconds"] + row["answer_seconds"], row["composite"]) for row in rows]
    front = pareto_front(points)
    ring: dict[str, Any] = {"marker": "o", "markersize": 10, "markerfacecolor": "none"}
    axes.step(*zip(*front, strict=True), where="post", color=_CLAIM, zorder=2, label="Pareto front", **ring)
    axes.scatter([x for x, _ in points], [y for _, y in points], color=_MANY, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.15)
    low, high = axes.get_xlim()
    for (x, y), row in zip(points, rows, strict=True):
        steps = f" ({counted(row['steps'], 'step', 'steps')})" if row["extrapolated"] else ""
        # On the side where there is room: the axis is logarithmic, so its middle is the geometric mean.
        side: dict[str, Any] = {"xytext": (-5, 5), "ha": "right"} if x * x > low * high else {"xytext": (5, 5)}
        axes.annotate(row["label"] + steps, (x, y), textcoords="offset points", fontsize=9, **side)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(LogFormatter())  # within a decade, where there is no other number
    axes.set_xlabel("seconds per person as measured: align + answer (logarithmic)")
    axes.set_ylabel("composite (lower is better)")
    axes.legend()
    figure.text(0.02, 0.98, textwrap.fill(title, 100), va="top", fontsize=9)
    return figure


_DRAWINGS = (
    ("time", "relative_one", time_figure),
    ("memory", "relative_memory", memory_figure),
    ("score", "composite", score_figure),
)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats or equals in both, ascending in the first coordinate; lower is better in both."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _axes(rows: Sequence[Record], title: str) -> tuple[Figure, Axes]:
    height = _ROW_INCHES * max(len(rows), 2) + 1.6
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    axes = figure.add_axes((0.2, 0.95 / height, 0.72, 1 - 1.5 / height))
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    figure.text(0.02, 1 - 0.08 / height, textwrap.fill(title, 110), va="top", fontsize=9)
    return figure, axes


def _bar(axes: Axes, position: float, value: float | None, colour: str, hatched: bool = False) -> None:
    if value is None:
        return
    axes.barh(position, value, height=0.38, color=colour, hatch="///" if hatched else None, edgecolor="white", zorder=2)
    text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
    axes.annotate(text, (value, position), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
