"""Selecting people: the rules do what they say, and what the paper's rule does to a test set shows."""

import numpy as np
import pytest

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import simulate
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.population import Population
from palign_bench.respondents.selection import eligible, select_people
from palign_bench.respondents.source import RespondentsError


@pytest.fixture(scope="module")
def public(inventory: Inventory) -> AnswerMatrix:
    """4,000 people of the factor model of published figures, which owes nothing to any selected test set."""
    return AnswerMatrix.of(simulate(4000, 0, "published").people, inventory)


def test_the_papers_rule_makes_people_easier_to_predict_and_a_random_member_does_not(public: AnswerMatrix) -> None:
    """67 people a cluster: always C falls from about 5.5 to below 4.5 with the nearest; else nothing gets easier."""
    population = Population(public)
    everybody = population.describe()
    found = {}
    for rule in ("nearest", "random_member", "random"):
        rows = np.zeros(len(public), dtype=bool)
        rows[select_people(public, 60, rule, seed=0).rows] = True
        found[rule] = population.describe(rows)
    always_c, own = "composite: always C", "composite: own scale mean"
    assert everybody[always_c] == pytest.approx(5.49, abs=0.1)
    assert everybody["composite: own subscale mean"] == pytest.approx(3.95, abs=0.1)
    assert everybody["item SD"] == pytest.approx(1.22, abs=0.02)
    assert found["nearest"][always_c] < 4.5 and found["nearest"]["item SD"] < 1.1
    assert found["nearest"][own] < 0.8 * everybody[own]
    for floor in (always_c, own):
        assert found["random"][floor] == pytest.approx(everybody[floor], rel=0.1)  # 60 people by chance
        assert found["random_member"][floor] > 0.97 * everybody[floor]


def test_each_rule_picks_each_person_once_from_the_clusters(public: AnswerMatrix) -> None:
    few = public.take(range(400))
    for rule in ("nearest", "random_member", "random"):
        picked = select_people(few, 20, rule, seed=3)
        assert len(set(picked.rows.tolist())) == 20
        assert (
            picked.rows.tolist()
            == select_people(few, 20, rule, seed=3).rows.tolist()
            != select_people(few, 20, rule, seed=4).rows.tolist()
        )
        assert picked.sizes is None if rule == "random" else picked.sizes is not None and picked.sizes.sum() == 400


def test_the_nearest_is_found_by_brute_force(public: AnswerMatrix) -> None:
    """With one cluster: the person nearest to the mean of standardised answers."""
    few = public.take(range(200))
    z = (few.answers - few.answers.mean(axis=0)) / few.answers.std(axis=0)
    assert select_people(few, 1, "nearest").rows.tolist() == [int((z**2).sum(axis=1).argmin())]


def test_as_many_clusters_as_people_pick_everybody(public: AnswerMatrix) -> None:
    twins = public.take([0, 1, 2, 3, 4, 5])
    assert sorted(select_people(twins, 6, "nearest").rows.tolist()) == [0, 1, 2, 3, 4, 5]


def test_people_who_cannot_be_judged_are_never_picked(public: AnswerMatrix, inventory: Inventory) -> None:
    answers = public.take(range(30)).answers.copy()
    answers[4, public.columns(inventory.held_out)] = 0
    answers[7, public.columns(inventory.known)] = 0
    people = AnswerMatrix(inventory, public.ids[:30], answers)
    assert sorted(set(range(30)) - set(eligible(people).tolist())) == [4, 7]
    assert sorted(select_people(people, 28, "random").rows.tolist()) == eligible(people).tolist()
    with pytest.raises(RespondentsError, match="only 28 people answer known and held-out items"):
        select_people(people, 29)


@pytest.mark.parametrize(
    ("given", "told"), [({"count": 0}, "clusters=0"), ({"seed": -1}, "seed=-1"), ({"rule": "best"}, "rule=best")]
)
def test_impossible_settings_are_told(public: AnswerMatrix, given: dict[str, object], told: str) -> None:
    with pytest.raises(RespondentsError, match=told):
        select_people(public.take(range(9)), **({"count": 3} | given))  # type: ignore[arg-type]
