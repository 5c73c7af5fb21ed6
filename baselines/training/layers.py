"""Linear layers in training, forward and backward, without the copies that autograd would keep.

LoRA's update (Hu et al. 2021) is ``output + scaling × dropout(x) Aᵀ Bᵀ``, for one person, or for several in batched
products. The matrices are float32, and so is what is computed from them, whatever the model's type: as in PEFT, up to
rounding. Kept for the backward pass are ``x`` in the model's type, the narrow product, and the places that dropout
took.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from palign_bench.backbone.engines.products import fewest_rows, product_dtype
from palign_bench.backbone.forward import replace_forward


class LowRankUpdate(torch.autograd.Function):
    """``output`` ``(people, n, outputs)`` of a layer, updated, in the type of ``x``.

    ``x`` ``(people, n, inputs)``, ``a`` ``(people, rank, inputs)``, ``b`` ``(people, outputs, rank)``; ``dropped``:
    what dropout takes from ``x`` (`dropped_numbers`), or None.
    """

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, x: Tensor, a: Tensor, b: Tensor, scaling: float, dropped: Tensor | None
    ) -> Tensor:
        narrow = torch.bmm(_without(dropped, x.to(a.dtype, copy=dropped is not None)), a.mT)
        ctx.scaling, ctx.dropped, ctx.dtype = scaling, dropped, output.dtype
        ctx.save_for_backward(x, a, b, narrow)
        return output.to(a.dtype, copy=True).baddbmm_(narrow, b.mT, alpha=scaling).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, a, b, narrow = ctx.saved_tensors
        wide = gradient.to(a.dtype)
        narrower = torch.bmm(wide, b) * ctx.scaling
        of_x = None
        if ctx.needs_input_grad[1]:
            of_x = _without(ctx.dropped, torch.bmm(narrower, a)).to(x.dtype)
        of_a = torch.bmm(narrower.mT, _without(ctx.dropped, x.to(a.dtype, copy=ctx.dropped is not None)))
        of_b = torch.bmm(wide.mT, narrow) * ctx.scaling
        return wide.to(ctx.dtype), of_x, of_a, of_b, None, None


def _without(dropped: Tensor | None, x: Tensor) -> Tensor:
    """``x``, its dropped numbers set to 0 in place."""
    if dropped is None:
        return x
    if dropped.dtype == torch.bool:
        return x.masked_fill_(dropped.view(x.shape), 0.0)
    x.view(-1).index_fill_(0, dropped, 0.0)
    return x


def dropped_numbers(count: int, share: float, device: torch.device, generator: Any = None) -> Tensor:
    """Which of so many numbers dropout takes, each with probability ``share``: their places, on a GPU a mask.

    From one dropped number to the next it is as far as a geometric distribution says: few draws where few are dropped.
    """
    if device.type != "cpu":
        return torch.rand(count, device=device, generator=generator) < share
    found, last = [], -1
    while last < count:
        even = torch.rand(int(count * share * 1.05) + 64, generator=generator)
        steps = even.neg_().log1p_().div_(math.log1p(-share)).ceil_().clamp_(min=1)  # `geometric_` takes twice as long
        found.append(steps.to(torch.int64).cumsum_(0).add_(last))
        last = int(found[-1][-1])
    places = torch.cat(found)
    return places[: int(torch.searchsorted(places, count))]


class WideProduct(torch.autograd.Function):
    """A 16-bit linear layer that multiplies in float32, forward and backward; its output is float32.

    For processors without fast 16-bit products (`palign_bench.backbone.engines.products`). Kept are the 16-bit
    matrices, or the 4-bit ones with their ``state``: autograd would keep a float32 copy of every weight.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, state: Any = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.state = state
        return linear(x.float(), _matrix(weight, state).float(), None if bias is None else bias.float())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        return (
            (gradient @ _matrix(weight, ctx.state).float()).to(x.dtype) if of_x else None,
            (rows.t() @ x.flatten(0, -2).float()).to(weight.dtype) if of_weight else None,
            rows.sum(0).to(x.dtype) if of_bias else None,
            None,
        )


