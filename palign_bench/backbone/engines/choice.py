"""Which engine answers for a model."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.engines.attention import supports_shared_prefix
from palign_bench.backbone.engines.base import TorchEngine
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.engines.together import TogetherEngine

SHARING: dict[str, type[SharedPrefixEngine]] = {"shared_prefix": SharedPrefixEngine, "together": TogetherEngine}


def choose_engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> TorchEngine:
    """``auto`` shares the prefix where the architecture allows it; ``shared_prefix`` and ``full_prompts`` force one.

    ``together`` is ``shared_prefix`` with several people, or the alphas of PAS's search, in one batch. Raises
    ValueError for an architecture whose prefix cannot be shared.
    """
    if name in SHARING and not supports_shared_prefix(model):
        raise ValueError(f"model.engine={name} does not know {model.config.model_type}; use full_prompts or auto")
    if name in SHARING:
        return SHARING[name](model, tokenizer)
    if name == "auto" and supports_shared_prefix(model):
        return SharedPrefixEngine(model, tokenizer)
    return FullPromptEngine(model, tokenizer)
