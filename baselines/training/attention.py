"""Attention for training: along the paths of a token tree, with a backward pass of matrix products."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import dropout as dropped
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import why_no_shared_prefix

NAME = "palign_text_tree"


@dataclass(frozen=True)
class TreePaths:
    """The texts of a pass as paths through its positions.

    ``slots`` ``(texts · longest)``: the position of every place of every text, 0 for the pads at its end. ``homes``
    ``(positions)``: the place where a position is read. ``alone``: whether a place is its position's home; ``again``:
    the places that are not, pads left out. ``unused``: positions on no path, or None.
    """

    texts: int
    slots: Tensor
    homes: Tensor
    alone: Tensor
    again: Tensor
    unused: Tensor | None

    @classmethod
    def of(cls, paths: Sequence[Sequence[int]], positions: int, length: int, device: torch.device) -> Self:
        """From every text's positions; ``length``: the least that texts are padded to."""
        longest = max(length, *map(len, paths))
        slots = torch.zeros(len(paths), longest, dtype=torch.long)
        real = torch.zeros(len(paths), longest, dtype=torch.bool)
        for text, path in enumerate(paths):
            slots[text, : len(path)] = torch.tensor(path)
            real[text, : len(path)] = True
        slots, real = slots.flatten(), real.flatten()
        places = torch.arange(len(slots))
        nowhere = len(places)
        homes = torch.full((positions,), nowhere).scatter_reduce(0, slots[real], places[real], "amin")  # the first
        alone = real & (homes[slots] == places)
        unused = homes == nowhere
        return cls(
            len(paths),
            slots.to(device),
            homes.masked_fill(unused, 0).to(device),
            alone.to(device),
            places[real & ~alone].to(device),
            unused.to(device) if bool(unused.any()) else None,
        )

    def spread(self, states: Tensor) -> Tensor:
        """``(rows, heads, positions, width)`` to ``(texts, heads, longest, width)``."""
        _, heads, _, width = states.shape
        found: Tensor = _Spread.apply(states.transpose(1, 2).reshape(-1, heads * width), self)
        return found.view(self.texts, -1, heads, width).transpose(1, 2)

    def collect(self, states: Tensor, rows: int) -> Tensor:
        """``(texts, heads, longest, width)`` to ``(rows, positions, heads, width)``: each position from its home."""
        _, heads, _, width = states.shape
        found: Tensor = _Collect.apply(states.transpose(1, 2).reshape(-1, heads * width), self)
        return found.view(rows, -1, heads, width)


class _Spread(torch.autograd.Function):
    """Rows of positions to rows of places. Backward, few places have another home than their own: these are added."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, paths: TreePaths) -> Tensor:
        ctx.paths = paths
        return states.index_select(0, paths.slots)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        paths: TreePaths = ctx.paths
        found = gradient.index_select(0, paths.homes)
        if paths.unused is not None:
            found.masked_fill_(paths.unused[:, None], 0.0)
        if len(paths.again):
            found.index_add_(0, paths.slots[paths.again], gradient.index_select(0, paths.again))
        return found, None


class _Collect(torch.autograd.Function):
    """Rows of places to rows of positions."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, paths: TreePaths) -> Tensor:
        ctx.paths = paths
        return states.index_select(0, paths.homes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        paths: TreePaths = ctx.paths
        return gradient.index_select(0, paths.slots).masked_fill_(~paths.alone[:, None], 0.0), None


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    tree: TreePaths | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' `AttentionInterface`: causal, along each text's path, without a mask.

    Without a ``tree`` every row is one text, right-padded.
    """
    if tree is None:
        return causal_attention(query, key, value, scaling, dropout).transpose(1, 2), None
    spread = causal_attention(tree.spread(query), tree.spread(key), tree.spread(value), scaling, dropout)
    return tree.collect(spread, query.shape[0]), None


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float = 0.0) -> Tensor:
    """Causal attention; ``query`` ``(texts, heads, n, width)``, ``key`` and ``value`` with as many heads or fewer.

    On a CPU in half precision as plain matrix products, in float32: there the backward pass of PyTorch's fused kernel
    takes two to five times as long for questions of up to 100 tokens, and a softmax of bfloat16 twice as long.
    """
    texts, heads, n, width = query.shape
    groups = heads // key.shape[1]
    if query.device.type != "cpu" or query.dtype == torch.float32:
        key, value = (each.repeat_interleave(groups, dim=1) if groups > 1 else each for each in (key, value))
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, scale=scaling)
    grouped = query.reshape(texts, heads // groups, groups * n, width).float() * scaling
    mask = torch.full((n, n), float("-inf")).triu(1).repeat(groups, 1)
    weights = torch.softmax(torch.matmul(grouped, key.float().transpose(-1, -2)) + mask, dim=-1)
    found = torch.matmul(dropped(weights, dropout) if dropout else weights, value.float())
    return found.to(query.dtype).view(texts, heads, n, width)


AttentionInterface.register(NAME, tree_attention)


@contextmanager
def attention_for_trees(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model attends by `tree_attention`, where that computes what its own attention does."""
    if why_no_shared_prefix(Anatomy(model)) is not None:
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def plain_attention(model: PreTrainedModel) -> Iterator[None]:
    """PyTorch's attention as plain matrix products where that trains faster; see `causal_attention`."""
    plain = model.device.type == "cpu" and model.dtype != torch.float32
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        yield
