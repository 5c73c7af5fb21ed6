"""One picture per table: composite with interval per row, people as faint dots, the floors as reference lines."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from palign_bench.report.names import (
    BLOCKS,
    CHECKS,
    KNOWN_TRUTH,
    METHODS,
    OWN_FLOORS,
    PEOPLE_FLOORS,
    PEOPLE_METHODS,
    is_constant,
)
from palign_bench.report.pictures.style import BLUE, GREEN, GREY, PURPLE, SKY, STYLE, VERMILION
from palign_bench.report.table import Report
from palign_bench.settings import counted

# The marker says once more what the colour says.
_STYLES: dict[str, tuple[str, str]] = {
    METHODS: (BLUE, "o"),
    PEOPLE_METHODS: (SKY, "^"),
    OWN_FLOORS: (VERMILION, "s"),
    PEOPLE_FLOORS: (GREEN, "D"),
    KNOWN_TRUTH: (PURPLE, "*"),
    CHECKS: (GREY, "X"),
}
_REFERENCES: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], str, str], ...] = (
    ("constant option", lambda row: is_constant(row["method"]), "#777777", ":"),
    ("own-answers floor", lambda row: row["block"] == OWN_FLOORS, _STYLES[OWN_FLOORS][0], "--"),
    ("other-people floor", lambda row: row["block"] == PEOPLE_FLOORS, _STYLES[PEOPLE_FLOORS][0], "-."),
)
_ROW_INCHES, _WIDTH_INCHES, _LABEL_POINTS = 0.30, 9.0, 13
_PEOPLE_BELOW = 0.27  # of a row: people stand just under their mean, so that the interval stays visible
_LONGEST_LABEL = 28
_MARKER: dict[str, Any] = {"markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
_MOST_DRAWN_ONE_BY_ONE = 1_000  # people of a row; more are pixels in the PDF too, which would grow by megabytes


@rc_context(fname=STYLE)
def compose_figure(report: Report) -> Figure:
    """The picture of a table; its height follows the number of rows.

    Rows without a composite (nothing finished yet) are left out and counted under the axis.
    """
    scored = [
        (row, read.composites)
        for row, read in zip(report.rows, report.read, strict=True)
        if row["composite"] is not None
    ]
    scored.sort(key=lambda pair: pair[0]["composite"], reverse=True)  # the best on top
    references = _references(report.rows)
    heading = textwrap.fill(report.headline, 90)
    setting = textwrap.fill(report.setting, 110)
    blocks = [block for block in BLOCKS if any(row["block"] == block for row, _ in scored)]
    # Heights in inches, so that nothing overlaps whatever the number of rows.
    heading_height, setting_height = (0.18 * (text.count("\n") + 1) for text in (heading, setting))
    above = 0.10 + heading_height + setting_height + 0.12 + len(references) * _LABEL_POINTS / 72
    below = 1.0
    middle = _ROW_INCHES * max(len(scored), 2) + 0.2
    height = above + middle + below
    figure = Figure(figsize=(_WIDTH_INCHES, height))
    axes = figure.add_axes((0.27, below / height, 0.44, middle / height))
    _draw_distinctive(figure.add_axes((0.80, below / height, 0.17, middle / height)), [row for row, _ in scored])
    most = max((len(composites) for _, composites in scored), default=0)
    for position, (row, composites) in enumerate(scored):
        _draw_row(axes, position, row, list(composites.values()), most)
    highest = max((max(composites.values()) for _, composites in scored), default=1.0)
    axes.set_xlim(0, 1.04 * highest if highest > 0 else 1.0)
    axes.set_ylim(-0.7, max(len(scored), 2) - 0.3)
    axes.set_yticks(range(len(scored)), [_tick(row) for row, _ in scored], fontsize=9)
    axes.set_xlabel("composite: sum of the mean absolute differences (lower is better)")
    axes.tick_params(axis="y", length=0, pad=8)
    for each in figure.axes:  # no frame but the axis below, and faint lines up from its ticks
        each.spines.left.set_visible(False)
        each.tick_params(axis="x", labelsize=9)
        each.grid(axis="x")
    _draw_references(axes, references)
    figure.text(0.02, 1 - 0.10 / height, heading, va="top", fontsize=10, fontweight="bold")
    figure.text(0.02, 1 - (0.10 + heading_height) / height, setting, va="top", fontsize=9)
    fewer = any(len(composites) < most for _, composites in scored)
    _draw_legend(figure, axes, blocks, height, len(report.rows) - len(scored), fewer)
    return figure


def _draw_row(axes: Axes, position: int, row: Mapping[str, Any], people: Sequence[float], most: int) -> None:
    colour, marker = _STYLES[row["block"]]
    faintness = max(0.08, min(0.5, 15 / len(people)))
    dots: dict[str, Any] = {"color": colour, "alpha": faintness, "markersize": 3, "markeredgewidth": 0}
    dots["rasterized"] = len(people) > _MOST_DRAWN_ONE_BY_ONE
    axes.plot(people, [position - _PEOPLE_BELOW] * len(people), "o", clip_on=False, zorder=2, **dots)
    if row["composite_low"] is not None:
        ends = [row["composite_low"], row["composite_high"]]
        axes.plot(ends, [position] * 2, "-|", color=colour, linewidth=1.8, markersize=10, zorder=3)
    axes.plot(row["composite"], position, marker, color=colour, clip_on=False, zorder=4, **_MARKER)
    text = f"{row['composite']:.2f}" + (f" ({len(people)})" if len(people) < most else "")
    axes.text(1.02, position, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=colour)


def _draw_distinctive(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Distinctive profile correlation of the same rows, which hedging does not raise."""
    for position, row in enumerate(rows):
        value = row["distinctive_profile_correlation"]
        if value is not None:
            colour, marker = _STYLES[row["block"]]
            axes.plot([0, value], [position] * 2, color=colour, linewidth=1.2, zorder=2)
            axes.plot(value, position, marker, color=colour, zorder=3, **_MARKER)
    axes.axvline(0, color="#777777", linewidth=0.8, zorder=1)
    axes.set_xlim(-0.25, 1.05)
    axes.set_ylim(-0.7, max(len(rows), 2) - 0.3)
    axes.set_yticks([])
    axes.set_xticks([0, 0.5, 1])
    axes.set_xlabel("distinctive r (higher is better)")


