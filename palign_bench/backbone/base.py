"""Putting a questionnaire's items to a language model and reading its answers, whatever computes them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.chat_format import ChatFormat, Dialogue
from palign_bench.backbone.engines.base import Engine, Request
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.parts.statements import FeatureRecipe, ItemKernel
from palign_bench.backbone.splitting import PromptSplitter
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Item
from palign_bench.questionnaire.protocol import FREE_GENERATION, EvaluationProtocol, Reading


class Backbone(ABC):
    """A language model with its tokenizer and chat format, bound to one protocol.

    ``capabilities``: what it can do, of "prompt", "log_probs", "activations", "hidden states", "gradients" and
    "generation". A method of a capability that it lacks raises NotImplementedError, or ValueError where it is the
    architecture's; `Aligner.needs` is checked before anything is loaded.
    """

    capabilities: frozenset[str]
    identity: Mapping[str, str]  # what a text written by this model depends on
    virtual: Tensor | None = None  # the soft prompt of the alignment that is applied

    def __init__(self, tokenizer: PreTrainedTokenizerBase, protocol: EvaluationProtocol, engine: Engine):
        self.tokenizer = tokenizer
        self.chat = ChatFormat(tokenizer)
        self.splitter = PromptSplitter(self.chat)
        self.protocol = protocol
        self.engine = engine
        # What readouts read of the bare model, once for all protocols under which it is asked (`asking`).
        self.item_kernels: dict[tuple[str, FeatureRecipe], ItemKernel] = {}

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give back what does not go with the last reference; others that share the weights are closed too."""

    def is_as_loaded(self) -> bool:
        """Whether the bare model is what was loaded: a method may change it, and has to undo what it changes."""
        return True

    @abstractmethod
    def applied(self, alignment: Alignment) -> AbstractContextManager[None]:
        """Apply what is more than a prompt; the bare model is back on leaving, also after an exception."""

    @abstractmethod
    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        """Free text, sampled at ``temperature`` (0: greedy) from torch's global generator."""

    def asking(self, protocol: EvaluationProtocol) -> Self:
        """The same model under another protocol."""
        other = copy.copy(self)
        other.protocol = protocol
        return other

    @property
    def cohort(self) -> int:
        """Number of people answered in one pass."""
        return 1

    @property
    def layers(self) -> int:
        """Number of decoder layers (needs hidden states)."""
        raise NotImplementedError(f"{type(self).__name__} shows no activations")

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        """Hidden states at the last token of plain texts, float32 ``(texts, layers, width)`` (needs hidden states)."""
        raise NotImplementedError(f"{type(self).__name__} shows no activations")

    def head_activations(self, dialogues: Sequence[Dialogue]) -> Tensor:
        """Head outputs at the last token of each dialogue, float32 ``(dialogues, layers, heads, head width)``.

        A dialogue is (system prompt, user's turn, opening of the assistant's turn). Needs activations.
        """
        raise NotImplementedError(f"{type(self).__name__} shows no activations")

    def option_scores(self, alignment: Alignment, items: Sequence[Item]) -> OptionScores | None:
        """The second opinion of the alignment's readout on the items' options; None where it has none."""
        return None if alignment.readout is None or not items else alignment.readout.option_scores(self, items)

    def answer(self, alignment: Alignment, items: Sequence[Item], audit: Sequence[Item] = ()) -> AnswerSheet:
        """Answer ``items`` as the protocol reads them and, by free generation, the ``audit`` items."""
        if alignment.answers is not None:
            raise ValueError("a floor's alignment holds its answers and is not put to a backbone")
        # Before anything is applied: the readout reads the bare model's hidden states.
        scores, audit_scores = self.option_scores(alignment, items), self.option_scores(alignment, audit)
        with self.applied(alignment), self.engine.one_alignment():
            if self.protocol.reading.generates:
                texts = self._generated(alignment, items, self.protocol.reading, scores)
                parsed = {item.number: self.protocol.parse(texts[item.number]) for item in items}
                answers = {number: option for number, option in parsed.items() if option is not None}
                log_probs = None
            else:
                texts, log_probs = None, self._option_log_probs(alignment, items, scores)
                answers = likeliest(log_probs)
            audited = self._generated(alignment, audit, FREE_GENERATION, audit_scores) if audit else None
        return AnswerSheet(
            asked=tuple(item.number for item in items),
            answers=answers,
            log_probs=log_probs,
            texts=texts,
            audit=audited,
        )

    def answer_many(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item] = ()
    ) -> list[AnswerSheet]:
        """What `answer` gives for each alignment."""
        return [self.answer(alignment, items, audit) for alignment in alignments]

    def dialogue(self, alignment: Alignment, item: Item, opening: str) -> Dialogue:
        """What the model reads for one item."""
        return _system_prompt(alignment), self.protocol.question(item), opening

    def bare_option_log_probs(self, system_prompt: str | None, items: Sequence[Item]) -> Tensor:
        """The bare model's log-probabilities ``(items, options)`` after ``Option (``, whatever the protocol."""
        rows = self._option_log_probs(Alignment(system_prompt=system_prompt), items, None, "Option (")
        return torch.tensor([rows[item.number] for item in items])

    def under_readout(
        self, alignment: Alignment, bare: AnswerSheet, items: Sequence[Item], audit: Sequence[Item]
    ) -> AnswerSheet:
        """What `answer` gives, with the log-probabilities taken from ``bare``: the same prompt without the readout."""
        assert bare.log_probs is not None, "generated text cannot be reread"
        log_probs = dict(bare.log_probs)
        scores = self.option_scores(alignment, items)
        if scores is not None:
            own = torch.tensor([list(log_probs[item.number]) for item in items])
            log_probs = {item.number: row for item, row in zip(items, scores.combine(own).tolist(), strict=True)}
        audit_scores = self.option_scores(alignment, audit)
        audited = self._generated(alignment, audit, FREE_GENERATION, audit_scores) if audit else None
        return replace(bare, answers=likeliest(log_probs), log_probs=log_probs, audit=audited)

    def _option_log_probs(
        self, alignment: Alignment, items: Sequence[Item], scores: OptionScores | None, opening: str | None = None
    ) -> dict[int, list[float]]:
        opening, options = self.chat.option_tokens(opening or self.protocol.reading.opening, self.protocol.letters)
        split = self.split(alignment, items, opening)
        table = self.engine.option_log_probs(Request(split, self.virtual), options)
        if scores is not None:
            table = scores.combine(table)
        return {item.number: row for item, row in zip(items, table.tolist(), strict=True)}

    def _generated(
        self, alignment: Alignment, items: Sequence[Item], reading: Reading, scores: OptionScores | None
    ) -> dict[int, str]:
        split = self.split(alignment, items, reading.opening)
        texts = self.engine.greedy(
            Request(split, self.virtual, scores, reading.max_new_tokens, self.protocol.is_decided)
        )
        return {item.number: text for item, text in zip(items, texts, strict=True)}

    def split(self, alignment: Alignment, items: Sequence[Item], opening: str) -> SplitPrompts:
        """The prompts of these items as token ids."""
        return self.splitter.split(_system_prompt(alignment), [self.protocol.question(item) for item in items], opening)


def _system_prompt(alignment: Alignment) -> str:
    return prompts.NEUTRAL_SYSTEM_PROMPT if alignment.system_prompt is None else alignment.system_prompt


def likeliest(log_probs: Mapping[int, Sequence[float]]) -> dict[int, int]:
    """The value of each item's likeliest option; ties go to the first option, as max returns the first of equals."""
    return {number: len(row) - max(range(len(row)), key=row.__getitem__) for number, row in log_probs.items()}
