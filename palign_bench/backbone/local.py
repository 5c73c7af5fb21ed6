"""A language model in this process, bound to one protocol: answers, activations and free text under an alignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from palign_bench import prompts
from palign_bench.alignment import Alignment, AnswerSheet
from palign_bench.backbone.adapters import VIRTUAL, applied_adapter
from palign_bench.backbone.answering import Engine
from palign_bench.backbone.engines import choose_engine
from palign_bench.backbone.hidden import decoder_layers, hidden_states
from palign_bench.backbone.loading import LoadedModel
from palign_bench.backbone.options import OptionScores
from palign_bench.backbone.steering import head_shape, recorded_heads, shifted_heads
from palign_bench.backbone.together import TogetherEngine, only_prompts_and_shifts, stacked_shifts
from palign_bench.backbone.tokenizing import (
    Dialogue,
    SplitPrompts,
    encode,
    option_continuations,
    render,
    split_prompts,
)
from palign_bench.inventory import LETTERS, OPTIONS, Item
from palign_bench.protocol import FREE_GENERATION, EvaluationProtocol, Reading, parse_is_decided, parse_released


class LocalBackbone:
    """A loaded model that answers questionnaires. See `palign_bench.alignment.Backbone`."""

    capabilities = frozenset({"prompt", "log_probs", "activations", "gradients", "generation"})

    def __init__(self, loaded: LoadedModel, protocol: EvaluationProtocol, engine: str | Engine = "auto"):
        self.loaded = loaded
        self.protocol = protocol
        self.model: Any = loaded.model
        self.tokenizer = loaded.tokenizer
        self.engine = choose_engine(self.model, self.tokenizer, engine) if isinstance(engine, str) else engine
        self.virtual: Tensor | None = None  # the soft prompt of the alignment that is applied

    @property
    def identity(self) -> dict[str, str]:
        """What a text written by this model depends on."""
        loaded = self.loaded
        kept = {"name": loaded.name, "weights": loaded.weights_hash, "quantization": loaded.quantization}
        return kept | {"dtype": str(self.model.dtype)}

    @contextmanager
    def applied(self, alignment: Alignment) -> Iterator[None]:
        """Apply head shifts and trained tensors; the bare model is back on leaving, also after an exception."""
        with ExitStack() as stack:
            if alignment.adapter is not None and alignment.adapter_kind == "prompt":
                stack.callback(setattr, self, "virtual", self.virtual)
                self.virtual = alignment.adapter[VIRTUAL].to(self.model.device)
            elif alignment.adapter is not None:
                stack.enter_context(
                    applied_adapter(self.model, alignment.adapter, alignment.adapter_kind, alignment.adapter_settings)
                )
            if alignment.head_shifts is not None:
                stack.enter_context(shifted_heads(self.model, alignment.head_shifts))
            yield

    def answer(self, alignment: Alignment, items: Sequence[Item], audit: Sequence[Item] = ()) -> AnswerSheet:
        """Answer ``items`` as the protocol reads them and, by free generation, the ``audit`` items."""
        if alignment.answers is not None:
            raise ValueError("a floor's alignment holds its answers and is not put to a backbone")
        read_before, generated_before = self.engine.tokens_read, self.engine.tokens_generated
        # Before anything is applied: the readout reads the bare model's hidden states.
        scores, audit_scores = self._scores(alignment, items), self._scores(alignment, audit)
        with self.applied(alignment):
            if self.protocol.reading.generates:
                texts = self._generated(alignment, items, self.protocol.reading, scores)
                parsed = {item.number: parse_released(texts[item.number]) for item in items}
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
            tokens_read=self.engine.tokens_read - read_before,
            tokens_generated=self.engine.tokens_generated - generated_before,
        )

    def answer_many(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item] = ()
    ) -> list[AnswerSheet]:
        """What `answer` gives for each alignment; with ``model.engine=together``, prompts and shifts in one batch."""
        together = isinstance(self.engine, TogetherEngine) and not self.protocol.reading.generates
        if together and len(alignments) > 1 and all(map(only_prompts_and_shifts, alignments)):
            return self._answer_together(alignments, items, audit)
        return [self.answer(alignment, items, audit) for alignment in alignments]

    def people_at_once(self, items: Sequence[Item]) -> int:
        """Of how many people the answers to ``items`` fill one forward pass; 1 where people are answered singly."""
        if not isinstance(self.engine, TogetherEngine) or self.protocol.reading.generates:
            return 1
        opening, _ = option_continuations(self.tokenizer, self.protocol.reading.opening, LETTERS)
        split = self._split(Alignment(), items, opening)
        return max(1, self.engine.positions // sum(map(len, split.suffixes)))

    def _answer_together(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item]
    ) -> list[AnswerSheet]:
        assert isinstance(self.engine, TogetherEngine)
        opening, options = option_continuations(self.tokenizer, self.protocol.reading.opening, LETTERS)
        splits, shifts = self._splits(alignments, items, opening), stacked_shifts(alignments)
        tables = self.engine.option_log_probs_together(splits, options, shifts)
        numbers = [item.number for item in items]
        found = [dict(zip(numbers, table.tolist(), strict=True)) for table in tables]
        sheets = [
            AnswerSheet(tuple(numbers), likeliest(rows), rows, tokens_read=split.tokens)
            for rows, split in zip(found, splits, strict=True)
        ]
        if not audit:
            return sheets
        splits = self._splits(alignments, audit, FREE_GENERATION.opening)
        texts, generated = self.engine.greedy_together(splits, FREE_GENERATION.max_new_tokens, parse_is_decided, shifts)
        return [
            replace(
                sheet,
                audit={item.number: text for item, text in zip(audit, written, strict=True)},
                tokens_read=sheet.tokens_read + split.tokens,
                tokens_generated=tokens,
            )
            for sheet, split, written, tokens in zip(sheets, splits, texts, generated, strict=True)
        ]

    def system_prompt(self, alignment: Alignment) -> str:
        """The alignment's system prompt, or the neutral one."""
        return prompts.NEUTRAL_SYSTEM_PROMPT if alignment.system_prompt is None else alignment.system_prompt

    def dialogue(self, alignment: Alignment, item: Item, opening: str) -> Dialogue:
        """What the model reads for one item."""
        return self.system_prompt(alignment), self.protocol.question(item), opening

    def bare_option_log_probs(self, system_prompt: str | None, items: Sequence[Item]) -> Tensor:
        """The bare model's log-probabilities of A…E after ``Option (``, whatever the protocol: ``(items, 5)``."""
        rows = self._option_log_probs(Alignment(system_prompt=system_prompt), items, None, "Option (")
        return torch.tensor([rows[item.number] for item in items])

    def under_readout(
        self, alignment: Alignment, bare: AnswerSheet, items: Sequence[Item], audit: Sequence[Item]
    ) -> AnswerSheet:
        """What `answer` gives, with the log-probabilities taken from ``bare``: the same prompt without the readout."""
        assert bare.log_probs is not None, "generated text cannot be reread"
        read_before, generated_before = self.engine.tokens_read, self.engine.tokens_generated
        log_probs = dict(bare.log_probs)
        scores = self._scores(alignment, items)
        if scores is not None:
            own = torch.tensor([list(log_probs[item.number]) for item in items])
            log_probs = {item.number: row for item, row in zip(items, scores.combine(own).tolist(), strict=True)}
        audited = self._generated(alignment, audit, FREE_GENERATION, self._scores(alignment, audit)) if audit else None
        return replace(
            bare,
            answers=likeliest(log_probs),
            log_probs=log_probs,
            audit=audited,
            tokens_read=bare.tokens_read + self.engine.tokens_read - read_before,
            tokens_generated=bare.tokens_generated + self.engine.tokens_generated - generated_before,
        )

    def _scores(self, alignment: Alignment, items: Sequence[Item]) -> OptionScores | None:
        return None if alignment.readout is None or not items else alignment.readout.option_scores(self, items)

    def _option_log_probs(
        self, alignment: Alignment, items: Sequence[Item], scores: OptionScores | None, opening: str | None = None
    ) -> dict[int, list[float]]:
        opening, options = option_continuations(self.tokenizer, opening or self.protocol.reading.opening, LETTERS)
        split = self._split(alignment, items, opening)
        table = self.engine.option_log_probs(split, options, self.virtual)
        if scores is not None:
            table = scores.combine(table)
        return {item.number: row for item, row in zip(items, table.tolist(), strict=True)}

    def _generated(
        self, alignment: Alignment, items: Sequence[Item], reading: Reading, scores: OptionScores | None
    ) -> dict[int, str]:
        split = self._split(alignment, items, reading.opening)
        texts = self.engine.greedy(split, reading.max_new_tokens, parse_is_decided, self.virtual, scores)
        return {item.number: text for item, text in zip(items, texts, strict=True)}

    def _split(self, alignment: Alignment, items: Sequence[Item], opening: str) -> SplitPrompts:
        return split_prompts(self.tokenizer, [self.dialogue(alignment, item, opening) for item in items])

    def _splits(self, alignments: Sequence[Alignment], items: Sequence[Item], opening: str) -> list[SplitPrompts]:
        by_prompt = {each.system_prompt: each for each in alignments}  # tokenized once: PAS's alphas share theirs
        splits = {prompt: self._split(each, items, opening) for prompt, each in by_prompt.items()}
        return [splits[each.system_prompt] for each in alignments]

    @property
    def layers(self) -> int:
        """How many decoder layers the model has."""
        return len(decoder_layers(self.model))

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        """Hidden states of plain texts; see `palign_bench.backbone.hidden`."""
        return hidden_states(self.engine, texts, layers)

    def head_activations(self, dialogues: Sequence[Dialogue]) -> Tensor:
        """Head outputs at the last token of each dialogue: float32 ``(dialogues, layers, heads, head width)``."""
        layers, heads, width = head_shape(self.model)
        rows = [encode(self.tokenizer, render(self.tokenizer, dialogue)) for dialogue in dialogues]
        result = torch.empty(len(rows), layers, heads, width, device=self.model.device)
        for batch in self.engine.batches(rows):
            ids, lengths = self.engine.pad([rows[i] for i in batch])
            self.engine.tokens_read += int(lengths.sum())
            # Right-padded and causal: what follows a row's last token cannot reach it, so no mask is needed.
            with torch.no_grad(), recorded_heads(self.model, lengths - 1) as recorded:
                self.model.base_model(input_ids=ids, use_cache=False)
            stacked = torch.stack(recorded, dim=1).float()
            result[batch] = stacked.view(len(batch), layers, heads, width)
        return result

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        """Free text, sampled at ``temperature`` (0: greedy) from torch's global generator."""
        text = render(self.tokenizer, (system, user, ""))
        ids = torch.tensor([encode(self.tokenizer, text)], device=self.model.device)
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        ends = sorted(self.engine.end_tokens)
        with self.applied(alignment), torch.no_grad():
            read = self.model.get_input_embeddings()(ids)
            if self.virtual is not None:
                read = torch.cat([self.virtual.to(read)[None], read], dim=1)
            output = self.model.generate(
                inputs_embeds=read,
                attention_mask=torch.ones(read.shape[:2], dtype=torch.long, device=read.device),
                max_new_tokens=max_new_tokens,
                eos_token_id=ends or None,
                pad_token_id=ends[0] if ends else 0,
                **({"do_sample": False} | sampling),
            )
        new = output[0]  # read as embeddings, so nothing but the new tokens comes back
        self.engine.tokens_read += read.shape[1]
        self.engine.tokens_generated += len(new)
        return str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()


def likeliest(log_probs: Mapping[int, Sequence[float]]) -> dict[int, int]:
    """The value of each item's likeliest option; ties go to the first option, as max returns the first of equals."""
    return {number: OPTIONS[max(range(len(row)), key=row.__getitem__)].value for number, row in log_probs.items()}
