"""A loaded model's engine against a plain forward pass of whole prompts, in a fraction of the time of loading."""

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from palign_bench.backbone.engines.attention import attention_with_normaliser
from palign_bench.backbone.engines.base import Request, TorchEngine
from palign_bench.backbone.engines.products import fastest_products
from palign_bench.backbone.tokenizing import SplitPrompts

SHORT, LONG = 2, 7  # own tokens of two prompts
NEW_TOKENS = 3
COMPARED = 64  # tokens of the vocabulary
# Root mean square of the differences between log-probabilities, as a share of these log-probabilities' own spread.
# Measured: float32 2e-5; bfloat16 up to 0.15 on 30 layers. Logits that have nothing to do with each other: 1.4.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
# transformers 5.23 reads their texts right and continues them wrongly, from the second or third token on.
CONTINUED_WRONGLY = frozenset({"rwkv"})
# Positions of the shared beginning: as many as a processor computes in a fraction of a second.
SHORTEST, LONGEST = 12, 300
PARAMETERS_TIMES_POSITIONS = 1e9


def why_not_exact(engine: TorchEngine) -> str | None:
    """What the engine computes otherwise than the model's own forward pass does, in one line; None where nothing."""
    if engine.anatomy.model_type in CONTINUED_WRONGLY:
        return "transformers continues its texts otherwise than it reads them"
    tolerance = TOLERANCE[engine.model.dtype]
    found = arithmetic_deviation(engine.model.dtype, engine.model.device)
    if not found <= tolerance / 10:
        return (
            f"large matrix products err on this processor by {found:.2g} of their spread (allowed: {tolerance / 10:g})"
        )
    for kind, found in deviations(engine, _long_prefix(engine)).items():
        if not found <= tolerance:  # also where it is no number
            return (
                f"{type(engine).__name__} differs from a plain forward pass {kind} by {found:.2g} "
                f"of the log-probabilities' spread (rounding stays below {tolerance:g})"
            )
    return None


def deviations(engine: TorchEngine, prefix: int) -> dict[str, float]:
    """The mean relative deviation of prompts with a shared beginning of ``prefix`` tokens, and of a short one without.

    A short prompt, twice, since batches go wrong where single rows do not; with a beginning also a longer one, read and
    then continued. All of them begin one text, which a plain forward pass reads once. Raises FloatingPointError for
    logits that are not finite.
    """
    tokens = _tokens(engine, COMPARED, start=1)
    text = _tokens(engine, prefix + LONG, start=0)
    beginning, longer = text[:prefix], text[prefix:]
    with engine.one_alignment():
        prompts = SplitPrompts(beginning, [longer[:SHORT], longer[:SHORT], longer])
        read = engine.option_log_probs(Request(prompts), tokens)
        once = Request(SplitPrompts(beginning, [longer]), max_new_tokens=NEW_TOKENS, is_decided=lambda _: False)
        written = engine.continuations(once)[0]
    alone = engine.option_log_probs(Request(SplitPrompts([], [text[:SHORT], text[:SHORT]])), tokens)
    ends = [SHORT, prefix + SHORT, *range(len(text), len(text) + len(written))]
    first, short, *plain = _plain_logits(engine, text + written[:-1], ends)
    found = [_difference(read[1], short[tokens]), _difference(read[2], plain[0][tokens])]
    # Another token than the plain pass's likeliest is as good where the two are equally likely to rounding.
    lost = [float(logits.max() - logits[token]) for logits, token in zip(plain, written, strict=True)]
    found += [each / (float(torch.stack(plain).std()) or 1.0) for each in lost]
    return {
        "with a shared beginning": sum(found) / len(found),
        "without a shared beginning": _difference(alone[1], first[tokens]),
    }


@lru_cache
def arithmetic_deviation(dtype: torch.dtype, device: torch.device) -> float:
    """Largest relative deviation from plain float32 of what only large batches use; the prompts below are short.

    That is a layer's product and attention to a long prefix, whichever way `product_dtype` chose for them.
    """
    if device.type != "cpu":
        return 0.0
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, rows, 64, generator=generator).to(dtype) for rows in (700, 1100, 1100))
    layer = nn.Linear(64, 64, dtype=dtype).requires_grad_(False)
    layer.weight.copy_(value[0, 0, :64])
    with torch.no_grad(), fastest_products(layer):
        pairs = [(layer(query), functional.linear(query.float(), layer.weight.float(), layer.bias.float()))]
    with torch.no_grad():
        output, normaliser = attention_with_normaliser(query, key, value, scale=0.3)
    scores = 0.3 * query.float() @ key.float().transpose(-1, -2)
    pairs += [(output, scores.softmax(-1) @ value.float()), (normaliser, scores.logsumexp(-1))]
    return max(float((found.float() - plain).square().mean().sqrt() / plain.std()) for found, plain in pairs)


def _difference(log_probs: Tensor, logits: Tensor) -> float:
    expected = logits.log_softmax(-1)
    return float((log_probs - expected).square().mean().sqrt()) / (float(expected.std()) or 1.0)


def _long_prefix(engine: TorchEngine) -> int:
    affordable = LONGEST
    if engine.model.device.type == "cpu":
        affordable = int(PARAMETERS_TIMES_POSITIONS / engine.model.num_parameters())
    longest = LONGEST if engine.anatomy.context is None else engine.anatomy.context - LONG - NEW_TOKENS
    return min(max(affordable, SHORTEST), LONGEST, longest)


def _plain_logits(engine: TorchEngine, text: list[int], ends: list[int]) -> list[Tensor]:
    """The model's own logits after each of these beginnings of one text, float32 ``(vocabulary,)`` on the CPU.

    One pass tells them all, since nothing that follows reaches a position; unless angles depend on a text's length.
    """
    if engine.anatomy.scales_with_length:
        return [logits for end in ends for logits in _read_whole(engine, text[:end], [end])]
    return _read_whole(engine, text, ends)


def _read_whole(engine: TorchEngine, text: list[int], ends: list[int]) -> list[Tensor]:
    engine.anatomy.forget_lengths()
    with torch.no_grad():
        logits = engine.model(input_ids=torch.tensor([text], device=engine.model.device), use_cache=False).logits[0]
    return [logits[end - 1].float().cpu() for end in ends]


def _tokens(engine: TorchEngine, count: int, start: int) -> list[int]:
    """So many tokens from all over the vocabulary, none of them special: the same in every process."""
    special = set(engine.tokenizer.all_special_ids) | engine.end_tokens
    size = min(len(engine.tokenizer), engine.model.get_input_embeddings().num_embeddings)
    spread = ((start + 7919 * each) % size for each in range(1, count + 1))
    return [next(t % size for t in range(token, token + size) if t % size not in special) for token in spread]
