"""Dialogues to token ids, split into what all rows share and what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

Dialogue = tuple[str, str, str]  # system prompt, user's turn, opening of the assistant's turn


@dataclass(frozen=True)
class SplitPrompts:
    """``prefix + suffixes[i]`` are the token ids of prompt i; no suffix is empty."""

    prefix: list[int]
    suffixes: list[list[int]]

    @property
    def tokens(self) -> int:
        """Positions computed when the prefix is computed once."""
        return len(self.prefix) + sum(map(len, self.suffixes))


def render(tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue) -> str:
    """The dialogue in the model's chat format, the assistant's turn opened and not closed.

    A chat format without a system role gets the system prompt at the head of the user's turn.
    """
    system, user, opening = dialogue
    turns: list[dict[str, str]] = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    apply = partial(tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
    try:
        # Qwen3 thinks before it answers unless told not to; other templates ignore the variable.
        text = apply(turns, enable_thinking=False)
    except TemplateError:
        text = apply([{"role": "user", "content": f"{system}\n\n{user}"}])
    return str(text) + opening


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a rendered text; its special tokens are written out, so none are added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def split_prompts(tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Dialogue]) -> SplitPrompts:
    """Tokenize dialogues, the long shared beginning only once.

    Text is cut only right after a special token, where a tokenizer never merges across; the result is compared with the
    whole text's tokens on one row and, should a tokenizer differ, all rows are tokenized whole.
    """
    texts = [render(tokenizer, dialogue) for dialogue in dialogues]
    shared = texts[0][: shared_length(texts)]
    cut = max((shared.rfind(t) + len(t) for t in tokenizer.all_special_tokens if shared.rfind(t) >= 0), default=0)
    rows = [encode(tokenizer, text[cut:]) for text in texts]
    prefix = encode(tokenizer, shared[:cut]) if cut else []
    if prefix + rows[0] != encode(tokenizer, texts[0]):
        prefix, rows = [], [encode(tokenizer, text) for text in texts]
    more = min(shared_length(rows), min(map(len, rows)) - 1)  # every row keeps a token of its own, at which it is read
    return SplitPrompts(prefix + rows[0][:more], [row[more:] for row in rows])


def shared_length(rows: Sequence[Sequence[object]]) -> int:
    """How many leading elements all rows share."""
    # The smallest and the largest row in sorting order differ first where any two rows do.
    first, last = min(rows), max(rows)  # type: ignore[type-var]
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def option_continuations(tokenizer: PreTrainedTokenizerBase, opening: str, letters: str) -> tuple[str, list[int]]:
    """The opening to stop at and, for each letter, the one token that continues it.

    Some tokenizers merge "(" with the letter; then the opening loses what is merged and the merged tokens are compared.
    Raises ValueError for a tokenizer in which the letters do not differ in exactly one token.
    """
    for kept in (opening, opening.rstrip("("), opening.rstrip("( ")):
        base = encode(tokenizer, kept)
        rows = [encode(tokenizer, opening + letter) for letter in letters]
        if all(row[: len(base)] == base and len(row) == len(base) + 1 for row in rows):
            continuations = [row[-1] for row in rows]
            if len(set(continuations)) == len(letters):
                return kept, continuations
    raise ValueError(f"the options {letters} do not differ in one token after {opening!r} in this tokenizer")
