"""The choice of alpha, on functions whose trough is known."""

import math
from collections.abc import Callable, Sequence

import pytest

from baselines.pas.search import UNSCORED, best, golden_section_search, grid_search


class Recorded:
    """A score that remembers how it was called."""

    def __init__(
        self, function: Callable[[float], float | None], nats: Callable[[float], float] = lambda _: 0.0
    ) -> None:
        self.function, self.nats = function, nats
        self.calls: list[list[float]] = []

    def __call__(self, alphas: Sequence[float]) -> list[tuple[float | None, float]]:
        self.calls.append(list(alphas))
        return [(self.function(alpha), self.nats(alpha)) for alpha in alphas]


def test_grid_scores_all_alphas_in_one_call_and_takes_the_best() -> None:
    score = Recorded(lambda alpha: (alpha - 4.4) ** 2)
    scores = grid_search(score)
    assert score.calls == [[0, 1, 2, 4, 6, 8]]
    assert best(scores) == 4
    assert scores[8] == pytest.approx((12.96, 0))


def test_grid_ties_go_to_the_smallest_in_whatever_order_they_are_given() -> None:
    assert best(grid_search(Recorded(lambda _: 2.5), (8, 0, 4))) == 0
    assert best(grid_search(Recorded(lambda alpha: -1.0 if alpha in (6, 2) else 0.0), (8, 6, 4, 2, 0))) == 2


def test_among_equal_composites_the_likelier_answers_win_then_the_smallest_alpha() -> None:
    likelier = Recorded(lambda alpha: 2.0 if alpha < 8 else 1.9, lambda alpha: {0: 1.5, 2: 1.2, 4: 1.2, 8: 9.0}[alpha])
    assert best(grid_search(likelier, (0, 2, 4))) == 2
    assert best(grid_search(likelier, (0, 2, 4, 8))) == 8
    assert best(golden_section_search(Recorded(lambda _: 2.0, lambda alpha: (alpha - 6) ** 2))) == pytest.approx(
        6, abs=0.25
    )


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_an_alpha_without_composite_never_wins(nothing: float | None) -> None:
    scores = grid_search(Recorded(lambda alpha: nothing if alpha < 6 else 50.0))
    assert best(scores) == 6
    assert scores[0] == (UNSCORED, 0)
    assert best(grid_search(Recorded(lambda _: nothing), (4, 2))) == 2
    assert best(golden_section_search(Recorded(lambda alpha: nothing if alpha < 3 else alpha))) >= 3


@pytest.mark.parametrize(
    ("function", "trough"),
    [
        (lambda alpha: (alpha - 3.7) ** 2, 3.7),
        (lambda alpha: abs(alpha - 8.9), 8.9),
        (lambda alpha: math.exp(alpha) - 5 * alpha, math.log(5)),
        (lambda alpha: -alpha, 10.0),
        (lambda alpha: alpha**3, 0.0),
    ],
)
@pytest.mark.parametrize("tolerance", [0.25, 1e-4])
def test_golden_section_finds_a_single_trough(
    function: Callable[[float], float], trough: float, tolerance: float
) -> None:
    score = Recorded(function)
    found = best(golden_section_search(score, tolerance=tolerance))
    assert abs(found - trough) <= tolerance
    # Each step keeps 0.618… of the interval: 10 × 0.618^n ≤ tolerance.
    steps = math.ceil(math.log(10 / tolerance) / math.log((1 + math.sqrt(5)) / 2))
    tried = [alpha for call in score.calls for alpha in call]
    assert len(tried) == 3 + steps
    assert all(0 <= alpha <= 10 for alpha in tried)


def test_golden_section_cannot_lose_to_no_shift() -> None:
    assert best(golden_section_search(Recorded(lambda alpha: 0.0 if alpha == 0 else 1 + (alpha - 6) ** 2))) == 0
    assert best(golden_section_search(Recorded(lambda _: 3.0))) == 0
    assert 0.0 in golden_section_search(Recorded(lambda alpha: alpha), low=2, high=5)
