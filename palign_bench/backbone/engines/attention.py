"""Attention of many rows to one shared prefix, without copying the prefix's keys and values per row.

A query attends to (prefix ∪ own tokens). Softmax attention over a union is the average of the two softmax attentions,
weighted by their normalisers, so the prefix part is one matrix product for all rows and the own part stays small; the
two are merged through their log-sum-exps (the identity behind FlashAttention; Dao et al. 2022). Exact up to rounding.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.products import fastest_products, product_dtype

NAME = "palign_shared_prefix"

# Scores of one head that are computed at once: 1.4 MiB in bfloat16 (512 rows to 1,400 keys), which fits a core's cache.
SCORES_IN_CACHE = 512 * 1400

# Architectures whose attention is plain causal softmax (no soft-capping, sinks or sliding windows) and whose layers
# pass keyword arguments down to the attention function. Others are answered by full prompts.
SUPPORTED_MODEL_TYPES = frozenset({
    "apertus", "arcee", "biogpt", "bitnet", "cohere", "ernie4_5", "gemma", "glm", "glm4", "glm4_moe", "gpt2",
    "gpt_bigcode", "gpt_neox", "granite", "granitemoe", "helium", "hunyuan_v1_dense", "llama", "mistral",
    "mixtral", "olmo", "olmo2", "olmoe", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "starcoder2",
})  # fmt: skip


def why_no_shared_prefix(anatomy: Anatomy) -> str | None:
    """Why `shared_prefix_attention` would not compute what the model's own attention does; None where it does."""
    config = anatomy.config
    if anatomy.model_type not in SUPPORTED_MODEL_TYPES:
        return f"the attention of model_type {anatomy.model_type} is not known to be plain"
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if window and (anatomy.context is None or window < anatomy.context):
        return f"its attention sees {window:,} positions (sliding_window)"
    if anatomy.scales_with_length:
        return "its rotary angles depend on the sequence's length"
    return None


@dataclass
class SharedPrefix:
    """Keys and values of a prefix for every layer, each ``(groups, key-value heads, longest, head width)``.

    Usually one group. Where there are several, the rows come group by group, equally many each; ``lengths`` tells how
    long the groups' prefixes are, and pads follow in the shorter ones.
    """

    keys: list[Tensor]
    values: list[Tensor]
    lengths: list[int]

    @cached_property
    def real(self) -> Tensor:
        """Where tokens that are no pads stand among all groups' positions, group by group."""
        longest, device = max(self.lengths), self.keys[0].device
        found = [torch.arange(n, device=device) + group * longest for group, n in enumerate(self.lengths)]
        return torch.cat(found)

    @cached_property
    def ends(self) -> Tensor:
        """Where each group's tokens begin and end among those of `real`: int32 ``(groups + 1,)``."""
        return functional.pad(torch.tensor(self.lengths).cumsum(0), (1, 0)).int().to(self.keys[0].device)

    def seen_by(self, queries: Tensor, layer: int, scale: float) -> tuple[Tensor, Tensor]:
        """Attention of each group's queries ``(groups, key-value heads, n, width)`` to its prefix, and normalisers.

        Prefixes of different lengths: in one call where CUDA's fused kernel takes them, which skips the pads, else one
        after the other.
        """
        keys, values = self.keys[layer], self.values[layer]
        if len(set(self.lengths)) == 1:
            return attention_with_normaliser(queries, keys, values, scale)
        if queries.device.type == "cuda" and _fused_on_cuda(queries):
            return self._seen_in_one_call(queries, layer, scale)
        each = [
            attention_with_normaliser(query[None], key[None, :, :length], value[None, :, :length], scale)
            for query, key, value, length in zip(queries, keys, values, self.lengths, strict=True)
        ]
        return torch.cat([output for output, _ in each]), torch.cat([normaliser for _, normaliser in each])

    def _seen_in_one_call(self, queries: Tensor, layer: int, scale: float) -> tuple[Tensor, Tensor]:
        """`seen_by` by CUDA's kernel for sequences of different lengths, whose tokens stand one after the other."""
        groups, heads, n, width = queries.shape
        for each in (self.keys, self.values):
            if (
                each[layer].dim() == 4
            ):  # once: without their pads, ``(tokens, heads, width)``, in place of those with them
                each[layer] = each[layer].transpose(1, 2).flatten(0, 1).index_select(0, self.real)
        starts = torch.arange(0, groups * n + 1, n, dtype=torch.int32, device=queries.device)
        output, normaliser = torch.ops.aten._flash_attention_forward(
            queries.transpose(1, 2).reshape(-1, heads, width), self.keys[layer], self.values[layer],
            starts, self.ends, n, max(self.lengths), 0.0, False, False, scale=scale,
        )[:2]  # fmt: skip
        return output.view(groups, n, heads, width).transpose(1, 2), normaliser.view(heads, groups, n).transpose(0, 1)


