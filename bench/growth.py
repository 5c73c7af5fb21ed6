"""How the cost of answering grows with people, items, known answers and the model's size, in one picture."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import linear_regression
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Answers, Inventory

PEOPLE = (1, 2, 4)
ITEMS = (45, 90, 180)
KNOWN = (15, 30, 60, 120)
DEPTHS = (0.25, 0.5, 1.0)  # shares of the model's layers
FEW_ITEMS = 30  # asked where people or layers grow

Timer = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Growth:
    """Seconds of Few-Shot answering as one thing grows.

    ``what``: people, items, known_answers or parameters (of the layers).
    """

    what: str
    amounts: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log amount by least squares: 1 is linear, below 1 is better."""
        x, y = ([math.log(value) for value in values] for values in (self.amounts, self.seconds))
        return linear_regression(x, y).slope


def measure_growth(
    backbone: LocalBackbone, inventory: Inventory, known: Sequence[Answers], timed: Timer
) -> list[Growth]:
    """Time Few-Shot answers of more people, of more items, of longer prompts, and of deeper models.

    ``known``: each person's known answers. The deeper models have random weights in the backbone's shape: their cost is
    that of the shape.
    """
    alignments = [told(backbone, answers) for answers in known]
    items = inventory.select(inventory.held_out)
    few = items[:FEW_ITEMS]
    counts = [count for count in PEOPLE if count <= len(known)]
    lengths = [count for count in KNOWN if count <= len(known[0])]
    shorter = [told(backbone, dict(islice(known[0].items(), count))) for count in lengths]
    people = [timed(lambda n=count: [backbone.answer(each, few) for each in alignments[:n]]) for count in counts]  # type: ignore[misc]
    asked = [timed(lambda n=count: backbone.answer(alignments[0], items[:n])) for count in ITEMS]  # type: ignore[misc]
    prompts = [timed(lambda alignment=each: backbone.answer(alignment, few)) for each in shorter]  # type: ignore[misc]
    sizes, seconds = [], []
    for depth in depths(backbone):
        other = random_model(backbone, depth)
        layers = other.anatomy.layers  # the embeddings cost next to nothing
        sizes.append(float(sum(p.numel() for layer in layers for p in layer.parameters())))
        seconds.append(timed(lambda model=other: model.answer(alignments[0], few)))  # type: ignore[misc]
    return [
        Growth("people", tuple(map(float, counts)), tuple(people)),
        Growth("items", tuple(map(float, ITEMS)), tuple(asked)),
        Growth("known_answers", tuple(map(float, lengths)), tuple(prompts)),
        Growth("parameters", tuple(sizes), tuple(seconds)),
    ]


def told(backbone: LocalBackbone, known: Answers) -> Alignment:
    """Few-Shot of these known answers."""
    return Alignment(system_prompt=backbone.protocol.few_shot_prompt(known))


def depths(backbone: LocalBackbone) -> list[int]:
    """Numbers of layers to try, ascending."""
    return sorted({max(1, round(share * backbone.model.config.num_hidden_layers)) for share in DEPTHS})


def random_model(backbone: LocalBackbone, layers: int) -> LocalBackbone:
    """A model of the backbone's shape with so many layers and random weights."""
    config = copy.deepcopy(backbone.model.config)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    with torch.device(backbone.model.device), torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=backbone.model.dtype).eval()
    loaded = replace(backbone.loaded, model=model, name=f"{backbone.loaded.name}-{layers}")
    return LocalBackbone(loaded, backbone.protocol)


def draw_growth(found: Sequence[Growth], title: str, base: Path) -> list[Path]:
    """Write ``<base>.png`` and ``.pdf``: how many times the seconds against how many times the amount."""
    from matplotlib.figure import Figure

    from palign_bench.report.document import Written
    from palign_bench.report.pictures.style import COLOURS

    figure = Figure(figsize=(7, 4.2))
    axes = figure.add_subplot()
    for growth, marker, colour in zip(found, "os^D", COLOURS, strict=False):
        times = [amount / growth.amounts[0] for amount in growth.amounts]
        ratios = [seconds / growth.seconds[0] for seconds in growth.seconds]
        amounts = f"{growth.amounts[0]:,.0f} to {growth.amounts[-1]:,.0f} {growth.what.replace('_', ' ')}"
        label = f"{amounts}: {growth.seconds[0]:.2g} to {growth.seconds[-1]:.2g} s, exponent {growth.exponent:.2f}"
        axes.loglog(times, ratios, f"{marker}-", color=colour, label=label)
    most = max(growth.amounts[-1] / growth.amounts[0] for growth in found)
    axes.loglog([1, most], [1, most], "--", color="#777777", linewidth=1, label="in proportion")
    axes.set_xlabel("times as much")
    axes.set_ylabel("times as many seconds")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
        axis.set_ticks([1, 2, 4, 8])
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(title, fontsize=9)
    figure.tight_layout()
    return Written().draw(figure, base)
