"""Reading answers from a model whose layers attend to a beginning that is computed once.

Several alignments can share a forward pass: each has a beginning of its own, and a row attends to that of its group.
The arithmetic is the same as one by one, in a fraction of the kernel launches: this pays where launches cost more than
arithmetic (a small model on a GPU), and only there. Whose answers share a batch can move their last bits, as any other
batch geometry can.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from palign_bench.backbone.anatomy import finite
from palign_bench.backbone.engines.attention import SharedPrefix, shared_prefix_mode
from palign_bench.backbone.engines.base import Request, TorchEngine
from palign_bench.backbone.engines.norms import fused_norms, fusible_norms
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.costs.clock import charge


class SharedPrefixEngine(TorchEngine):
    """Computes the shared beginning once and never copies its cache (see `attention`).

    Requests that share a forward pass have equally many prompts and are to be continued equally far.
    """

    _keeps = False
    _kept: tuple[Sequence[Request], SharedPrefix] | None = None  # whose beginnings these are

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, positions: int | None = None):
        super().__init__(model, tokenizer, positions)
        self._norms = fusible_norms(model)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with torch.no_grad(), shared_prefix_mode(self.model), fused_norms(self._norms):
            yield

    @contextmanager
    def one_alignment(self) -> Iterator[None]:
        """Within the block a beginning is computed once, also where reading and writing both ask for it."""
        self._keeps = True
        try:
            yield
        finally:
            self._keeps, self._kept = False, None

    def option_log_probs(self, request: Request, options: Sequence[int]) -> Tensor:
        return self.option_log_probs_of([request], options)[0]

    def continuations(self, request: Request) -> list[list[int]]:
        return self.continuations_of([request])[0]

    def option_log_probs_of(self, requests: Sequence[Request], options: Sequence[int]) -> Tensor:
        """`option_log_probs` of several requests at once: ``(requests, prompts, options)``."""
        result = torch.empty(len(requests), len(requests[0].prompts.suffixes), len(options))
        requests = self._ready(requests)
        with self._reading():
            prefix = self.compute_prefix(requests)
            for batch, rows in self._batches_of(requests):
                last, _, _ = self._forward(rows, prefix, cache=None)
                found = self.anatomy.option_log_probs(last, options).cpu()
                result[:, batch] = found.view(len(requests), len(batch), len(options))
        return result

    def continuations_of(self, requests: Sequence[Request]) -> list[list[list[int]]]:
        """`continuations` of several requests at once."""
        written: list[list[list[int]]] = [[[] for _ in request.prompts.suffixes] for request in requests]
        requests = self._ready(requests)
        with self._reading():
            prefix = self.compute_prefix(requests)
            for batch, rows in self._batches_of(requests):
                for row, tokens in enumerate(self._continued(requests, batch, rows, prefix)):
                    group, place = divmod(row, len(batch))
                    written[group][batch[place]] = tokens
                    charge(tokens_generated=len(tokens))
        return written

    def _ready(self, requests: Sequence[Request]) -> Sequence[Request]:
        """The same requests, split where a kept beginning ends.

        With no prefix at all where one is empty: nothing attends to one that is not there.
        """
        for request in requests:
            self.check_length(request.longest)
        lengths = self._kept_lengths(requests)
        if lengths is not None:
            return [replace(r, prompts=r.prompts.cut(n)) for r, n in zip(requests, lengths, strict=True)]
        if all(request.prompts.prefix or request.virtual is not None for request in requests):
            return requests
        return [replace(r, prompts=SplitPrompts([], r.prompts.whole)) if r.virtual is None else r for r in requests]

    def _kept_lengths(self, requests: Sequence[Request]) -> list[int] | None:
        """How many tokens of each request's beginning are kept; None where they are not these requests' beginnings."""
        if self._kept is None or len(self._kept[0]) != len(requests):
            return None
        pairs = list(zip(requests, self._kept[0], strict=True))
        lengths = [len(kept.prompts.prefix) for _, kept in pairs]
        same = all(
            request.virtual is kept.virtual and request.prompts.prefix[:length] == kept.prompts.prefix
            for (request, kept), length in zip(pairs, lengths, strict=True)
        )
        return lengths if same else None

    def compute_prefix(self, requests: Sequence[Request]) -> SharedPrefix | None:
        """Keys and values of each request's beginning, its soft prompt included; None where there are none."""
        if self._kept is not None and self._kept_lengths(requests) == [len(r.prompts.prefix) for r in requests]:
            return self._kept[1]
        embeddings, rows = self.model.get_input_embeddings(), []
        for request in requests:
            row = embeddings(torch.tensor(request.prompts.prefix, dtype=torch.long, device=self.model.device))
            rows.append(row if request.virtual is None else torch.cat([request.virtual.to(row), row]))
        lengths = [len(row) for row in rows]
        if not max(lengths):
            return None
        charge(tokens_read=sum(lengths))
        cache = DynamicCache(config=self.model.config)
        self.anatomy.decoder(inputs_embeds=pad_sequence(rows, batch_first=True), past_key_values=cache, use_cache=True)
        layers: list[Any] = list(cache.layers)
        prefix = SharedPrefix([layer.keys for layer in layers], [layer.values for layer in layers], lengths)
        if self._keeps:
            self._kept = requests, prefix
        return prefix

    def _batches_of(self, requests: Sequence[Request]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Batches of prompts, each with its rows: request by request, equally many each."""
        suffixes = [request.prompts.suffixes for request in requests]
        longest = [max(rows, key=len) for rows in zip(*suffixes, strict=True)]
        for batch in self.batches(longest, extra=requests[0].max_new_tokens, copies=len(requests)):
            yield batch, [rows[i] for rows in suffixes for i in batch]

    def _continued(
        self, requests: Sequence[Request], batch: list[int], rows: list[list[int]], prefix: SharedPrefix | None
    ) -> list[list[int]]:
        """Greedy tokens of every row. A prompt leaves the batch once all its rows are decided: groups stay even."""
        cache = DynamicCache(config=self.model.config)
        last, lengths, real = self._forward(rows, prefix, cache)
        each, undecided = len(batch), set(range(len(rows)))
        left = list(range(each))  # places in the batch
        written: list[list[int]] = [[] for _ in rows]
        for step in range(requests[0].max_new_tokens):
            active = [group * each + place for group in range(len(requests)) for place in left]
            tokens = self._next_logits(last, requests, [batch[place] for place in left]).argmax(-1)
            for row, token in zip(active, tokens.tolist(), strict=True):
                if row in undecided:
                    written[row].append(token)
                    if token in self.end_tokens or requests[row // each].is_decided(self.text(written[row])):
                        undecided.remove(row)
            left = [place for place in left if any(row % each == place for row in undecided)]
            if not left or step + 1 == requests[0].max_new_tokens:
                break
            kept = [index for index, row in enumerate(active) if row % each in left]
            if len(kept) < len(active):
                chosen = torch.tensor(kept, device=last.device)
                cache.batch_select_indices(chosen)
                tokens, lengths, real = tokens[chosen], lengths[chosen], real[chosen]
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
            last = self._step(tokens, lengths + step, prefix, cache, real)
        return written

    def _next_logits(self, hidden: Tensor, requests: Sequence[Request], prompts: list[int]) -> Tensor:
        """Finite next-token logits, request by request of these prompts, with a second opinion where there is one."""
        logits = finite(self.anatomy.logits(hidden))
        if all(request.scores is None for request in requests):
            return logits
        parts = zip(requests, logits.chunk(len(requests)), strict=True)
        return torch.cat(
            [
                r.scores.on_logits(part, self.families(r.scores.options), prompts) if r.scores else part.float()
                for r, part in parts
            ]
        )

    def _forward(
        self, rows: Sequence[Sequence[int]], prefix: SharedPrefix | None, cache: DynamicCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states at each row's last token, the rows' lengths, and which of the padded positions are real."""
        ids, lengths = self.pad(rows)
        charge(tokens_read=sum(map(len, rows)))  # not of the tensor: a GPU would be waited for
        own = torch.arange(ids.shape[1], device=ids.device)[None]
        hidden = self.anatomy.decoder(
            input_ids=ids,
            position_ids=self._start(prefix, len(rows)) + own,
            shared_prefix=prefix,
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return hidden[torch.arange(len(rows), device=ids.device), lengths - 1], lengths, own < lengths[:, None]

    def _step(
        self, tokens: Tensor, own_positions: Tensor, prefix: SharedPrefix | None, cache: DynamicCache, real: Tensor
    ) -> Tensor:
        mask = torch.zeros(real.shape, dtype=self.model.dtype, device=real.device).masked_fill(~real, float("-inf"))
        hidden: Tensor = self.anatomy.decoder(
            input_ids=tokens[:, None],
            position_ids=self._start(prefix, len(tokens)) + own_positions[:, None],
            past_key_values=cache,
            use_cache=True,
            shared_prefix=prefix,
            own_mask=mask[:, None, None, :],
        ).last_hidden_state
        return hidden[:, -1]

    def _start(self, prefix: SharedPrefix | None, rows: int) -> int | Tensor:
        """The position after its prefix of each of so many rows ``(rows, 1)``; one number where it is the same."""
        lengths = prefix.lengths if prefix else [0]
        if len(set(lengths)) == 1:
            return lengths[0]
        starts = torch.tensor(lengths, device=self.model.device)
        return starts.repeat_interleave(rows // len(lengths))[:, None]
