"""How far to shift: the choice of alpha (paper, section 4.3, Eq. 6)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALPHAS: tuple[float, ...] = (0, 1, 2, 4, 6, 8)  # the released code's grid
LOW, HIGH = 0.0, 10.0  # the paper's interval
TOLERANCE = 0.25  # the width at which narrowing stops: answers are whole options and barely tell closer alphas apart
UNSCORED = 1e6  # what an alpha without a composite counts as (released code)
_SHRINK = (math.sqrt(5) - 1) / 2

# Composite scores of several alphas at once, lower is better; None or NaN where there is none.
Score = Callable[[Sequence[float]], Sequence[float | None]]


@dataclass(frozen=True)
class SearchResult:
    """The chosen alpha and the score of every alpha that was tried, ascending in alpha."""

    alpha: float
    scores: dict[float, float]


def grid_search(score: Score, alphas: Sequence[float] = ALPHAS) -> SearchResult:
    """The best of ``alphas``, all scored in one call; ties go to the smallest."""
    return _best(_scored(score, sorted(set(alphas))))


def golden_section_search(
    score: Score, low: float = LOW, high: float = HIGH, tolerance: float = TOLERANCE
) -> SearchResult:
    """Narrow [low, high] by the golden section until it is at most ``tolerance`` wide.

    For a score with a single trough the result is within ``tolerance`` of it. Alpha 0 (no shift) is always scored as
    well, so that the choice cannot be worse than it; the best alpha that was tried wins, ties go to the smallest.
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
    return _best(scores)


def _scored(score: Score, alphas: Sequence[float]) -> dict[float, float]:
    values = [UNSCORED if value is None or math.isnan(value) else float(value) for value in score(alphas)]
    return dict(zip((float(alpha) for alpha in alphas), values, strict=True))


def _best(scores: dict[float, float]) -> SearchResult:
    ascending = dict(sorted(scores.items()))
    return SearchResult(min(ascending, key=ascending.__getitem__), ascending)
