"""How many people there are of a kind: counts alone leave a loader, and none below `FEWEST`."""

from collections import Counter
from collections.abc import Iterable

FEWEST = 5  # people in a group that is told apart
OTHERS = "others"


def counts_of(values: Iterable[str]) -> dict[str, int]:
    """The number of people by group, largest first; groups of fewer than `FEWEST` are counted together at the end.

    Where these are fewer than that too, the next smallest group joins them, so that nobody is found by subtraction.
    """
    counts = dict(sorted(Counter(values).items(), key=lambda each: (-each[1], each[0])))
    kept = {group: count for group, count in counts.items() if count >= FEWEST}
    others = sum(counts.values()) - sum(kept.values())
    while kept and 0 < others < FEWEST:
        others += kept.popitem()[1]
    return kept | ({OTHERS: others} if others else {})
