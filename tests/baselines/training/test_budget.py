"""The training budget: what it fills in, what it is called, and what is refused before any work."""

from typing import Any

import pytest
import torch

from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.costs.clock import measure
from palign_bench.run.assembly import quantized, resolve_budget, resolve_training, training_notes
from palign_bench.run.checks import check_needs
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError, options, read_option
from tests.baselines.training.conftest import METHODS, Bench
from tests.protocols import AS_RELEASED

TRAINED = [name for name in options("method") if "budgets" in read_option("method", name)]
PAPER = {"name": "paper", "people_limit": None}
QUICK = {"name": "quick", "people_limit": 2}


def test_the_paper_s_trained_methods_are_there() -> None:
    assert {"lora", "qlora", "full_finetuning", "prompt_tuning", "dpo", "ppo", "rloo"} <= set(TRAINED)


def test_auto_is_paper_on_cuda_and_quick_elsewhere() -> None:
    auto = read_option("training", "auto")
    assert resolve_training(auto, on_cuda=True)["name"] == "paper"
    assert resolve_training(auto, on_cuda=False) == read_option("training", "quick")
    assert resolve_training(auto | {"people_limit": None}, on_cuda=False)["people_limit"] is None
    assert resolve_training(auto | {"people_limit": 7}, on_cuda=False)["people_limit"] == 7


def test_auto_is_the_models_own_budget_where_it_has_one() -> None:
    """The organism is too small for rates that were chosen for models of billions of parameters."""
    auto, budget = read_option("training", "auto"), read_option("model", "organism")["budget"]
    own = resolve_training(auto, on_cuda=False, of_model=budget)
    assert own == read_option("training", "quick") | {"name": "testbed"}
    assert resolve_training(auto, on_cuda=True, of_model=budget)["people_limit"] is None
    assert resolve_training(QUICK, on_cuda=False, of_model=budget) == QUICK, "what is typed wins"
    lora = read_option("method", "lora")
    assert resolve_budget(lora, own)["learning_rate"] == lora["budgets"]["testbed"]["learning_rate"]


@pytest.mark.parametrize("limit", [0, -1, "few", 1.5, True])
def test_a_bad_people_limit_is_named(limit: Any) -> None:
    with pytest.raises(UserError, match=r"training\.people_limit"):
        resolve_training(QUICK | {"people_limit": limit}, on_cuda=False)


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_method_has_every_budget_and_quick_is_shorter(name: str) -> None:
    method = read_option("method", name)
    names = options("training")
    assert set(method["budgets"]) == set(names) - {"auto", "measured"}
    budgets = {each: resolve_budget(method, read_option("training", each)) for each in method["budgets"]}
    assert budgets["quick"]["steps"] < budgets["paper"]["steps"] == budgets["testbed"]["steps"]
    for training, settings in budgets.items():
        assert settings["budget"] == training
        assert "budgets" not in settings and "auto" not in settings.values()
        aligner = make_aligners(settings)[name]
        assert aligner.training.budget == settings["budget"]
        assert aligner.training.warmup_steps == round(settings["warmup"] * settings["steps"])


def test_the_paper_s_settings_are_the_defaults() -> None:
    dpo = make_aligners(resolve_budget(read_option("method", "dpo"), PAPER))["dpo"]
    assert (dpo.training.learning_rate, dpo.training.warmup_steps, dpo.training.weight_decay) == (5e-4, 100, 0.05)
    assert (dpo.training.batch_size, dpo.peft["lora_alpha"], dpo.training.steps) == (16, 100, 250)
    ppo = make_aligners(resolve_budget(read_option("method", "ppo"), PAPER))["ppo"]
    assert (ppo.training.learning_rate, ppo.training.batch_size, ppo.peft["lora_alpha"]) == (1.41e-5, 16, 100)
    assert (ppo.training.steps, ppo.max_new_tokens) == (250, 15)
    assert {read_option("method", name)["quantization"] for name in ("qlora", "dpo", "ppo")} == {"nf4"}
    assert {read_option("method", n)["batch_size"] for n in ("lora", "qlora", "full_finetuning", "prompt_tuning")} == {
        8
    }


def test_an_overridden_budget_is_called_custom() -> None:
    method = read_option("method", "dpo") | {"steps": 3}
    resolved = resolve_budget(method, QUICK)
    assert (resolved["steps"], resolved["batch_size"], resolved["budget"]) == (3, 8, "custom: steps=3")


