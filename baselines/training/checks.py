"""What of a loaded model cannot be trained as asked, told in one line before anybody is trained."""

from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor

from baselines.training.dropout import is_random, turn_dropout_off
from baselines.training.layers import lean_layers
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.parts.adapters import leaving_no_trace
from palign_bench.backbone.quiet import quiet
from palign_bench.settings import UserError


def check_randomness(model: Any, ids: Tensor, method: str, cohort: int, turns_dropout_off: bool) -> None:
    """Raise UserError for a model that in training computes something else of ``ids`` ``(1, tokens)`` each time.

    A cohort would draw its dropout for all people at once; a method that turns it off compares the model with itself.
    """
    with leaving_no_trace(model):
        if turns_dropout_off:
            turn_dropout_off(model)
        if not is_random(model, ids):
            return
    if not turns_dropout_off:
        raise UserError(f"training.cohort={cohort}: the model has dropout of its own; use training.cohort=1.")
    raise UserError(
        f"{method}: a {model.config.model_type} in training computes something else each time, which cannot be turned "
        "off; choose another model, or a method that compares it with nothing, as lora."
    )


def check_adapter(model: Any, ids: Tensor, adapter: PeftConfig, method: str, cohort: int) -> None:
    """Raise UserError where PEFT, or a cohort, cannot put the adapter on this model; it reads ``ids`` to see."""
    with leaving_no_trace(model), torch.random.fork_rng(devices=[]), torch.no_grad(), quiet("peft"):
        try:
            with lean_layers(get_peft_model(model, adapter)):
                Anatomy(model).decoder(input_ids=ids, use_cache=False)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise UserError(
                f"{method}: PEFT cannot put this adapter on a {model.config.model_type} "
                f"({' '.join(str(error).split())}); set method.peft otherwise, as its target_modules."
            ) from error
        except torch.OutOfMemoryError:
            pass  # told by `memory.refused_by_gpu`, with what would fit
        wrapped = [name for name, each in model.named_modules() if isinstance(each, ParamWrapper)]
    if wrapped and cohort > 1:
        raise UserError(
            f"training.cohort={cohort}: {wrapped[0]} is no linear layer, and a cohort adapts these alone; "
            "name linear layers in method.peft.target_modules, or use training.cohort=1."
        )
