"""Weights that really move: float32 where updates are small, and the share of the weights that moved.

AdamW's update is about the learning rate: of most bfloat16 weights it is less than half a unit in the last place.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


def on_float32_masters(optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
    """Let the optimizer move float32 copies of its weights; after every step the weights are the copies rounded.

    Memory per weight beside the model's own: 4 bytes for the copy, the optimizer's moments, and 4 for the gradient in a
    step. Returns each weight's copy.
    """
    masters = {
        weight: weight.detach().float().clone() for group in optimizer.param_groups for weight in group["params"]
    }
    for group in optimizer.param_groups:
        group["params"] = [masters[weight] for weight in group["params"]]

    def take_gradients(*_: Any) -> None:
        for weight, master in masters.items():
            master.grad, weight.grad = (None if weight.grad is None else weight.grad.float()), None

    def round_into_weights(*_: Any) -> None:
        for weight, master in masters.items():
            weight.detach().copy_(master)
            master.grad = None

    optimizer.register_step_pre_hook(take_gradients)
    optimizer.register_step_post_hook(round_into_weights)
    return masters


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
    """Let the optimizer move float32 copies of weights that are not float32; returns the tensors that it moves."""
    trained = [each for each in trainer.model.parameters() if each.requires_grad]
    if all(each.dtype == torch.float32 for each in trained):
        return trained
    # Not by `create_optimizer`: of 8-bit optimizers it notes the embeddings in a registry that outlives the model.
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    named = [(name, each) for name, each in trainer.model.named_parameters() if each.requires_grad]
    kinds = ((True, trainer.args.weight_decay), (False, 0.0))
    groups = [{"params": [p for n, p in named if (n in decayed) is k], "weight_decay": decay} for k, decay in kinds]
    optimizer, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    trainer.optimizer = optimizer([group for group in groups if group["params"]], **settings)
    masters = on_float32_masters(trainer.optimizer)
    return [masters[each] for each in trained]


def moved_share(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Share of the numbers that differ; both in the same order. Computed in the type of ``after``."""
    moved = sum(int((a.to(b.dtype) != b).sum()) for a, b in zip(before, after, strict=True))
    return moved / max(sum(each.numel() for each in after), 1)
