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

    def seen_by(self, query: Tensor, layer: int, scale: float) -> tuple[Tensor, Tensor]:
        """Attention of each row's queries ``(rows, heads, n, width)`` to its group's prefix, and the normalisers.

        In one call where CUDA's fused kernel takes them, else one prefix length after the other.
        """
        if fits_cuda_kernel(query):
            return self._seen_in_one_call(query, layer, scale)
        # (prefixes·each, kv·group, n, d) → (prefixes, kv, group·each·n, d): all rows' queries meet their prefix.
        rows, heads, n, width = query.shape
        keys, values, prefixes = self.keys[layer], self.values[layer], len(self.lengths)
        each, kv_heads = rows // prefixes, keys.shape[1]
        split = query.reshape(prefixes, each, kv_heads, -1, n, width).permute(0, 2, 3, 1, 4, 5)
        flat = split.reshape(prefixes, kv_heads, -1, width)
        if len(set(self.lengths)) == 1:
            seen, normaliser = attention_with_normaliser(flat, keys, values, scale)
        else:
            found = [
                attention_with_normaliser(own[None], key[None, :, :length], value[None, :, :length], scale)
                for own, key, value, length in zip(flat, keys, values, self.lengths, strict=True)
            ]
            seen, normaliser = torch.cat([each for each, _ in found]), torch.cat([each for _, each in found])
        seen = seen.view(prefixes, kv_heads, -1, each, n, width).permute(0, 3, 1, 2, 4, 5)
        normaliser = normaliser.view(prefixes, kv_heads, -1, each, n).permute(0, 3, 1, 2, 4)
        return seen.reshape(rows, heads, n, width), normaliser.reshape(rows, heads, n)

    def _seen_in_one_call(self, query: Tensor, layer: int, scale: float) -> tuple[Tensor, Tensor]:
        """`seen_by` by CUDA's kernel for sequences of different lengths, whose tokens stand one after the other.

        It shares keys among heads, and no query is copied: transformers stores queries token by token.
        """
        rows, heads, n, width = query.shape
        for each in (self.keys, self.values):
            if each[layer].dim() == 4:  # once: ``(tokens, heads, width)`` without pads, in place of those with them
                each[layer] = each[layer].transpose(1, 2).flatten(0, 1).index_select(0, self.real)
        prefixes = len(self.lengths)
        queries = rows // prefixes * n
        starts = torch.arange(prefixes + 1, dtype=torch.int32, device=query.device) * queries
        longest = max(queries, 2)  # told of single queries, the kernel reorders them and mixes up their normalisers
        output, normaliser = torch.ops.aten._flash_attention_forward(
            query.transpose(1, 2).reshape(-1, heads, width), self.keys[layer], self.values[layer],
            starts, self.ends, longest, max(self.lengths), 0.0, False, False, scale=scale,
        )[:2]  # fmt: skip
        return output.view(rows, n, heads, width).transpose(1, 2), normaliser.view(heads, rows, n).transpose(0, 1)


def attention_with_normaliser(
    query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention and its log-sum-exp.

    ``query`` ``(rows, heads, n, width)``, ``key``/``value`` ``(rows, heads, m, width)``, of fewer heads where
    `fits_cuda_kernel`; ``mask`` additive ``(rows, 1, n, m)``. Returns ``(rows, heads, n, width)`` and float32
    ``(rows, heads, n)``; the former in float32 where the processor multiplies in it, to be rounded once.
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
    if mask is None and fits_cuda_kernel(query):
        found = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)
        return found[0], found[1]
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * scale
    if causal:
        n, m = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(n, m, dtype=torch.bool, device=query.device).triu(1), float("-inf"))
    if mask is not None:
        scores = scores + mask
    normaliser = scores.logsumexp(-1)
    weights = torch.exp(scores - normaliser.unsqueeze(-1)).to(value.dtype)
    return torch.matmul(weights, value), normaliser


def fits_cuda_kernel(query: Tensor) -> bool:
    """Whether these numbers lie on a GPU whose fused kernel takes them and this width of a head."""
    width = query.shape[-1]
    sixteen_bits = query.dtype in (torch.float16, torch.bfloat16)
    return query.device.type == "cuda" and sixteen_bits and width % 8 == 0 and width <= 256


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
    own, own_normaliser = _among_themselves(query, key, value, scaling, own_mask)
    if shared_prefix is None:
        return own.to(query.dtype).transpose(1, 2), None
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    seen, seen_normaliser = shared_prefix.seen_by(query, layer, scaling)
    share = torch.sigmoid(seen_normaliser - own_normaliser).to(own.dtype).unsqueeze(-1)
    return torch.lerp(own, seen.to(own.dtype), share).to(query.dtype).transpose(1, 2), None


def _among_themselves(
    query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention of each row to its own tokens, as `shared_prefix_attention` says; several heads may share keys."""
    rows, heads, n, width = query.shape
    kv_heads = key.shape[1]
    if mask is not None:  # one query a row: heads that share their keys are as good as queries of one head
        own, normaliser = attention_with_normaliser(
            query.reshape(rows, kv_heads, -1, width), key, value, scale, mask=mask
        )
        return own.reshape(query.shape), normaliser.reshape(rows, heads, n)
    if heads > kv_heads and not fits_cuda_kernel(query):
        key, value = (each.repeat_interleave(heads // kv_heads, dim=1) for each in (key, value))
    return attention_with_normaliser(query, key, value, scale, causal=True)


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
