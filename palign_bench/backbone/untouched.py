"""How a loaded model stands, so that what a method left on it is noticed: whoever comes next starts from it."""

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor, nn

_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def state_of(model: nn.Module) -> Hashable:
    """What decides what the model computes: every stored number, hooks, replaced methods, training or not.

    Two states are equal where nothing has changed, whatever the device: numbers are summed as the bits that they are.
    That takes as long as reading the weights once.
    """
    names, stored = zip(*_stored(model), strict=True)
    sums = [_sum_of_bits(each) for each in stored]
    added = tuple(
        (len(each._forward_hooks), len(each._forward_pre_hooks), "forward" in vars(each)) for each in model.modules()
    )
    return names, tuple(torch.stack([each.to(sums[0].device) for each in sums]).tolist()), added, model.training


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and the buffers that belong to a model's files; others, as rotary tables, may grow with a text."""
    yield from model.named_parameters()
    for place, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{place}.{name}", buffer


def _sum_of_bits(stored: Tensor) -> Tensor:
    """The sum of a tensor's memory, read as whole numbers, eight bytes at a time where it can be."""
    numbers = stored.detach()
    if numbers.is_contiguous() and numbers.numel() * numbers.element_size() % 8 == 0:
        return numbers.reshape(-1).view(torch.int64).sum()
    return numbers.view(_WHOLE_NUMBERS[numbers.element_size()]).sum(dtype=torch.int64)
