"""Trained tensors on a backbone: put on, taken off, and no trace left.

Three kinds. ``lora``: low-rank updates beside the linear layers, through PEFT, never merged, so that 4-bit weights take
them too. ``prompt``: soft-prompt embeddings, which the answering engines place themselves. ``full``: new values of the
model's own weights, swapped in and out by pointer, so that the bare weights exist once and come back bit for bit.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

KINDS = ("lora", "prompt", "full")
VIRTUAL = "virtual"  # the one tensor of a soft prompt: (virtual tokens, width)


@dataclass
class _Held:
    """A module's attributes: the plain ones by reference, its registries (children, hooks, …) copied."""

    module: nn.Module
    attributes: dict[str, Any]
    registries: dict[str, tuple[Any, dict[Any, Any]]]

    @classmethod
    def of(cls, module: nn.Module) -> _Held:
        attributes = dict(vars(module))
        return cls(module, attributes, {k: (v, dict(v)) for k, v in attributes.items() if isinstance(v, dict)})

    def put_back(self) -> None:
        held = vars(self.module)
        for key in held.keys() - self.attributes.keys():
            del held[key]
        held.update(self.attributes)
        for registry, content in self.registries.values():
            registry.clear()
            registry.update(content)


@contextmanager
def leaving_no_trace(model: PreTrainedModel) -> Iterator[None]:
    """Whatever the block attaches to the model or sets on it is gone afterwards, also after an exception.

    Covers submodules (adapter layers), hooks, patched methods, training mode, configurations, ``requires_grad``,
    gradients and *which* tensor a parameter points at. A block that changes weights must do so in copies:
    `trainable_copies`.
    """
    modules = [_Held.of(module) for module in model.modules()]
    parameters = [(p, p.data, p.requires_grad) for p in model.parameters()]
    settings = [
        (each, copy.deepcopy(vars(each))) for each in (model.config, model.generation_config) if each is not None
    ]
    try:
        yield
    finally:
        for held in modules:
            held.put_back()
        for parameter, data, requires_grad in parameters:
            parameter.grad = None
            parameter.requires_grad_(requires_grad)
            if parameter.data is not data and parameter.data_ptr() != data.data_ptr():
                parameter.data = data
        for each, before in settings:
            vars(each).clear()
            vars(each).update(before)


def trainable_copies(model: PreTrainedModel) -> None:
    """Point every parameter at a copy of itself and let it train; inside `leaving_no_trace`."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(True)


def lora_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The LoRA tensors of a PEFT model by PEFT's own names, copied."""
    from peft import get_peft_model_state_dict

    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}


def full_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every weight by name, the very tensors (tied ones once): `leaving_no_trace` points the model back at its own."""
    return {name: parameter.data for name, parameter in model.named_parameters()}


@contextmanager
def applied_adapter(
    model: PreTrainedModel, adapter: Mapping[str, Tensor], kind: str | None, settings: Mapping[str, Any] | None
) -> Iterator[None]:
    """Put LoRA tensors or full weights on the model for the block. Raises ValueError for tensors that do not fit it.

    ``settings`` of ``lora``: ``rank``, ``alpha``, ``target_modules``. A soft prompt is not put on the model: the
    engines place it.
    """
    if kind == "lora":
        with leaving_no_trace(model):
            _put_lora_on(model, adapter, settings or {})
            yield
    elif kind == "full":
        with leaving_no_trace(model):
            _put_weights_on(model, adapter)
            yield
    else:
        raise ValueError(f"adapter_kind={kind}: choose lora or full (prompt goes to the engines)")


def _put_lora_on(model: PreTrainedModel, adapter: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config = LoraConfig(
        r=int(settings["rank"]),
        lora_alpha=settings["alpha"],
        target_modules=_targets(settings["target_modules"]),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), quiet("peft", "transformers"):  # initial values are drawn and overwritten
        wrapped = get_peft_model(model, config)
        wrong = set(get_peft_model_state_dict(wrapped)) ^ set(adapter)
        if wrong:
            raise ValueError(f"the LoRA tensors do not fit this model: {min(wrong)}")
        set_peft_model_state_dict(wrapped, dict(adapter))
    wrapped.eval()
    wrapped.requires_grad_(False)


def _put_weights_on(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    if parameters.keys() != weights.keys():
        raise ValueError(f"the weights do not fit this model: {sorted(parameters.keys() ^ weights.keys())[0]}")
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            raise ValueError(f"the weights do not fit this model: {name} has shape {tuple(weights[name].shape)}")
        parameter.data = weights[name].to(device=parameter.device, dtype=parameter.dtype)


def _targets(targets: Any) -> Any:
    return targets if isinstance(targets, str) else list(targets)


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Without these libraries' warnings: they name nothing that a user could change."""
    loggers = [logging.getLogger(name) for name in libraries]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
