"""On-policy training of several people in one pass: each learns what TRL would teach them alone from the same draws."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import RandomSampler
from transformers import GenerationMixin

from baselines.training import policies
from baselines.training.policies import Sampling
from palign_bench.backbone.alignment import Alignment
from tests.baselines.training.conftest import Bench
from tests.baselines.training.test_cohort import cases, largest_difference, log_probs

SETTINGS: dict[str, Any] = {"steps": 6, "batch_size": 8, "schedule": "linear", "warmup": 0.3, "weight_decay": 0.05}
ON_POLICY = ["ppo", "rloo"]


class SameDraws:
    """Lets TRL's trainers, one person at a time, take the prompts and the draws that a cohort takes."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.person, self.rollout, self.token = 0, -1, 0
        generate: Any = GenerationMixin.generate

        def counted(model: Any, *arguments: Any, **options: Any) -> Any:
            self.rollout, self.token = self.rollout + 1, 0
            return generate(model, *arguments, **options)

        def order(sampler: Any) -> Iterator[int]:
            yield from next(policies.prompt_batches(len(sampler.data_source), len(sampler.data_source), self.person))

        def drawn(chances: Tensor, num_samples: int, **_: Any) -> Tensor:
            summed = chances.cumsum(-1)
            draws = self.draws(self.person, self.rollout, len(chances))[:, self.token, None]
            self.token += num_samples
            return torch.searchsorted(summed, draws * summed[:, -1:], right=True)

        patch.setattr(GenerationMixin, "generate", counted)
        patch.setattr(RandomSampler, "__iter__", order)
        patch.setattr(torch, "multinomial", drawn)
        patch.setattr(policies, "_draws", self.of_everyone)

    def draws(self, seed: int, rollout: int, answers: int) -> Tensor:
        return torch.rand(answers, 15, generator=torch.Generator().manual_seed(1000 * rollout + seed % 97))

    def of_everyone(self, people: Any, rollout: int, sampling: Sampling) -> Tensor:
        return torch.stack([self.draws(each.seed, rollout, sampling.prompts * sampling.answers) for each in people])


def alone(bench: Bench, name: str, draws: SameDraws, **settings: Any) -> list[Alignment]:
    found = []
    for case in cases(bench):
        draws.person, draws.rollout = case.seed % 2**31, -1
        found.append(bench.aligner(name, **SETTINGS, **settings).align(case))
    return found


@pytest.mark.parametrize("name", ON_POLICY)
def test_each_person_learns_what_trl_teaches_them_alone(
    talking_bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = SameDraws(monkeypatch)
    together = talking_bench.aligner(name, cohort=3, **SETTINGS).align_many(cases(talking_bench))
    for ours, theirs in zip(together, alone(talking_bench, name, draws), strict=True):
        assert largest_difference(ours, theirs) < 5e-4  # of about 1e-2 that they moved
        torch.testing.assert_close(log_probs(talking_bench, ours), log_probs(talking_bench, theirs), atol=1e-4, rtol=0)
        for key, value in theirs.summary.items():
            if key.startswith(("first_", "last_")) or key in ("rewarded_texts", "unnamed_rate", "moved_share", "steps"):
                assert ours.summary[key] == pytest.approx(value, abs=1e-4), key
        assert ours.summary.keys() - {"cohort"} == theirs.summary.keys()
        assert (ours.adapter_settings, ours.trained_parameters) == (theirs.adapter_settings, theirs.trained_parameters)
    assert largest_difference(together[0], together[1]) > 1e-3, "people who answer differently are trained differently"
