"""Getting a language model and its tokenizer: from the embedded package, from disk, from the hub, or at random.

Model code is never downloaded (``trust_remote_code`` stays off) and weights are safetensors or GGUF, never pickles.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.loading.completeness import check_files, load_whole
from palign_bench.backbone.loading.identity import identify
from palign_bench.backbone.loading.random_weights import is_4bit, make_random
from palign_bench.backbone.loading.settings import ModelError, choose_device, choose_dtype
from palign_bench.backbone.loading.sources import (
    base_of,
    config_of,
    named_errors,
    source_of,
    stored_quantization,
    tokenizer_of,
)

# bitsandbytes warns at import that a faster 4-bit kernel is not installed; the one that it has serves.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)


@dataclass
class LoadedModel:
    """A language model, its tokenizer and what identifies its weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    weights_hash: str  # of `identify`
    quantization: str
    tokenizer_hash: str = ""  # of `identify`; empty for a tokenizer made in a test


def anatomy_of(settings: Mapping[str, Any]) -> Anatomy:
    """The model's parts, found on its skeleton: modules without memory or values.

    Raises ModelError for a folder on disk that does not hold every one of its tensors.
    """
    config = config_of(settings)
    with named_errors(settings), torch.device("meta"):
        anatomy = Anatomy(AutoModelForCausalLM.from_config(config))
    if settings["weights"] == "hub":
        _check_files(settings, on_disk=True)
    return anatomy


def parameters_of(settings: Mapping[str, Any]) -> int:
    """How many parameters the model has, from its shape alone; no weights are read."""
    if settings.get("shape") and settings.get("name_or_path") in (None, settings.get("hub_name")):
        settings = {**settings, "weights": "random"}  # the shape is written down; nothing is asked of the hub
    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(config_of(settings)).num_parameters())


def load(settings: Mapping[str, Any]) -> LoadedModel:
    """The model that ``settings`` (a resolved ``conf/model/*.yaml``) describe, ready to answer. Raises ModelError."""
    identified = identify(settings)
    device = choose_device(settings["device"])
    dtype = choose_dtype(settings["dtype"], device)
    tokenizer = tokenizer_of(settings)
    if settings["weights"] == "random":
        nf4 = _nf4(dtype) if settings["quantization"] == "nf4" else None
        model = make_random(config_of(settings), device, dtype, nf4)
    else:
        _check_files(settings)
        model = _from_pretrained(settings, device, dtype)
    for matrix in (module for module in model.modules() if is_4bit(module)):
        # On a CPU with AVX512-BF16, bitsandbytes repacks weights in an evaluation forward and ruins later gradients.
        matrix.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    for part in (module for module in model.modules() if isinstance(module, PreTrainedModel)):
        part.config.return_dict = True  # outputs are read by name, also of a model whose config.json asks for tuples
    model.eval()
    model.requires_grad_(False)
    hashes = identified["weights_hash"], identified["tokenizer_hash"]
    return LoadedModel(model, tokenizer, settings["name"], hashes[0], settings["quantization"], hashes[1])


def _check_files(settings: Mapping[str, Any], on_disk: bool = False) -> None:
    """Raise ModelError where a tensor of the model, or of an adapter and its base, is missing or has no place.

    ``on_disk``: look at folders alone, for nothing is to be downloaded yet.
    """
    if (stored := stored_quantization(settings)) is not None:
        # Packed tensors can only be unpacked with their values: whether all are there is told once they are loaded.
        _check_stored(settings, stored)
        return
    with named_errors(settings):
        for place, revision in dict.fromkeys((base_of(settings), (source_of(settings), settings.get("revision")))):
            if Path(place).is_dir() or not on_disk:
                check_files(place, revision)


def _check_stored(settings: Mapping[str, Any], stored: str) -> None:
    """Raise ModelError where weights that lie quantized in their files would be rounded once more."""
    what = None
    if settings["quantization"] != "none":
        what = f"model.quantization={settings['quantization']} is for a model that is not"
    elif find_adapter_config_file(source_of(settings), revision=settings.get("revision")) is not None:
        what = "an adapter cannot be merged into them exactly"
    if what is not None:
        raise ModelError(
            f"model.name_or_path={settings['name_or_path']}: the weights are stored quantized ({stored}), and {what}. "
            "Give the model as it was before."
        )


def _from_pretrained(settings: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    options: dict[str, Any] = {"dtype": dtype, "revision": settings.get("revision"), "use_safetensors": True}
    if settings["quantization"] == "nf4":
        options["quantization_config"] = _nf4(dtype)
    with named_errors(settings):
        model = load_whole(source_of(settings), device_map={"": device}, **options)
    return _merged(model, settings) if getattr(model, "_hf_peft_config_loaded", False) else model


def _merged(model: PreTrainedModel, settings: Mapping[str, Any]) -> PreTrainedModel:
    """The plain model that a base and its PEFT adapter make: methods read, steer and train the layers of a plain one.

    Raises ModelError for an adapter that is no change of weights, and for quantized weights, which would round it.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    place = f"model.name_or_path={settings['name_or_path']}"
    if settings["quantization"] != "none":
        raise ModelError(f"{place} is a PEFT adapter, which cannot be merged exactly with model.quantization=nf4.")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    if not layers or not all(hasattr(layer, "merge") for layer in layers.values()):
        raise ModelError(f"{place} is a PEFT adapter that changes no weights; it cannot be merged with its base.")
    for name, layer in layers.items():
        layer.merge()
        model.set_submodule(name, layer.get_base_layer())
    model._hf_peft_config_loaded = False
    del model.peft_config
    return model


def _nf4(dtype: torch.dtype) -> Any:
    # Paper C.1 runs the 70B model in 4 bits; QLoRA (Dettmers et al. 2023) is NF4 with double quantization.
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
