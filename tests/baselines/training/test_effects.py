"""They learn: seeded, on the tiny model in CI and on SmolLM2 in `make test-slow`."""

import pytest
import torch

from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel, load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.settings import read_option
from tests.baselines.training.conftest import PROMPT, Bench
from tests.protocols import CORRECTED


def test_full_fine_tuning_reproduces_the_known_answers(bench: Bench) -> None:
    case = bench.case()
    aligner = bench.aligner("full", learning_rate=2e-3, steps=200, batch_size=16)
    before = bench.error(aligner.align(bench.case(known={})), case.known)
    alignment = aligner.align(case)
    assert alignment.summary["last_loss"] < 0.1 * alignment.summary["first_loss"]
    assert bench.error(alignment, case.known) < 0.05 < 0.5 < before


# A soft prompt before a random model can hardly tell the items apart: it learns the words and the person's mean.
@pytest.mark.parametrize(
    ("technique", "rate", "steps", "loss_left"), [("lora", 1e-2, 150, 0.25), ("prompt", 5e-2, 100, 0.6)]
)
def test_adapters_lower_the_loss_and_the_error_on_known_answers(
    bench: Bench, technique: str, rate: float, steps: int, loss_left: float
) -> None:
    case = bench.case()
    aligner = bench.aligner(technique, learning_rate=rate, steps=steps)
    before = bench.error(aligner.align(bench.case(known={})), case.known)
    alignment = aligner.align(case)
    assert alignment.summary["last_loss"] < loss_left * alignment.summary["first_loss"]
    assert bench.error(alignment, case.known) < 0.7 * before


def test_dpo_widens_the_margin_between_the_persons_option_and_its_opposite(bench: Bench) -> None:
    alignment = bench.aligner("dpo", steps=40, learning_rate=1e-2).align(bench.case())
    assert alignment.summary["first_margin"] == pytest.approx(0, abs=1e-3)
    margins = [value for _, value in alignment.summary["margin_curve"]]
    assert sum(margins[-5:]) / 5 > 0.5
    losses = [value for _, value in alignment.summary["loss_curve"]]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("ppo", {"steps": 25, "learning_rate": 3e-3, "batch_size": 16, "kl_coefficient": 0.01}),
        ("rloo", {"steps": 40, "learning_rate": 3e-3, "batch_size": 16, "kl_coefficient": 0.01}),
    ],
)
def test_on_policy_methods_raise_the_reward(talking_bench: Bench, method: str, settings: dict) -> None:
    known = dict.fromkeys(talking_bench.inventory.known, 5)  # a person who agrees with everything
    alignment = talking_bench.aligner(method, **settings).align(talking_bench.case(known=known))
    curve = [value for _, value in alignment.summary["reward_curve"]]
    assert sum(curve[-5:]) / 5 > sum(curve[:3]) / 3 + 1
    assert 0 <= alignment.summary["label_letter_disagreement"] <= 1
    assert alignment.summary["rewarded_texts"] == settings["steps"] * settings["batch_size"]
    answers = talking_bench.backbone.answer(alignment, talking_bench.inventory.select(sorted(known))).answers
    bare = talking_bench.backbone.answer(type(alignment)(), talking_bench.inventory.select(sorted(known))).answers
    assert sum(answers.values()) > sum(bare.values())


@pytest.fixture(scope="module")
def real_model() -> LoadedModel:
    """SmolLM2 in bfloat16, as runs have it."""
    return load(resolve_model(read_option("model", "smollm2_135m")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("lora", {"learning_rate": 5e-4, "steps": 25}),
        ("full", {"learning_rate": 5e-5, "steps": 25}),
    ],
)
def test_supervised_methods_learn_on_the_real_model(
    real_model: LoadedModel, inventory: Inventory, source: RespondentSource, method: str, settings: dict
) -> None:
    bench = Bench(LocalBackbone(real_model, CORRECTED), inventory, source)
    case = bench.case()
    aligner = bench.aligner(method, **settings)
    before = bench.surprise(aligner.align(bench.case(known={})), case.known)
    alignment = aligner.align(case)
    assert alignment.summary["last_loss"] < 0.5 * alignment.summary["first_loss"]
    # In so few steps it learns the person's use of the options: most answers are still one and the same.
    assert bench.surprise(alignment, case.known) < before - 0.1
    assert alignment.summary["fixed_seconds"] > 0


@pytest.mark.slow
def test_full_fine_tuning_reproduces_the_known_answers_on_the_real_model(
    real_model: LoadedModel, inventory: Inventory, source: RespondentSource
) -> None:
    """Twelve of them, 27 times over: a hundred and twenty would take as many times over, and ten times as long."""
    bench = Bench(LocalBackbone(real_model, CORRECTED), inventory, source)
    known = {n: value for n, value in bench.case().known.items() if n in sorted(inventory.known)[:60:5]}
    aligner = bench.aligner("full", learning_rate=3e-4, steps=40)
    before = bench.error(aligner.align(bench.case(known={})), known)
    alignment = aligner.align(bench.case(known=known))
    assert alignment.summary["last_loss"] < 0.05 * alignment.summary["first_loss"]
    assert bench.error(alignment, known) < 0.25 * before


@pytest.mark.slow
def test_a_soft_prompt_learns_a_person_on_the_real_model(
    real_model: LoadedModel, inventory: Inventory, source: RespondentSource
) -> None:
    """Who agrees with everything: twenty vectors before a frozen model this small tell no statement from another."""
    bench = Bench(LocalBackbone(real_model, CORRECTED), inventory, source)
    known = dict.fromkeys(sorted(inventory.known)[::5], 5)
    aligner = bench.aligner("prompt", learning_rate=3e-2, steps=25, peft=PROMPT | {"num_virtual_tokens": 20})
    before = bench.error(aligner.align(bench.case(known={})), known)
    alignment = aligner.align(bench.case(known=known))
    assert alignment.summary["last_loss"] < 0.05 * alignment.summary["first_loss"]
    assert bench.error(alignment, known) < 0.1 < 1.5 < before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings", "curve"),
    [
        ("dpo", {"learning_rate": 5e-4, "steps": 15}, "margin"),
        ("ppo", {"learning_rate": 1e-3, "steps": 6, "batch_size": 8}, "reward"),
        ("rloo", {"learning_rate": 1e-3, "steps": 8, "batch_size": 16}, "reward"),
    ],
)
def test_preference_methods_learn_on_the_real_model(
    real_model: LoadedModel, inventory: Inventory, source: RespondentSource, method: str, settings: dict, curve: str
) -> None:
    bench = Bench(LocalBackbone(real_model, CORRECTED), inventory, source)
    before = real_model.model(input_ids=torch.arange(5, 25)[None]).logits
    summary = bench.aligner(method, **settings).align(bench.case()).summary
    values = [value for _, value in summary[f"{curve}_curve"]]
    assert sum(values[-3:]) > sum(values[:3])
    assert torch.equal(real_model.model(input_ids=torch.arange(5, 25)[None]).logits, before)
