"""SmolLM2 in float32 with merged low-rank differences: a plain forward pass, and thin products for their gradients.

A LoRA layer as libraries run it multiplies twice and adds, forward and backward. Here the sum ``W + scale · B A`` is
made once per optimizer step, so that a step costs one product per map forward, one backward, and two of ``rank``.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

MAPS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
_Q, _K, _V, _O, _GATE, _UP, _DOWN = range(len(MAPS))
_BLOCK = 256  # queries whose attention is computed at once
_LONGEST = 4096  # tokens for which rotary angles are tabled
_NEVER = -1e30


class _Merged(torch.autograd.Function):
    """``x @ (W + scale · B A)ᵀ`` from the sum already made, with gradients for ``x``, ``A`` and ``B`` alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return x @ merged.t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = gradients
        x, merged, a, b = ctx.saved_tensors
        dx = dy @ merged if ctx.needs_input_grad[0] else None
        return dx, None, ctx.scale * ((dy @ b).t() @ x), ctx.scale * (dy.t() @ (x @ a.t())), None


@dataclass(frozen=True)
class Tree:
    """A prefix and branches that all continue it: several questions about one list, read in one pass.

    ``ids``, ``positions``: ``(length,)``, the prefix first, then every branch, padded to ``width``. A branch sees the
    prefix and itself.
    """

    ids: Tensor
    positions: Tensor
    prefix: int
    branches: int
    width: int

    @classmethod
    def of(cls, prefix: Sequence[int], branches: Sequence[Sequence[int]] = (), padding: int = 2) -> "Tree":
        width = max(map(len, branches), default=0)
        ids = [*prefix, *(token for each in branches for token in [*each, *[padding] * (width - len(each))])]
        positions = [*range(len(prefix)), *(len(prefix) + place for _ in branches for place in range(width))]
        return cls(torch.tensor(ids), torch.tensor(positions), len(prefix), len(branches), width)

    def place(self, branch: int, token: int) -> int:
        """Where a branch's token stands in ``ids``."""
        return self.prefix + branch * self.width + token

    def seen_from(self, places: Tensor) -> Tensor:
        """``(places, length)``: which tokens each place attends to."""
        keys = torch.arange(len(self.ids))
        of_key, of_place = ((each - self.prefix) // max(self.width, 1) for each in (keys, places))
        return (keys <= places[:, None]) & ((keys < self.prefix) | (of_key == of_place[:, None]))


class Network:
    """A Llama's weights, read once, and a low-rank difference for each linear map of every layer.

    ``rank``: of the differences; ``scale``: what they are multiplied by (LoRA's alpha / r).
    """

    def __init__(self, model: PreTrainedModel, rank: int, scale: float, seed: int):
        config: Any = model.config
        weights = {name: value.float() for name, value in model.state_dict().items()}
        generator = torch.Generator().manual_seed(seed)
        self.layers, self.scale = config.num_hidden_layers, scale
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width, self.epsilon = config.head_dim, config.rms_norm_eps
        self.embeddings, self.norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.output = weights["lm_head.weight"]
        names = [f"model.layers.{layer}." for layer in range(self.layers)]
        self.norms = [
            (weights[f"{n}input_layernorm.weight"], weights[f"{n}post_attention_layernorm.weight"]) for n in names
        ]
        self.plain = [[weights[f"{name}{each}.weight"] for each in MAPS] for name in names]
        self.merged = [[each.clone() for each in maps] for maps in self.plain]
        self.a = [[_random(generator, rank, each.shape[1]) for each in maps] for maps in self.plain]
        self.b = [[torch.zeros(each.shape[0], rank).requires_grad_() for each in maps] for maps in self.plain]
        half = torch.arange(0, self.width, 2).float() / self.width
        angles = torch.arange(_LONGEST).float()[:, None] / config.rope_parameters["rope_theta"] ** half
        angles = torch.cat([angles, angles], dim=1)
        self.cos, self.sin = angles.cos(), angles.sin()

    def differences(self, layers: Collection[int]) -> list[Tensor]:
        """What is trained in these layers."""
        return [each for layer in sorted(layers) for each in self.a[layer] + self.b[layer]]

    @torch.no_grad()
    def merge(self, layers: Collection[int]) -> None:
        """Take the differences' present values into the sums."""
        for layer in layers:
            for each, plain in enumerate(self.plain[layer]):
                a, b = self.a[layer][each], self.b[layer][each]
                torch.addmm(plain, b, a, alpha=self.scale, out=self.merged[layer][each])

    def logits(self, hidden: Tensor) -> Tensor:
        """``(places, vocabulary)``, of what the last layer wrote at some places."""
        return self._normed(hidden, self.norm) @ self.output.t()

    def run(
        self,
        tree: Tree,
        start: int,
        stop: int,
        hidden: Tensor | None = None,
        trained: Collection[int] = (),
        keep: Collection[int] = (),
        watch: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
        """What layer ``stop`` reads, ``(length, hidden)``, from what ``start`` reads (None: the embeddings).

        ``trained``: layers whose differences get gradients. Also returned: what the layers of ``keep`` read, and, for
        the layers of ``watch``, the log of the attention of the places given there, ``(heads, places, length)``.
        """
        hidden = self.embeddings[tree.ids] if hidden is None else hidden
        length, kept, attentions = len(tree.ids), {}, {}
        cos, sin = self.cos[tree.positions], self.sin[tree.positions]

        def linear(which: int, x: Tensor) -> Tensor:
            merged = self.merged[layer][which]
            if layer not in trained:
                return x @ merged.t()
            out: Tensor = _Merged.apply(x, merged, self.a[layer][which], self.b[layer][which], self.scale)
            return out

        def turned(x: Tensor) -> Tensor:
            first, second = x.chunk(2, dim=-1)
            return x * cos + torch.cat([-second, first], dim=-1) * sin

        for layer in range(start, stop):
            before_attention, before_mlp = self.norms[layer]
            x = self._normed(hidden, before_attention)
            query, key, value = (
                linear(which, x).view(length, -1, self.width).transpose(0, 1) for which in (_Q, _K, _V)
            )
            query, key = turned(query) / math.sqrt(self.width), turned(key)
            if watch and layer in watch:
                attentions[layer] = self._log_attention(query, key, tree, watch[layer])
            read = self._attend(query, key, value, tree).transpose(0, 1).reshape(length, -1)
            hidden = hidden + linear(_O, read)
            x = self._normed(hidden, before_mlp)
            hidden = hidden + linear(_DOWN, functional.silu(linear(_GATE, x)) * linear(_UP, x))
            if layer + 1 in keep:
                kept[layer + 1] = hidden
        return hidden, kept, attentions

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.epsilon)

    def _log_attention(self, query: Tensor, key: Tensor, tree: Tree, places: Tensor) -> Tensor:
        rows = query[:, places].view(self.groups, -1, self.width) @ key.transpose(1, 2)
        hidden_keys = ~tree.seen_from(places)
        return rows.view(self.heads, len(places), -1).masked_fill(hidden_keys, _NEVER).log_softmax(dim=-1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, tree: Tree) -> Tensor:
        """``(heads, length, width)``. The prefix in blocks of queries, so that no key after a block is multiplied."""
        groups, shared, width = self.groups, self.heads // self.groups, self.width
        read = []
        for start in range(0, tree.prefix, _BLOCK):
            stop = min(start + _BLOCK, tree.prefix)
            rows = query[:, start:stop].reshape(groups, -1, width) @ key[:, :stop].transpose(1, 2)
            rows = rows.view(groups, shared, stop - start, stop)
            later = torch.ones(stop - start, stop, dtype=torch.bool).triu(start + 1)
            weights = rows.masked_fill(later, _NEVER).softmax(dim=-1)
            read.append((weights.view(groups, -1, stop) @ value[:, :stop]).view(self.heads, -1, width))
        if tree.branches:
            shape = (groups, shared, tree.branches, tree.width, width)
            asked = query[:, tree.prefix :].reshape(shape)
            own_key, own_value = (each[:, tree.prefix :].reshape(groups, 1, *shape[2:]) for each in (key, value))
            of_prefix = asked.reshape(groups, -1, width) @ key[:, : tree.prefix].transpose(1, 2)
            later = torch.ones(tree.width, tree.width, dtype=torch.bool).triu(1)
            of_own = (asked @ own_key.transpose(-1, -2)).masked_fill(later, _NEVER)
            weights = torch.cat([of_prefix.view(*shape[:-1], tree.prefix), of_own], dim=-1).softmax(dim=-1)
            told = weights[..., : tree.prefix].reshape(groups, -1, tree.prefix) @ value[:, : tree.prefix]
            own = weights[..., tree.prefix :] @ own_value
            read.append((told.view(shape) + own).reshape(self.heads, -1, width))
        return torch.cat(read, dim=1)


def _random(generator: torch.Generator, rank: int, width: int) -> Tensor:
    return (torch.randn(rank, width, generator=generator) / math.sqrt(width)).requires_grad_()
