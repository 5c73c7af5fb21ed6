"""The engine that reads every prompt whole: slower, right for any architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palign_bench.backbone.engines.base import IsDecided, TorchEngine
from palign_bench.backbone.parts.options import OptionScores, PooledLogits
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.costs.clock import charge


class FullPromptEngine(TorchEngine):
    """Reads every prompt whole through the model's own attention and transformers' `generate`, left-padded."""

    def inputs(self, rows: Sequence[Sequence[int]], virtual: Tensor | None) -> dict[str, Tensor]:
        """Left-padded embeddings and mask of whole prompts, a soft prompt right before each."""
        embeddings = self.model.get_input_embeddings()
        pieces = [embeddings(torch.tensor(list(row), device=self.model.device)) for row in rows]
        if virtual is not None:
            # PEFT lays out [virtual][pad][prompt], which answers wrongly in a batch; the pads belong in front.
            pieces = [torch.cat([virtual.to(piece), piece]) for piece in pieces]
        longest = max(len(piece) for piece in pieces)
        inputs = torch.zeros(len(rows), longest, pieces[0].shape[1], dtype=pieces[0].dtype, device=pieces[0].device)
        mask = torch.zeros(len(rows), longest, dtype=torch.long, device=inputs.device)
        for index, piece in enumerate(pieces):
            inputs[index, longest - len(piece) :] = piece
            mask[index, longest - len(piece) :] = 1
        charge(tokens_read=int(mask.sum()))
        return {"inputs_embeds": inputs, "attention_mask": mask}

    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        rows = [prompts.prefix + suffix for suffix in prompts.suffixes]
        result = torch.empty(len(rows), len(options))
        with torch.no_grad():
            for batch in self.batches(rows):
                inputs = self.inputs([rows[i] for i in batch], virtual)
                positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
                hidden = self.model.base_model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
                result[batch] = self.read_options(hidden[:, -1], options).cpu()
        return result

    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        rows = [prompts.prefix + suffix for suffix in prompts.suffixes]
        texts = [""] * len(rows)
        with torch.no_grad():
            for batch in self.batches(rows, extra=max_new_tokens):
                inputs = self.inputs([rows[i] for i in batch], virtual)
                tokens = self.model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    do_sample=False,
                    logits_processor=[PooledLogits(scores, self.families, batch)] if scores else None,
                    eos_token_id=sorted(self.end_tokens) or None,
                    pad_token_id=min(self.end_tokens, default=0),
                )
                for index, row in zip(batch, tokens.tolist(), strict=True):
                    texts[index], written = self.decided_text(row, is_decided)
                    charge(tokens_generated=written)
        return texts