def test_every_departure_from_the_method_s_file_is_in_the_budget_s_name() -> None:
    method = read_option("method", "dpo")
    changed = method | {"beta": 0.3, "peft": method["peft"] | {"r": 4}}
    assert resolve_budget(changed, QUICK)["budget"] == "custom: beta=0.3, peft.r=4"
    own = {"name": "of_a_user", "steps": "auto", "learning_rate": 1e-3, "budgets": {"quick": {"steps": 3}}}
    assert resolve_budget(own, QUICK)["budget"] == "quick"
    assert resolve_budget(own | {"steps": 4}, QUICK)["budget"] == "custom: steps=4"


def test_a_row_that_claims_nf4_and_runs_without_says_so() -> None:
    model = resolve_model(read_option("model", "organism"))
    for name, told in (("qlora", "quick, no NF4"), ("lora", "quick")):
        resolved = resolve_budget(read_option("method", name), QUICK)
        method, _ = quantized(resolved | {"quantization": "none"}, model)
        assert method["budget"] == told
        notes = training_notes({"method": method, "training": QUICK, "model": model}, model)
        assert any("ran without" in note for note in notes) == (name == "qlora") and told in notes[0]


def test_an_untrained_method_has_no_budget() -> None:
    assert resolve_budget(read_option("method", "few_shot"), QUICK) == read_option("method", "few_shot")


def test_a_method_s_quantization_settles_the_row_s_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve_model(read_option("model", "smollm2_135m"))
    for asked, can, settled in (
        ("nf4", True, "nf4"),
        ("auto", True, "nf4"),
        ("auto", False, "none"),
        ("none", 1, "none"),
    ):
        monkeypatch.setattr(loading, "why_no_nf4", lambda _, can=can: None if can else "bitsandbytes is broken.")
        method, row_model = quantized({"name": "qlora", "quantization": asked}, model)
        assert method["quantization"] == row_model["quantization"] == settled
    assert (
        quantized({"name": "lora", "quantization": None}, model | {"quantization": "nf4"})[1]["quantization"] == "nf4"
    )
    for module in (loading, loading.settings):
        monkeypatch.setattr(module, "why_no_nf4", lambda _: "bitsandbytes is broken.")
    with pytest.raises(UserError, match=r"method\.quantization=nf4: bitsandbytes is broken\..*auto"):
        quantized({"name": "qlora", "quantization": "nf4"}, model)
    with pytest.raises(UserError, match=r"method\.quantization=int3"):
        quantized({"name": "qlora", "quantization": "int3"}, model)
    monkeypatch.setattr("palign_bench.backbone.loading.settings.why_no_nf4", lambda _: "bitsandbytes is broken.")
    with pytest.raises(UserError, match=r"model\.quantization=nf4: bitsandbytes is broken"):
        loading.check_settings(model | {"quantization": "nf4"})


def test_what_bitsandbytes_lacks_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.why_no_nf4(torch.device("cpu")) is None
    loading.why_no_nf4.cache_clear()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel\nand a long explanation")

    monkeypatch.setattr("bitsandbytes.nn.Linear4bit", broken)
    assert loading.why_no_nf4(torch.device("cpu")) == "bitsandbytes cannot do 4-bit on cpu here (no kernel)."
    loading.why_no_nf4.cache_clear()


def test_full_fine_tuning_refuses_quantized_weights() -> None:
    settings = resolve_budget(read_option("method", "full_finetuning"), QUICK)
    model = resolve_model(read_option("model", "smollm2_135m"))
    aligners = make_aligners(settings)
    check_needs(aligners, model)
    with pytest.raises(UserError, match="unquantized weights"):
        check_needs(aligners, model | {"quantization": "nf4"})


@pytest.mark.parametrize("name", METHODS)
def test_the_summary_tells_the_budget_and_the_cost(bench: Bench, name: str) -> None:
    with measure() as cost:
        alignment: Alignment = bench.aligner(name, steps=2, warmup=0.5, budget="quick").align(bench.case())
    summary = alignment.summary
    assert (summary["budget"], summary["steps"], summary["warmup_steps"]) == ("quick", 2, 1)
    assert cost.amounts["optimizer_steps"] == (4 if name == "ppo" else 2)
    assert summary["learning_rate"] == 3e-3
    assert len(summary["loss_curve"]) <= 20
    assert cost.amounts["seconds_per_step"] > 0 and cost.amounts["training_tokens"] > 0
    assert 0 < summary["not_model_share"] < 1
    assert summary["fixed_seconds"] > 0


def test_a_model_is_trained_on_the_answers_as_the_protocol_labels_them(bench: Bench) -> None:
    known = dict.fromkeys(bench.inventory.known, 5)
    aligner = bench.aligner("lora")
    assert aligner.labels(bench.case(known=known)) == known
    aligner.prepare(bench.backbone, AS_RELEASED)
    stored = {n: 5 if bench.inventory[n].sign > 0 else 1 for n in known}
    assert aligner.labels(bench.case(known=known)) == stored
