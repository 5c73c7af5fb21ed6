"""Simulated people: reproducible, and like the real 300 in all that the floors and methods live on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.respondents.simulated import factor_model, simulate
from palign_bench.respondents.source import RespondentsError, RespondentSource

Array = NDArray[np.float64]


@dataclass
class Figures:
    """What a sample of people looks like, computed from literal answers with NumPy alone."""

    option_shares: Array  # of 1…5, literal
    option_share_spread: Array  # their standard deviations over people
    item_means: Array  # (300,), keyed
    item_deviations: Array  # (300,)
    domain_means: Array
    domain_deviations: Array
    domain_correlations: Array  # (5, 5)
    facet_correlations: Array  # (30, 30)
    facet_reliabilities: Array  # Cronbach's alpha, (30,)
    item_correlations: dict[str, Array]  # keyed, over pairs of items
    floors: dict[str, float]  # composites


def figures(people: Iterable[Respondent], inventory: Inventory) -> Figures:
    literal = np.array(
        [[person.answers.get(item.number, np.nan) for item in inventory.items] for person in people], dtype=float
    )
    signs = np.array([item.sign for item in inventory.items])
    facets = np.array([item.subscale for item in inventory.items])
    domains = np.array([item.scale for item in inventory.items])
    keyed = np.where(signs > 0, literal, 6 - literal)
    means = np.nanmean(keyed, axis=0)
    whole = np.where(np.isnan(keyed), means, keyed)
    by_domain = np.stack([whole[:, domains == domain].mean(axis=1) for domain in "ACENO"])
    by_facet = np.stack([whole[:, facets == facet].mean(axis=1) for facet in inventory.subscales])
    shares = np.stack([np.nanmean(np.where(np.isnan(literal), np.nan, literal == k), axis=1) for k in range(1, 6)])
    return Figures(
        option_shares=shares.mean(axis=1),
        option_share_spread=shares.std(axis=1),
        item_means=means,
        item_deviations=np.nanstd(keyed, axis=0),
        domain_means=by_domain.mean(axis=1),
        domain_deviations=by_domain.std(axis=1),
        domain_correlations=np.corrcoef(by_domain),
        facet_correlations=np.corrcoef(by_facet),
        facet_reliabilities=np.array([_alpha(whole[:, facets == facet]) for facet in inventory.subscales]),
        item_correlations=_item_correlations(whole, signs, facets, domains),
        floors=_floors(literal, keyed, signs, facets, domains, inventory),
    )


def _alpha(answers: Array) -> float:
    items = answers.shape[1]
    return float(items / (items - 1) * (1 - answers.var(axis=0).sum() / answers.sum(axis=1).var()))


def _item_correlations(whole: Array, signs: Any, facets: Any, domains: Any) -> dict[str, Array]:
    correlations = np.corrcoef(whole.T)
    once = np.triu(np.ones(correlations.shape, dtype=bool), 1)
    same_sign = signs[:, None] == signs
    same_facet, same_domain = facets[:, None] == facets, domains[:, None] == domains
    return {
        "facet, same sign": correlations[once & same_facet & same_sign],
        "facet, opposite sign": correlations[once & same_facet & ~same_sign],
        "domain, another facet": correlations[once & same_domain & ~same_facet],
        "another domain": correlations[once & ~same_domain],
    }


def _floors(
    literal: Array, keyed: Array, signs: Any, facets: Any, domains: Any, inventory: Inventory
) -> dict[str, float]:
    known = np.isin([item.number for item in inventory.items], inventory.known)

    def composite(predicted: Array) -> float:
        error = np.abs(predicted - literal)
        return float(sum(np.nanmean(error[:, ~known & (domains == d)], axis=1).mean() for d in "ACENO"))

    def own_mean(groups: Any) -> Array:
        means = np.stack([np.nanmean(keyed[:, known & (groups == group)], axis=1) for group in groups], axis=1)
        rounded = np.floor(means + 0.5)
        return np.where(signs > 0, rounded, 6 - rounded)

    floors = {f"always {letter}": composite(np.full_like(literal, 5 - k)) for k, letter in enumerate("ABCDE")}
    everyone = np.arange(len(literal))
    others = np.stack([np.nanmedian(literal[everyone != person], axis=0) for person in everyone])
    return floors | {
        "own domain mean": composite(own_mean(domains)),
        "own facet mean": composite(own_mean(facets)),
        "item median of others": composite(others),
        "ridge on others": composite(_ridge(literal, known)),
    }


def _ridge(literal: Array, known: Any) -> Array:
    """Ten folds, penalty 300; a missing answer is the item's mean."""
    whole = np.where(np.isnan(literal), np.nanmean(literal, axis=0), literal)
    predicted = np.empty_like(literal)
    for fold in np.array_split(np.arange(len(literal)), 10):
        rest = np.setdiff1d(np.arange(len(literal)), fold)
        x, y = whole[rest][:, known], whole[rest]
        centre = x.mean(axis=0)
        weights = np.linalg.solve((x - centre).T @ (x - centre) + 300 * np.eye(x.shape[1]), (x - centre).T @ y)
        predicted[fold] = (whole[fold][:, known] - centre) @ weights + y.mean(axis=0)
    return np.clip(np.floor(predicted + 0.5), 1, 5)


