"""Many people in one pass: each gets what TRL gives them alone, whoever else is trained."""

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

from baselines.training import cohort, layers
from baselines.training.session import training_session
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.attention import why_no_shared_prefix
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import measure
from palign_bench.run.assembly import resolve_budget, resolve_training
from palign_bench.run.checks import check_needs
from palign_bench.settings import UserError, read_option
from tests.baselines.training.conftest import LORA, METHODS, Bench
from tests.baselines.training.stock import stock_aligner
from tests.protocols import CORRECTED

# Every setting that the trainers treat in a way of their own; 12 steps of 11 pass the end of an epoch of 120.
SETTINGS: dict[str, Any] = {"steps": 12, "batch_size": 11, "schedule": "cosine", "warmup": 0.25, "weight_decay": 0.05}
WITH_DROPOUT = {"peft": LORA | {"lora_dropout": 0.2}}


def cases(bench: Bench, people: int = 3) -> list[Case]:
    return [bench.case(index, seed=2**40 + 7 * index) for index in range(people)]


def log_probs(bench: Bench, alignment: Alignment) -> torch.Tensor:
    items = bench.inventory.select(bench.inventory.held_out[:60])
    sheet = bench.backbone.answer(alignment, items)
    assert sheet.log_probs is not None
    return torch.tensor([list(row) for row in sheet.log_probs.values()])


def largest_difference(first: Alignment, second: Alignment) -> float:
    assert first.adapter is not None and second.adapter is not None and first.adapter.keys() == second.adapter.keys()
    return max(float((first.adapter[name] - second.adapter[name]).abs().max()) for name in first.adapter)


