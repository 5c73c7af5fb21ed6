"""Answers that were computed and may serve another cell."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from palign_bench.costs.clock import Cost

if TYPE_CHECKING:  # a session has answers before anything imports PyTorch
    from palign_bench.backbone.alignment import Alignment, AnswerSheet
    from palign_bench.backbone.base import Backbone

MOST_SHEETS = 2_000  # that are kept of a backbone: 64 KB each, as measured over 2,168 people


@dataclass(frozen=True)
class Answered:
    """An answer sheet and what it cost one person, memory counted above the bare model's, so that it holds for any row.

    ``reused``: taken over from an earlier cell. ``people``: of how many one batch held the answers, sharing the cost.
    """

    sheet: AnswerSheet
    cost: Cost
    reused: bool = False
    people: int = 1


class AnswerMemo:
    """Answer sheets of prompt-only alignments, so that no system prompt is answered twice by one backbone.

    Vanilla answers alike for everyone, and PAS with alpha 0 is Few-Shot (but for a ``;`` under `as_released`): an
    answer taken over is still charged what it cost when it was computed. Of more than `MOST_SHEETS` those that were of
    use last are kept.
    """

    def __init__(self) -> None:
        # Weak: a model that is unloaded takes its answers along, and none of a later one can be taken for its.
        self._sheets: WeakKeyDictionary[Backbone, dict[str, Answered]] = WeakKeyDictionary()

    @staticmethod
    def key(backbone: Backbone, alignment: Alignment) -> str | None:
        """None for an alignment that more than a prompt makes."""
        if any(part is not None for part in (alignment.head_shifts, alignment.adapter, alignment.readout)):
            return None
        text = f"{backbone.protocol.name}\n{alignment.system_prompt}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, backbone: Backbone, alignment: Alignment) -> Answered | None:
        """Answers under the same prompt that were computed before."""
        key, sheets = self.key(backbone, alignment), self._sheets.get(backbone, {})
        if key is None or key not in sheets:
            return None
        sheets[key] = sheets.pop(key)  # the last to be dropped
        return replace(sheets[key], reused=True)

    def put(self, backbone: Backbone, alignment: Alignment, answered: Answered) -> None:
        """Keep the answers, if a prompt alone makes them."""
        if key := self.key(backbone, alignment):
            sheets = self._sheets.setdefault(backbone, {})
            sheets[key] = answered
            if len(sheets) > MOST_SHEETS:
                del sheets[next(iter(sheets))]

    def forget(self) -> None:
        """Take nothing over from here on."""
        self._sheets.clear()
