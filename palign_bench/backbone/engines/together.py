"""Several alignments in one batch: people of a row or the alphas of PAS's search, in a fraction of the kernel launches.

Each alignment has a system prompt and head shifts of its own, so that each has a beginning of its own; a row attends to
that of its group. The arithmetic is the same as one by one: this pays where launches cost more than arithmetic (a small
model on a GPU), and only there. Whose answers share a batch can move their last bits, as any other batch geometry can.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import DynamicCache

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.attention import SharedPrefix, shared_prefix_mode
from palign_bench.backbone.engines.base import IsDecided
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.parts.heads import shifted_heads
from palign_bench.backbone.tokenizing import SplitPrompts
from palign_bench.costs.clock import charge


class TogetherEngine(SharedPrefixEngine):
    """The shared-prefix engine, which can also answer several groups of prompts, equally many each, at once.

    ``shifts``: head shifts of every group ``(groups, layers, width)``, or None.
    """

    def option_log_probs_together(
        self, groups: Sequence[SplitPrompts], options: Sequence[int], shifts: Tensor | None
    ) -> Tensor:
        """As `option_log_probs`, for every group: ``(groups, prompts, options)``."""
        result = torch.empty(len(groups), len(groups[0].suffixes), len(options))
        groups = _without_empty_prefixes(groups)
        with torch.no_grad(), shared_prefix_mode(self.model), self._shifted(shifts):
            prefix = self.compute_prefixes([group.prefix for group in groups])
            for batch, rows in self._batches_of(groups):
                hidden, lengths, _ = self._forward(rows, prefix, cache=None)
                last = hidden[torch.arange(len(rows), device=hidden.device), lengths - 1]
                result[:, batch] = self.read_options(last, options).cpu().view(len(groups), len(batch), len(options))
        return result

    def greedy_together(
        self, groups: Sequence[SplitPrompts], max_new_tokens: int, is_decided: IsDecided, shifts: Tensor | None
    ) -> list[list[str]]:
        """As `greedy`, for every group: its texts."""
        texts = [[""] * len(group.suffixes) for group in groups]
        groups = _without_empty_prefixes(groups)
        with torch.no_grad(), shared_prefix_mode(self.model), self._shifted(shifts):
            prefix = self.compute_prefixes([group.prefix for group in groups])
            for batch, rows in self._batches_of(groups, extra=max_new_tokens):
                for row, tokens in enumerate(self._continuations(rows, prefix, max_new_tokens, is_decided)):
                    group, place = divmod(row, len(batch))
                    texts[group][batch[place]] = self._text(tokens)
                    charge(tokens_generated=len(tokens))
        return texts

    def compute_prefixes(self, prefixes: Sequence[Sequence[int]]) -> SharedPrefix | None:
        """Keys and values of every group's prefix, right-padded; None where they are empty."""
        ids, lengths = self.pad(prefixes)
        charge(tokens_read=int(lengths.sum()))
        return self._prefix(lengths.tolist(), input_ids=ids) if ids.shape[1] else None

    def _batches_of(
        self, groups: Sequence[SplitPrompts], extra: int = 0
    ) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Batches of prompts, each with its rows: group by group, equally many each."""
        longest = [max(rows, key=len) for rows in zip(*(group.suffixes for group in groups), strict=True)]
        for batch in self.batches(longest, extra, copies=len(groups)):
            yield batch, [group.suffixes[i] for group in groups for i in batch]

    def _continuations(
        self, rows: list[list[int]], prefix: SharedPrefix | None, max_new_tokens: int, is_decided: IsDecided
    ) -> list[list[int]]:
        """Greedy tokens of every row. Decided rows stay in the batch, so that the groups stay equally large."""
        cache = DynamicCache(config=self.model.config)
        hidden, lengths, padded = self._forward(rows, prefix, cache)
        last = hidden[torch.arange(len(rows), device=hidden.device), lengths - 1]
        real = torch.arange(padded, device=hidden.device)[None] < lengths[:, None]
        read, everyone = self._logits_reader(None, []), list(range(len(rows)))
        continuations: list[list[int]] = [[] for _ in rows]
        undecided = set(everyone)
        for step in range(max_new_tokens):
            tokens = read(last, everyone).argmax(-1)
            for row, token in enumerate(tokens.tolist()):
                if row in undecided:
                    continuations[row].append(token)
                    if token in self.end_tokens or is_decided(self._text(continuations[row])):
                        undecided.remove(row)
            if not undecided or step + 1 == max_new_tokens:
                break
            real = torch.cat([real, torch.ones_like(real[:, :1])], dim=1)
            last = self._step(tokens, lengths + step, prefix, cache, real)
        return continuations

    def _shifted(self, shifts: Tensor | None) -> AbstractContextManager[None]:
        return nullcontext() if shifts is None else shifted_heads(self.model, shifts)


def _without_empty_prefixes(groups: Sequence[SplitPrompts]) -> Sequence[SplitPrompts]:
    """The same prompts, with no prefix at all where one is empty: nothing attends to a prefix that is not there."""
    if all(group.prefix for group in groups):
        return groups
    return [SplitPrompts([], [group.prefix + suffix for suffix in group.suffixes]) for group in groups]


def only_prompts_and_shifts(alignment: Alignment) -> bool:
    """Whether the alignment is made of a system prompt and head shifts, and of nothing else."""
    return alignment.adapter is None and alignment.readout is None and alignment.answers is None


def stacked_shifts(alignments: Sequence[Alignment]) -> Tensor | None:
    """The alignments' shifts ``(alignments, layers, width)``, zero where one has none; None where none has any."""
    found = next((a.head_shifts for a in alignments if a.head_shifts is not None), None)
    if found is None:
        return None
    return torch.stack([torch.zeros_like(found) if a.head_shifts is None else a.head_shifts for a in alignments])
