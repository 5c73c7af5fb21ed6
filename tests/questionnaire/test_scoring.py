import math
import random

import numpy as np
import pytest

from palign_bench.questionnaire.inventory import DOMAINS, Inventory, Item
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.questionnaire.scoring import SCORES, aligned_scores, as_matrix, cross_composites, trait_scores
from palign_bench.respondents.source import RespondentSource

# Two held-out items a domain, the second negatively keyed.
SMALL = Inventory(
    "small",
    tuple(
        Item(10 * k + j, f"Say {d}{j}.", 1 if j == 1 else -1, d, f"{d}1") for k, d in enumerate(DOMAINS) for j in (1, 2)
    ),
    (),
    DOMAINS,
    stores_keyed=True,
)


def test_scores_by_hand() -> None:
    truth = {1: 5, 2: 1, 11: 3, 12: 3, 21: 4, 22: 2, 31: 1, 32: 5, 41: 2, 42: 2}
    answers = {1: 4, 2: 3, 11: 3, 12: 3, 21: 1, 22: 2, 31: 2.5, 32: 5, 41: 5, 42: 1}
    scores = aligned_scores(SMALL, answers, truth)
    assert scores == {
        "agreeableness": 1.5,
        "conscientiousness": 0.0,
        "extraversion": 1.5,
        "neuroticism": 0.75,
        "openness": 2.0,
        "composite": 5.75,
    }
    assert tuple(scores) == SCORES == (*DOMAINS.values(), "composite")


def test_only_items_in_both_count_and_zero_is_an_answer() -> None:
    full = {item.number: 3 for item in SMALL.items}
    truth = {**full, 1: 0}  # as_released: missing, but counted
    assert aligned_scores(SMALL, full, truth)["agreeableness"] == 1.5
    absent = {number: value for number, value in full.items() if number != 1}
    assert aligned_scores(SMALL, {**full, 2: 5}, absent)["agreeableness"] == 2.0
    assert aligned_scores(SMALL, absent, {**full, 1: 5})["agreeableness"] == 0.0


def test_a_domain_without_answers_has_no_score_and_no_composite() -> None:
    answers = {item.number: 3 for item in SMALL.items if item.scale != "O"}
    scores = aligned_scores(SMALL, answers, {item.number: 4 for item in SMALL.items})
    assert scores["openness"] is None and scores["composite"] is None
    assert scores["neuroticism"] == 1.0
    assert set(aligned_scores(SMALL, {}, {}).values()) == {None}


def test_trait_scores_follow_the_orientation_of_the_answers() -> None:
    literal = {1: 5, 2: 1, 11: 2}
    assert trait_scores(SMALL, literal) == {"agreeableness": 5.0, "conscientiousness": 2.0}
    assert trait_scores(SMALL, literal, PROTOCOLS["corrected"](SMALL).keyed) == trait_scores(SMALL, literal)
    stored = trait_scores(SMALL, literal, PROTOCOLS["as_released"](SMALL).keyed)
    assert stored == {"agreeableness": 3.0, "conscientiousness": 2.0}


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.8])
def test_cross_composites_equal_one_by_one(holes: float) -> None:
    generator = random.Random(f"cross-{holes}")
    numbers = [item.number for item in SMALL.items]

    def person() -> dict[int, float]:
        return {n: generator.choice([1, 2, 3, 4, 5, 2.7]) for n in numbers if generator.random() >= holes}

    answers, truths = [person() for _ in range(12)], [person() for _ in range(9)]
    crossed = cross_composites(SMALL, numbers, as_matrix(numbers, answers), as_matrix(numbers, truths))
    assert crossed.shape == (12, 9)
    undefined = 0
    for i, own in enumerate(answers):
        for j, truth in enumerate(truths):
            expected = aligned_scores(SMALL, own, truth)["composite"]
            undefined += expected is None
            assert math.isnan(crossed[i, j]) if expected is None else crossed[i, j] == pytest.approx(expected)
    assert (undefined > 0) == (holes == 0.8) or holes == 0.3


def test_matrix_of_nobody() -> None:
    assert as_matrix([1, 2], []).shape == (0, 2)
    assert np.isnan(as_matrix([1, 2], [{2: 4}])).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("protocol", "letter", "composite"),
    [
        ("corrected", "A", 9.509),
        ("corrected", "B", 4.970),
        ("corrected", "C", 3.792),
        ("corrected", "D", 5.922),
        ("corrected", "E", 10.491),
        ("as_released", "C", 3.799),
        ("as_released", "E", 11.68),
    ],
)
def test_constants_on_the_real_people(
    papi: RespondentSource, inventory: Inventory, protocol: str, letter: str, composite: float
) -> None:
    rules = PROTOCOLS[protocol](inventory)
    answers = dict.fromkeys(inventory.held_out, 5 - "ABCDE".index(letter))
    scores = [aligned_scores(inventory, answers, rules.truth(rules.held_out(p)))["composite"] for p in papi.people]
    assert len(scores) == 300
    assert np.mean([score for score in scores if score is not None]) == pytest.approx(composite, abs=0.005)
