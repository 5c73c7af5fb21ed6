"""A model of the right shapes with random values, made matrix by matrix.

The values are drawn by the model's own initialisation. A matrix that is to be quantized is so as soon as it is drawn:
memory holds the quantized model and one matrix more, where 70 billion parameters would take 140 GB before quantization.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.quantizers import AutoHfQuantizer

SEED = 0


def make_random(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype, quantization: Any | None
) -> PreTrainedModel:
    """The same values for the same configuration; with a ``quantization`` of bitsandbytes, these values quantized."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    quantizer = None if quantization is None else AutoHfQuantizer.from_config(quantization, pre_quantized=False)
    if quantizer is not None:
        quantizer.preprocess_model(model, dtype=dtype, device_map={"": device})
    # Every matrix to be quantized is drawn into one block: freed blocks of many sizes would leave memory in fragments.
    matrices: list[Any] = [module for module in model.modules() if is_4bit(module)]
    largest = max((matrix.in_features * matrix.out_features for matrix in matrices), default=0)
    scratch = torch.empty(largest, dtype=dtype, device=device)
    torch.manual_seed(SEED)
    with torch.no_grad():
        _fill(model, model, scratch)
    model.tie_weights()
    if quantizer is not None:
        model.hf_quantizer = quantizer
        quantizer.postprocess_model(model)
    return model


def _fill(module: nn.Module, owner: PreTrainedModel, scratch: Tensor) -> None:
    """Give the module's tensors memory and values, its children's first; ``owner`` knows their distributions."""
    for child in module.children():
        _fill(child, child if isinstance(child, PreTrainedModel) else owner, scratch)
    if is_4bit(module):
        _fill_4bit(module, owner, scratch)
        return
    module.to_empty(device=scratch.device, recurse=False)
    owner._init_weights(module)


def is_4bit(module: nn.Module) -> bool:
    """Whether bitsandbytes keeps the layer in 4 bits."""
    return type(module).__name__ == "Linear4bit"  # bitsandbytes is imported only where it is used


def _fill_4bit(module: Any, owner: PreTrainedModel, scratch: Tensor) -> None:
    from bitsandbytes.nn import Params4bit

    shape = (module.out_features, module.in_features)
    plain = nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
    plain.weight = nn.Parameter(scratch[: math.prod(shape)].view(shape), requires_grad=False)
    if plain.bias is not None:
        plain.bias = nn.Parameter(torch.empty_like(plain.bias, dtype=scratch.dtype, device=scratch.device), False)
    owner._init_weights(plain)
    # As transformers quantizes what it loads: the settings of the empty weight, and quantized by the move.
    quantized: Any = Params4bit(plain.weight.data, requires_grad=False, **module.weight.__dict__)
    module.weight, module.bias = quantized.to(scratch.device), plain.bias
