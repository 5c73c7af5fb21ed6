"""What the frozen model makes of the statements: a similarity of every two items, and the kernel made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from palign_bench.costs.clock import Cost, charge, measure
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.prompts import CONTRASTS, contrast

if TYPE_CHECKING:
    from palign_bench.backbone.base import Backbone


@dataclass(frozen=True)
class FeatureRecipe:
    """Which texts about a statement are read, and at which depths (1.0: the last layer, after its normalisation)."""

    contrasts: tuple[str, ...]
    depths: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting."""
        unknown = [name for name in self.contrasts if name not in CONTRASTS]
        if unknown or not self.contrasts:
            raise ValueError(f"method.contrasts={list(self.contrasts)}: choose among {', '.join(CONTRASTS)}")
        if not self.depths or not all(0 < depth <= 1 for depth in self.depths):
            raise ValueError(f"method.depths={list(self.depths)}: give shares of the model's layers above 0, up to 1")


@dataclass(frozen=True)
class ItemKernel:
    """A covariance of the answers to every two items, as the model's hidden states suggest it; its diagonal is 1."""

    column: Mapping[int, int]  # of an item's number
    values: Tensor  # float64 (items, items)
    cost: Cost = field(default_factory=Cost)  # of reading the model

    def between(self, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        """The block of these items' numbers. Raises KeyError for an item that the inventory lacks."""
        at = [self.column[number] for number in rows]
        return self.values[at][:, [self.column[number] for number in columns]]


def item_kernel(backbone: Backbone, inventory: Inventory, recipe: FeatureRecipe) -> ItemKernel:
    """The kernel of an inventory's items; read from the model once and kept with it (`Backbone.item_kernels`)."""
    kept, key = backbone.item_kernels, (inventory.name, recipe)
    if key not in kept:
        with measure() as cost:
            values = exponential_kernel(contrast_features(backbone, inventory, recipe))
        kept[key] = ItemKernel(inventory.column, values, cost)
    return kept[key]


def prepared_kernel(backbone: Backbone, inventory: Inventory, recipe: FeatureRecipe, anew: bool) -> ItemKernel:
    """`item_kernel` as a method prepares it: a kept one is charged what it cost when it was read, but for its memory.

    ``anew``: read the model again even where a kernel is kept.
    """
    kept, key = backbone.item_kernels, (inventory.name, recipe)
    if anew:
        kept.pop(key, None)
    if key in kept:
        cost = kept[key].cost
        charge(seconds=cost.seconds, joules=cost.joules, **cost.amounts)
    return item_kernel(backbone, inventory, recipe)


def contrast_features(backbone: Backbone, inventory: Inventory, recipe: FeatureRecipe) -> Tensor:
    """Unit vectors per item, contrast and depth: float64 ``(items, contrasts × depths, width)``.

    Each is the hidden state at the end of the affirming text minus that of the denying one, standardised over the
    items. What both texts share (topic, length, wording) cancels; what remains is what affirming says about a person.
    """
    layers = [max(1, round(depth * backbone.layers)) for depth in recipe.depths]
    parts = []
    for name in recipe.contrasts:
        pairs = [contrast(name, inventory, item) for item in inventory.items]
        affirmed, denied = (backbone.hidden_states([pair[i] for pair in pairs], layers).double() for i in (0, 1))
        parts.append(unit_features(affirmed - denied))
    return torch.cat(parts, dim=1)


def unit_features(states: Tensor) -> Tensor:
    """States ``(items, parts, width)``, every coordinate standardised over the items, as vectors of length 1."""
    spread = states.std(dim=0, correction=0)
    standardised = (states - states.mean(dim=0)) / spread.clamp_min(1e-6 * spread.max().item() + 1e-12)
    return standardised / standardised.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def exponential_kernel(features: Tensor) -> Tensor:
    """``exp(s - 1)`` of the cosine ``s``, averaged over the parts of ``(items, parts, width)``: ``(items, items)``.

    On unit vectors this is the squared-exponential kernel of length scale 1 (Rasmussen & Williams 2006, eq. 4.9).
    """
    flat = features.flatten(1) / features.shape[1] ** 0.5
    return (flat @ flat.T - 1).exp()
