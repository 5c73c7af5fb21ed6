"""What TRL, PEFT, transformers and bitsandbytes would do by default, and must not do here."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer
from trl import SFTTrainer

from baselines.training import ppo, trainers
from baselines.training.aligner import TrainedAligner
from baselines.training.ppo import RuleReward
from baselines.training.texts import answer_text
from baselines.training.tree import Passage
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from tests.baselines.training.conftest import LORA, METHODS, PROMPT, Bench
from tests.baselines.training.test_cohort import largest_difference


@pytest.fixture
def passages(monkeypatch: pytest.MonkeyPatch) -> list[Passage]:
    """What the supervised and the preference trainer feed the model."""
    seen: list[Passage] = []
    original = trainers.answer_log_probs

    def spy(anatomy: Any, groups: Any, **more: Any) -> Any:
        seen.extend(passage for group in groups for passage in group)
        return original(anatomy, groups, **more)

    monkeypatch.setattr(trainers, "answer_log_probs", spy)
    return seen


def bytes_of_live_tensors() -> int:
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def lengthen(aligner: TrainedAligner, tokens: int) -> None:
    """Make every prompt longer than TRL's default max_length of 1024."""
    for texts in aligner.texts.items.values():
        texts.turn[:0] = [7] * tokens


@pytest.mark.parametrize("technique", ["lora", "full", "prompt"])
def test_supervised_loss_is_on_the_whole_answer_and_on_it_alone(
    bench: Bench, passages: list[Passage], technique: str
) -> None:
    aligner = bench.aligner(technique, steps=1, batch_size=4)
    lengthen(aligner, 1100)
    case = bench.case()
    aligner.align(case)
    expected = {answer_text(value) for value in case.known.values()}
    tokenizer = bench.backbone.tokenizer
    assert len(passages) == 4
    for passage in passages:
        answer = passage.ids[passage.start :]
        assert answer[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(answer[:-1]) in expected
        assert passage.ids.count(7) >= 1100  # and nothing of the prompt was cut either


def test_dpo_prefers_the_persons_option_to_its_opposite_uncut_and_without_neutral_answers(
    bench: Bench, passages: list[Passage]
) -> None:
    numbers = bench.inventory.known[:5]
    known = dict(zip(numbers, (5, 4, 3, 2, 1), strict=True))
    aligner = bench.aligner("dpo", steps=1, batch_size=4)
    lengthen(aligner, 1100)
    alignment = aligner.align(bench.case(known=known))
    assert alignment.summary["pairs"] == 4
    tokenizer = bench.backbone.tokenizer
    texts = [tokenizer.decode(p.ids[p.start :]).removesuffix(tokenizer.eos_token) for p in passages]
    assert all(passage.ids.count(7) >= 1100 for passage in passages)
    pairs = set(zip(texts[::2], texts[1::2], strict=True))
    assert pairs == {(answer_text(value), answer_text(6 - value)) for value in (5, 4, 2, 1)}


def test_dpo_without_a_usable_pair_is_the_bare_model_and_says_why(bench: Bench) -> None:
    alignment = bench.aligner("dpo").align(bench.case(known=dict.fromkeys(bench.inventory.known, 3)))
    assert alignment.adapter is None
    assert alignment.summary["reason"]


@pytest.mark.parametrize("name", METHODS)
def test_fewer_answers_than_a_batch_train_too(bench: Bench, name: str) -> None:
    known = dict.fromkeys(bench.inventory.known[:3], 5)
    assert bench.aligner(name, steps=2).align(bench.case(known=known)).adapter


def test_ppo_rewards_the_whole_response_for_the_right_person_when_pad_is_the_end_of_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = bench.backbone.tokenizer
    tokenizer.pad_token = tokenizer.eos_token  # as most tokenizers have it: TRL would mask the prompt's own turns
    prompts: list[tuple[int, ...]] = []
    original = RuleReward.backbone

    def spy(self: RuleReward, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Any:
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            prompts.append(tuple(i for i, real in zip(ids, mask, strict=True) if real))
        return original(self, input_ids, attention_mask, **options)

    monkeypatch.setattr(RuleReward, "backbone", spy)
    aligner = bench.aligner("ppo", steps=2)
    aligner.align(bench.case())
    whole = {tuple(texts.rollout) for texts in aligner.texts.items.values()}
    assert len(prompts) == 16
    assert all(any(read[: len(prompt)] == prompt for prompt in whole) for read in prompts)


def test_ppo_reads_policy_and_values_in_one_pass_and_trains_as_in_two(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = bench.aligner("ppo", steps=2, learning_rate=1e-3)
    with measure() as one_pass:
        once = aligner.align(bench.case())

    def as_in_trl(policy: Any, value: ppo.ValueHead, **inputs: Any) -> Any:
        return policy(**inputs), value.score(value.backbone(**inputs).hidden_states[-1])

    monkeypatch.setattr(ppo, "in_one_pass", as_in_trl)
    with measure() as two_passes:
        twice = aligner.align(bench.case())
    assert once.adapter is not None and twice.adapter is not None
    assert any(bool(tensor.any()) for name, tensor in once.adapter.items() if "lora_B" in name)
    for name, tensor in once.adapter.items():
        torch.testing.assert_close(tensor, twice.adapter[name])
    assert one_pass.amounts["training_tokens"] < two_passes.amounts["training_tokens"]


def test_rule_reward_looks_the_person_up_by_the_prompt(bench: Bench) -> None:
    aligner = bench.aligner("ppo")
    tokenizer = aligner.texts.tokenizer
    one, two = (aligner.texts.items[number].rollout for number in bench.inventory.known[:2])
    reward = RuleReward(
        tokenizer,
        lambda texts, options: [len(t) + 100 * o for t, o in zip(texts, options, strict=True)],
        {tuple(one): 1, tuple(two): 5},
    )
    rows = [prompt + tokenizer.encode(text, add_special_tokens=False) for prompt, text in ((one, "ab"), (two, "abc"))]
    length = max(map(len, rows)) + 2
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows])
    hidden = reward.backbone(ids, ids != pad).hidden_states[-1]
    assert reward.score(hidden).shape == (2, length, 1)
    assert hidden[:, 0, 0].tolist() == [102, 503]
    assert bool((hidden == hidden[:, :1]).all())


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_left_on_the_model_its_settings_or_the_disk(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.backbone.model
    model.generation_config.eos_token_id = [model.config.eos_token_id, 9]  # PPO would make it one
    attributes, config, generation = set(vars(model)), model.config.to_dict(), model.generation_config.to_dict()
    aligner = bench.aligner(name)
    original, written = aligner.train, []

    def train(rows: Any, seed: int, clock: Any, folder: Path, check: Any) -> Any:
        trained = original(rows, seed, clock, folder, check)
        written.extend(folder.rglob("*"))
        return trained

    monkeypatch.setattr(aligner, "train", train)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    aligner.align(bench.case())
    assert written == []
    assert set(vars(model)) == attributes
    assert model.config.to_dict() == config
    assert model.generation_config.to_dict() == generation
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_rollouts_do_not_follow_the_models_own_generation_settings(talking_bench: Bench, name: str) -> None:
    """Under these the first KL would not be 0, and beams are no samples of the policy."""
    model, settings = talking_bench.backbone.model, {"steps": 2, "learning_rate": 1e-3}
    plain = talking_bench.aligner(name, **settings).align(talking_bench.case())
    odd = {"num_beams": 3, "repetition_penalty": 4.0, "min_p": 0.4, "top_k": 2, "forced_bos_token_id": 9}
    for key, value in (odd | {"max_new_tokens": 3, "temperature": 0.1, "bad_words_ids": [[8]]}).items():
        setattr(model.generation_config, key, value)
    found = talking_bench.aligner(name, **settings).align(talking_bench.case())
    assert plain.adapter is not None and found.adapter is not None
    assert largest_difference(plain, found) < 1e-4  # rounding; a step moves 1e-3
    assert found.summary["first_kl"] == pytest.approx(0, abs=1e-3) and model.generation_config.num_beams == 3


def test_the_model_is_bare_again_when_training_fails(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    aligner = bench.aligner("lora", steps=2)
    names = [name for name, _ in bench.backbone.model.named_modules()]
    monkeypatch.setattr(SFTTrainer, "training_step", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        aligner.align(bench.case())
    assert [name for name, _ in bench.backbone.model.named_modules()] == names
    assert gc.get_freeze_count() == 0


def test_the_heap_is_frozen_while_ppo_collects_garbage(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[int] = []
    original = RuleReward.backbone

    def spy(self: RuleReward, *inputs: Any, **options: Any) -> Any:
        frozen.append(gc.get_freeze_count())
        return original(self, *inputs, **options)

    monkeypatch.setattr(RuleReward, "backbone", spy)
    bench.aligner("ppo", steps=1).align(bench.case())
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("name", METHODS)
def test_trainers_run_without_autocast_checkpointing_or_trackers(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    original = Trainer.log

    def spy(self: Trainer, *inputs: Any, **options: Any) -> Any:
        seen.append(self.args)
        return original(self, *inputs, **options)

    monkeypatch.setattr(Trainer, "log", spy)
    bench.aligner(name, steps=2, warmup=0.5).align(bench.case())
    arguments = seen[0]
    assert (arguments.bf16, arguments.gradient_checkpointing, arguments.report_to) == (False, False, [])
    assert arguments.save_strategy == "no"
    assert arguments.warmup_steps == 1


def test_nothing_is_printed(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    for name in METHODS:
        bench.aligner(name, steps=1).align(bench.case())
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize("name", METHODS)
def test_the_fifth_person_needs_no_more_memory_than_the_second(bench: Bench, name: str) -> None:
    """What stays: bytes of all tensors alive once a person is done, exactly. The peak: within 32 MiB of noise."""
    aligner = bench.aligner(name, steps=1)
    alive, peaks = [], []
    for index in range(5):
        with measure() as cost:
            aligner.align(bench.case(index))
        if index in (1, 4):
            peaks.append(cost.peak_memory_mib)
            alive.append(bytes_of_live_tensors())
    assert alive[1] <= alive[0]
    assert peaks[1] <= peaks[0] + 32


def test_nf4_gradients_survive_an_evaluation_forward(
    nf4_backbone: LocalBackbone, inventory: Inventory, simulated: RespondentSource
) -> None:
    """On a CPU with AVX512-BF16, bitsandbytes would repack the weights in it and ruin every later gradient."""
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model

    from palign_bench.backbone.parts.adapters import leaving_no_trace

    ids = torch.randint(5, 300, (4, 32), generator=torch.Generator().manual_seed(0))

    def gradients() -> torch.Tensor:
        with leaving_no_trace(nf4_backbone.model):
            torch.manual_seed(0)
            model = get_peft_model(nf4_backbone.model, LoraConfig(r=4, target_modules="all-linear"))
            layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
            assert layers
            assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data.normal_(0, 0.01)
            model.train()
            model(input_ids=ids, labels=ids).loss.backward()
            return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    before = gradients()
    with torch.no_grad():
        nf4_backbone.model(input_ids=ids)
    assert torch.nn.functional.cosine_similarity(before, gradients(), dim=0) > 0.9999


@pytest.mark.parametrize("name", ["lora", "prompt", "dpo", "ppo", "rloo"])
def test_on_nf4_adapters_train_in_float32_and_the_weights_stay(
    name: str, nf4_backbone: LocalBackbone, inventory: Inventory, simulated: RespondentSource
) -> None:
    bench = Bench(nf4_backbone, inventory, simulated)
    ids = torch.arange(5, 25)[None]
    before = nf4_backbone.model(input_ids=ids).logits
    alignment = bench.aligner(name).align(bench.case())
    assert torch.equal(nf4_backbone.model(input_ids=ids).logits, before)
    assert {tensor.dtype for tensor in alignment.adapter.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("name", "settings", "key"),
    [
        ("lora", {"steps": 0}, "steps"),
        ("lora", {"learning_rate": -1}, "learning_rate"),
        ("lora", {"peft": LORA | {"rank": 8}}, "peft"),
        ("lora", {"peft": LORA | {"r": 0}}, "peft.r"),
        ("lora", {"peft": LORA | {"lora_dropout": 1}}, "peft.lora_dropout"),
        ("lora", {"peft": {"peft_type": "PISSA"}}, "peft.peft_type"),
        ("lora", {"peft": {"peft_type": "PREFIX_TUNING"}}, "peft.peft_type"),
        ("lora", {"peft": LORA | {"init_lora_weights": "pissa"}}, "peft.init_lora_weights"),
        ("lora", {"peft": LORA | {"bias": "all"}}, "peft.bias"),
        ("lora", {"micro_batch": 3}, "micro_batch"),
        ("lora", {"rate": 3}, "rate"),
        ("lora", {"warmup": 2}, "warmup"),
        ("full", {"schedule": "wavy"}, "schedule"),
        ("prompt", {"peft": PROMPT | {"num_virtual_tokens": 0}}, "peft.num_virtual_tokens"),
        ("dpo", {"beta": 0}, "beta"),
        ("ppo", {"epochs": 0}, "epochs"),
        ("rloo", {"generations": 3}, "generations"),
    ],
)
def test_a_setting_out_of_its_range_is_named(name: str, settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=rf"(method\.)?{key}"):
        METHODS[name](**settings)


def test_a_training_that_diverges_fails_clearly(bench: Bench) -> None:
    with pytest.raises(FloatingPointError, match="learning_rate"):
        bench.aligner("full", learning_rate=1e30, steps=4).align(bench.case())
