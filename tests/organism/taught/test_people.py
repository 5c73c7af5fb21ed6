"""What simulated people's answers tell of one another, against a plain regression."""

import numpy as np
import pytest

from palign_bench.organism.taught.people import FACTORS, AnswerFigures, unseen_items
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.simulated import factor_model


@pytest.fixture(scope="module")
def figures():
    return AnswerFigures.of(factor_model("published"))


def test_one_held_out_item_of_every_facet_is_never_shown():
    inventory = ipip_neo_300()
    unseen = unseen_items(inventory)
    assert len(unseen) == 30 and set(unseen) <= set(inventory.held_out)
    assert len({inventory[number].subscale for number in unseen}) == 30
    assert unseen == unseen_items(inventory)


def test_one_answer_at_a_time_comes_to_the_regression_on_all_of_them(figures):
    generator = np.random.default_rng(0)
    rows = generator.permutation(300)
    told, asked = rows[:40], rows[40:50]
    answers = generator.integers(1, 6, 40)
    found = figures.expected(told, answers, asked)
    among = figures.together[np.ix_(told, told)] + np.diag(figures.unique[told])
    value = (answers - figures.mean[told]) / figures.deviation[told]
    expected = figures.together[np.ix_(asked, told)] @ np.linalg.solve(among, value)
    np.testing.assert_allclose(found[40:], expected, atol=1e-9)
    before = figures.together[np.ix_(told[20:21], told[:20])] @ np.linalg.solve(among[:20, :20], value[:20])
    np.testing.assert_allclose(found[20], before[0], atol=1e-9)


def test_vectors_tell_facets_and_directions_apart(figures):
    inventory = ipip_neo_300()
    items = list(inventory.items)
    near = figures.vectors @ figures.vectors.T / FACTORS
    facets = np.array([item.subscale for item in items])
    signs = np.array([item.sign for item in items])
    same, alike = facets[:, None] == facets, signs[:, None] == signs
    different = ~np.eye(300, dtype=bool)
    assert near[same & alike & different].mean() > 0.4
    assert near[same & ~alike].mean() < -0.3
    assert abs(near[~same].mean()) < 0.05