class WideUpdate(torch.autograd.Function):
    """`LowRankUpdate` of what `WideProduct` makes of ``x``, where the layer's own numbers are not trained.

    In one, since half the time goes to conversions: ``x`` and the gradient are widened once, and rounded once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        state: Any,
        a: Tensor,
        b: Tensor,
        scaling: float,
        dropped: Tensor | None,
    ) -> Tensor:
        wide = x.to(torch.float32, copy=True)
        output = linear(wide, _matrix(weight, state).float(), None if bias is None else bias.float())
        narrow = torch.bmm(_without(dropped, wide), a.mT)
        ctx.state, ctx.scaling, ctx.dropped = state, scaling, dropped
        ctx.save_for_backward(x, weight, a, b, narrow)
        return output.baddbmm_(narrow, b.mT, alpha=scaling).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, narrow = ctx.saved_tensors
        wide = gradient.float()
        narrower = torch.bmm(wide, b) * ctx.scaling
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = wide @ _matrix(weight, ctx.state).float()
            of_x = of_x.add_(_without(ctx.dropped, torch.bmm(narrower, a))).to(x.dtype)
        of_a = torch.bmm(narrower.mT, _without(ctx.dropped, x.to(torch.float32, copy=True)))
        of_b = torch.bmm(wide.mT, narrow) * ctx.scaling
        return of_x, None, None, None, of_a, of_b, None, None


def _matrix(weight: Tensor, state: Any) -> Tensor:
    """The weights, read from 4 bits where bitsandbytes keeps their ``state``."""
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight, state)


def product(layer: Any, x: Tensor, own: Callable[[Tensor], Tensor]) -> Tensor:
    """What the layer makes of ``x``: ``own(x)``, or in float32 where the processor multiplies in it."""
    if not _multiplies_wide(layer, x):
        return own(x)
    found: Tensor = WideProduct.apply(x, layer.weight, layer.bias, getattr(layer.weight, "quant_state", None))
    return found


def updated_product(
    layer: Any,
    x: Tensor,
    own: Callable[[Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    scaling: float,
    dropped: Tensor | None,
) -> Tensor:
    """`product` of the layer for ``x`` ``(people, n, inputs)`` and everyone's low-rank update, in its type."""
    trained = layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
    found: Tensor
    if trained or not _multiplies_wide(layer, x):
        found = LowRankUpdate.apply(product(layer, x, own), x, a, b, scaling, dropped)
    else:
        state = getattr(layer.weight, "quant_state", None)
        found = WideUpdate.apply(x, layer.weight, layer.bias, state, a, b, scaling, dropped)
    return found


def _multiplies_wide(layer: Any, x: Tensor) -> bool:
    """Whether float32 is how this layer's product with so many rows is faster."""
    state = getattr(layer.weight, "quant_state", None)
    if not (type(layer) is nn.Linear or _reads_four_bits(layer, x)):
        return False
    dtype = layer.weight.dtype if state is None else x.dtype
    return product_dtype(dtype, x.device) != dtype and x.numel() >= fewest_rows(dtype) * layer.in_features


def _reads_four_bits(layer: nn.Module, x: Tensor) -> bool:
    """Whether bitsandbytes' layer multiplies in the type of ``x``, its weights in the layout that it quantizes to."""
    state = getattr(layer.weight, "quant_state", None)
    if type(layer).__name__ != "Linear4bit" or state is None or getattr(state, "packing_format_for_cpu", False):
        return False
    return state.dtype == x.dtype and layer.compute_dtype in (None, x.dtype)


def _rounded_product(layer: Any, own: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return product(layer, x, own).to(x.dtype)


@contextmanager
def lean_layers(model: nn.Module) -> Iterator[None]:
    """Within the block linear layers multiply by `WideProduct` where that is faster, forward and backward.

    PEFT's LoRA layers on the model update by `LowRankUpdate`; its variants stay as they are.
    """
    with ExitStack() as stack:
        for module in model.modules():
            if _is_plain(module):
                replace_forward(stack, module, partial(_forward, module, module.forward))
            elif _multiplies_otherwise(module):
                replace_forward(stack, module, partial(_rounded_product, module, module.forward))
        yield


def _multiplies_otherwise(module: nn.Module) -> bool:
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    return product_dtype(module.weight.dtype, module.weight.device) != module.weight.dtype


def _is_plain(module: nn.Module) -> bool:
    if not isinstance(module, LoraLayer) or type(module).__name__ not in ("Linear", "Linear4bit"):
        return False
    if list(module.lora_A) != ["default"] or module.lora_variant or "forward" in vars(module):
        return False
    a, b = module.lora_A["default"], module.lora_B["default"]
    return bool(a.weight.dtype == b.weight.dtype == torch.float32 and b.bias is None)


def _forward(module: Any, own: Callable[..., Tensor], x: Tensor, *arguments: Any, **named: Any) -> Tensor:
    if module.merged or arguments or named:
        return own(x, *arguments, **named)
    if module.disable_adapters:  # the reference policy's layer, rounded as by itself
        return _rounded_product(module.base_layer, module.base_layer, x)
    share = float(getattr(module.lora_dropout["default"], "p", 0.0)) if module.training else 0.0
    found = updated_product(
        module.base_layer,
        x.reshape(1, -1, x.shape[-1]),
        module.base_layer,
        module.lora_A["default"].weight[None],
        module.lora_B["default"].weight[None],
        module.scaling["default"] / (1 - share),
        dropped_numbers(x.numel(), share, x.device) if share else None,
    )
    return found.view(*x.shape[:-1], -1)
