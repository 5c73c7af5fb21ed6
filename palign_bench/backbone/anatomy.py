"""What a model is made of: decoder, layers, attention outputs, context length, and what happens after its last layer.

What is not known exactly has a reason in `Anatomy.lacking`: a method that needs it is refused before any work starts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from palign_bench.backbone.forward import replace_forward

# Where architectures keep the matrix that reads all heads' outputs, side by side: inside a decoder layer.
OUTPUT_PROJECTIONS = (
    "self_attn.o_proj",  # Llama and what follows it
    "self_attn.dense",  # Phi, Persimmon
    "self_attn.out_proj",  # OPT, XGLM, BioGPT
    "self_attention.dense",  # Falcon, BLOOM
    "attention.dense",  # GPT-NeoX
    "attn.c_proj",  # GPT-2, GPT-BigCode
    "attn.out_proj",  # GPT-J, CodeGen, MPT
    "attn.attention.out_proj",  # GPT-Neo
)
_ENDINGS = tuple(f".{each}" for each in OUTPUT_PROJECTIONS)
# What reaches the projection here are no longer single heads: they are subtracted in pairs.
_MIXED_HEADS = frozenset({"diffllama"})
# Between their layers they keep several hidden states of a token, and only their end makes one of them.
_SEVERAL_STATES = frozenset({"deepseek_v4", "gemma3n_text", "hy_v4", "qwen4_exp_text"})
# PEFT puts no adapter on their state-space layers.
_WITHOUT_ADAPTERS = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


class Anatomy:
    """The parts of one model. Cheap to make; parts are looked up where they are used, so adapters may wrap them."""

    def __init__(self, model: PreTrainedModel):
        self.model: Any = model  # transformers types few of the attributes used here
        self.config: Any = model.config.get_text_config(decoder=True)

    @property
    def model_type(self) -> str:
        return str(self.model.config.model_type)

    @property
    def decoder(self) -> Any:
        """Token ids (or embeddings) to hidden states after the final normalisation."""
        base = self.model.base_model
        if base is self.model:  # Llama 4 says that its base model has a name that it has not
            base = getattr(base, "model", base)
        inner = getattr(base, "decoder", None)  # OPT keeps its decoder in a shell that its language model goes around
        return inner if isinstance(inner, nn.Module) else base

    @cached_property
    def layers(self) -> tuple[nn.Module, ...]:
        """The decoder's layers, in order; empty where they are not found."""
        depth = getattr(self.config, "num_hidden_layers", None)
        lists = [
            (name.count("."), module)
            for name, module in self.decoder.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == depth
        ]
        return tuple(min(lists, key=lambda each: each[0])[1]) if lists else ()

    @property
    def output_projections(self) -> list[Any]:
        """Of every layer, the module whose input is all heads' outputs, head-major. Raises ValueError: not known."""
        if "activations" in self.lacking:
            raise ValueError(f"{self.model_type}: {self.lacking['activations']}")
        return [self.model.get_submodule(name) for name in self._projection_names]

    @cached_property
    def _projection_names(self) -> tuple[str, ...]:
        names = {module: name for name, module in self.model.named_modules()}
        found = [
            [f"{names[layer]}.{name}" for name, _ in layer.named_modules() if f".{name}".endswith(_ENDINGS)]
            for layer in self.layers
        ]
        return tuple(each[0] for each in found) if all(len(each) == 1 for each in found) else ()

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        return int(self.config.num_attention_heads)

    @property
    def head_width(self) -> int:
        """Width of one head's output. Raises ValueError where it is not known."""
        return _inputs_of(self.output_projections[0]) // self.heads

    @property
    def width(self) -> int:
        """Of a hidden state."""
        return int(self.config.hidden_size)

    @cached_property
    def lacking(self) -> Mapping[str, str]:
        """The capabilities that this model does not offer, each with the reason in one line."""
        if self.config is not self.model.config:
            reason = f"model_type {self.model_type} wraps its language model in one for images or sound"
            return dict.fromkeys(("activations", "hidden states", "gradients"), reason)
        if not self.layers:
            reason = f"the layers of model_type {self.model_type} are not known"
            return dict.fromkeys(("activations", "hidden states"), reason)
        reasons = {"activations": self._why_no_heads()}
        if self.model_type in _SEVERAL_STATES:
            reasons["hidden states"] = (
                f"the layers of model_type {self.model_type} keep several hidden states of a token"
            )
        if self.model_type in _WITHOUT_ADAPTERS:
            reasons["gradients"] = f"PEFT puts no adapter on the state-space layers of model_type {self.model_type}"
        return {need: reason for need, reason in reasons.items() if reason is not None}

    def _why_no_heads(self) -> str | None:
        if not self._projection_names:
            return f"not every layer of model_type {self.model_type} has one known output of attention heads"
        try:
            heads = getattr(self.config, "num_attention_heads", None)
            width = getattr(self.config, "v_head_dim", None) or getattr(self.config, "head_dim", None)
        except RuntimeError:  # transformers' own, for what is set layer by layer, as Gemma 4's widths
            return f"the attention heads of model_type {self.model_type} differ from layer to layer"
        if not isinstance(heads, int):
            return f"model_type {self.model_type} has no one number of attention heads"
        widths = {_inputs_of(self.model.get_submodule(name)) for name in self._projection_names}
        expected = heads * width if isinstance(width, int) else self.width
        if widths != {expected} or expected % heads:
            found = ", ".join(map(str, sorted(widths)))
            return f"the attention outputs of model_type {self.model_type} are {found} wide, not {heads} heads of one"
        if self.model_type in _MIXED_HEADS or self._has_norm_of_several_heads(expected // heads):
            return f"the attention of model_type {self.model_type} mixes its heads' outputs before it projects them"
        return None

    def _has_norm_of_several_heads(self, head_width: int) -> bool:
        """Whether a norm wider than one head stands beside a projection, as BitNet's and MiniMax's.

        Those of queries and keys (``q_norm``, ``kv_a_layernorm``) come before attention and mix no outputs.
        """
        places = {name.rpartition(".")[0] for name in self._projection_names}
        beside = (child for place in places for child in self.model.get_submodule(place).named_children())
        weights = [getattr(module, "weight", None) for name, module in beside if not name.startswith(("q", "k"))]
        return any(isinstance(each, Tensor) and each.ndim == 1 and len(each) > head_width for each in weights)

    @cached_property
    def context(self) -> int | None:
        """Positions that the model was made for; None where it has no limit."""
        positions = [getattr(self.config, key, None) for key in _CONTEXT_KEYS]
        known = [each for each in positions if isinstance(each, int) and each > 0]
        if not known:
            return None
        # Models whose configuration keeps the length before scaling: factor × that.
        stretched = [
            int(rope["factor"] * (rope.get("original_max_position_embeddings") or known[0]))
            for rope in self._rotary_settings()
            if isinstance(rope.get("factor"), int | float)
        ]
        return max([known[0], *stretched])

    @cached_property
    def scales_with_length(self) -> bool:
        """Whether a position's rotary angle depends on how long the sequence is (``dynamic``, ``longrope``)."""
        types = [str(rope.get("rope_type", rope.get("type", "default"))) for rope in self._rotary_settings()]
        return any("dynamic" in each or each == "longrope" for each in types)

    def _rotary_settings(self) -> list[Mapping[str, Any]]:
        """One mapping, or one for each type of layer."""
        settings = getattr(self.config, "rope_parameters", None) or getattr(self.config, "rope_scaling", None) or {}
        nested = [each for each in settings.values() if isinstance(each, Mapping)]
        return nested or [settings]

    def forget_lengths(self) -> None:
        """Undo what ``dynamic`` rotary scaling keeps of longer sequences read before: answers must not depend on it."""
        for module in self._dynamic:
            module.register_buffer("inv_freq", module.original_inv_freq.to(module.inv_freq.device), persistent=False)
            module.max_seq_len_cached = module.original_max_seq_len

    @cached_property
    def _dynamic(self) -> list[Any]:
        found: list[Any] = [m for m in self.model.modules() if isinstance(getattr(m, "rope_type", None), str)]
        return [module for module in found if "dynamic" in module.rope_type]

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits ``(rows, vocabulary)`` of the decoder's hidden states ``(rows, width)``.

        The model's own forward computes them, so that what it does after the output matrix (soft-capping, scaling) is
        done.
        """
        with _answering(self.decoder, lambda *_, **__: _Output(last_hidden_state=hidden[:, None])) as asked:
            ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits.squeeze(1)
        if not asked:
            raise ValueError(f"model_type {self.model_type} does not read the hidden states of its base model")
        return logits

    def option_log_probs(self, hidden: Tensor, options: Sequence[int]) -> Tensor:
        """Log-probabilities among ``options`` of hidden states ``(rows, width)``: float32 ``(rows, options)``.

        In float32: bfloat16 would round the options' logits to ties. Raises FloatingPointError for logits that are not
        finite.
        """
        head = self.model.get_output_embeddings()
        if type(head) is not nn.Linear:  # quantized, or an adapter on it: as it computes
            return finite(self.logits(hidden)[:, list(options)].float()).log_softmax(-1)
        rows = torch.tensor(options, device=head.weight.device)
        weight = head.weight[rows].float()
        bias = None if head.bias is None else head.bias[rows].float()
        with _answering(head, lambda states: functional.linear(states.float(), weight, bias)) as asked:
            logits = self.logits(hidden)
        return finite(logits.float() if asked else logits[:, list(options)].float()).log_softmax(-1)


class _Output(BaseModelOutputWithPast):
    """A decoder's output that has hidden states and, asked for anything else, nothing."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return


@contextmanager
def _answering(module: nn.Module, forward: Callable[..., Any]) -> Iterator[list[None]]:
    """Within the block the module's forward pass is this function; a list that is empty until it is called."""
    asked: list[None] = []

    def answer(*arguments: Any, **named: Any) -> Any:
        asked.append(None)
        return forward(*arguments, **named)

    with ExitStack() as stack:
        replace_forward(stack, module, answer)
        yield asked


def finite(logits: Tensor) -> Tensor:
    """The same logits. Raises FloatingPointError where one is not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the model's logits are not finite (a steering shift or training step too large?)")
    return logits


def _inputs_of(projection: Any) -> int:
    """How wide a projection's input is; GPT-2's Conv1D keeps its matrix transposed and has no ``in_features``."""
    return int(getattr(projection, "in_features", None) or projection.weight.shape[0])
