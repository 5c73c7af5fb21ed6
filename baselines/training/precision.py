"""Weights that really move: float32 where updates are small, and the share of the weights that moved.

AdamW's update of a weight is about the learning rate. In bfloat16 (8 significant bits) one below half a unit in the
last place is rounded away, so that most weights never leave their start.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


class Float32Masters(torch.optim.Optimizer):
    """Beside an optimizer's class: it moves float32 copies of the weights; the weights are the copies rounded.

    Memory per weight beside the model's own: 4 bytes for the copy, the optimizer's moments, and 4 for the gradient in a
    step.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], **settings: Any):
        self.weights: list[nn.Parameter] = [each for group in groups for each in group["params"]]
        copied = [{**group, "params": [each.detach().float().clone() for each in group["params"]]} for group in groups]
        self.masters: list[Tensor] = [each for group in copied for each in group["params"]]
        super().__init__(copied, **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of the optimizer, rounded into the weights."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad, weight.grad = (None if weight.grad is None else weight.grad.float()), None
        super().step(closure)
        for weight, master in zip(self.weights, self.masters, strict=True):
            weight.copy_(master)
            master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, the weights' own too."""
        super().zero_grad(set_to_none)
        for weight in self.weights:
            weight.grad = None


def in_float32(model: nn.Module) -> None:
    """Turn what PEFT adds beside a layer to float32, in which it computes; TRL makes it bfloat16 on a 4-bit model.

    What replaces weights of the model (layer norms, ``modules_to_save``) keeps the type that the model computes in.
    """
    added = [getattr(model, "prompt_encoder", None)]
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and not isinstance(module, LNTuningLayer):
            added += [getattr(module, name, None) for name in module.adapter_layer_names]
    for each in added:
        for parameter in each.parameters() if isinstance(each, nn.Module) else ():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def keep_small_updates(trainer: Any) -> list[Tensor]:
    """Give the trainer's optimizer `Float32Masters` where a trained weight is not float32.

    Returns the tensors that the optimizer moves: the copies, or the weights themselves.
    """
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    if all(each.dtype == torch.float32 for each in trained):
        return trained
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": trainer.args.weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            groups[name not in decayed]["params"].append(parameter)
    optimizer, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    trainer.optimizer = on_float32_masters(optimizer)([group for group in groups if group["params"]], **settings)
    copies = {id(each): copy for each, copy in zip(trainer.optimizer.weights, trainer.optimizer.masters, strict=True)}
    return [copies[id(each)] for each in trained]


def on_float32_masters(optimizer: type) -> Any:
    """The optimizer's class with `Float32Masters`."""
    return type(f"Float32Master{optimizer.__name__}", (Float32Masters, optimizer), {})


def moved_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Share of the numbers that differ; both in the same order. Computed in the type of ``after``."""
    moved = sum(int((a.to(b.dtype) != b).sum()) for a, b in zip(before, after, strict=True))
    return moved / max(sum(each.numel() for each in after), 1)
