"""The posterior against rejection sampling, closed forms, SciPy, and the people that the model draws."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from palign_bench.questionnaire.inventory import DOMAINS
from palign_bench.respondents.posterior import (
    FactorPosterior,
    cumulative,
    expected_error,
    median_option,
    quantile,
)
from palign_bench.respondents.simulated import FactorModel, factor_model, simulate

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

MOST_STANDARD_ERRORS = 4.5  # of some hundred comparisons by one seed
COPIES = 40  # of one person, each with a seed of its own: their spread is the Monte-Carlo error


@pytest.fixture(scope="module")
def model() -> FactorModel:
    return factor_model()


def drawn_answers(model: FactorModel, numbers: list[int], people: int, generator: np.random.Generator) -> Whole:
    """``(people, items)`` answers to a few items, drawn as the model's definition says."""
    rows = [row for number in numbers for row, item in enumerate(model.inventory.items) if item.number == number]
    facets = generator.multivariate_normal(np.zeros(30), model.facet_correlations, size=people, method="eigh")
    loadings, cuts = model.item_loadings[rows], model.thresholds[rows]
    latent = facets @ loadings.T + model.acquiescence * generator.standard_normal((people, 1))
    shared = np.einsum("if,fg,ig->i", loadings, model.facet_correlations, loadings)
    latent += np.sqrt(1 - shared - model.acquiescence**2) * generator.standard_normal(latent.shape)
    middle = (cuts[:, 1] + cuts[:, 2]) / 2
    stretched = middle + np.exp(model.extremity * generator.standard_normal((people, 1))) * (latent - middle)
    return 1 + (stretched[:, :, None] > cuts).sum(axis=2)


def predicted(model: FactorModel, given: dict[int, int], asked: list[int], sweeps: int) -> tuple[Array, Array]:
    """Mean over copies of the person's prediction, ``(asked, 5)``, and its standard error; the rest is missing."""
    known = model.inventory.known
    answers = np.tile([given.get(number, 0) for number in known], (COPIES, 1))
    copies = FactorPosterior(model, known, asked, sweeps).predict(answers, range(COPIES))
    return copies.mean(axis=0), copies.std(axis=0, ddof=1) / np.sqrt(COPIES)


# Item -> answer, a few facets each. Contradictions tell of acquiescence, outermost answers of extremity.
GIVEN = {
    "ordinary": {1: 2, 5: 4, 33: 4, 55: 4},
    "contradictory": {55: 4, 205: 4, 5: 4},
    "extreme": {33: 5, 68: 5, 284: 1, 43: 5},
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_prediction_is_that_of_rejection_sampling(model: FactorModel, name: str) -> None:
    """Everybody drawn who gave just these answers, against the posterior; 60 probabilities each."""
    inventory, given = model.inventory, GIVEN[name]
    facets = [inventory[number].subscale for number in given]
    alike_in_facet = [n for n in inventory.held_out if inventory[n].subscale in facets]
    elsewhere = [n for n in inventory.held_out if inventory[n].subscale not in facets]
    asked = alike_in_facet[::4][:6] + elsewhere[::25][:6]
    generator = np.random.default_rng(1)
    counts, accepted = np.zeros((len(asked), 5)), 0
    for _ in range(8):
        drawn = drawn_answers(model, [*given, *asked], 100_000, generator)
        alike = drawn[(drawn[:, : len(given)] == list(given.values())).all(axis=1)][:, len(given) :]
        counts += (alike[:, :, None] == np.arange(1, 6)).sum(axis=0)
        accepted += len(alike)
    assert accepted > 2000
    share = counts / accepted
    expected, error = predicted(model, given, asked, sweeps=300)
    distance = (share - expected) / np.sqrt(expected * (1 - expected) / accepted + error**2)
    assert np.abs(distance).max() < MOST_STANDARD_ERRORS
    assert np.sqrt((distance**2).mean()) < 1.5


def test_without_any_answer_the_prediction_is_the_population(model: FactorModel) -> None:
    asked = list(model.inventory.held_out)
    rows = [row for row, item in enumerate(model.inventory.items) if item.number in set(asked)]
    expected, error = predicted(model, {}, asked, sweeps=100)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    middle = model.thresholds[rows, 1:3].mean(axis=1)[:, None, None]
    cuts = middle + (model.thresholds[rows][:, :, None] - middle) / np.exp(model.extremity * nodes)
    below = stats.norm.cdf(cuts) @ weights / weights.sum()
    shares = np.diff(below, axis=1, prepend=0, append=1)
    assert (np.abs(expected - shares) < MOST_STANDARD_ERRORS * error + 2e-4).all()  # 2e-4: the grid's ends


@dataclass
class Predicted:
    """Simulated people, what was predicted of them, and their held-out answers."""

    probabilities: Array
    truth: Whole
    domains: NDArray[np.str_]

    def composites(self, errors: Array) -> Array:
        return sum((errors[:, self.domains == domain].mean(axis=1) for domain in DOMAINS), np.zeros(len(errors)))


@pytest.fixture(scope="module")
def people(model: FactorModel) -> Predicted:
    inventory, everyone = model.inventory, simulate(count=120, seed=11).people
    known = np.array([[person.answers[n] for n in inventory.known] for person in everyone], dtype=int)
    truth = np.array([[person.answers[n] for n in inventory.held_out] for person in everyone], dtype=int)
    posterior = FactorPosterior(model, inventory.known, inventory.held_out, sweeps=150)
    domains = np.array([inventory[n].scale for n in inventory.held_out])
    return Predicted(posterior.predict(known, range(len(everyone))), truth, domains)


def test_predicted_probabilities_come_true(people: Predicted) -> None:
    """Per bin of predicted probability: observed minus predicted, by person, for a person's items hang together."""
    observed = people.truth[:, :, None] == np.arange(1, 6)
    surprise = observed - people.probabilities
    edges = [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1]
    for low, high in itertools.pairwise(edges):
        inside = (people.probabilities >= low) & (people.probabilities < high)
        assert inside.sum() > 200
        by_person = np.where(inside, surprise, 0).sum(axis=(1, 2))
        assert abs(by_person.sum()) < 3.5 * np.sqrt((by_person**2).sum()), (low, high)


def test_the_expected_composite_comes_true(people: Predicted) -> None:
    answers = median_option(people.probabilities)
    found = people.composites(np.abs(answers - people.truth).astype(float))
    difference = found - people.composites(expected_error(people.probabilities, answers))
    assert abs(difference.mean()) < 3.5 * difference.std() / np.sqrt(len(difference))
    assert found.mean() < 1.8


def test_no_other_answer_has_a_smaller_expected_error() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), size=1000)
    options = np.arange(1, 6)
    errors = (probabilities[:, None, :] * np.abs(options[:, None] - options)).sum(axis=2)
    chosen = median_option(probabilities)
    assert (chosen == 1 + errors.argmin(axis=1)).all()
    assert expected_error(probabilities, chosen) == pytest.approx(errors.min(axis=1))


