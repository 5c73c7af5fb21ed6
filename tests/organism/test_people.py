"""People drawn for training are those of `simulate`, and their answers' chances are what the answers follow."""

import numpy as np
import pytest

from palign_bench.organism.people import People, draw_people
from palign_bench.respondents.simulated import factor_model, simulate

COUNT = 4000


@pytest.fixture(scope="module")
def people() -> People:
    return draw_people(factor_model("published"), COUNT, np.random.default_rng(0))


def test_answers_are_drawn_with_their_chances(people: People) -> None:
    """Grouped by what was said to be their chance, options come up as often as that."""
    np.testing.assert_allclose(people.chances.sum(axis=2), 1, rtol=1e-9)
    said = people.chances.ravel()
    happened = (people.answers[:, :, None] == np.arange(1, 6)).ravel()
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 0.7), (0.7, 1.01)):
        among = (said >= low) & (said < high)
        assert happened[among].mean() == pytest.approx(said[among].mean(), abs=0.005)


def test_people_are_those_that_simulate_draws(people: People) -> None:
    source = simulate(count=400, seed=1, figures="published")
    theirs = np.array([list(person.answers.values()) for person in source.people])
    ours = people.answers
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.3)
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).mean() < 0.06
    upper = np.triu_indices(300, 1)
    correlations = [np.corrcoef(answers.T)[upper] for answers in (ours, theirs)]
    assert np.corrcoef(*correlations)[0, 1] > 0.85
    assert np.var(ours.mean(axis=1)) == pytest.approx(np.var(theirs.mean(axis=1)), rel=0.25)


def test_clear_people_follow_their_facets(people: People) -> None:
    clear = draw_people(factor_model("published"), COUNT, np.random.default_rng(0), vagueness=np.full((COUNT, 1), 0.3))
    assert clear.chances.max(axis=2).mean() > people.chances.max(axis=2).mean() + 0.15
