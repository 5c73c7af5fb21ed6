"""How far to shift: the choice of alpha (paper, section 4.3, Eq. 6)."""

import math
from collections.abc import Callable, Mapping, Sequence

ALPHAS: tuple[float, ...] = (0, 1, 2, 4, 6, 8)  # the released code's grid
LOW, HIGH = 0.0, 10.0  # the paper's interval
TOLERANCE = 0.25  # the width at which narrowing stops: answers are whole options and barely tell closer alphas apart
UNSCORED = 1e6  # what an alpha without a composite counts as (released code)
_SHRINK = (math.sqrt(5) - 1) / 2

# Of an alpha's answers, lower is better: the composite score and, between equal ones, the nats that the true answer of
# an item costs on average.
Standing = tuple[float, float]
# Of several alphas at once; None or a NaN for a composite where there is none.
Score = Callable[[Sequence[float]], Sequence[tuple[float | None, float]]]


def best(scores: Mapping[float, Standing]) -> float:
    """The alpha with the lowest composite, then the fewest nats; ties go to the smallest."""
    return min(sorted(scores), key=scores.__getitem__)


def grid_search(score: Score, alphas: Sequence[float] = ALPHAS) -> dict[float, Standing]:
    """The score of each of ``alphas``, all scored in one call."""
    return _scored(score, sorted(set(alphas)))


def golden_section_search(
    score: Score, low: float = LOW, high: float = HIGH, tolerance: float = TOLERANCE
) -> dict[float, Standing]:
    """The scores tried while [low, high] narrows by the golden section to ``tolerance``, and that of 0 (no shift).

    For a score with a single trough the best of them is within ``tolerance`` of it.
    """
    left, right = high - _SHRINK * (high - low), low + _SHRINK * (high - low)
    scores = _scored(score, [0.0, left, right])
    while high - low > tolerance:
        if scores[left] <= scores[right]:
            high, right = right, left
            left = new = high - _SHRINK * (high - low)
        else:
            low, left = left, right
            right = new = low + _SHRINK * (high - low)
        scores |= _scored(score, [new])
    return dict(sorted(scores.items()))


def _scored(score: Score, alphas: Sequence[float]) -> dict[float, Standing]:
    found = [(UNSCORED if value is None or math.isnan(value) else float(value), nats) for value, nats in score(alphas)]
    return dict(zip((float(alpha) for alpha in alphas), found, strict=True))
