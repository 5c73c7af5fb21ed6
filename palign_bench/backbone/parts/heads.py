"""Reading and shifting the outputs of attention heads.

The output of a head is its slice of the *input* of the attention's output projection (head-major over the query heads):
one forward pre-hook there serves every model whose `Anatomy` knows that projection, quantized or adapted too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from palign_bench.backbone.anatomy import Anatomy


@contextmanager
def shifted_heads(anatomy: Anatomy, shifts: Tensor) -> Iterator[None]:
    """Add ``shifts`` ``(layers, heads × head width)`` to every layer's head outputs, at all positions (paper Eq. 5).

    Layers whose shift is zero are left untouched, so a shift of 0 is the bare model bit for bit. Shifts of several
    groups ``(groups, layers, heads × head width)`` act on rows that come group by group, equally many each. Raises
    ValueError for shifts of another shape, or a model whose heads are not known.
    """
    projections = anatomy.output_projections
    fitting = (len(projections), anatomy.heads * anatomy.head_width)
    if shifts.shape[-2:] != fitting or shifts.ndim not in (2, 3):
        raise ValueError(
            f"head_shifts of shape {tuple(shifts.shape)} do not fit: this model takes (layers, width) = {fitting}"
        )
    there = shifts.to(anatomy.model.device, anatomy.model.dtype)  # once: a copy in every pass makes a GPU wait
    with ExitStack() as hooks:
        for projection, shift, own in zip(projections, there.unbind(-2), shifts.unbind(-2), strict=True):
            if not bool(own.any()):
                continue

            def add(_: nn.Module, args: tuple[Tensor, ...], shift: Tensor = shift) -> tuple[Tensor, ...]:
                shift = shift.to(args[0])
                if shift.ndim == 2:
                    shift = shift.repeat_interleave(len(args[0]) // len(shift), dim=0)[:, None]
                return (args[0] + shift, *args[1:])

            hooks.callback(projection.register_forward_pre_hook(add).remove)
        yield


@contextmanager
def recorded_heads(anatomy: Anatomy, positions: Tensor) -> Iterator[list[Tensor]]:
    """Collect head outputs at one position per row: a list with one ``(rows, heads × head width)`` tensor per layer."""
    recorded: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        rows = torch.arange(len(positions), device=args[0].device)
        recorded.append(args[0][rows, positions].detach())

    with ExitStack() as hooks:
        for projection in anatomy.output_projections:
            hooks.callback(projection.register_forward_pre_hook(keep).remove)
        yield recorded
