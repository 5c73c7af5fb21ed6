"""On-policy training of several people in one pass: each learns what TRL would teach them alone from the same draws."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import RandomSampler
from transformers import GenerationMixin

from baselines.training import policies, reference
from baselines.training.policies import Sampling, sample
from baselines.training.rloo import RLOOTrainerOfTokens
from baselines.training.tree import read
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import measure
from tests.architectures import tiny_of
from tests.baselines.training.conftest import Bench
from tests.baselines.training.test_cohort import cases, largest_difference, log_probs

SETTINGS: dict[str, Any] = {"steps": 6, "batch_size": 8, "schedule": "linear", "warmup": 0.3, "weight_decay": 0.05}
ON_POLICY = ["ppo", "rloo"]


class SameDraws:
    """Lets TRL's trainers, one person at a time, take the prompts and the draws that a cohort takes."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.person, self.calls, self.token = 0, -1, 0
        generate: Any = GenerationMixin.generate

        def counted(model: Any, *arguments: Any, **options: Any) -> Any:
            self.calls, self.token = self.calls + 1, 0
            return generate(model, *arguments, **options)

        def order(sampler: Any) -> Iterator[int]:
            yield from next(policies.prompt_batches(len(sampler.data_source), len(sampler.data_source), self.person))

        def drawn(chances: Tensor, num_samples: int, **_: Any) -> Tensor:
            summed = chances.cumsum(-1)
            rollout, part = divmod(self.calls, SETTINGS["batch_size"] // len(chances))  # PPO samples micro-batches
            draws = self.draws(self.person, rollout, SETTINGS["batch_size"])[part * len(chances) :, self.token, None]
            draws = draws[: len(chances)]
            self.token += num_samples
            return torch.searchsorted(summed, draws * summed[:, -1:], right=True)

        patch.setattr(GenerationMixin, "generate", counted)
        patch.setattr(RandomSampler, "__iter__", order)
        patch.setattr(np.random, "permutation", np.arange)  # of a rollout's answers, in PPO's passes
        patch.setattr(torch, "multinomial", drawn)
        patch.setattr(policies, "_draws", self.of_everyone)

    def draws(self, seed: int, rollout: int, answers: int) -> Tensor:
        return torch.rand(answers, 15, generator=torch.Generator().manual_seed(1000 * rollout + seed % 97))

    def of_everyone(self, people: Any, rollout: int, sampling: Sampling) -> Tensor:
        return torch.stack([self.draws(each.seed, rollout, sampling.prompts * sampling.answers) for each in people])


def alone(bench: Bench, name: str, draws: SameDraws, **settings: Any) -> list[Alignment]:
    found = []
    for case in cases(bench):
        draws.person, draws.calls = case.seed % 2**31, -1
        found.append(bench.aligner(name, **SETTINGS, **settings).align(case))
    return found


@pytest.mark.parametrize(("name", "settings"), [("ppo", {}), ("ppo", {"micro_batch": 4}), ("rloo", {})])
def test_each_person_learns_what_trl_teaches_them_alone(
    talking_bench: Bench, name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = SameDraws(monkeypatch)
    together = talking_bench.aligner(name, cohort=3, **SETTINGS, **settings).align_many(cases(talking_bench))
    for ours, theirs in zip(together, alone(talking_bench, name, draws, **settings), strict=True):
        assert largest_difference(ours, theirs) < 5e-4  # of about 1e-2 that they moved
        torch.testing.assert_close(log_probs(talking_bench, ours), log_probs(talking_bench, theirs), atol=1e-4, rtol=0)
        for key, value in theirs.summary.items():
            if key.startswith(("first_", "last_")) or key in ("rewarded_texts", "unnamed_rate", "moved_share", "steps"):
                assert ours.summary[key] == pytest.approx(value, abs=1e-4), key
        assert ours.summary.keys() - {"cohort"} == theirs.summary.keys()
        assert (ours.adapter_settings, ours.trained_parameters) == (theirs.adapter_settings, theirs.trained_parameters)
    assert largest_difference(together[0], together[1]) > 1e-3, "people who answer differently are trained differently"


@pytest.mark.parametrize("name", ON_POLICY)
def test_neighbours_change_nobody(talking_bench: Bench, name: str) -> None:
    aligner = talking_bench.aligner(name, cohort=3, **SETTINGS)
    together, alone = aligner.align_many(cases(talking_bench)), aligner.align(cases(talking_bench)[2])
    turned = aligner.align_many(cases(talking_bench)[::-1])[0]
    assert largest_difference(together[2], alone) < 5e-4 and largest_difference(together[2], turned) < 5e-4


def test_smaller_passes_and_checkpointing_learn_the_same(talking_bench: Bench) -> None:
    usual = talking_bench.aligner("rloo", cohort=2, **SETTINGS).align_many(cases(talking_bench, 2))
    for settings in ({"micro_batch": 4}, {"gradient_checkpointing": True}):
        other = talking_bench.aligner("rloo", cohort=2, **SETTINGS, **settings).align_many(cases(talking_bench, 2))
        assert largest_difference(usual[1], other[1]) < 5e-4, settings
        assert usual[1].summary["last_reward"] == other[1].summary["last_reward"], settings


@pytest.mark.parametrize(("answers_each", "shares"), [(1, True), (2, True), (2, False)])
def test_what_is_sampled_has_the_chances_of_a_plain_forward_pass(
    talking_bench: Bench, answers_each: int, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shares:
        monkeypatch.setattr(policies, "why_no_shared_prefix", lambda anatomy: "a window")
    anatomy = Anatomy(talking_bench.backbone.model)
    tokenizer = talking_bench.aligner("ppo").texts.tokenizer
    texts = list(talking_bench.aligner("ppo").texts.items.values())
    rows = 3 * answers_each
    prompts = [[texts[start + row // answers_each].rollout for row in range(rows)] for start in (0, 3)]
    sampling = Sampling(tokenizer, 0.7, 15, 3, answers_each)
    draws = torch.rand(2, rows, 15, generator=torch.Generator().manual_seed(1))
    answers, found, states = sample(anatomy, prompts, draws, sampling)
    for person in range(2):
        for row, (prompt, answer) in enumerate(zip(prompts[person], answers[person], strict=True)):
            output = anatomy.model(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True)
            own = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
            chances = (output.logits[0, own] / 0.7).softmax(-1)
            below = chances.cumsum(-1)
            for place, token in enumerate(answer):
                assert below[place, token] - chances[place, token] <= draws[person, row, place] <= below[place, token]
                assert float(found[person, row, place]) == pytest.approx(float(chances[place, token].log()), abs=1e-4)
            torch.testing.assert_close(states[person, row, : len(answer)], output.hidden_states[-1][0, own])
            assert tokenizer.eos_token_id not in answer[:-1]
            assert answer[-1] == tokenizer.eos_token_id or len(answer) == 15
            assert not found[person, row, len(answer) :].any()


def test_the_reference_is_the_bare_model_and_reads_no_answer_twice(
    talking_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(reference, "read", lambda anatomy, groups: asked.extend(groups[0]) or read(anatomy, groups))
    before = talking_bench.backbone.model.training
    (alignment,) = talking_bench.aligner("rloo", cohort=2, **SETTINGS).align_many(cases(talking_bench, 1))
    texts = [tuple(each.ids) for each in asked]
    assert len(texts) == len(set(texts)) < SETTINGS["steps"] * SETTINGS["batch_size"]
    assert alignment.summary["first_kl"] == pytest.approx(0, abs=1e-5)  # nothing is learnt before the first rollout
    assert talking_bench.backbone.model.training == before and not hasattr(talking_bench.backbone.model, "peft_config")


@pytest.mark.parametrize("name", ["biogpt", "ctrl", "gpt2", "gpt_bigcode", "gpt_neo", "llama", "xglm"])
def test_rloo_reads_texts_from_their_first_token_on(name: str) -> None:
    """Whatever pads stand before them: most of these have absolute positions."""
    model = tiny_of(name)
    texts, answers = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]], [[20, 21], [22, 23, 24], [25]]
    both = list(zip(texts, answers, strict=True))
    rows = [[0] * (6 - len(text)) + text + answer + [0] * (3 - len(answer)) for text, answer in both]
    trainer = object.__new__(RLOOTrainerOfTokens)
    trainer.anatomy, trainer.temperature = Anatomy(model), 0.7
    ids = torch.tensor(rows)
    for size in (None, 2):
        found, _, _ = trainer._get_per_token_logps_and_entropies(model, ids, (ids > 0).long(), 3, batch_size=size)
        for row, text, answer in zip(found, texts, answers, strict=True):
            logits = model(input_ids=torch.tensor([text + answer]), use_cache=False).logits[0] / 0.7
            own = logits.log_softmax(-1)[len(text) - 1 : -1].gather(1, torch.tensor(answer)[:, None])[:, 0]
            torch.testing.assert_close(row[: len(answer)], own, atol=1e-4, rtol=1e-4)
            assert not row[len(answer) :].any()


def test_in_four_bits_too(nf4_backbone: LocalBackbone, bench: Bench) -> None:
    quantized = Bench(nf4_backbone, bench.inventory, bench.source)
    with measure() as cost:
        found = quantized.aligner("ppo", cohort=2, **SETTINGS).align_many(cases(quantized, 2))
    for each in found:
        assert each.summary["first_kl"] == pytest.approx(0, abs=1e-4) and each.summary["rewarded_texts"] == 48
        assert each.summary["moved_share"] > 0.9
    assert cost.share(2).amounts["optimizer_steps"] == 12  # two passes over each of six rollouts
