"""Rendered prompts to token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class SplitPrompts:
    """``prefix + suffixes[i]`` are the token ids of prompt i; no suffix is empty."""

    prefix: list[int]
    suffixes: list[list[int]]

    @property
    def whole(self) -> list[list[int]]:
        """Token ids of every prompt."""
        return [self.prefix + suffix for suffix in self.suffixes]

    def cut(self, length: int) -> "SplitPrompts":
        """The same prompts with a prefix of ``length`` tokens, which is no longer than the present one."""
        rest = self.prefix[length:]
        return SplitPrompts(self.prefix[:length], [rest + suffix for suffix in self.suffixes])


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a rendered text; its special tokens are written out, so none are added."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of several rendered texts in one call; a call costs as much as tokenizing a question."""
    return [list(row) for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def shared_length(rows: Sequence[Sequence[object]]) -> int:
    """How many leading elements all rows share."""
    # The smallest and the largest row in sorting order differ first where any two rows do.
    first, last = min(rows), max(rows)  # type: ignore[type-var]
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
