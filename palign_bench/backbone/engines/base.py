"""What every engine does: it batches prompts, and reads options or greedy text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.parts.options import OptionScores, option_families
from palign_bench.backbone.tokenizing import SplitPrompts

# Positions of own tokens in one forward pass. Large enough to keep two cores or a GPU busy, small enough for memory;
# part of the batch geometry, so a fixed number and no function of what happens to be free.
POSITIONS_PER_BATCH = {"cpu": 2048, "cuda": 32768}


IsDecided = Callable[[str], bool]


LogitsReader = Callable[[Tensor, list[int]], Tensor]


class Engine(ABC):
    """Reads answers from a model, whatever computes it, and charges the positions that this takes as tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int], positions: int):
        self.tokenizer = tokenizer
        self.end_tokens = end_tokens
        self.positions = positions

    @abstractmethod
    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        """Log-probabilities among ``options`` of the token after each prompt: float32 ``(prompts, options)``.

        ``virtual``: soft-prompt embeddings ``(n, width)`` that stand before every prompt.
        """

    @abstractmethod
    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        """Greedy continuation per prompt, special tokens kept; a row stops when its text is decided or ends.

        ``scores``: a second opinion on the five options, pooled with the model's wherever it would write a letter.
        """

    def decided_text(self, tokens: Sequence[int], is_decided: IsDecided) -> tuple[str, int]:
        """The text up to where it is decided or ends, and of how many tokens it is."""
        text, end = "", 0
        for end, token in enumerate(tokens, start=1):
            text = self._text(tokens[:end])
            if token in self.end_tokens or is_decided(text):
                break
        return text, end

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


class TorchEngine(Engine):
    """An engine of a model in this process. Rows are sorted by length and batched the same way for every person."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int | None = None):
        self.model: Any = model  # transformers types few of the attributes used here
        positions = positions or POSITIONS_PER_BATCH[model.device.type]
        super().__init__(tokenizer, end_tokens_of(tokenizer, model.generation_config), positions)

    @cached_property
    def families(self) -> list[list[int]]:
        """The tokens of A…E, for each way of writing them."""
        return option_families(self.tokenizer)

    def batches(self, suffixes: Sequence[Sequence[int]], extra: int = 0, copies: int = 1) -> Iterator[list[int]]:
        """Row indices, sorted by length, cut where a batch would hold more than ``positions`` padded positions.

        ``extra``: positions that each row will grow by. ``copies``: how often the batch holds each row.
        """
        order = sorted(range(len(suffixes)), key=lambda i: (len(suffixes[i]), i))
        batch: list[int] = []
        for index in order:
            if batch and copies * (len(batch) + 1) * (len(suffixes[index]) + extra) > self.positions:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def read_options(self, hidden: Tensor, options: Sequence[int]) -> Tensor:
        """Log-softmax over the options' rows of the output matrix alone: ``hidden`` ``(rows, width)``."""
        head = self.model.get_output_embeddings()
        rows = torch.tensor(options, device=hidden.device)
        logits = hidden @ head.weight[rows].T.to(hidden.dtype)
        if getattr(head, "bias", None) is not None:
            logits = logits + head.bias[rows]
        return finite(logits.float()).log_softmax(-1)

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids ``(rows, longest)`` and lengths ``(rows,)`` on the model's device."""
        lengths = torch.tensor([len(row) for row in rows], device=self.model.device)
        ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        return ids.to(self.model.device), lengths


def end_tokens_of(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> frozenset[int]:
    """The tokens after which a text has ended, by the tokenizer and the model's own settings."""
    configured = generation.eos_token_id if generation is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def finite(logits: Tensor) -> Tensor:
    """The same logits. Raises FloatingPointError where one is not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise FloatingPointError("the model's logits are not finite (a steering shift or training step too large?)")
    return logits