def _references(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, str, str]]:
    """Label, composite, colour and line style of the best floor of each kind; one line where two kinds share it."""
    found: dict[str, tuple[list[str], float, str, str]] = {}
    for kind, is_one, colour, style in _REFERENCES:
        floors = [row for row in rows if is_one(row) and row["composite"] is not None]
        if floors:
            best = min(floors, key=lambda row: row["composite"])
            kinds = found[best["title"]][0] if best["title"] in found else []
            found[best["title"]] = ([*kinds, kind], best["composite"], colour, style)
    return [
        (f"best {' and '.join(kinds)}: {title}, {score:.2f}", score, colour, style)
        for title, (kinds, score, colour, style) in found.items()
    ]


def _draw_references(axes: Axes, references: Sequence[tuple[str, float, str, str]]) -> None:
    """Lines from the axis up to their labels, which stand above the axes, each on a level of its own."""
    middle = 0.4 * axes.get_xlim()[1]  # there is more room for a label on the left, over the names
    # Labels open away from the nearer edge. In this order no line passes through a label of its own side; where a long
    # label of the left meets a line of the right, its white ground keeps it legible.
    left = sorted((r for r in references if r[1] < middle), key=lambda r: -r[1])
    right = sorted((r for r in references if r[1] >= middle), key=lambda r: r[1])
    for level, (text, score, colour, style) in enumerate([*left, *right]):
        axes.axvline(score, color=colour, linestyle=style, linewidth=1.2, zorder=1)
        top = 3 + _LABEL_POINTS * level
        axes.annotate(
            "",
            (score, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, top + 0.8 * _LABEL_POINTS),
            textcoords="offset points",
            arrowprops={"arrowstyle": "-", "color": colour, "linestyle": style, "shrinkA": 0, "shrinkB": 0, "lw": 1.2},
            zorder=1,
        )
        axes.annotate(
            text,
            (score, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4 if score < middle else -4, top),
            textcoords="offset points",
            ha="left" if score < middle else "right",
            va="bottom",
            fontsize=8.5,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            zorder=5,
        )


def _draw_legend(figure: Figure, axes: Axes, blocks: Sequence[str], height: float, left_out: int, fewer: bool) -> None:
    for block in blocks:
        colour, marker = _STYLES[block]
        axes.plot([], [], marker, color=colour, markersize=6, label=BLOCKS[block])
    if blocks:
        where = (0.01, 0.22 / height)
        figure.legend(loc="lower left", bbox_to_anchor=where, ncols=len(blocks), handletextpad=0.2, columnspacing=1.2)
    text = "Bar: 95 % bootstrap interval over people (Student's t below 10). Small dots: one person each."
    if fewer:
        text += " In brackets: of so few people only."
    if left_out:
        text += f" {counted(left_out, 'row', 'rows')} without a finished person left out."
    figure.text(0.02, 0.08 / height, text, fontsize=8, color="#555555", va="bottom")


def _tick(row: Mapping[str, Any]) -> str:
    label = str(row["label"])
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