@pytest.fixture(scope="module")
def simulated(inventory: Inventory) -> Figures:
    return figures(simulate(300, seed=1).people, inventory)


@pytest.fixture(scope="module")
def real(papi: RespondentSource, inventory: Inventory) -> Figures:
    return figures(papi.people, inventory)


def test_same_seed_same_people() -> None:
    assert simulate(20, seed=5) == simulate(20, seed=5)
    assert simulate(20, seed=5).data_hash != simulate(20, seed=6).data_hash
    assert len({p.answers[1] for p in simulate(20).people}) > 1


def test_fewer_people_are_the_first_of_more() -> None:
    assert simulate(3).people == simulate(40).people[:3]
    assert simulate(3).data_hash != simulate(40).data_hash


def test_people_of_neighbouring_seeds_differ() -> None:
    answers = [tuple(person.answers.values()) for seed in range(3) for person in simulate(10, seed).people]
    assert len(set(answers)) == 30


def test_answers_are_complete_and_in_range(inventory: Inventory) -> None:
    source = load_respondents({"name": "simulated", "count": 12, "seed": 3, "limit": 5, "ids": None}, ipip_neo_300())
    assert (source.name, source.description, len(source.people)) == ("simulated", "12 simulated people", 12)
    assert [person.id for person in source.people[::11]] == ["simulated-0001", "simulated-0012"]
    for person in source.people:
        assert list(person.answers) == [item.number for item in inventory.items]
        assert all(type(value) is int and 1 <= value <= 5 for value in person.answers.values())
        assert person.portrait is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"count": 0}, "respondents.count=0: give a whole number of at least 1"),
        ({"count": 2.5}, "respondents.count=2.5"),
        ({"count": True}, "respondents.count=True"),
        ({"seed": -1}, "respondents.seed=-1: give a whole number of at least 0"),
        ({"seed": "x"}, "respondents.seed=x"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RespondentsError, match=told):
        simulate(**settings)


def test_the_model_is_a_proper_one(inventory: Inventory) -> None:
    model = factor_model()
    assert model.item_loadings.shape == (300, 30)
    assert model.thresholds.shape == (300, 4)
    assert (np.diff(model.thresholds, axis=1) > 0).all()
    for correlations in (model.domain_correlations, model.facet_correlations):
        assert np.allclose(correlations, correlations.T)
        assert np.allclose(np.diag(correlations), 1)
        assert np.linalg.eigvalsh(correlations).min() > 0
    unique = 1 - np.diag(model.facet_loadings @ model.domain_correlations @ model.facet_loadings.T)
    assert (unique > 0).all()
    assert (model.rest > 0.2).all()
    own = model.item_loadings[range(300), [model.inventory.subscales.index(item.subscale) for item in inventory.items]]
    assert (np.sign(own) == [item.sign for item in inventory.items]).all()


def test_people_follow_the_model(inventory: Inventory) -> None:
    """Answers drawn agree with the probabilities that the parameters imply, integrated here by another way."""
    model = factor_model()
    answers = np.array([list(person.answers.values()) for person in simulate(1500, seed=8).people])
    draws = np.random.default_rng(0).standard_normal((40_000, 2))
    stretch = np.exp(model.extremity * draws[:, :1])
    for row in range(0, 300, 37):
        y = model.neutral_points[row] + stretch * (draws[:, 1:] - model.neutral_points[row])
        implied = 1 + (y > model.thresholds[row]).sum(axis=1)
        for option in range(1, 6):
            assert (answers[:, row] == option).mean() == pytest.approx((implied == option).mean(), abs=0.05)


