"""Reading and shifting the outputs of attention heads.

The output of a head is its slice of the *input* of ``o_proj`` (head-major over the query heads), so one forward
pre-hook there serves every Llama-like model, also in 4 bits and under adapters, without a forked modelling file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def output_projections(model: nn.Module) -> list[nn.Module]:
    """The ``o_proj`` of every layer, in order. Raises ValueError for a model without such modules."""
    found = [m.o_proj for name, m in model.named_modules() if name.endswith("self_attn") and hasattr(m, "o_proj")]
    if not found:
        raise ValueError(f"{type(model).__name__} has no self_attn.o_proj modules, so its heads cannot be steered")
    return found


def head_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """(layers, query heads, head width)."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = output_projections(model)
    assert layers[0].in_features == config.num_attention_heads * width, "o_proj does not read heads × head width"
    return len(layers), config.num_attention_heads, width


@contextmanager
def shifted_heads(model: PreTrainedModel, shifts: Tensor) -> Iterator[None]:
    """Add ``shifts`` ``(layers, heads × head width)`` to every layer's head outputs, at all positions (paper Eq. 5).

    Layers whose shift is zero are left untouched, so a shift of 0 is the bare model bit for bit. The hooks are removed
    on leaving, also after an exception.

    Shifts of several groups ``(groups, layers, heads × head width)`` act on rows that come group by group, equally many
    each.
    """
    projections = output_projections(model)
    if shifts.shape[-2:] != (len(projections), projections[0].in_features) or shifts.ndim not in (2, 3):
        raise ValueError(f"shifts of shape {tuple(shifts.shape)} do not fit {len(projections)} layers of this model")
    handles = []
    try:
        for projection, shift in zip(projections, shifts.unbind(-2), strict=True):
            if not bool(shift.any()):
                continue

            def add(_: nn.Module, args: tuple[Tensor, ...], shift: Tensor = shift) -> tuple[Tensor, ...]:
                shift = shift.to(args[0])
                if shift.ndim == 2:
                    shift = shift.repeat_interleave(len(args[0]) // len(shift), dim=0)[:, None]
                return (args[0] + shift, *args[1:])

            handles.append(projection.register_forward_pre_hook(add))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded_heads(model: PreTrainedModel, positions: Tensor) -> Iterator[list[Tensor]]:
    """Collect head outputs at one position per row: a list with one ``(rows, heads × head width)`` tensor per layer."""
    recorded: list[Tensor] = []
    handles = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = torch.arange(len(positions), device=args[0].device)
        recorded.append(args[0][rows, positions].detach())

    try:
        handles = [projection.register_forward_pre_hook(keep) for projection in output_projections(model)]
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
