"""Reading answers from a model: five options in one forward pass, or greedy text until its parse is decided.

One interface. `SharedPrefixEngine` computes a person's system prompt once and lets all items attend to it;
`FullPromptEngine` reads every prompt whole, for architectures that the first does not know (and as its oracle). Others:
`backbone/together.py`, `backbone/serving.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from palign_bench.backbone.engines.attention import SharedPrefix, shared_prefix_mode
from palign_bench.backbone.engines.base import IsDecided, LogitsReader, TorchEngine, finite
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.costs.clock import charge


class SharedPrefixEngine(TorchEngine):
    """Computes the shared beginning once and never copies its cache (see `attention`)."""

    def compute_prefix(self, prefix: Sequence[int], virtual: Tensor | None) -> SharedPrefix | None:
        """Keys and values of the prefix, the soft prompt before it included; None for an empty one."""
        embeddings = self.model.get_input_embeddings()
        inputs = embeddings(torch.tensor([list(prefix)], dtype=torch.long, device=self.model.device))
        if virtual is not None:
            inputs = torch.cat([virtual.to(inputs)[None], inputs], dim=1)
        if inputs.shape[1] == 0:
            return None
        charge(tokens_read=inputs.shape[1])
        return self._prefix([inputs.shape[1]], inputs_embeds=inputs)

    def _prefix(self, lengths: list[int], **inputs: Tensor) -> SharedPrefix:
        """Keys and values of right-padded prefixes of these lengths, given as ids or embeddings."""
        cache = DynamicCache(config=self.model.config)
        self._decoder()(**inputs, past_key_values=cache, use_cache=True)
        layers: list[Any] = list(cache.layers)
        return SharedPrefix([layer.keys for layer in layers], [layer.values for layer in layers], lengths)

    def option_log_probs(self, prompts: SplitPrompts, options: Sequence[int], virtual: Tensor | None) -> Tensor:
        result = torch.empty(len(prompts.suffixes), len(options))
        with torch.no_grad(), shared_prefix_mode(self.model):
            prefix = self.compute_prefix(prompts.prefix, virtual)
            for batch in self.batches(prompts.suffixes):
                hidden, lengths, _ = self._forward([prompts.suffixes[i] for i in batch], prefix, cache=None)
                last = hidden[torch.arange(len(batch), device=hidden.device), lengths - 1]
                result[batch] = self.read_options(last, options).cpu()
        return result

    def greedy(
        self,
        prompts: SplitPrompts,
        max_new_tokens: int,
        is_decided: IsDecided,
        virtual: Tensor | None,
        scores: OptionScores | None = None,
    ) -> list[str]:
        texts = [""] * len(prompts.suffixes)
        with torch.no_grad(), shared_prefix_mode(self.model):
            prefix = self.compute_prefix(prompts.prefix, virtual)
            for batch in self.batches(prompts.suffixes, extra=max_new_tokens):
                rows = [prompts.suffixes[i] for i in batch]
                read = self._logits_reader(scores, batch)
                for index, text in zip(
                    batch, self._greedy_batch(rows, prefix, max_new_tokens, is_decided, read), strict=True
                ):
                    texts[index] = text
        return texts

    def _logits_reader(self, scores: OptionScores | None, batch: list[int]) -> LogitsReader:
        """Finite next-token logits of these rows of the batch, with the second opinion where there is one."""

        def read(hidden: Tensor, rows: list[int]) -> Tensor:
            logits = finite(self.model.get_output_embeddings()(hidden))
            return logits if scores is None else scores.on_logits(logits, self.families, [batch[row] for row in rows])

        return read

    def _greedy_batch(
        self,
        rows: list[list[int]],
        prefix: SharedPrefix | None,
        max_new_tokens: int,
        is_decided: IsDecided,
        read: LogitsReader,
    ) -> list[str]:
        cache = DynamicCache(config=self.model.config)
        hidden, lengths, padded = self._forward(rows, prefix, cache)
        last = hidden[torch.arange(len(rows), device=hidden.device), lengths - 1]
        generated: list[list[int]] = [[] for _ in rows]
        active = torch.arange(len(rows), device=hidden.device)
        real = torch.arange(padded, device=hidden.device)[None] < lengths[:, None]
        for step in range(max_new_tokens):
            tokens = read(last, active.tolist()).argmax(-1)
            charge(tokens_generated=len(active))
            keep = []
            for position, (row, token) in enumerate(zip(active.tolist(), tokens.tolist(), strict=True)):
                generated[row].append(token)
                if token not in self.end_tokens and not is_decided(self._text(generated[row])):
                    keep.append(position)
            if not keep or step + 1 == max_new_tokens:
                break
            kept = torch.tensor(keep, device=hidden.device)
            if len(keep) < len(active):
                cache.batch_select_indices(kept)
            active, tokens, real = active[kept], tokens[kept], real[kept]
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
            last = self._step(tokens, lengths[active] + step, prefix, cache, real)
        return [self._text(row) for row in generated]

    def _forward(
        self, rows: Sequence[Sequence[int]], prefix: SharedPrefix | None, cache: DynamicCache | None
    ) -> tuple[Tensor, Tensor, int]:
        ids, lengths = self.pad(rows)
        charge(tokens_read=int(lengths.sum()))
        positions = self._start(prefix, len(rows)) + torch.arange(ids.shape[1], device=ids.device)[None]
        options: dict[str, Any] = {"past_key_values": cache, "use_cache": cache is not None}
        output = self._decoder()(input_ids=ids, position_ids=positions, shared_prefix=prefix, **options)
        return output.last_hidden_state, lengths, ids.shape[1]

    def _step(
        self, tokens: Tensor, own_positions: Tensor, prefix: SharedPrefix | None, cache: DynamicCache, real: Tensor
    ) -> Tensor:
        mask = torch.zeros(real.shape, dtype=self.model.dtype, device=real.device).masked_fill(~real, float("-inf"))
        output = self._decoder()(
            input_ids=tokens[:, None],
            position_ids=self._start(prefix, len(tokens)) + own_positions[:, None],
            past_key_values=cache,
            use_cache=True,
            shared_prefix=prefix,
            own_mask=mask[:, None, None, :],
        )
        return output.last_hidden_state[:, -1]

    def _start(self, prefix: SharedPrefix | None, rows: int) -> int | Tensor:
        """The position after its prefix of each of so many rows ``(rows, 1)``; one number where it is the same."""
        lengths = prefix.lengths if prefix else [0]
        if len(set(lengths)) == 1:
            return lengths[0]
        starts = torch.tensor(lengths, device=self.model.device)
        return starts.repeat_interleave(rows // len(lengths))[:, None]

    def _decoder(self) -> Any:
        return self.model.base_model
