"""What is read from the model, how a person labels it, and which heads and directions follow."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from baselines.pas.probes import (
    ProbeActivations,
    best_heads,
    fit_directions,
    label_samples,
    probe_dialogues,
    scaled_directions,
)
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Inventory

from .fake_backbone import collection_order, person


def random_activations(inventory: Inventory, heads: tuple[int, int] = (2, 5), width: int = 4) -> ProbeActivations:
    numbers = tuple(collection_order(inventory))
    generator = torch.Generator().manual_seed(11)
    features = torch.randn(heads[0] * heads[1], 2 * len(numbers), width, generator=generator)
    return ProbeActivations(numbers, features, *heads)


def test_dialogues_ask_every_known_item_twice_domain_by_domain(questionnaire: Inventory) -> None:
    numbers, dialogues = probe_dialogues(questionnaire, "options")
    assert list(numbers) == collection_order(questionnaire)
    assert "".join(dict.fromkeys(questionnaire[n].scale for n in numbers)) == "ACENO"
    assert len(dialogues) == 240
    assert {system for system, _, _ in dialogues} == {"You are a helpful, honest and concise assistant."}
    assert [opening for _, _, opening in dialogues] == ["A", "E"] * 120
    # As stored, full stop kept, so that two meet.
    assert dialogues[0][1] == dialogues[1][1] == prompts.question(questionnaire[numbers[0]].text)
    assert '.."\n' in dialogues[0][1]


def test_dialogues_of_the_paper_ask_for_agreement(questionnaire: Inventory) -> None:
    numbers, dialogues = probe_dialogues(questionnaire, "agree")
    assert [opening for _, _, opening in dialogues] == ["Answer: Yes", "Answer: No"] * 120
    assert dialogues[-1][1] == prompts.agree_question(questionnaire, questionnaire[numbers[-1]])


@pytest.mark.parametrize("by_item", [True, False])
def test_labels_follow_the_person_and_leave_out_neutral_and_missing(by_item: bool) -> None:
    answers = {10: 5, 20: 1, 30: 3, 60: 4, 70: 2}
    samples = label_samples([10, 20, 30, 40, 50, 60, 70], answers, seed=1, by_item=by_item)
    assert samples.rows.tolist() == [0, 1, 2, 3, 10, 11, 12, 13]
    assert samples.labels.tolist() == [1, 0, 0, 1, 1, 0, 0, 1]
    assert samples.training.sum() == 4


def test_split_by_item_keeps_pairs_together(questionnaire: Inventory) -> None:
    numbers = collection_order(questionnaire)
    for seed in range(20):
        samples = label_samples(numbers, person(seed), seed=seed, by_item=True)
        assert torch.equal(samples.training[::2], samples.training[1::2])
        assert samples.training.sum() == 2 * int(0.6 * (len(samples.rows) // 2))
    loose = label_samples(numbers, person(0), seed=0, by_item=False)
    assert not torch.equal(loose.training[::2], loose.training[1::2])
    assert loose.training.sum() == int(0.6 * len(loose.rows))


def test_split_depends_on_the_seed_alone(questionnaire: Inventory) -> None:
    numbers = collection_order(questionnaire)
    splits = [label_samples(numbers, person(0), seed=seed, by_item=True).training for seed in (5, 5, 6)]
    assert torch.equal(splits[0], splits[1])
    assert not torch.equal(splits[0], splits[2])


def test_equal_heads_are_ordered_as_the_released_code_orders_them() -> None:
    merit = torch.tensor([0.5, 0.9, 0.5, 0.9, 0.7, 0.5])
    assert best_heads(merit, 4) == [3, 1, 4, 5]
    assert best_heads(merit, 6) == np.argsort(merit.numpy(), kind="stable")[::-1].tolist()


def test_random_directions_have_the_heads_and_lengths_of_the_others(questionnaire: Inventory) -> None:
    activations = random_activations(questionnaire)
    samples = label_samples(activations.numbers, person(2), seed=3, by_item=True)
    options = {"k": 3, "rank_on_training_too": False, "penalty": 1.0}
    usual = fit_directions(activations, samples, direction="mass_mean", **options)
    drawn, again, other = (
        fit_directions(activations, samples, direction="random", seed=seed, **options) for seed in (1, 1, 2)
    )
    assert drawn.heads == usual.heads and torch.equal(drawn.vectors, again.vectors)
    torch.testing.assert_close(drawn.vectors.norm(dim=1), usual.vectors.norm(dim=1))
    assert not torch.allclose(drawn.vectors, other.vectors) and not torch.allclose(drawn.vectors, usual.vectors)
    more = fit_directions(activations, samples, direction="random", seed=1, **options | {"k": 4})
    torch.testing.assert_close(more.vectors[:3], drawn.vectors)  # a head's direction does not depend on the others


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("direction", ["mass_mean", "probe"])
def test_heads_and_directions_equal_a_plain_loop_with_scikit_learn(
    questionnaire: Inventory, released: bool, direction: str
) -> None:
    activations = random_activations(questionnaire)
    samples = label_samples(activations.numbers, person(2), seed=3, by_item=not released)
    options = {"k": 3, "direction": direction, "rank_on_training_too": released, "penalty": 1.0}
    fit = fit_directions(activations, samples, **options)

    x = activations.features[:, samples.rows].double().numpy()
    y, training = samples.labels.numpy(), samples.training.numpy()
    probes = [LogisticRegression(tol=1e-10, max_iter=10_000).fit(head[training], y[training]) for head in x]
    validation = np.array([p.score(head[~training], y[~training]) for p, head in zip(probes, x, strict=True)])
    both = [p.score(head[training], y[training]) for p, head in zip(probes, x, strict=True)]
    merit = (validation + both) / 2 if released else validation
    expected_heads = np.argsort(merit, kind="stable")[::-1][:3]
    assert [layer * 5 + head for layer, head in fit.heads] == expected_heads.tolist()
    assert fit.validation_accuracy == pytest.approx(validation[expected_heads].mean())

    shifts = fit.shifts(6.0, activations).reshape(10, 4)
    for head in range(10):
        if head not in expected_heads:
            assert not shifts[head].any()
            continue
        mean = x[head][y == 1].mean(0) - x[head][y == 0].mean(0)
        unit = mean if direction == "mass_mean" else probes[head].coef_[0]
        unit = unit / np.linalg.norm(unit)
        np.testing.assert_allclose(shifts[head], 6 * np.std(x[head] @ unit) * unit, rtol=1e-4, atol=1e-5)


def test_both_rankings_differ_on_these_data(questionnaire: Inventory) -> None:
    """Otherwise the test above could not tell them apart."""
    activations = random_activations(questionnaire)
    samples = label_samples(activations.numbers, person(2), seed=3, by_item=True)
    kept = {"k": 3, "direction": "mass_mean", "penalty": 1.0}
    fits = [fit_directions(activations, samples, rank_on_training_too=both, **kept) for both in (False, True)]
    assert fits[0].heads != fits[1].heads


def test_people_without_two_sided_samples_are_unfit(questionnaire: Inventory) -> None:
    numbers = collection_order(questionnaire)
    assert "neutral or missing" in (label_samples(numbers, dict.fromkeys(numbers, 3), seed=0, by_item=True).unfit or "")
    assert "one label" in (label_samples(numbers, {numbers[4]: 5}, seed=0, by_item=True).unfit or "")
    assert "one label" in (label_samples(numbers, {numbers[4]: 5}, seed=0, by_item=False).unfit or "")
    assert label_samples(numbers, {numbers[4]: 5, numbers[9]: 5}, seed=0, by_item=True).unfit is None
    options = {"k": 4, "direction": "probe", "rank_on_training_too": False, "penalty": 1.0}
    unfit = label_samples(numbers, {}, seed=0, by_item=True)
    assert fit_directions(random_activations(questionnaire), unfit, **options).unfit == unfit.unfit


def test_a_head_that_tells_nothing_apart_is_not_shifted() -> None:
    constant = torch.ones(1, 4, 3)
    vectors = scaled_directions(constant, torch.tensor([1, 0, 1, 0]), None)
    assert torch.equal(vectors, torch.zeros(1, 3, dtype=torch.float64))
