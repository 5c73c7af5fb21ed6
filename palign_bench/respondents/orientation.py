"""Whether stored answers are literal or keyed: what the data themselves say.

Literal answers to oppositely keyed items of one scale correlate negatively ("Trust others" against "Distrust people");
where negatively keyed items are stored reverse-scored, they correlate positively.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.settings import counted

ORIENTATIONS = ("literal", "keyed")
FEWEST_PEOPLE = 20  # fewer correlate by chance
CLEAR = 0.1  # mean correlation beyond which a direction is taken as shown
_MOST_PEOPLE = 2000  # correlations are taken over an evenly spaced part of more people


@dataclass(frozen=True)
class OrientationEvidence:
    """Correlations between items of one scale (the finest there is: facets, else domains), as the answers are stored.

    ``answered``: oppositely keyed pairs both of which are answered by somebody; ``pairs``: those that correlate at all.
    ``opposite``, ``same``: mean correlation of oppositely and of same keyed pairs, NaN without such pairs.
    ``positive_share``: share of the opposite pairs that correlate positively. ``by_scale``: mean of each scale's
    opposite pairs.
    """

    people: int
    answered: int
    pairs: int
    opposite: float
    same: float
    positive_share: float
    by_scale: Mapping[str, float]

    @property
    def verdict(self) -> str | None:
        """ "literal" or "keyed", whichever the answers look like; None where they do not tell."""
        if self.people < FEWEST_PEOPLE or not abs(self.opposite) >= CLEAR:  # NaN is no evidence either
            return None
        return "keyed" if self.opposite > 0 else "literal"

    @property
    def disagreeing(self) -> list[str]:
        """Scales whose own opposite pairs clearly say the contrary of all pairs together."""
        if self.verdict is None:
            return []
        return [scale for scale, mean in self.by_scale.items() if abs(mean) >= CLEAR and mean * self.opposite < 0]

    def __str__(self) -> str:
        if not self.pairs:
            why = "no oppositely keyed items of one scale are answered"
            if self.answered and self.people < FEWEST_PEOPLE:
                why = f"too few people ({self.people}) to correlate oppositely keyed items of one scale"
            elif self.answered:
                why = "oppositely keyed items of one scale are answered by too few people, or alike by all"
            return f"{why}: the orientation cannot be checked"
        told = (
            f"oppositely keyed items of one scale correlate {self.opposite:+.2f} ("
            f"{counted(self.pairs, 'pair', 'pairs')}, "
            f"{self.positive_share:.0%} positive), same-keyed ones {self.same:+.2f}"
        )
        if self.people < FEWEST_PEOPLE:
            return f"{told}; too few people ({self.people}) to tell literal from keyed"
        return f"{told}: the answers look {self.verdict}" if self.verdict else f"{told}: neither literal nor keyed"


def orientation_evidence(stored: NDArray[np.int8], inventory: Inventory) -> OrientationEvidence:
    """What answers (people, items), 0 where missing, say of their own orientation."""
    chosen = np.linspace(0, len(stored) - 1, min(len(stored), _MOST_PEOPLE)).astype(int)
    frame = pd.DataFrame(stored[chosen].astype(float)).replace(0.0, np.nan)
    signs, anybody = np.array([item.sign for item in inventory.items]), frame.notna().any().to_numpy()
    pairs = []
    for scale, numbers in inventory.grouped(inventory.by_number).items():
        columns = [inventory.column[number] for number in numbers]
        with np.errstate(invalid="ignore", divide="ignore"):  # a constant item correlates with nothing
            correlations = frame[columns].corr(min_periods=min(FEWEST_PEOPLE, len(frame))).to_numpy()
        first, second = np.triu_indices(len(columns), k=1)
        opposite = signs[columns][first] != signs[columns][second]
        both = anybody[columns][first] & anybody[columns][second]
        found = {"scale": scale, "opposite": opposite, "answered": opposite & both, "r": correlations[first, second]}
        pairs.append(pd.DataFrame(found))
    everything = pd.concat(pairs)
    table = everything.dropna()
    same, opposites = table[~table["opposite"]], table[table["opposite"]]
    return OrientationEvidence(
        people=len(stored),
        answered=int(everything["answered"].sum()),
        pairs=len(opposites),
        opposite=opposites["r"].mean(),
        same=same["r"].mean(),
        positive_share=(opposites["r"] > 0).mean(),
        by_scale={str(scale): of["r"].mean() for scale, of in opposites.groupby("scale", sort=False)},
    )