@pytest.mark.parametrize("name", ["lora", "dpo"])
def test_each_person_gets_what_trl_gives_them_alone(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    together = bench.aligner(name, cohort=3, **SETTINGS).align_many(cases(bench))
    stock = stock_aligner(bench, name, monkeypatch, **SETTINGS)
    alone = [stock.align(case) for case in cases(bench)]
    for ours, theirs in zip(together, alone, strict=True):
        assert largest_difference(ours, theirs) < 1e-4
        torch.testing.assert_close(log_probs(bench, ours), log_probs(bench, theirs), atol=1e-4, rtol=0)
        for key in ("first_loss", "last_loss", "examples", "warmup_steps"):
            assert ours.summary[key] == pytest.approx(theirs.summary[key], abs=1e-4), key
        assert (ours.adapter_settings, ours.trained_parameters) == (theirs.adapter_settings, theirs.trained_parameters)
    assert largest_difference(together[0], together[1]) > 1e-2, "people who answer differently are trained differently"


@pytest.mark.parametrize("name", ["lora", "dpo"])
def test_neighbours_change_nobody_also_with_dropout(bench: Bench, name: str) -> None:
    aligner = bench.aligner(name, cohort=3, **SETTINGS, **WITH_DROPOUT)
    together, alone = aligner.align_many(cases(bench)), aligner.align(cases(bench)[2])
    turned = aligner.align_many(cases(bench)[::-1])[0]
    assert largest_difference(together[2], alone) == largest_difference(together[2], turned) == 0
    without = bench.aligner(name, cohort=3, **SETTINGS).align(cases(bench)[2])
    difference = largest_difference(alone, without)
    assert difference > 1e-4 if name == "lora" else difference == 0, "TRL turns dropout off for DPO"


def test_dropout_drops_its_share_and_keeps_the_mean(bench: Bench) -> None:
    recipe = bench.aligner("lora", **WITH_DROPOUT)._recipe()
    adapters = cohort.Adapters(bench.backbone.model, recipe, [1, 2])
    positions = 500
    masks = []
    for layer, inputs in enumerate(adapters.inputs):
        mask = torch.zeros(2, positions * inputs, dtype=torch.bool)
        mask.view(-1)[adapters._dropped(layer, positions)] = True
        assert mask.float().mean(1).tolist() == pytest.approx([0.2, 0.2], abs=0.015)
        masks.append(mask)
    dropped = torch.cat(masks, dim=1)
    first, second = (mask[:, : positions * min(adapters.inputs)] for mask in masks[:2])
    assert float((first & second).float().mean()) == pytest.approx(0.2**2, abs=0.01), "layers draw apart"
    assert dropped.float().mean(1).tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    both, pairs = (dropped[0] & dropped[1]).float().mean(), (dropped[:, 1:] & dropped[:, :-1]).float().mean()
    assert float(both) == pytest.approx(0.2**2, abs=0.01), "people draw apart"
    assert float(pairs) == pytest.approx(0.2**2, abs=0.01), "and so do neighbouring numbers"
    a, b = adapters.a[0], torch.ones_like(adapters.b[0])
    ones, layer = torch.ones(2, 20_000, a.shape[2]), torch.nn.Linear(a.shape[2], b.shape[1], bias=False)
    torch.nn.init.zeros_(layer.weight)
    update = adapters._updated(0, layer, layer, a, b, ones).mean(1)
    adapters.dropout = 0.0
    torch.testing.assert_close(update, adapters._updated(0, layer, layer, a, b, ones)[:, 0], atol=0.05, rtol=0)
    assert bool((ones == 1).all()), "what a layer reads is left as it is"


def test_a_gradient_of_one_person_is_clipped_by_their_own_norm(bench: Bench) -> None:
    adapters = cohort.Adapters(bench.backbone.model, bench.aligner("lora")._recipe(), [1, 2])
    for parameter in adapters.parameters:
        parameter.grad = torch.zeros_like(parameter)
    adapters.a[0].grad[0, 0, 0], adapters.b[1].grad[0, 0, 0], adapters.a[0].grad[1, 0, 0] = 30.0, 40.0, 0.5
    adapters.clip(1.0)
    found = adapters.a[0].grad[0, 0, 0], adapters.b[1].grad[0, 0, 0], adapters.a[0].grad[1, 0, 0]
    assert [float(value) for value in found] == pytest.approx([0.6, 0.8, 0.5], abs=1e-6)


def test_the_bare_model_is_left_as_it_was(bench: Bench) -> None:
    ids = torch.arange(5, 45).view(2, 20)
    before = bench.backbone.model(input_ids=ids).logits.detach().clone()
    bench.aligner("dpo", cohort=2, steps=2).align_many(cases(bench, 2))
    model = bench.backbone.model
    assert torch.equal(model(input_ids=ids).logits, before)
    assert not any(module._forward_hooks for module in model.modules()) and not hasattr(model, "peft_config")
    assert not any(p.requires_grad and p.grad is not None for p in model.parameters())


def test_someone_without_an_answer_is_left_out_and_told(bench: Bench) -> None:
    nobody = bench.case(1, known=dict.fromkeys(bench.inventory.known, 3))  # neutral throughout: no opposite, no pair
    (someone,), aligner = cases(bench, 1), bench.aligner("dpo", cohort=3, steps=2)
    first, empty, last = aligner.align_many([someone, nobody, someone])
    assert empty.adapter is None and empty.summary["reason"]
    assert largest_difference(first, last) < 1e-6 and first.summary["cohort"] == 2
    assert aligner.align(nobody).adapter is None


def test_costs_are_shared(bench: Bench) -> None:
    aligner = bench.aligner("lora", cohort=4, steps=3)
    shares = []
    for people in (1, 4):
        with measure() as cost:
            aligner.align_many(cases(bench, people))
        shares.append(cost.share(people).amounts)
    alone, shared = shares  # a cohort is filled up: what was computed is charged to whom it was computed for
    assert 4 * shared["training_tokens"] == alone["training_tokens"] >= 4 * 3 * 8 * 50  # steps, rows, tokens a dialogue
    assert shared["optimizer_steps"] == alone["optimizer_steps"] == 3


def test_nf4_trains_too(nf4_backbone: LocalBackbone, bench: Bench) -> None:
    quantized = Bench(nf4_backbone, bench.inventory, bench.source)
    ours = quantized.aligner("lora", cohort=2, steps=6).align_many(cases(quantized, 2))
    theirs = quantized.aligner("lora", steps=6).align(cases(quantized, 1)[0])
    assert ours[0].summary["last_loss"] < ours[0].summary["first_loss"]
    assert ours[0].summary["last_loss"] == pytest.approx(theirs.summary["last_loss"], rel=0.02)


def test_the_default_is_trl_and_its_cells_keep_their_identity() -> None:
    method, training = read_option("method", "dpo"), read_option("training", "paper")
    assert "cohort" not in resolve_budget(method, training)
    assert resolve_budget(method, training | {"cohort": 16})["cohort"] == 16
    assert "cohort" not in resolve_budget(read_option("method", "prompt_tuning"), training | {"cohort": 16})
    auto = read_option("training", "auto") | {"cohort": 4}
    assert resolve_training(auto, on_cuda=False)["cohort"] == resolve_training(auto, on_cuda=True)["cohort"] == 4
    for wrong in (0, 1.5, True, "many"):
        with pytest.raises(UserError, match=r"training\.cohort"):
            resolve_training(auto | {"cohort": wrong}, on_cuda=False)


def test_what_a_cohort_cannot_do_is_refused(bench: Bench) -> None:
    refused: tuple[tuple[str, dict[str, Any]], ...] = (
        ("full", {}),
        ("prompt", {}),
        ("lora", {"peft": LORA | {"use_dora": True}}),
        ("ppo", {"peft": LORA | {"lora_dropout": 0.1}}),  # the policy would be compared with another one
        ("rloo", {"iterations": 2}),
    )
    for name, settings in refused:
        with pytest.raises(ValueError, match=r"method\.cohort=2"):
            METHODS[name](cohort=2, **settings)
    with pytest.raises(UserError, match=r"training\.cohort=1"):
        check_needs({"lora": METHODS["lora"](cohort=2)}, {"quantization": "none", "engine": "auto"}, repeats=3)


def test_dropout_of_the_models_own_would_be_drawn_for_all_at_once_and_is_refused(bench: Bench) -> None:
    model = bench.backbone.model
    bench.aligner("lora", cohort=2)
    model.base_model.layers[0].self_attn.attention_dropout = 0.1  # TRL's own would leave it on
    bench.aligner("lora")
    with pytest.raises(UserError, match=r"the model has dropout of its own; use training\.cohort=1"):
        bench.aligner("lora", cohort=2)
    for name in ("dpo", "ppo", "rloo"):
        (alignment,) = bench.aligner(name, cohort=2).align_many(cases(bench, 1))
        curve = "first_margin" if name == "dpo" else "first_kl"
        assert alignment.summary[curve] == pytest.approx(0, abs=1e-5)
        assert bench.aligner(name).align(bench.case()).summary[curve] == pytest.approx(0, abs=1e-5)
    assert model.base_model.layers[0].self_attn.attention_dropout == 0.1


def test_what_a_model_does_after_its_head_is_trained_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Granite divides its logits, Gemma 2 caps them and those of its attention: the former's texts share positions."""
    tokenizer = bench.backbone.tokenizer
    common = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2, "head_dim": 16}
    torch.manual_seed(0)
    capped = Gemma2ForCausalLM(Gemma2Config(**common, final_logit_softcapping=2.0, attn_implementation="eager"))
    divided = GraniteForCausalLM(GraniteConfig(**common, logits_scaling=4.0))
    for model in (divided, capped):
        loaded = LoadedModel(model.eval().requires_grad_(False), tokenizer, "tiny", "tiny", "none")
        other = Bench(LocalBackbone(loaded, CORRECTED), bench.inventory, bench.source)
        assert (why_no_shared_prefix(Anatomy(model)) is None) == (model is divided)
        together = other.aligner("lora", cohort=2, steps=3).align_many(cases(other, 2))
        stock = stock_aligner(other, "lora", monkeypatch, steps=3)
        for ours, case in zip(together, cases(other, 2), strict=True):
            theirs = stock.align(case)
            assert largest_difference(ours, theirs) < 1e-4
            assert ours.summary["first_loss"] == pytest.approx(theirs.summary["first_loss"], abs=1e-4)


