"""A questionnaire's prompts as token ids: the long beginning once, and the questions once for all system prompts.

What follows a special token is tokenized apart, since no tokenizer merges across one. Two people's prompts differ only
in what a chat template writes before the question; their endings are rendered and tokenized for the first and kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.backbone.tokenizing import SplitPrompts, encode_all, shared_length

MOST_KEPT = 8  # sets of questions: those that are scored, those that are audited, and some of methods


@dataclass(frozen=True)
class _Endings:
    """What the prompts of some questions end in: ``texts[i]``, whose tokens are ``shared + rows[i]``."""

    texts: list[str]
    shared: list[int]
    rows: list[list[int]]


class PromptSplitter:
    """Renders and tokenizes dialogues in one chat format.

    Example: ``PromptSplitter(ChatFormat(tokenizer)).split("You worry.", questions, "Option (")``
    """

    def __init__(self, chat: ChatFormat):
        self.chat = chat
        self._kept: dict[tuple[str, ...], _Endings] = {}

    def split(self, system: str, questions: Sequence[str], opening: str) -> SplitPrompts:
        """The prompts of these questions under a system prompt.

        Kept endings serve where the first and the last prompt, rendered whole, end in theirs after one and the same
        beginning, and the first one's tokens are what its parts' are; else all are rendered and tokenized.
        """
        key = (opening, *questions)
        kept = self._kept.get(key)
        return (kept and self._with(kept, system, questions, opening)) or self._anew(key, system, questions, opening)

    def _with(self, kept: _Endings, system: str, questions: Sequence[str], opening: str) -> SplitPrompts | None:
        first, last = (self.chat.render((system, question, opening)) for question in (questions[0], questions[-1]))
        beginning = first.removesuffix(kept.texts[0])
        if beginning == first or last != beginning + kept.texts[-1]:
            return None
        prefix, whole = encode_all(self.chat.tokenizer, [beginning, first])
        prefix += kept.shared
        return SplitPrompts(prefix, kept.rows) if prefix + kept.rows[0] == whole else None

    def _anew(self, key: tuple[str, ...], system: str, questions: Sequence[str], opening: str) -> SplitPrompts:
        """Should the whole text's tokens differ from its parts' on one row, all rows are tokenized whole."""
        tokenizer = self.chat.tokenizer
        texts = [self.chat.render((system, question, opening)) for question in questions]
        common = texts[0][: shared_length(texts)]
        cut = max((common.rfind(t) + len(t) for t in tokenizer.all_special_tokens if common.rfind(t) >= 0), default=0)
        endings = [text[cut:] for text in texts]
        prefix, whole, *rows = encode_all(tokenizer, [common[:cut], texts[0], *endings])
        if prefix + rows[0] != whole:
            return SplitPrompts(*_apart(encode_all(tokenizer, texts)))
        shared, rows = _apart(rows)
        self._kept[key] = _Endings(endings, shared, rows)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return SplitPrompts(prefix + shared, rows)


def _apart(rows: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """What all rows begin with, and the rest of each: a token at least, at which the row is read."""
    length = min(shared_length(rows), min(map(len, rows)) - 1)
    return rows[0][:length], [row[length:] for row in rows]
