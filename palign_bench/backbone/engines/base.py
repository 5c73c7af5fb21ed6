"""What every engine does: it batches prompts, and reads options or greedy text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.parts.options import OptionScores, option_families
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.questionnaire.inventory import LETTERS
from palign_bench.settings import UserError

# Positions of own tokens in one forward pass. Large enough to keep two cores or a GPU busy, small enough for memory;
# part of the batch geometry, so a fixed number and no function of what happens to be free.
POSITIONS_PER_BATCH = {"cpu": 2048, "cuda": 32768}


IsDecided = Callable[[str], bool]


@dataclass(frozen=True)
class Request:
    """One alignment's prompts, and how they are to be continued.

    ``virtual``: soft-prompt embeddings ``(n, width)`` that stand before every prompt. ``scores``: a second opinion on
    the options, pooled with the model's wherever it would write a letter. ``max_new_tokens``, ``is_decided``: of
    text that is written, how long at most, and when it needs no more.
    """

    prompts: SplitPrompts
    virtual: Tensor | None = None
    scores: OptionScores | None = None
    max_new_tokens: int = 0
    is_decided: IsDecided = bool

    @property
    def longest(self) -> int:
        """Positions of the longest prompt, with the soft prompt before it and what is written after it."""
        before = 0 if self.virtual is None else len(self.virtual)
        return before + len(self.prompts.prefix) + max(map(len, self.prompts.suffixes)) + self.max_new_tokens


class Engine(ABC):
    """Reads answers from a model, whatever computes it, and charges the positions that this takes as tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_tokens: frozenset[int], positions: int):
        self.tokenizer = tokenizer
        self.end_tokens = end_tokens
        self.positions = positions

    @abstractmethod
    def option_log_probs(self, request: Request, options: Sequence[int]) -> Tensor:
        """Log-probabilities among ``options`` of the token after each prompt: float32 ``(prompts, options)``."""

    @abstractmethod
    def greedy(self, request: Request) -> list[str]:
        """Greedy continuation per prompt, special tokens kept; a row stops when its text is decided or ends."""

    @contextmanager
    def one_alignment(self) -> Iterator[None]:
        """Within the block the model answers under one alignment: an engine may keep the beginning it has computed."""
        yield

    def decided_text(self, tokens: Sequence[int], is_decided: IsDecided) -> tuple[str, int]:
        """The text up to where it is decided or ends, and of how many tokens it is."""
        text, end = "", 0
        for end, token in enumerate(tokens, start=1):
            text = self.text(tokens[:end])
            if token in self.end_tokens or is_decided(text):
                break
        return text, end

    def text(self, tokens: Sequence[int]) -> str:
        """What these tokens say, special tokens kept."""
        return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


class TorchEngine(Engine):
    """An engine of a model in this process. Rows are sorted by length and batched the same way for every person."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int | None = None):
        self.model: Any = model  # transformers types few of the attributes used here
        self.anatomy = Anatomy(model)
        self._families: dict[int, list[list[int]]] = {}
        positions = positions or POSITIONS_PER_BATCH[model.device.type]
        super().__init__(tokenizer, end_tokens_of(tokenizer, model.generation_config), positions)

    def families(self, options: int) -> list[list[int]]:
        """The tokens of so many letters from A, for each way of writing them."""
        if options not in self._families:
            self._families[options] = option_families(self.tokenizer, LETTERS[:options])
        return self._families[options]

    @abstractmethod
    def continuations(self, request: Request) -> list[list[int]]:
        """The tokens of `greedy`, before they are made text."""

    def greedy(self, request: Request) -> list[str]:
        return [self.text(tokens) for tokens in self.continuations(request)]

    def batches(
        self, rows: Sequence[Sequence[int]], extra: int = 0, copies: int = 1, one_length: bool = False
    ) -> Iterator[list[int]]:
        """Row indices, sorted by length, cut where a batch would hold more than ``positions`` padded positions.

        ``extra``: positions that each row will grow by. ``copies``: how often the batch holds each row. ``one_length``:
        rows of equal length only, which need no pads; always so where rotary angles depend on a batch's longest row.
        """
        one_length = one_length or self.anatomy.scales_with_length
        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        batch: list[int] = []
        for index in order:
            full = copies * (len(batch) + 1) * (len(rows[index]) + extra) > self.positions
            if batch and (full or (one_length and len(rows[index]) != len(rows[batch[0]]))):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def check_length(self, positions: int) -> None:
        """Raise UserError for a sequence of more positions than the model was made for."""
        context = self.anatomy.context
        if context is not None and positions > context:
            raise UserError(f"a prompt takes {positions:,} tokens, and the model's context holds {context:,}.")

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids ``(rows, longest)`` and lengths ``(rows,)`` on the model's device."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return ids.to(self.model.device), lengths.to(self.model.device)


def end_tokens_of(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> frozenset[int]:
    """The tokens after which a text has ended, by the tokenizer and the model's own settings."""
    configured = generation.eos_token_id if generation is not None else None
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)
