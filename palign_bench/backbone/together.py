"""Several shifts of one prompt in one batch: what PAS's search asks, in a sixth of the kernel launches.

Each shift changes the keys and values of the prompt's shared beginning, so that every shift has a beginning of its own;
a row attends to that of its group. The arithmetic is the same as one by one: this pays where launches cost more than
arithmetic (a small model on a GPU), and only there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from palign_bench.alignment import Alignment
from palign_bench.backbone.answering import SharedPrefixEngine
from palign_bench.backbone.attention import shared_prefix_mode
from palign_bench.backbone.steering import shifted_heads
from palign_bench.backbone.tokenizing import SplitPrompts


class ShiftsTogetherEngine(SharedPrefixEngine):
    """The shared-prefix engine, which can also answer the same prompts under several shifts at once."""

    def option_log_probs_of_shifts(self, prompts: SplitPrompts, options: Sequence[int], shifts: Tensor) -> Tensor:
        """As `option_log_probs`, for each of ``shifts`` ``(groups, layers, width)``: ``(groups, prompts, options)``."""
        groups = len(shifts)
        result = torch.empty(groups, len(prompts.suffixes), len(options))
        with torch.no_grad(), shared_prefix_mode(self.model), shifted_heads(self.model, shifts):
            prefix = self.compute_prefix(prompts.prefix, None, copies=groups)
            for batch in self.batches(prompts.suffixes, copies=groups):
                rows = [prompts.suffixes[i] for _ in range(groups) for i in batch]
                hidden, lengths, _ = self._forward(rows, prefix, cache=None)
                last = hidden[torch.arange(len(rows), device=hidden.device), lengths - 1]
                result[:, batch] = self.read_options(last, options).cpu().view(groups, len(batch), len(options))
        return result


def differ_in_shifts_alone(alignments: Sequence[Alignment]) -> bool:
    """Whether these are several alignments with one system prompt and nothing but head shifts besides."""
    others = [part for a in alignments for part in (a.adapter, a.readout, a.answers)]
    one_prompt = len({alignment.system_prompt for alignment in alignments}) == 1
    shifted = any(alignment.head_shifts is not None for alignment in alignments)
    return len(alignments) > 1 and one_prompt and shifted and all(part is None for part in others)


def stacked_shifts(alignments: Sequence[Alignment]) -> Tensor:
    """The alignments' shifts ``(alignments, layers, width)``, zero where there is none."""
    found = next(a.head_shifts for a in alignments if a.head_shifts is not None)
    return torch.stack([torch.zeros_like(found) if a.head_shifts is None else a.head_shifts for a in alignments])
