"""A language model in this process, bound to one protocol: answers, activations and free text under an alignment."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.base import Backbone, likeliest
from palign_bench.backbone.chat_format import Dialogue
from palign_bench.backbone.engines.base import Request, TorchEngine
from palign_bench.backbone.engines.choice import choose_engine
from palign_bench.backbone.engines.decoding import own_decoding
from palign_bench.backbone.engines.hidden import hidden_states, passes
from palign_bench.backbone.engines.products import fastest_products
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.parts.adapters import VIRTUAL, applied_adapter, is_soft_prompt
from palign_bench.backbone.parts.heads import recorded_heads, shifted_heads
from palign_bench.backbone.tokenizing import SplitPrompts, encode
from palign_bench.backbone.untouched import state_of
from palign_bench.costs.clock import charge
from palign_bench.questionnaire.inventory import Item
from palign_bench.questionnaire.protocol import FREE_GENERATION, EvaluationProtocol


class LocalBackbone(Backbone):
    """A loaded model that answers questionnaires, and can be read, steered and trained."""

    capabilities = frozenset({"prompt", "log_probs", "activations", "hidden states", "gradients", "generation"})
    engine: TorchEngine

    def __init__(
        self,
        loaded: LoadedModel,
        protocol: EvaluationProtocol,
        engine: str | TorchEngine = "auto",
        cohort: int = 1,  # alignments that share a forward pass
    ):
        chosen = choose_engine(loaded.model, loaded.tokenizer, engine) if isinstance(engine, str) else engine
        super().__init__(loaded.tokenizer, protocol, chosen)
        self.loaded = loaded
        self.model: Any = loaded.model
        self.anatomy = chosen.anatomy
        self._cohort = cohort
        self._as_loaded = state_of(self.model)
        kept = {"name": loaded.name, "weights": loaded.weights_hash, "quantization": loaded.quantization}
        texts = {"tokenizer": loaded.tokenizer_hash, "chat_format": self.chat.hash}
        self.identity = kept | texts | {"dtype": str(self.model.dtype), "device_kind": self.model.device.type}

    def is_as_loaded(self) -> bool:
        return self.virtual is None and state_of(self.model) == self._as_loaded

    @contextmanager
    def applied(self, alignment: Alignment) -> Iterator[None]:
        """Apply head shifts and trained tensors; the bare model is back on leaving, also after an exception."""
        with ExitStack() as stack:
            if alignment.adapter is not None and is_soft_prompt(alignment.adapter_settings):
                stack.callback(setattr, self, "virtual", self.virtual)
                self.virtual = alignment.adapter[VIRTUAL].to(self.model.device)
            elif alignment.adapter is not None:
                stack.enter_context(
                    applied_adapter(self.model, alignment.adapter, alignment.adapter_kind, alignment.adapter_settings)
                )
            if alignment.head_shifts is not None:
                stack.enter_context(shifted_heads(self.anatomy, alignment.head_shifts))
            yield

    def answer_many(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item] = ()
    ) -> list[AnswerSheet]:
        """What `answer` gives for each alignment; with ``model.cohort``, so many prompts and shifts share a batch."""
        if self.cohort == 1 or len(alignments) < 2 or not all(map(only_prompts_and_shifts, alignments)):
            return super().answer_many(alignments, items, audit)
        size = self.cohort
        parts = [alignments[start : start + size] for start in range(0, len(alignments), size)]
        return [sheet for part in parts for sheet in self._answer_together(part, items, audit)]

    @property
    def cohort(self) -> int:
        shares = isinstance(self.engine, SharedPrefixEngine) and not self.protocol.reading.generates
        return self._cohort if shares else 1

    def _answer_together(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item]
    ) -> list[AnswerSheet]:
        assert isinstance(self.engine, SharedPrefixEngine)
        opening, options = self.chat.option_tokens(self.protocol.reading.opening, self.protocol.letters)
        reading = [Request(split) for split in self._splits(alignments, items, opening)]
        writing = [
            Request(split, max_new_tokens=FREE_GENERATION.max_new_tokens, is_decided=self.protocol.is_decided)
            for split in (self._splits(alignments, audit, FREE_GENERATION.opening) if audit else [])
        ]
        shifts = stacked_shifts(alignments)
        shifted = nullcontext() if shifts is None else shifted_heads(self.anatomy, shifts)
        with shifted, self.engine.one_alignment():
            tables = self.engine.option_log_probs_of(reading, options)
            written = self.engine.continuations_of(writing) if writing else []
        numbers = [item.number for item in items]
        found = [dict(zip(numbers, table.tolist(), strict=True)) for table in tables]
        sheets = [AnswerSheet(tuple(numbers), likeliest(rows), rows) for rows in found]
        if not audit:
            return sheets
        return [
            replace(sheet, audit={item.number: self.engine.text(text) for item, text in zip(audit, texts, strict=True)})
            for sheet, texts in zip(sheets, written, strict=True)
        ]

    def _splits(self, alignments: Sequence[Alignment], items: Sequence[Item], opening: str) -> list[SplitPrompts]:
        by_prompt = {each.system_prompt: each for each in alignments}  # tokenized once: PAS's alphas share theirs
        splits = {prompt: self.split(each, items, opening) for prompt, each in by_prompt.items()}
        return [splits[each.system_prompt] for each in alignments]

    @property
    def layers(self) -> int:
        return len(self.anatomy.layers)

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        return hidden_states(self.engine, texts, layers)

    def head_activations(self, dialogues: Sequence[Dialogue]) -> Tensor:
        rows = [encode(self.tokenizer, self.chat.render(dialogue)) for dialogue in dialogues]
        shape = len(self.anatomy.output_projections), self.anatomy.heads, self.anatomy.head_width
        result = torch.empty(len(rows), *shape, device=self.model.device)
        for batch, _, recorded in passes(self.engine, rows, partial(recorded_heads, self.anatomy)):
            result[batch] = torch.stack(recorded, dim=1).float().view(len(batch), *shape)
        return result

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        ids = torch.tensor([encode(self.tokenizer, self.chat.render((system, user, "")))])
        ids = ids.to(self.model.device)
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        products, decoding = fastest_products(self.model), own_decoding(self.model, self.engine.end_tokens)
        with self.applied(alignment), torch.no_grad(), products, decoding:
            read: dict[str, Tensor] = {"input_ids": ids}
            if self.virtual is not None:
                embedded = self.model.get_input_embeddings()(ids)
                read = {"inputs_embeds": torch.cat([self.virtual.to(embedded)[None], embedded], dim=1)}
            length = next(iter(read.values())).shape[1]
            self.engine.check_length(length + max_new_tokens)
            self.anatomy.forget_lengths()
            mask = torch.ones(1, length, dtype=torch.long, device=ids.device)
            output = self.model.generate(**read, attention_mask=mask, max_new_tokens=max_new_tokens, **sampling)
        new = output[0, ids.shape[1] if "input_ids" in read else 0 :]  # embeddings do not come back
        charge(tokens_read=length, tokens_generated=len(new))
        return str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()


def only_prompts_and_shifts(alignment: Alignment) -> bool:
    """Whether the alignment is made of a system prompt and head shifts, and of nothing else."""
    return alignment.adapter is None and alignment.readout is None and alignment.answers is None


def stacked_shifts(alignments: Sequence[Alignment]) -> Tensor | None:
    """The alignments' shifts ``(alignments, layers, width)``, zero where one has none; None where none has any."""
    found = next((a.head_shifts for a in alignments if a.head_shifts is not None), None)
    if found is None:
        return None
    return torch.stack([torch.zeros_like(found) if a.head_shifts is None else a.head_shifts for a in alignments])