def test_figures_without_the_real_people(simulated: Figures) -> None:
    """Floors as published in README, reliability as usual for facets of ten items (Johnson 2014: .70 to .90)."""
    assert simulated.floors["own facet mean"] == pytest.approx(2.74, abs=0.2)
    assert simulated.floors["own domain mean"] == pytest.approx(2.86, abs=0.15)
    assert simulated.floors["always C"] == pytest.approx(3.79, abs=0.15)
    assert simulated.facet_reliabilities.mean() == pytest.approx(0.88, abs=0.03)
    assert simulated.facet_reliabilities.min() > 0.65


def test_item_means_and_deviations_are_those_of_the_real_people(simulated: Figures, real: Figures) -> None:
    assert simulated.item_means.mean() == pytest.approx(real.item_means.mean(), abs=0.03)
    assert simulated.item_means.std() == pytest.approx(real.item_means.std(), abs=0.05)
    assert simulated.item_deviations.mean() == pytest.approx(real.item_deviations.mean(), abs=0.04)
    assert simulated.item_deviations.std() == pytest.approx(real.item_deviations.std(), abs=0.03)
    assert simulated.domain_means == pytest.approx(real.domain_means, abs=0.1)
    assert simulated.domain_deviations == pytest.approx(real.domain_deviations, abs=0.06)
    same_items = np.corrcoef(simulated.item_means, real.item_means)[0, 1]
    assert 0.6 < same_items < 0.95  # facets' means are the measured ones; no item's own figures are copied


@pytest.mark.parametrize(
    ("pairs", "tolerance"),
    [
        ("facet, same sign", 0.04),
        ("facet, opposite sign", 0.04),
        ("domain, another facet", 0.04),
        ("another domain", 0.02),
    ],
)
def test_item_correlations_are_those_of_the_real_people(
    simulated: Figures, real: Figures, pairs: str, tolerance: float
) -> None:
    ours, theirs = simulated.item_correlations[pairs], real.item_correlations[pairs]
    assert ours.mean() == pytest.approx(theirs.mean(), abs=tolerance)
    assert ours.std() == pytest.approx(theirs.std(), abs=0.04)


def test_the_real_correlations_are_those_documented(real: Figures) -> None:
    assert real.item_correlations["facet, same sign"].mean() == pytest.approx(0.48, abs=0.005)
    assert real.item_correlations["facet, opposite sign"].mean() == pytest.approx(0.42, abs=0.005)


def test_domains_and_facets_hang_together_as_in_the_real_people(simulated: Figures, real: Figures) -> None:
    # Sampling alone moves a correlation over 300 people by 0.06 (one standard error).
    assert np.abs(simulated.domain_correlations - real.domain_correlations).max() < 0.16
    difference = (simulated.facet_correlations - real.facet_correlations)[np.triu_indices(30, 1)]
    assert np.sqrt((difference**2).mean()) < 0.09
    assert simulated.facet_reliabilities.mean() == pytest.approx(real.facet_reliabilities.mean(), abs=0.02)
    assert np.corrcoef(simulated.facet_reliabilities, real.facet_reliabilities)[0, 1] > 0.8


def test_options_are_used_as_by_the_real_people(simulated: Figures, real: Figures) -> None:
    assert simulated.option_shares == pytest.approx(real.option_shares, abs=0.025)
    assert simulated.option_share_spread == pytest.approx(real.option_share_spread, abs=0.04)


@pytest.mark.parametrize(
    ("floor", "tolerance"),
    [
        *((f"always {letter}", 0.25) for letter in "ABCDE"),
        ("own domain mean", 0.1),
        ("own facet mean", 0.17),
        ("item median of others", 0.12),
        ("ridge on others", 0.1),
    ],
)
def test_floors_are_those_of_the_real_people(simulated: Figures, real: Figures, floor: str, tolerance: float) -> None:
    assert simulated.floors[floor] == pytest.approx(real.floors[floor], abs=tolerance)
