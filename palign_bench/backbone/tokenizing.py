"""Rendered prompts to token ids, split into what all rows share and what each adds."""

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
    """The same of several texts, in one call: a call costs as much as a question's tokens."""
    return [list(row) for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


def split_prompts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> SplitPrompts:
    """Tokenize rendered prompts, the long shared beginning only once.

    Text is cut only right after a special token, where a tokenizer never merges across; should the whole text's tokens
    differ on one row, all rows are tokenized whole.
    """
    shared = texts[0][: shared_length(texts)]
    cut = max((shared.rfind(t) + len(t) for t in tokenizer.all_special_tokens if shared.rfind(t) >= 0), default=0)
    prefix, whole, *rows = encode_all(tokenizer, [shared[:cut], texts[0], *(text[cut:] for text in texts)])
    if prefix + rows[0] != whole:
        prefix, rows = [], encode_all(tokenizer, texts)
    more = min(shared_length(rows), min(map(len, rows)) - 1)  # every row keeps a token of its own, at which it is read
    return SplitPrompts(prefix + rows[0][:more], [row[more:] for row in rows])


def shared_length(rows: Sequence[Sequence[object]]) -> int:
    """How many leading elements all rows share."""
    # The smallest and the largest row in sorting order differ first where any two rows do.
    first, last = min(rows), max(rows)  # type: ignore[type-var]
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
