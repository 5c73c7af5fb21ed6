"""The rule-based reward of the paper's PPO (listing in C.2): how far the option that a text names is off."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from palign_bench.questionnaire.inventory import OPTIONS, Option
from palign_bench.questionnaire.protocol import parse_released

NO_LABEL = -6.0
UNKNOWN = 0  # the listing's sixth label


@lru_cache(maxsize=8)
def _patterns(options: tuple[Option, ...]) -> list[tuple[int, re.Pattern[str]]]:
    """Values and patterns of the labels, longest first, since one label may stand inside another ("Disagree").

    A truncated label is no label, as in the listing, which looks for the whole description.
    """
    labels = [(option.value, option.label) for option in options] + [(UNKNOWN, "Unknown")]
    return [
        (value, re.compile(r"(?<![a-z])" + r"[\s_]+".join(map(re.escape, label.lower().split())) + r"(?![a-z])"))
        for value, label in sorted(labels, key=lambda pair: -len(pair[1]))
    ]


def named_option(text: str, options: tuple[Option, ...] = OPTIONS) -> int | None:
    """Value of the label that a text names, 0 for "Unknown", None for none; of several the highest (listing)."""
    rest, named = text.lower(), set()
    for value, pattern in _patterns(options):
        rest, count = pattern.subn("|", rest)
        if count:
            named.add(value)
    return max(named, default=None)


@dataclass
class RewardLog:
    """Rewards given so far, and how often the label (which is rewarded) and the letter (which is scored) disagree."""

    options: tuple[Option, ...] = OPTIONS
    rewards: int = 0
    both_named: int = 0
    disagreements: int = 0
    unnamed: int = 0

    def rewards_of(self, texts: Sequence[str], options: Sequence[int]) -> list[float]:
        """Minus the distance between the option named and the person's (5…1), −6 for none; count what is named.

        ``texts`` continue the opening "Option".
        """
        rewards = []
        for text, option in zip(texts, options, strict=True):
            label, letter = named_option(text, self.options), parse_released(text, len(self.options))
            rewards.append(NO_LABEL if label is None else -float(abs(label - option)))
            self.rewards += 1
            self.unnamed += label is None
            if label is not None and letter is not None:
                self.both_named += 1
                self.disagreements += label != letter
        return rewards

    def summary(self) -> dict[str, float | int | None]:
        """For an alignment's summary: texts rewarded, share without a label, label/letter disagreement rate."""
        return {
            "rewarded_texts": self.rewards,
            "unnamed_rate": self.unnamed / self.rewards if self.rewards else None,
            "label_letter_disagreement": self.disagreements / self.both_named if self.both_named else None,
        }
