"""Measures of people: against figures measured elsewhere, definitions spelled out, and other libraries."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.population import PENALTIES, Population, cronbach_alpha


@pytest.fixture(scope="module")
def population(source: RespondentSource, inventory: Inventory) -> Population:
    return Population(AnswerMatrix.of(source.people, inventory))


def test_the_real_people_are_described_as_measured(papi: RespondentSource, inventory: Inventory) -> None:
    found = Population(AnswerMatrix.of(papi.people, inventory)).describe()
    for name, value in {
        "always A": 9.51, "always B": 4.97, "always C": 3.792, "always D": 5.92, "always E": 10.49,
        "own scale mean": 2.856, "own subscale mean": 2.739, "item median of others": 2.894,
    }.items():  # fmt: skip
        assert found[f"composite: {name}"] == pytest.approx(value, abs=0.005), name
    assert found["composite: ridge on others"] == pytest.approx(1.930, abs=0.01)  # its penalty is chosen here
    for name, value in {"A": 0.949, "C": 0.971, "E": 0.966, "N": 0.976, "O": 0.942}.items():
        assert found[f"alpha {name}"] == pytest.approx(value, abs=0.005), name
    for name, mean, deviation in (
        ("A", 3.43, 0.38),
        ("C", 3.47, 0.45),
        ("E", 3.33, 0.47),
        ("N", 2.89, 0.56),
        ("O", 3.62, 0.36),
    ):
        assert (found[f"mean {name}"], found[f"SD {name}"]) == (
            pytest.approx(mean, abs=0.006),
            pytest.approx(deviation, abs=0.006),
        )
    assert found["item SD"] == pytest.approx(0.784, abs=0.003)
    assert found["norm z of facets, SD"] == pytest.approx(0.75, abs=0.02)  # 0.75 by norms of age and sex


def test_alpha_by_hand() -> None:
    """Two items: alpha = 2 (1 - (v1 + v2) / v(sum)); a person with a missing answer is left out."""
    answers = np.array([[1, 2], [2, 2], [3, 5], [4, 4], [5, np.nan]])
    v1, v2, total = np.var([1, 2, 3, 4], ddof=1), np.var([2, 2, 5, 4], ddof=1), np.var([3, 4, 8, 8], ddof=1)
    assert cronbach_alpha(answers) == pytest.approx(2 * (1 - (v1 + v2) / total))
    assert np.isnan(cronbach_alpha(answers[:, :1])) and np.isnan(cronbach_alpha(np.full((5, 3), 3.0)))


def test_floors_of_others_leave_the_person_out(population: Population, inventory: Inventory) -> None:
    """The item median and ridge of one person, computed from the other people alone, with scikit-learn's ridge."""
    few = Population(population.matrix.take(range(60)))
    keyed, row = few.matrix.keyed(), 7
    others = np.delete(keyed, row, axis=0)
    held_out, known = few.matrix.columns(inventory.held_out), few.matrix.columns(inventory.known)
    domains = [inventory[n].scale for n in inventory.held_out]
    means = np.nanmean(keyed, axis=0)
    filled, own = np.where(np.isnan(others), means, others), np.where(np.isnan(keyed[row]), means, keyed[row])

    def expected(predicted: np.ndarray) -> list[float]:
        errors = np.abs(keyed[row, held_out] - np.clip(np.floor(predicted + 0.5), 1, 5))
        return [float(np.nanmean(errors[[d == domain for d in domains]])) for domain in "ACENO"]

    assert few.errors["item median of others"][row] == pytest.approx(
        expected(np.nanmedian(others[:, held_out], axis=0)), abs=1e-6
    )
    candidates = []
    for penalty in PENALTIES:
        model = Ridge(alpha=penalty).fit(filled[:, known], filled[:, held_out])
        candidates.append(expected(model.predict(own[None, known])[0]))
    assert any(few.errors["ridge on others"][row] == pytest.approx(each, abs=0.03) for each in candidates)


def test_chunks_change_nothing(population: Population, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = population.errors
    monkeypatch.setattr("palign_bench.respondents.population._CHUNK", 37)
    parts = Population(population.matrix).errors
    for name, errors in whole.items():
        assert np.nanmean(np.abs(parts[name] - errors)) < 1e-3, name
        assert (np.isnan(parts[name]) == np.isnan(errors)).all()


def test_a_part_of_the_people_is_judged_with_everybody_as_the_others(population: Population) -> None:
    rows = np.zeros(len(population.matrix), dtype=bool)
    rows[:40] = True
    found = population.describe(rows)
    assert found["composite: ridge on others"] == pytest.approx(
        population.errors["ridge on others"][:40].mean(axis=0).sum(), abs=1e-4
    )


def test_one_person_has_measures_too(population: Population) -> None:
    found = Population(population.matrix.take([0])).describe()
    assert np.isnan([found[name] for name in ("alpha A", "item SD", "SD A")]).all()
    assert not np.isnan(found["composite: always C"])
