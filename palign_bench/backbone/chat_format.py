"""A model's chat format: its own template, checked once, so that the model reads the whole of every dialogue."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.tokenizing import encode
from palign_bench.settings import UserError

Dialogue = tuple[str, str, str]  # system prompt, user's turn, opening of the assistant's turn

# Templates that print today's date print this one, on every day: the default of Llama 3.1's template.
PINNED_DATE = date(2024, 7, 26)

# Base models come without a template: the turns as paragraphs, and the answer begins the next one.
PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] | trim + '\n\n' }}{% endfor %}"

_DIRECTIVES = [f"%{each}" for each in ("-d", "-m", "-e", *"aAbBcdDeFHIjmMpSTxXyY")]  # of strftime

# What templates call the switch that turns thinking off, and the date; a template ignores what it does not know.
_VARIABLES = {"enable_thinking": False, "thinking": False, "date_string": PINNED_DATE.strftime("%d %b %Y")}

_THINKING_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
_ABOUT_THINKING = re.compile("think|thought|reason|analysis", re.IGNORECASE)

# Two lines, quotes and signs that a template might escape, as the real prompts have them.
_SYSTEM = 'A probe of the system prompt; "You <get> chores & errands done":Agree.\nIts second line.'
_USER = 'A probe of the question: "You don\'t panic."\n(A). Very Accurate\n(B). Moderately Accurate'
_ANSWER = "Option (Q). A probe of the answer"


class ChatFormatError(UserError):
    """The model's chat template cannot be used without losing a part of the dialogue; the message says which."""


class ChatFormat:
    """How a tokenizer's chat template writes a dialogue up to an open turn of the assistant.

    System prompt and user's turn both occur whole: a template that drops or refuses the system role gets the system
    prompt at the head of the user's turn. Thinking is off, the date is `PINNED_DATE`, and the text begins with one
    beginning-of-text token where the tokenizer adds one. Raises ChatFormatError for a template that cannot do so.

    ``hash``: SHA-256 of the template and of what it makes of a probe.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._template = _pinned(_template_of(tokenizer))
        self._moves_system, self._in_parts = self._fitting()
        self._begin = self._beginning()
        self._open, self._lead = self._opening_of_the_answer()
        probe = [self.render((_SYSTEM, _USER, opening)) for opening in ("", "Option (")]
        self.hash = hashlib.sha256(json.dumps([self._template, *probe]).encode()).hexdigest()

    def render(self, dialogue: Dialogue) -> str:
        """The dialogue as the model reads it, the last turn open. Raises ChatFormatError where a part is missing."""
        system, user, opening = dialogue
        text = self._begin + self._without_begin(self._written(system, user)) + self._open
        for name, part in (("system prompt", system), ("question", user)):
            if part.strip() not in text:
                raise ChatFormatError(f"the model's chat template changes the {name} {_shortened(part)}.")
        return text + self._lead + opening if opening else text

    def option_tokens(self, opening: str, letters: Sequence[str]) -> tuple[str, list[int]]:
        """The opening to stop at and, for each letter, the one token that continues it.

        Where a tokenizer merges "(" with the letter, the opening loses it. Raises ChatFormatError for a tokenizer in
        which the letters do not differ in exactly one token.
        """
        for kept in (opening, opening.rstrip("("), opening.rstrip("( ")):
            base = encode(self.tokenizer, self.render((_SYSTEM, _USER, kept)))
            whole = self.render((_SYSTEM, _USER, opening))
            rows = [encode(self.tokenizer, whole + letter) for letter in letters]
            if all(row[:-1] == base for row in rows) and len({row[-1] for row in rows}) == len(letters):
                return kept, [row[-1] for row in rows]
        raise ChatFormatError(
            f"the options {', '.join(letters)} do not differ in one token after {opening!r} in the model's tokenizer."
        )

    def _written(self, system: str, user: str, answer: str | None = None) -> str:
        """The template's text; without an ``answer`` as it asks the model for one."""
        if self._moves_system:
            turns = [("user", "\n\n".join(part for part in (system, user) if part))]
        else:
            turns = [("system", system), ("user", user)]
        if answer is not None:
            turns.append(("assistant", answer))
        messages: list[Any] = [{"role": role, "content": text} for role, text in turns]
        for each in messages if self._in_parts else ():
            each["content"] = [{"type": "text", "text": each["content"]}]
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": answer is None, **_VARIABLES}
        return str(self.tokenizer.apply_chat_template(messages, chat_template=self._template, **options))

    def _fitting(self) -> tuple[bool, bool]:
        """Whether the system prompt moves into the user's turn and whether turns are written as content parts."""
        reason = "it drops the system prompt or the question"
        for choice in ((False, False), (False, True), (True, False), (True, True)):
            self._moves_system, self._in_parts = choice
            try:
                text = self._written(_SYSTEM, _USER)
            except _TEMPLATE_ERRORS as error:
                reason = f"it refuses them ({_shortened(str(error))})"
                continue
            if _SYSTEM in text and _USER in text:
                return choice
        raise ChatFormatError(
            f"the model's chat template cannot hold a system prompt and a question: {reason}. "
            "Choose another model, or mend chat_template in its tokenizer's files."
        )

    def _beginning(self) -> str:
        """The beginning-of-text token where the template writes it or the tokenizer adds it; else empty."""
        token = self.tokenizer.bos_token
        if not isinstance(token, str) or not token:
            return ""
        ids = list(self.tokenizer(_ANSWER)["input_ids"])
        added = bool(ids) and ids[0] == self.tokenizer.bos_token_id
        return token if added or self._written(_SYSTEM, _USER).startswith(token) else ""

    def _without_begin(self, text: str) -> str:
        while self._begin and text.startswith(self._begin):
            text = text.removeprefix(self._begin)
        return text

    def _opening_of_the_answer(self) -> tuple[str, str]:
        """What opens the assistant's turn beyond the template's own request for an answer.

        First a header that it writes before answers alone and the end of a thinking block that it has begun, then the
        white space before an answer's first word.
        """
        asked = self._written(_SYSTEM, _USER)
        header = ""
        try:
            answered = self._written(_SYSTEM, _USER, _ANSWER)
        except _TEMPLATE_ERRORS:  # a template that takes no turn of the assistant
            answered = ""
        if answered.startswith(asked) and _ANSWER in answered:
            header = answered[len(asked) : answered.rindex(_ANSWER)]
        header, lead = (header, "") if header.strip() else ("", header)
        tail = asked[max(asked.rindex(_SYSTEM) + len(_SYSTEM), asked.rindex(_USER) + len(_USER)) :] + header
        return header + _end_of_thinking(tail), lead


