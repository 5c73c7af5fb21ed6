"""What training takes of a GPU's memory, known from shapes alone before it begins."""

import copy
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PretrainedConfig

from baselines.training.settings import ADAMW, ADAMW_8BIT, PAGED_ADAMW_8BIT
from palign_bench.settings import first_line

GIB = 2**30
_TOKENS = 64  # of the pass that is measured; what is kept grows with the tokens

# Bytes per trained number on the GPU: AdamW's two moments in float32, in 8 bits, or in the computer's memory.
MOMENTS = {ADAMW: 8.0, ADAMW_8BIT: 2.0, PAGED_ADAMW_8BIT: 0.0}

# How PyTorch and Python say that a forward pass wants numbers, or that it has no such keyword.
_NEEDS_NUMBERS = ("meta tensor", "'meta'", "device meta", "data-dependent", "unexpected keyword argument")


class NotMeasurableError(Exception):
    """An architecture's memory cannot be measured on ``meta``."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the peak of one optimizer step."""

    weights: float  # of the model as it is loaded, and of what is trained
    gradients: float
    optimizer: float  # moments, and float32 copies of the weights
    activations: float  # what the forward pass keeps for the backward pass

    @property
    def total(self) -> float:
        """All of them at once. PyTorch's own overhead is not in it."""
        return float(sum(vars(self).values()))

    def __str__(self) -> str:
        told = [f"{name} {value / GIB:.1f}" for name, value in vars(self).items()]
        return f"{self.total / GIB:.1f} GiB ({', '.join(told)})"


@dataclass(frozen=True)
class TrainingShape:
    """What decides the memory of a training.

    ``model_bytes``: of the weights as loaded. ``trained``: numbers that are trained, ``trained_bytes`` each: of an
    adapter in float32, of full fine-tuning copies in the model's type beside the bare weights. ``tokens``: in one pass.
    ``bytes_per_token``, ``layers``, ``layer_bytes_per_token`` (the hidden state between two layers): its activations.
    """

    model_bytes: float
    trained: int
    trained_bytes: int
    tokens: int
    bytes_per_token: float
    layers: int
    layer_bytes_per_token: float


def forecast(
    shape: TrainingShape, *, optimizer: str = ADAMW, float32_copies: bool = True, checkpointing: bool = False
) -> TrainingMemory:
    """The memory of one optimizer step.

    ``float32_copies``: trained weights that are not float32 are kept in float32 too, as are their gradients in the
    step, when no activations are kept. ``checkpointing``: kept are the states between layers, and one layer's
    activations.
    """
    copies = float32_copies and shape.trained_bytes < 4
    kept = shape.bytes_per_token
    if checkpointing:
        kept = shape.layers * shape.layer_bytes_per_token + shape.bytes_per_token / shape.layers
    backward = TrainingMemory(
        weights=shape.model_bytes + shape.trained * shape.trained_bytes,
        gradients=shape.trained * shape.trained_bytes,
        optimizer=shape.trained * (MOMENTS[optimizer] + 4 * copies),
        activations=kept * shape.tokens,
    )
    step = TrainingMemory(
        backward.weights, shape.trained * (4 if copies else shape.trained_bytes), backward.optimizer, 0
    )
    return max(backward, step, key=lambda each: each.total)


