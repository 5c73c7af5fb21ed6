"""A loaded model's engine against a plain forward pass of whole prompts, in a fraction of the time of loading."""

from __future__ import annotations

import torch
from torch import Tensor

from palign_bench.backbone.engines.base import Request, TorchEngine
from palign_bench.backbone.tokenizing import SplitPrompts

PREFIX = 48
SUFFIXES = (3, 21, 3, 17)
NEW_TOKENS = 3
COMPARED = 64  # tokens of the vocabulary
# Root mean square of the differences between log-probabilities, as a share of these log-probabilities' own spread.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.1}


def why_not_exact(engine: TorchEngine) -> str | None:
    """What the engine computes otherwise than the model's own forward pass does, in one line; None where nothing."""
    for prefix in (PREFIX, 0):
        worst = deviation(engine, prefix)
        tolerance = TOLERANCE[engine.model.dtype]
        if not worst <= tolerance:
            kind = "with a shared beginning" if prefix else "without a shared beginning"
            return (
                f"{type(engine).__name__} differs from a plain forward pass {kind} by {worst:.2g} "
                f"of the log-probabilities' spread (rounding stays below {tolerance:g})"
            )
    return None


def deviation(engine: TorchEngine, prefix: int) -> float:
    """The largest relative deviation over short and longer prompts, read at their ends and while text is written."""
    prompts = _prompts(engine, prefix)
    tokens = _tokens(engine, COMPARED, start=1)
    read = engine.option_log_probs(Request(prompts), tokens)
    written = engine.continuations(Request(prompts, max_new_tokens=NEW_TOKENS, is_decided=lambda _: False))
    found = []
    for row, ours, new in zip(prompts.whole, read, written, strict=True):
        plain = _plain_logits(engine, row + new[:-1])[len(row) - 1 :]
        theirs = plain[0, tokens].log_softmax(-1)
        spread = float(theirs.std()) or 1.0
        found.append(float((ours - theirs).square().mean().sqrt()) / spread)
        # A token that another than the plain pass's likeliest is as good where the two are equally likely to rounding.
        lost = plain.max(-1).values - plain[torch.arange(len(new)), new]
        found.append(float(lost.max()) / float(plain.std()))
    return max(found) if all(value == value for value in found) else float("nan")


def _plain_logits(engine: TorchEngine, row: list[int]) -> Tensor:
    """The model's own logits at every position of one whole text, float32 ``(positions, vocabulary)`` on the CPU."""
    engine.anatomy.forget_lengths()
    with torch.no_grad():
        ids = torch.tensor([row], device=engine.model.device)
        logits: Tensor = engine.model(input_ids=ids, use_cache=False).logits[0]
    return logits.float().cpu()


def _prompts(engine: TorchEngine, prefix: int) -> SplitPrompts:
    tokens = _tokens(engine, prefix + sum(SUFFIXES), start=0)
    suffixes, at = [], prefix
    for length in SUFFIXES:
        suffixes.append(tokens[at : at + length])
        at += length
    return SplitPrompts(tokens[:prefix], suffixes)


def _tokens(engine: TorchEngine, count: int, start: int) -> list[int]:
    """So many tokens from all over the vocabulary, none of them special: the same in every process."""
    special = set(engine.tokenizer.all_special_ids) | engine.end_tokens
    size = min(len(engine.tokenizer), engine.model.get_input_embeddings().num_embeddings)
    spread = ((start + 7919 * each) % size for each in range(1, count + 1))
    return [next(t % size for t in range(token, token + size) if t % size not in special) for token in spread]