def attention_with_normaliser(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp.

    ``query`` ``(rows, heads, n, width)``, ``key``/``value`` ``(rows, heads, m, width)``, ``mask`` additive
    ``(rows, 1, n, m)``. Returns ``(rows, heads, n, width)`` and float32 ``(rows, heads, n)``; the former in float32
    where the processor multiplies in it, to be rounded once.
    """
    if query.device.type == "cpu" and not torch.is_grad_enabled():
        dtype = product_dtype(query.dtype, query.device)
        if dtype == query.dtype and not causal and mask is None and _worth_products(query, key):
            return attention_by_products(query, key, value, scale)
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query.to(dtype),
            key.to(dtype),
            value.to(dtype),
            0.0,
            causal,
            attn_mask=mask if mask is None else mask.to(dtype),
            scale=scale,
        )
    if query.device.type == "cuda" and mask is None and _fused_on_cuda(query):
        output, normaliser = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )[:2]
        return output, normaliser
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * scale
    if causal:
        n, m = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(n, m, dtype=torch.bool, device=query.device).triu(1), float("-inf"))
    if mask is not None:
        scores = scores + mask
    normaliser = scores.logsumexp(-1)
    weights = torch.exp(scores - normaliser.unsqueeze(-1)).to(value.dtype)
    return torch.matmul(weights, value), normaliser


def _fused_on_cuda(query: Tensor) -> bool:
    """Whether CUDA's fused kernel takes these numbers and this width of a head."""
    width = query.shape[-1]
    return query.dtype in (torch.float16, torch.bfloat16) and width % 8 == 0 and width <= 256


def _worth_products(query: Tensor, key: Tensor) -> bool:
    """Whether two matrix products are faster than PyTorch's CPU kernel, which multiplies 16-bit blocks slowly."""
    return query.dtype != torch.float32 and query.shape[2] * key.shape[2] >= SCORES_IN_CACHE


def attention_by_products(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`attention_with_normaliser` as two matrix products, with as many scores at once as a processor's cache holds.

    Scores are rounded to the dtype of ``query`` before their softmax, as in transformers' own ``eager`` attention; what
    is subtracted and exponentiated afterwards is relative to the largest, where rounding no longer matters. Sums and
    normalisers are in float32.
    """
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    normaliser = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    chunk = max(1, SCORES_IN_CACHE // key.shape[2])
    for row, head in itertools.product(range(query.shape[0]), range(query.shape[1])):
        keys, values = key[row, head].t(), value[row, head]
        for start in range(0, query.shape[2], chunk):
            part = (row, head, slice(start, start + chunk))
            scores = torch.addmm(query.new_empty(()), query[part], keys, beta=0, alpha=scale)
            largest = scores.amax(-1, keepdim=True)
            weights = scores.sub_(largest).exp_()
            total = weights.sum(-1, keepdim=True, dtype=torch.float32)
            output[part] = torch.mm(weights, values).div(total)
            normaliser[part] = (total.log() + largest).squeeze(-1)
    return output, normaliser


def shared_prefix_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    shared_prefix: SharedPrefix | None = None,
    own_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' `AttentionInterface`.

    Rows are right-padded: without ``own_mask`` a row's own part is causal, so that pads change nothing before them;
    with it (decoding, one query per row) the mask ``(rows, 1, 1, own length)`` says which own keys are real.
    """
    rows, heads, n, width = query.shape
    groups = heads // key.shape[1]
    own_key, own_value = (t.repeat_interleave(groups, dim=1) if groups > 1 else t for t in (key, value))
    own, own_normaliser = attention_with_normaliser(
        query, own_key, own_value, scaling, causal=own_mask is None, mask=own_mask
    )
    if shared_prefix is None:
        return own.to(query.dtype).transpose(1, 2), None
    # (prefixes·each, kv·group, n, d) → (prefixes, kv, group·each·n, d): all rows' queries meet their prefix at once.
    kv_heads, prefixes = heads // groups, len(shared_prefix.lengths)
    each = rows // prefixes
    split = query.reshape(prefixes, each, kv_heads, groups, n, width).permute(0, 2, 3, 1, 4, 5)
    flat = split.reshape(prefixes, kv_heads, -1, width)
    seen, seen_normaliser = shared_prefix.seen_by(flat, int(module.layer_idx), scaling)  # type: ignore[arg-type]
    seen = seen.view(prefixes, kv_heads, groups, each, n, width).permute(0, 3, 1, 2, 4, 5)
    seen = seen.reshape(rows, heads, n, width)
    seen_normaliser = seen_normaliser.view(prefixes, kv_heads, groups, each, n).permute(0, 3, 1, 2, 4)
    seen_normaliser = seen_normaliser.reshape(rows, heads, n)
    share = torch.sigmoid(seen_normaliser - own_normaliser).to(own.dtype).unsqueeze(-1)
    return torch.lerp(own, seen.to(own.dtype), share).to(query.dtype).transpose(1, 2), None


AttentionInterface.register(NAME, shared_prefix_attention)


@contextmanager
def shared_prefix_mode(model: PreTrainedModel) -> Iterator[None]:
    """Let the model's layers use `shared_prefix_attention` and the fastest products; their own are back on leaving."""
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        with fastest_products(model):
            yield
    finally:
        model.set_attn_implementation(before)