def shipped(name: str, **changed: Any) -> dict[str, Any]:
    """A method's settings as they are shipped, with the testbed's budget."""
    settings = resolve_budget(read_option("method", name), read_option("training", "testbed"))
    return {k: v for k, v in settings.items() if k not in ("_target_", "name", "title", "quantization")} | changed


def test_dpo_as_shipped_is_trained_as_trl_trains_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file has a dropout that TRL turns off, a cosine schedule, warm-up and decay: exact up to rounding."""
    assert shipped("dpo")["peft"]["lora_dropout"] > 0
    settings = shipped("dpo", steps=15, learning_rate=1e-3)
    ours = bench.aligner("dpo", **settings, cohort=2).align_many(cases(bench, 2))
    stock = stock_aligner(bench, "dpo", monkeypatch, **settings)
    for alignment, case in zip(ours, cases(bench, 2), strict=True):
        theirs = stock.align(case)
        assert largest_difference(alignment, theirs) < 1e-4
        for key in ("last_margin", "last_chosen_log_prob", "last_rejected_log_prob", "chosen_change", "moved_share"):
            assert alignment.summary[key] == pytest.approx(theirs.summary[key], abs=2e-3), key


def test_lora_as_shipped_is_trained_as_trl_trains_it_under_the_same_dropout(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws of dropout differ, so both are given the same mask: one feature in twenty, of every position."""

    def mask(width: int) -> torch.Tensor:
        return torch.arange(width) % 20 != 7

    def without(dropped: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        return x if dropped is None else x * mask(x.shape[-1])

    assert shipped("lora")["peft"]["lora_dropout"] == 0.05
    monkeypatch.setattr(
        torch.nn.Dropout, "forward", lambda self, x: x * mask(x.shape[-1]) / (1 - self.p) if self.training else x
    )
    monkeypatch.setattr(layers, "_without", without)
    settings = shipped("lora", steps=15)
    ours = bench.aligner("lora", **settings, cohort=2).align_many(cases(bench, 2))
    stock = stock_aligner(bench, "lora", monkeypatch, **settings)
    for alignment, case in zip(ours, cases(bench, 2), strict=True):
        theirs = stock.align(case)
        assert largest_difference(alignment, theirs) < 1e-4
        assert alignment.summary["last_loss"] == pytest.approx(theirs.summary["last_loss"], abs=1e-4)


@pytest.mark.parametrize("name", ["lora", "dpo"])
def test_a_cohort_s_recipe_is_the_trainer_s_own(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optimizer, rates, betas and clipping against those of TRL's trainer, made from the same file."""
    aligner = bench.aligner(name, **shipped(name, steps=10))
    recipe = aligner._recipe()
    with training_session(bench.backbone.model, 1, "test") as (clock, folder):
        trainer = aligner.trainer(aligner.examples(dict(bench.case().known)), 0, clock, folder)
        trainer.create_optimizer_and_scheduler(10)
        theirs, scheduler = trainer.optimizer, trainer.lr_scheduler
        ours = recipe.optimizer([torch.nn.Parameter(torch.zeros(2, 2))])
        own = recipe.schedule(ours)
        decayed = [group for group in theirs.param_groups if group["params"]]
        assert len(decayed) == 1 and type(ours) is type(theirs)
        for key in ("betas", "eps", "weight_decay", "lr", "initial_lr"):
            assert ours.param_groups[0][key] == decayed[0][key], key
        for _ in range(10):
            assert own.get_last_lr()[0] == pytest.approx(scheduler.get_last_lr()[0])
            for each in (ours, own, theirs, scheduler):
                each.step()
        assert recipe.arguments.max_grad_norm == trainer.args.max_grad_norm == 1.0
        dropouts = {m.p for m in trainer.model.modules() if isinstance(m, torch.nn.Dropout)}
        assert dropouts <= {recipe.dropout, 0.0} and recipe.dropout == (0.05 if name == "lora" else 0.0)


def test_where_one_person_fills_a_processor_people_are_trained_one_by_one(
    bench: Bench, smollm2: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    aligner = bench.aligner("lora", cohort=2)
    assert aligner.cohort == 2 and not capsys.readouterr().err
    large = Bench(LocalBackbone(smollm2, CORRECTED), bench.inventory, bench.source)
    aligner.prepare(large.backbone, CORRECTED)
    assert aligner.cohort == 1 and "trained one by one" in capsys.readouterr().err
    assert large.aligner("lora", cohort=2, batch_size=1).cohort == 2, "a small pass leaves room for others"
    assert large.aligner("rloo", cohort=2).cohort == 2, "tokens are sampled one at a time, which fills nothing"
    aligner.prepare(bench.backbone, CORRECTED)
    assert aligner.cohort == 2, "each model anew"
