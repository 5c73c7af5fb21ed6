"""Pictures of people beside what methods answer for them: trait densities, profiles, correlations (figures 18 to 29).

Scores are keyed means, 1 to the number of options. The paper's figures 21 to 25 draw another quantity, means of answers
whose negatively keyed items were reversed twice; `TWICE_REVERSED` labels it where a caller asks for it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from palign_bench.ledger.columns import Array
from palign_bench.questionnaire.inventory import LOWEST, Inventory, Item
from palign_bench.questionnaire.scoring import mean_present
from palign_bench.report.pictures.style import COLOURS, STYLE

TWICE_REVERSED = "mean answer, negatively keyed items reversed twice (the paper's figures 21–25; no trait score)"
TRAIT_SCORE = "trait score: mean answer in the keyed direction"
PEOPLE_COLOUR = "#888888"
_FEWEST_FOR_A_DENSITY = 5  # different scores; fewer are drawn as strokes
_GRID = 256


def scores_of(items: Sequence[Item], answers: Array, groups: Sequence[str], of: str) -> Array:
    """(people, groups): mean of the answers (people, items) to the items of each group, NaN where there is none.

    ``of``: scale or subscale, the attribute of an item that names its group.
    """
    own = [answers[:, [getattr(item, of) == group for item in items]] for group in groups]
    return np.stack([mean_present(each) for each in own], axis=1)


def subscales_in_order(inventory: Inventory) -> tuple[str, list[str]]:
    """What profiles are made of, subscale or scale, and their names, those of a scale together."""
    if not inventory.subscales:
        return "scale", list(inventory.scales)
    order = {scale: place for place, scale in enumerate(inventory.scales)}
    scale_of = {item.subscale: item.scale for item in inventory.items}
    return "subscale", sorted(inventory.subscales, key=lambda each: (order[scale_of[each]], each))


@rc_context(fname=STYLE)
def trait_figure(groups: Mapping[str, Array], inventory: Inventory, title: str, quantity: str = TRAIT_SCORE) -> Figure:
    """The densities of each scale, all groups on one axis.

    ``groups``: scores (people, scales) by name, those of the people first. A group without spread is a stroke.
    """
    scales = list(inventory.scales.values())
    figure = Figure(figsize=(7.5, 1.0 + 1.25 * len(scales)), layout="constrained")
    rows = figure.subplots(len(scales), 1, sharex=True, squeeze=False)[:, 0]
    for axes, scale, column in zip(rows, scales, range(len(scales)), strict=True):
        for number, (name, scores) in enumerate(groups.items()):
            values = scores[:, column][~np.isnan(scores[:, column])]
            _draw_density(axes, values, inventory.highest, name, None if number == 0 else COLOURS[number - 1])
        axes.set_ylabel(scale.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=9)
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        axes.spines.left.set_visible(False)
    rows[-1].set_xlim(LOWEST, inventory.highest)
    rows[-1].set_xlabel(quantity)
    rows[0].set_title(title, wrap=True)
    figure.legend(*rows[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_density(axes: Axes, values: Array, highest: int, name: str, colour: str | None) -> None:
    """People (``colour`` None) as a grey ground, a method as a line."""
    if len(np.unique(values.round(6))) < _FEWEST_FOR_A_DENSITY:
        height = axes.get_xaxis_transform()
        axes.vlines(np.unique(values), 0, 0.9, colors=colour or PEOPLE_COLOUR, transform=height, lw=1.6, label=name)
        return
    grid = np.linspace(LOWEST, highest, _GRID)
    density = gaussian_kde(values)(grid)
    if colour is None:
        axes.fill_between(grid, density, color=PEOPLE_COLOUR, alpha=0.35, linewidth=0, label=name)
    else:
        axes.plot(grid, density, color=colour, linewidth=1.5, label=name)


@rc_context(fname=STYLE)
def profile_figure(people: Mapping[str, Mapping[str, Array]], inventory: Inventory, title: str) -> Figure:
    """Chosen people's profiles, a panel each.

    ``people``: by how a panel is headed, the scores (subscales in their order) by what they are of, the truth first.
    """
    of, names = subscales_in_order(inventory)
    scale_of = {getattr(item, of): item.scale for item in inventory.items}
    figure = Figure(figsize=(9, 0.9 + 2.0 * len(people)), layout="constrained")
    rows = figure.subplots(len(people), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (person, lines) in zip(rows, people.items(), strict=True):
        for number, (name, values) in enumerate(lines.items()):
            truth = {"color": "#222222", "linewidth": 2.2, "marker": "o", "markersize": 4, "zorder": 3}
            other = {"color": COLOURS[(number - 1) % len(COLOURS)], "linewidth": 1.2, "marker": ".", "zorder": 2}
            axes.plot(range(len(names)), values, label=name, **(other if number else truth))
        axes.set_title(person)
        axes.set_ylim(LOWEST - 0.1, inventory.highest + 0.1)
        axes.set_yticks(range(LOWEST, inventory.highest + 1))
        axes.grid(axis="y")
        for edge in _edges([scale_of[name] for name in names]):
            axes.axvline(edge - 0.5, color="#BBBBBB", linewidth=0.8)
    rows[-1].set_xticks(range(len(names)), names, fontsize=8)
    figure.suptitle(title, fontsize=9, x=0.01, ha="left", wrap=True)
    figure.legend(*rows[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@rc_context(fname=STYLE)
def correlation_figure(keyed: Array, inventory: Inventory, title: str) -> Figure:
    """The correlations across people: of subscales, of items where there are none.

    ``keyed``: (people, items) in the keyed direction, NaN where missing. White: not defined.
    """
    of, names = subscales_in_order(inventory)
    if of == "subscale":
        scores = scores_of(inventory.items, keyed, names, of)
        scale_of = {str(item.subscale): item.scale for item in inventory.items}
    else:
        ordered = [item for scale in inventory.scales for item in inventory.items if item.scale == scale]
        names = [f"{item.scale}{item.number}" for item in ordered]
        scores = keyed[:, [inventory.column[item.number] for item in ordered]]
        scale_of = {name: item.scale for name, item in zip(names, ordered, strict=True)}
    figure = Figure(figsize=(8.5, 7.6), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(correlations(scores), cmap="RdBu_r", vmin=-1, vmax=1)
    size = 8 if len(names) <= 40 else 4
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for edge in _edges([scale_of[name] for name in names]):
        axes.axhline(edge - 0.5, color="#222222", linewidth=0.8)
        axes.axvline(edge - 0.5, color="#222222", linewidth=0.8)
    axes.set_title(title, wrap=True)
    figure.colorbar(drawn, ax=axes, shrink=0.7, label="Pearson r across people")
    return figure


def correlations(scores: Array) -> Array:
    """Pearson r between the columns over the people who have both; NaN where one has no spread."""
    import pandas as pd

    return pd.DataFrame(scores).corr(min_periods=3).to_numpy()


def _edges(scales: Sequence[str]) -> list[int]:
    """Where the next scale begins."""
    return [place for place in range(1, len(scales)) if scales[place] != scales[place - 1]]
