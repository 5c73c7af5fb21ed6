"""Which engine answers for a model, checked against the model's own forward pass."""

import sys

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.engines.attention import why_no_shared_prefix
from palign_bench.backbone.engines.base import TorchEngine
from palign_bench.backbone.engines.check import why_not_exact
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.settings import UserError


def choose_engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> TorchEngine:
    """``auto`` shares the prefix where that is exact; ``shared_prefix`` and ``full_prompts`` force one.

    Raises UserError for a model that the engine does not read exactly, or whose own logits are not numbers.
    """
    try:
        return _choose(model, tokenizer, name)
    except FloatingPointError as error:
        raise UserError(
            "the model's own logits are not finite numbers: its weights are damaged, or too large for model.dtype "
            "(float32 holds more)."
        ) from error


def _choose(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> TorchEngine:
    if name != "full_prompts":
        engine = SharedPrefixEngine(model, tokenizer)
        known = why_no_shared_prefix(engine.anatomy)
        reason = known or why_not_exact(engine)
        if reason is None:
            return engine
        if name == "shared_prefix":
            raise UserError(f"model.engine=shared_prefix: {reason}; use full_prompts or auto.")
        if known is None:
            print(f"model.engine=auto: full prompts, since {reason}", file=sys.stderr, flush=True)
    whole = FullPromptEngine(model, tokenizer)
    reason = why_not_exact(whole)
    if reason is not None:
        raise UserError(f"model_type {whole.anatomy.model_type} is not read exactly: {reason}. Take another model.")
    return whole
