"""How the cost of answering grows with people, items and the model's size: timings, exponents and one picture."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory

PEOPLE = (1, 2, 4)
ITEMS = (45, 90, 180)
DEPTHS = (0.25, 0.5, 1.0)  # shares of the model's layers
FEW_ITEMS = 30  # asked where people or layers grow

Timer = Callable[[Callable[[], Any]], float]


@dataclass(frozen=True)
class Growth:
    """Seconds of Few-Shot answering as one thing grows: ``what`` is people, items or parameters (of the layers)."""

    what: str
    amounts: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def exponent(self) -> float:
        """Slope of log seconds over log amount by least squares: 1 is linear, below 1 is better."""
        x, y = ([math.log(value) for value in values] for values in (self.amounts, self.seconds))
        centre = sum(x) / len(x)
        mean = sum(y) / len(y)
        return sum((a - centre) * (b - mean) for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)


def measure_growth(backbone: LocalBackbone, inventory: Inventory, prompts: Sequence[str], timed: Timer) -> list[Growth]:
    """Time Few-Shot answers of more people (one of ``prompts`` each), of more items, and of deeper models.

    The deeper models have random weights in the backbone's shape: their cost is that of the shape.
    """
    alignments = [Alignment(system_prompt=prompt) for prompt in prompts]
    items = inventory.select(inventory.held_out)
    few = items[:FEW_ITEMS]
    counts = [count for count in PEOPLE if count <= len(prompts)]
    people = [timed(lambda n=count: [backbone.answer(each, few) for each in alignments[:n]]) for count in counts]  # type: ignore[misc]
    asked = [timed(lambda n=count: backbone.answer(alignments[0], items[:n])) for count in ITEMS]  # type: ignore[misc]
    sizes, seconds = [], []
    for depth in depths(backbone):
        other = random_model(backbone, depth)
        layers = other.anatomy.layers  # the embeddings cost next to nothing
        sizes.append(float(sum(p.numel() for layer in layers for p in layer.parameters())))
        seconds.append(timed(lambda model=other: model.answer(alignments[0], few)))  # type: ignore[misc]
    return [
        Growth("people", tuple(map(float, counts)), tuple(people)),
        Growth("items", tuple(map(float, ITEMS)), tuple(asked)),
        Growth("parameters", tuple(sizes), tuple(seconds)),
    ]


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
    """Write ``<base>.png`` and ``.pdf``: seconds against each amount, with the line of proportion; return the paths."""
    from matplotlib.figure import Figure

    from palign_bench.report.pictures.style import save_figure

    figure = Figure(figsize=(9, 3.4))
    for position, growth in enumerate(found, start=1):
        axes = figure.add_subplot(1, len(found), position)
        axes.loglog(growth.amounts, growth.seconds, "o-", color="#0072B2")
        proportion = [growth.seconds[0] * amount / growth.amounts[0] for amount in growth.amounts]
        axes.loglog(growth.amounts, proportion, "--", color="#777777", linewidth=1)
        axes.set_title(f"{growth.what}: exponent {growth.exponent:.2f}", fontsize=9)
        axes.set_xticks(growth.amounts, [f"{amount:.3g}" for amount in growth.amounts])
        axes.set_yticks(growth.seconds, [f"{seconds:.3g}" for seconds in growth.seconds])
        axes.minorticks_off()
        axes.set_xlabel(growth.what)
        if position == 1:
            axes.set_ylabel("seconds")
    figure.suptitle(f"{title} (dashed: proportional)", fontsize=9)
    figure.tight_layout()
    return save_figure(figure, base)
