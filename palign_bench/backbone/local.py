"""A language model in this process, bound to one protocol: answers, activations and free text under an alignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.base import Backbone, likeliest
from palign_bench.backbone.chat_format import Dialogue
from palign_bench.backbone.engines.base import TorchEngine
from palign_bench.backbone.engines.choice import choose_engine
from palign_bench.backbone.engines.hidden import decoder_layers, hidden_states
from palign_bench.backbone.engines.together import TogetherEngine, only_prompts_and_shifts, stacked_shifts
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.parts.adapters import VIRTUAL, applied_adapter
from palign_bench.backbone.parts.heads import head_shape, recorded_heads, shifted_heads
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.tokenizing import SplitPrompts, encode
from palign_bench.costs.clock import charge
from palign_bench.questionnaire.inventory import LETTERS, Item
from palign_bench.questionnaire.protocol import FREE_GENERATION, EvaluationProtocol, parse_is_decided


class LocalBackbone(Backbone):
    """A loaded model that answers questionnaires, and can be read, steered and trained."""

    capabilities = frozenset({"prompt", "log_probs", "activations", "gradients", "generation"})
    engine: TorchEngine

    def __init__(self, loaded: LoadedModel, protocol: EvaluationProtocol, engine: str | TorchEngine = "auto"):
        chosen = choose_engine(loaded.model, loaded.tokenizer, engine) if isinstance(engine, str) else engine
        super().__init__(loaded.tokenizer, protocol, chosen)
        self.loaded = loaded
        self.model: Any = loaded.model

    @property
    def identity(self) -> dict[str, str]:
        """What a text written by this model depends on."""
        loaded = self.loaded
        kept = {"name": loaded.name, "weights": loaded.weights_hash, "quantization": loaded.quantization}
        texts = {"tokenizer": loaded.tokenizer_hash, "chat_format": self.chat.hash}
        return kept | texts | {"dtype": str(self.model.dtype)}

    def option_scores(self, alignment: Alignment, items: Sequence[Item]) -> OptionScores | None:
        """The second opinion of the alignment's readout on the items' options; None where it has none."""
        return None if alignment.readout is None or not items else alignment.readout.option_scores(self, items)

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

    def answer_many(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item] = ()
    ) -> list[AnswerSheet]:
        """What `answer` gives for each alignment; with ``model.engine=together``, prompts and shifts in one batch."""
        together = isinstance(self.engine, TogetherEngine) and not self.protocol.reading.generates
        if together and len(alignments) > 1 and all(map(only_prompts_and_shifts, alignments)):
            return self._answer_together(alignments, items, audit)
        return super().answer_many(alignments, items, audit)

    def people_at_once(self, items: Sequence[Item]) -> int:
        """Of how many people the answers to ``items`` fill one forward pass; 1 where people are answered singly."""
        if not isinstance(self.engine, TogetherEngine) or self.protocol.reading.generates:
            return 1
        opening, _ = self.chat.option_tokens(self.protocol.reading.opening, LETTERS)
        split = self.split(Alignment(), items, opening)
        return max(1, self.engine.positions // sum(map(len, split.suffixes)))

    def _answer_together(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item]
    ) -> list[AnswerSheet]:
        assert isinstance(self.engine, TogetherEngine)
        opening, options = self.chat.option_tokens(self.protocol.reading.opening, LETTERS)
        splits, shifts = self._splits(alignments, items, opening), stacked_shifts(alignments)
        tables = self.engine.option_log_probs_together(splits, options, shifts)
        numbers = [item.number for item in items]
        found = [dict(zip(numbers, table.tolist(), strict=True)) for table in tables]
        sheets = [AnswerSheet(tuple(numbers), likeliest(rows), rows) for rows in found]
        if not audit:
            return sheets
        splits = self._splits(alignments, audit, FREE_GENERATION.opening)
        texts = self.engine.greedy_together(splits, FREE_GENERATION.max_new_tokens, parse_is_decided, shifts)
        return [
            replace(sheet, audit={item.number: text for item, text in zip(audit, written, strict=True)})
            for sheet, written in zip(sheets, texts, strict=True)
        ]

    def _splits(self, alignments: Sequence[Alignment], items: Sequence[Item], opening: str) -> list[SplitPrompts]:
        by_prompt = {each.system_prompt: each for each in alignments}  # tokenized once: PAS's alphas share theirs
        splits = {prompt: self.split(each, items, opening) for prompt, each in by_prompt.items()}
        return [splits[each.system_prompt] for each in alignments]

    @property
    def layers(self) -> int:
        """How many decoder layers the model has."""
        return len(decoder_layers(self.model))

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        """Hidden states of plain texts; see `palign_bench.backbone.engines.hidden`."""
        return hidden_states(self.engine, texts, layers)

    def head_activations(self, dialogues: Sequence[Dialogue]) -> Tensor:
        """Head outputs at the last token of each dialogue: float32 ``(dialogues, layers, heads, head width)``."""
        layers, heads, width = head_shape(self.model)
        rows = [encode(self.tokenizer, self.chat.render(dialogue)) for dialogue in dialogues]
        result = torch.empty(len(rows), layers, heads, width, device=self.model.device)
        for batch in self.engine.batches(rows):
            ids, lengths = self.engine.pad([rows[i] for i in batch])
            charge(tokens_read=int(lengths.sum()))
            # Right-padded and causal: what follows a row's last token cannot reach it, so no mask is needed.
            with torch.no_grad(), recorded_heads(self.model, lengths - 1) as recorded:
                self.model.base_model(input_ids=ids, use_cache=False)
            stacked = torch.stack(recorded, dim=1).float()
            result[batch] = stacked.view(len(batch), layers, heads, width)
        return result

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        """Free text, sampled at ``temperature`` (0: greedy) from torch's global generator."""
        text = self.chat.render((system, user, ""))
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
        charge(tokens_read=read.shape[1], tokens_generated=len(new))
        return str(self.tokenizer.decode(new, skip_special_tokens=True)).strip()