# What a foreign template raises on turns that it is not made for; jinja's own errors and those of Python's operators.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)


def _template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        return PLAIN_TEMPLATE
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:  # several templates, and none is the default
        raise ChatFormatError(f"the model's chat template: {_shortened(str(error))}") from error


def _pinned(template: str) -> str:
    """The template with ``strftime_now`` of `PINNED_DATE`: a macro of that name hides transformers' function."""
    if "strftime_now" not in template:
        return template
    pieces = "".join(f".replace('{each}', '{PINNED_DATE.strftime(each)}')" for each in _DIRECTIVES)
    return "{% macro strftime_now(format) %}{{ format" + pieces + " }}{% endmacro %}" + template


def _end_of_thinking(tail: str) -> str:
    """What closes the thinking block that a prompt's end has opened. Raises ChatFormatError for unknown marks."""
    end = ""
    for begin, close in _THINKING_MARKS:
        if tail.rfind(begin) > tail.rfind(close):
            end = f"\n{close}\n\n" if tail.endswith("\n") else close
        begun, closed = re.escape(begin), re.escape(close)
        # A mark that closes at the very end what none has opened (DeepSeek-V3.1, GLM-4.7): thinking is over.
        tail = re.sub(f"{begun}.*?({closed}|$)|{closed}\\s*$", "", tail, flags=re.DOTALL)
    if _ABOUT_THINKING.search(tail):
        raise ChatFormatError(
            f"the model's chat template ends in {_shortened(tail)}: it seems to open a thinking block that cannot be "
            "closed. Choose a model that answers without thinking."
        )
    return end


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else line[:80] + " …")
