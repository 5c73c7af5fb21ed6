"""The engine that reads every prompt whole: slower, right for any architecture."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from palign_bench.backbone.anatomy import finite
from palign_bench.backbone.engines.base import Request, TorchEngine
from palign_bench.backbone.engines.decoding import own_decoding
from palign_bench.backbone.engines.products import fastest_products
from palign_bench.costs.clock import charge


class FullPromptEngine(TorchEngine):
    """Reads every prompt whole through the model's own attention and transformers' `generate`.

    A batch holds prompts of one length, so that there are no pads: what a model does with pads and position numbers
    (ALiBi, state spaces, windows) differs from one to the next.
    """

    def inputs(self, rows: Sequence[Sequence[int]], virtual: Tensor | None) -> dict[str, Tensor]:
        """Prompts of one length as the model takes them, a soft prompt right before each."""
        ids = torch.tensor([list(row) for row in rows], device=self.model.device)
        charge(tokens_read=ids.numel() + (0 if virtual is None else len(rows) * len(virtual)))
        if virtual is None:
            return {"input_ids": ids}
        embedded = self.model.get_input_embeddings()(ids)
        return {"inputs_embeds": torch.cat([virtual.to(embedded).expand(len(rows), -1, -1), embedded], dim=1)}

    def option_log_probs(self, request: Request, options: Sequence[int]) -> Tensor:
        self.check_length(request.longest)
        rows = request.prompts.whole
        result = torch.empty(len(rows), len(options))
        with torch.no_grad(), fastest_products(self.model):
            for batch in self.batches(rows, one_length=True):
                inputs = self.inputs([rows[i] for i in batch], request.virtual)
                self.anatomy.forget_lengths()
                hidden = self.anatomy.decoder(**inputs, use_cache=False).last_hidden_state
                result[batch] = self.anatomy.option_log_probs(hidden[:, -1], options).cpu()
        return result

    def continuations(self, request: Request) -> list[list[int]]:
        self.check_length(request.longest)
        rows = request.prompts.whole
        written: list[list[int]] = [[] for _ in rows]
        with torch.no_grad(), fastest_products(self.model), own_decoding(self.model, self.end_tokens):
            for batch in self.batches(rows, extra=request.max_new_tokens, one_length=True):
                inputs = self.inputs([rows[i] for i in batch], request.virtual)
                before = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0  # embeddings do not come back
                self.anatomy.forget_lengths()
                tokens = self.model.generate(
                    **inputs,
                    attention_mask=torch.ones(next(iter(inputs.values())).shape[:2], device=self.model.device).long(),
                    max_new_tokens=request.max_new_tokens,
                    logits_processor=[partial(self._read, request, batch)],
                )
                for index, row in zip(batch, tokens[:, before:].tolist(), strict=True):
                    written[index] = row[: self.decided_text(row, request.is_decided)[1]]
                    charge(tokens_generated=len(written[index]))
        return written

    def _read(self, request: Request, batch: list[int], _: Tensor, logits: Tensor) -> Tensor:
        """Finite next-token logits, with the second opinion; `generate` would write something of any others too."""
        if request.scores is None:
            return finite(logits)
        return request.scores.on_logits(finite(logits), self.families(request.scores.options), batch)
