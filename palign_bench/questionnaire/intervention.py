"""Changing what a method is told of a person, to see whether its answers follow (the paper's appendix D, figure 14).

A changed answer is clipped to the options, so that the *dose* (how far the known answers really moved) is smaller than
what was asked for. Changes are made in the keyed direction: raising literal answers alike would hardly move a trait.
"""

import re
from dataclasses import dataclass
from typing import Self

from palign_bench.questionnaire.inventory import LOWEST, Answers, Inventory
from palign_bench.questionnaire.scoring import trait_scores
from palign_bench.settings import UserError

EVERY_SCALE = "all"
INVERTED = "inverted"


@dataclass(frozen=True)
class Intervention:
    """``A+1``: the keyed known answers of scale A raised by one; ``all-1``: of every scale lowered; ``inverted``: every
    answer mirrored, which makes the person's opposite.

    ``scales``: those whose answers change. ``step``: by how much; 0 for ``inverted``.
    """

    name: str
    scales: tuple[str, ...]
    step: int

    @classmethod
    def parse(cls, text: str | None, inventory: Inventory) -> Self | None:
        """``intervention=…`` of a run; None for none. Raises UserError naming what can be asked for."""
        if text in (None, "none"):
            return None
        if text == INVERTED:
            return cls(INVERTED, tuple(inventory.scales), 0)
        match = re.fullmatch(r"(.+)([+-][1-9])", str(text))
        if match is None or match[1] not in (*inventory.scales, EVERY_SCALE):
            choices = ", ".join((*inventory.scales, EVERY_SCALE))
            raise UserError(
                f"intervention={text}: choose a scale of {inventory.name} and a step, as in A+1 (of {choices}), or "
                f"{INVERTED}, or none."
            )
        return cls(match[0], tuple(inventory.scales) if match[1] == EVERY_SCALE else (match[1],), int(match[2]))

    def apply(self, literal: Answers, inventory: Inventory) -> dict[int, float]:
        """The literal answers as a method is told them instead."""
        told = dict(literal)
        for number, value in literal.items():
            if inventory[number].scale not in self.scales:
                continue
            if not self.step:
                told[number] = inventory.reverse(value)
            else:
                moved = min(max(inventory.keyed(number, value) + self.step, LOWEST), inventory.highest)
                told[number] = inventory.keyed(number, moved)
        return told

    def dose(self, literal: Answers, inventory: Inventory) -> dict[str, float]:
        """By how much the keyed known answers of each scale move, on average; by full name."""
        before, after = trait_scores(inventory, literal), trait_scores(inventory, self.apply(literal, inventory))
        return {scale: after[scale] - before[scale] for scale in before}