def test_a_persons_prediction_depends_on_own_answers_and_seed_alone(model: FactorModel) -> None:
    inventory = model.inventory
    posterior = FactorPosterior(model, inventory.known, inventory.held_out[:20], sweeps=30, burn_in=5)
    known = np.random.default_rng(0).integers(0, 6, size=(7, len(inventory.known)))
    together = posterior.predict(known, range(7))
    for person in (0, 3, 6):
        assert (posterior.predict(known[[person]], [person]) == together[[person]]).all()
    assert (posterior.predict(known[::-1], range(6, -1, -1)) == together[::-1]).all()
    assert not (posterior.predict(known[[0]], [1]) == together[[0]]).all()


@pytest.mark.parametrize("option", [1, 5])
def test_impossible_people_are_answered_too(model: FactorModel, option: int) -> None:
    """One option throughout, against every key: far out in the tails."""
    inventory = model.inventory
    posterior = FactorPosterior(model, inventory.known, inventory.held_out, sweeps=20, burn_in=20)
    probabilities = posterior.predict(np.full((1, len(inventory.known)), option), [0])
    assert (probabilities >= 0).all() and probabilities.sum(axis=2) == pytest.approx(1)
    assert (probabilities.argmax(axis=2) == option - 1).mean() > 0.5


def test_the_normal_distribution_is_that_of_scipy() -> None:
    values = np.linspace(-37, 37, 20_001)
    assert cumulative(values) == pytest.approx(special.ndtr(values), rel=1e-12, abs=0)
    probabilities = np.concatenate([10.0 ** np.linspace(-300, -1, 2001), np.linspace(0.1, 1 - 1e-9, 2001)])
    assert quantile(probabilities) == pytest.approx(special.ndtri(probabilities), rel=1e-12, abs=1e-15)


def test_what_cannot_be_predicted_from_is_refused(model: FactorModel) -> None:
    posterior = FactorPosterior(model, [1, 2], [3])
    with pytest.raises(ValueError, match="0 where missing"):
        posterior.predict(np.array([[1, 6]]), [0])
    with pytest.raises(ValueError, match=r"expected \(1, 2\)"):
        posterior.predict(np.array([[1, 2, 3]]), [0])
    with pytest.raises(ValueError, match="at least one sweep"):
        FactorPosterior(model, [1], [2], sweeps=0)
