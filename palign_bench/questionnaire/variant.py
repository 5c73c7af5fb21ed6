"""Asking the same held-out items in another way, to see whether the answers stay (arXiv 2309.08163).

A method is aligned as always and then asked: with the options in another order, with the question in other words, or
once more. ``shuffled`` alone changes what it is told: the known answers stand in another order in its prompt. Answers
are read by the option's label, whatever letter it has, so that they stay literal.
"""

import copy
import math
import random
from dataclasses import dataclass, replace
from typing import Self

from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Inventory, Option
from palign_bench.questionnaire.protocol import EvaluationProtocol

PLAIN, REVERSED, ROTATED, SHUFFLED, REPEAT = "plain", "reversed", "rotated", "shuffled", "repeat"
FRAMES = ("frame_1", "frame_2", "frame_3")
VARIANTS = (PLAIN, REVERSED, ROTATED, *FRAMES, SHUFFLED, REPEAT)
ITEMS = 30  # asked in every variant


@dataclass(frozen=True)
class Variant:
    """One way of asking, by name: ``plain`` and ``repeat`` (the usual one, computed twice), ``reversed`` and
    ``rotated`` options, ``frame_1`` to ``frame_3`` (`prompts.FRAMES`), ``shuffled`` known answers.
    """

    name: str

    @classmethod
    def parse(cls, text: str, inventory: Inventory) -> Self:
        """Raises ValueError saying what can be asked for."""
        if text not in VARIANTS:
            raise ValueError(f"choose one of {', '.join(VARIANTS)}")
        if text in FRAMES and inventory.asks is not None:
            raise ValueError(f"{inventory.name} brings a question of its own, which has no paraphrases; choose another")
        return cls(text)

    def items(self, inventory: Inventory, seed: int) -> tuple[int, ...]:
        """Numbers of the held-out items asked, drawn from the seed alone: the same in every variant.

        About `ITEMS`, equally many of each subscale, or of each scale where there are no subscales; ascending.
        """
        groups: dict[str, list[int]] = {}
        for number in inventory.held_out:
            groups.setdefault(inventory[number].subscale or inventory[number].scale, []).append(number)
        generator = random.Random(f"variant-{seed}")
        each = math.ceil(ITEMS / len(groups))
        drawn = [generator.sample(groups[name], min(each, len(groups[name]))) for name in sorted(groups)]
        return tuple(sorted(number for numbers in drawn for number in numbers))

    def options(self, inventory: Inventory) -> tuple[Option, ...]:
        """The options as this variant lists them, A first."""
        listed = inventory.options
        if self.name == REVERSED:
            listed = listed[::-1]
        elif self.name == ROTATED:  # by half of them: none keeps its letter
            half = len(listed) // 2
            listed = listed[half:] + listed[:half]
        return tuple(
            Option(letter, option.value, option.label) for letter, option in zip(inventory.letters, listed, strict=True)
        )

    def told(self, protocol: EvaluationProtocol, seed: int) -> EvaluationProtocol:
        """The protocol under which a method is aligned."""
        if self.name != SHUFFLED:
            return protocol
        known = list(protocol.inventory.known)
        random.Random(f"shuffled-{seed}").shuffle(known)
        told = copy.copy(protocol)
        told.listing = replace(protocol.inventory, known=tuple(known))
        return told

    def asked(self, protocol: EvaluationProtocol) -> EvaluationProtocol:
        """The protocol under which the aligned model is asked."""
        asked = copy.copy(protocol)
        asked.options = self.options(protocol.inventory)
        if self.name in FRAMES:
            asked.asks = prompts.FRAMES[protocol.inventory.wording][FRAMES.index(self.name)]
        return asked
