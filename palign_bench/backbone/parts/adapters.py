"""Trained tensors on a backbone: put on, taken off, and no trace left.

Two kinds. ``peft``: an adapter of PEFT, described by PEFT's own configuration as a dictionary and never merged; a soft
prompt (PROMPT_TUNING) is one, but the answering engines place it. ``full``: new values of the model's own weights,
swapped in and out by pointer, so that the bare weights come back bit for bit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from palign_bench.backbone.quiet import quiet
from palign_bench.settings import is_number, positive, whole

if TYPE_CHECKING:
    from peft import PeftConfig

VIRTUAL = "prompt_embeddings"  # the one tensor of a soft prompt, by PEFT's name: (virtual tokens, width)
_SOFT_PROMPT = "PROMPT_TUNING"
_REFUSED = {  # techniques whose result would be another than their name says
    "ADALORA": "its ranks move by a call that TRL's trainers do not make",
    **dict.fromkeys(("XLORA", "POLY"), "it mixes several adapters"),
    **dict.fromkeys(
        ("PREFIX_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT"),
        "the answering engines place soft prompts of PROMPT_TUNING alone",
    ),
    "OSF": "it changes the model's own weights",
}


def peft_config(settings: Mapping[str, Any]) -> PeftConfig:
    """PEFT's configuration for a causal language model from its dictionary (``peft_type``, ``r``, …).

    Raises ValueError for an unknown technique or key, a number out of range, and a change of the model's own weights.
    """
    from peft import get_peft_config
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    technique = str(settings.get("peft_type"))
    if technique not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = ", ".join(sorted(str(each.value) for each in PEFT_TYPE_TO_CONFIG_MAPPING))
        raise ValueError(f"peft.peft_type={technique}: choose one of PEFT's techniques: {known}")
    if technique in _REFUSED:
        raise ValueError(f"peft.peft_type={technique}: {_REFUSED[technique]}")
    if settings.get("bias", "none") != "none":
        raise ValueError(f"peft.bias={settings['bias']}: biases are the model's own weights; choose none")
    if settings.get("init_lora_weights", True) not in (True, "gaussian", "orthogonal"):
        raise ValueError(
            f"peft.init_lora_weights={settings['init_lora_weights']}: it changes the model's own weights; choose true, "
            "gaussian or orthogonal"
        )
    for key, value in settings.items():
        _check_range(key, value)
    try:
        return get_peft_config({"task_type": "CAUSAL_LM", **settings})
    except TypeError as error:
        raise ValueError(f"peft: {error}") from error


def _check_range(key: str, value: Any) -> None:
    if key in ("r", "num_virtual_tokens"):
        whole(f"peft.{key}", value)
    if key.endswith("alpha"):
        positive(f"peft.{key}", value)
    if key.endswith("dropout") and not (is_number(value) and 0 <= value < 1):
        raise ValueError(f"peft.{key}={value}: choose a number from 0 up to, but not, 1")


def peft_settings(config: PeftConfig) -> dict[str, Any]:
    """The configuration as the JSON values that `peft_config` takes: what besides the tensors applies an adapter."""
    document: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=sorted))  # the sets of module names
    document.pop("runtime_config", None)
    # Where the base model lies is this machine's business, and no part of an adapter.
    return document | {"inference_mode": True, "base_model_name_or_path": None, "revision": None}


def is_soft_prompt(settings: Mapping[str, Any] | None) -> bool:
    """Whether the answering engines place the adapter of this configuration before the prompt."""
    return settings is not None and settings["peft_type"] == _SOFT_PROMPT


@contextmanager
def leaving_no_trace(model: PreTrainedModel) -> Iterator[None]:
    """Whatever the block attaches to the model or sets on it is gone afterwards, also after an exception.

    Covers submodules (adapter layers), hooks, patched methods, training mode, configurations, ``requires_grad``,
    gradients and *which* tensor a parameter points at; changes of weights must be made in `trainable_copies`.
    """
    modules = [(vars(module), dict(vars(module))) for module in model.modules()]
    registries = [each for _, before in modules for each in before.values() if isinstance(each, dict)]  # hooks, …
    settings = [vars(each) for each in (model.config, model.generation_config) if each is not None]
    held = [*modules, *((each, dict(each)) for each in registries), *((each, copy.deepcopy(each)) for each in settings)]
    parameters = [(p, p.data, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        for each, before in held:
            each.clear()
            each.update(before)
        for parameter, data, requires_grad in parameters:
            parameter.grad = None
            parameter.requires_grad_(requires_grad)
            if parameter.data is not data and parameter.data_ptr() != data.data_ptr():
                parameter.data = data


def trainable_copies(model: PreTrainedModel) -> list[Tensor]:
    """Point every parameter at a copy of itself and let it train, inside `leaving_no_trace`; return the originals."""
    originals = [parameter.data for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
        parameter.requires_grad_(True)
    return originals


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors of a PEFT model by PEFT's own names, copied."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def full_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Every weight by name, the very tensors (tied ones once): `leaving_no_trace` points the model back at its own."""
    return {name: parameter.data for name, parameter in model.named_parameters()}


@contextmanager
def applied_adapter(
    model: PreTrainedModel, adapter: Mapping[str, Tensor], kind: str | None, settings: Mapping[str, Any] | None
) -> Iterator[None]:
    """Put an adapter (``settings``: of `peft_settings`) or full weights on the model for the block.

    Raises ValueError for tensors that do not fit it.
    """
    if kind not in ("peft", "full") or is_soft_prompt(settings):
        raise ValueError(f"adapter_kind={kind}: choose peft or full (a soft prompt goes to the engines)")
    with leaving_no_trace(model):
        if kind == "full":
            _put_weights_on(model, adapter)
        else:
            _put_adapter_on(model, adapter, settings or {})
        yield


def _put_adapter_on(model: PreTrainedModel, adapter: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    from peft import get_peft_model, set_peft_model_state_dict

    with torch.random.fork_rng(devices=[]), quiet("peft", "transformers"):  # initial values are drawn and overwritten
        wrapped = get_peft_model(model, peft_config({**settings, "inference_mode": False}))
        _check_fit("adapter's tensors", adapter_tensors(wrapped), adapter)
        types = {tensor.dtype for tensor in adapter.values() if tensor.is_floating_point()}
        for parameter in wrapped.parameters():
            if parameter.requires_grad and len(types) == 1:
                parameter.data = parameter.data.to(next(iter(types)))  # as trained, else loading would round
        set_peft_model_state_dict(wrapped, dict(adapter))
    wrapped.eval()
    wrapped.requires_grad_(False)


def _put_weights_on(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    _check_fit("weights", parameters, weights)
    for name, parameter in parameters.items():
        parameter.data = weights[name].to(device=parameter.device, dtype=parameter.dtype)


def _check_fit(what: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    wrong = own.keys() ^ given.keys() or {name for name in own if own[name].shape != given[name].shape}
    if wrong:
        raise ValueError(f"the {what} do not fit this model: {min(wrong)}")