def refusal(
    shape: TrainingShape,
    available: float,
    checkpointing: bool,
    lighter: Mapping[str, TrainingShape],
    optimizer: str = ADAMW,
) -> str | None:
    """Why training one example at a time cannot fit into so many bytes, with what would, in one line; None if it can.

    ``lighter``: other methods by what to type for them.
    """
    needed = forecast(shape, optimizer=optimizer, checkpointing=checkpointing)
    if needed.total <= available:
        return None
    paged = f"method.optim={PAGED_ADAMW_8BIT}"
    choices = {"": (shape, optimizer), paged: (shape, PAGED_ADAMW_8BIT)}
    choices |= {key: (each, ADAMW) for key, each in lighter.items()}
    fitting = {}
    for key, (each, moments) in choices.items():
        for more, spared in (("", checkpointing), ("method.gradient_checkpointing=true", True)):
            total = forecast(each, optimizer=moments, checkpointing=spared).total
            if total <= available:
                fitting[f"{key} {more}".strip()] = total
    shortest = [key for key in fitting if not any(other != key and other in key for other in fitting)]
    would_fit = "; ".join(f"{key}: {fitting[key] / GIB:.1f} GiB" for key in shortest) or "none of its own settings"
    leanest = {
        name: forecast(shape, optimizer=name, float32_copies=False, checkpointing=True).total / GIB
        for name in (ADAMW_8BIT, PAGED_ADAMW_8BIT)
    }
    trainers = ", ".join(f"{name} without float32 copies {gib:.1f}" for name, gib in leanest.items())
    return (
        f"training one example at a time takes about {needed} and the GPU has {available / GIB:.1f} GiB. "
        f"What would fit: {would_fit}. (For a trainer of your own, in GiB: {trainers}.)"
    )


def refused_by_gpu(
    model: Any, adapter: Any | None, tokens: int, checkpointing: bool, optimizer: str = ADAMW
) -> str | None:
    """`refusal` for a loaded model on a GPU and examples of at most so many ``tokens``; None on a CPU.

    An architecture that cannot be measured without numbers is not refused; the log says so.
    """
    if model.device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(model.device)
    held = sum(each.numel() * each.element_size() for each in model.parameters())

    adapters = {"": adapter}
    if adapter is None:
        adapters["method=lora"] = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    try:
        shapes = {k: shape_of_training(model.config, model.dtype, held, each, tokens) for k, each in adapters.items()}
    except NotMeasurableError as error:
        tqdm.write(f"no forecast of this training's memory: {error}", file=sys.stderr)
        return None
    available = free + torch.cuda.memory_reserved(model.device)
    return refusal(shapes.pop(""), available, checkpointing, shapes, optimizer)


def shape_of_training(
    config: PretrainedConfig, dtype: torch.dtype, model_bytes: float, adapter: Any | None, tokens: int
) -> TrainingShape:
    """The shape of training a model of this configuration whole or with a PEFT ``adapter``; nothing is computed."""
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # the shapes are those of the unquantized model
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    text = model.config.get_text_config()
    kept = bytes_kept_per_token(model)
    if adapter is not None:
        model = get_peft_model(model, adapter)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    size = torch.empty((), dtype=dtype).element_size()
    return TrainingShape(
        model_bytes=model_bytes,
        trained=trained,
        trained_bytes=size if adapter is None else 4,
        tokens=tokens,
        bytes_per_token=kept,
        layers=text.num_hidden_layers,
        layer_bytes_per_token=text.hidden_size * size,
    )


def bytes_kept_per_token(model: Any) -> float:
    """Bytes of activations that a forward pass keeps for the backward pass, measured on a model on ``meta``.

    Logits are computed for one token: trainers differ in how many they need. Raises NotMeasurableError for an
    architecture whose forward pass looks at its numbers, or that takes no ``logits_to_keep``.
    """
    kept: dict[int, Any] = {}
    own = {each.untyped_storage()._cdata for each in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no later one gets its address
        return tensor

    training, device = model.training, model.device
    model.train()
    # A mask of four dimensions is taken as it is; one of two would be looked into.
    mask = torch.zeros(1, 1, _TOKENS, _TOKENS, dtype=model.dtype, device=device)
    ids = torch.zeros(1, _TOKENS, dtype=torch.long, device=device)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = model(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False)
        del output
    except (NotImplementedError, RuntimeError, TypeError) as error:
        told = first_line(error)
        if not any(words in told for words in _NEEDS_NUMBERS):
            raise
        raise NotMeasurableError(f"model_type {model.config.model_type} cannot run without numbers ({told})") from error
    finally:
        model.train(training)
    return sum(storage.nbytes() for storage in kept.values()) / _TOKENS
