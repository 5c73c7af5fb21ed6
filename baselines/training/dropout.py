"""A model's own dropout: turned off wherever it is kept, and found by what it does."""

from typing import Any

import torch
from torch import Tensor, nn

from palign_bench.backbone.anatomy import Anatomy

_AS_ROUNDING = 1e-3  # of the states' size, or a step of their type: up to it two passes are one
_PASSES = 4  # as layers that are left out at random may stay twice


def turn_dropout_off(model: Any) -> None:
    """Set every dropout probability to 0; call inside `leaving_no_trace`.

    TRL's own function reaches `nn.Dropout` alone; attention and older models keep a number.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for each in (model.config, *model.modules()):
        for name, value in list(vars(each).items()):
            if "drop" in name and isinstance(value, float):
                setattr(each, name, 0.0)


@torch.no_grad()
def is_random(model: Any, ids: Tensor) -> bool:
    """Whether the model in training computes something else of these ids ``(1, tokens)`` each time.

    Inside `leaving_no_trace`.
    """
    model.train()
    decoder, devices = Anatomy(model).decoder, [ids.device] if ids.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        first, *others = (decoder(input_ids=ids, use_cache=False).last_hidden_state for _ in range(_PASSES))
    most = max(_AS_ROUNDING, torch.finfo(first.dtype).eps) * first.float().norm()
    return any(bool((first.float() - each.float()).norm() > most) for each in others)
