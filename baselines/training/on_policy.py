"""What PPO and RLOO share: they sample answers to the known items and are rewarded by a rule (paper, C.2)."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from baselines.training.aligner import TrainedAligner
from baselines.training.cohort import Person, Recipe, Trained, train_cohort
from baselines.training.policies import Objective, Prompts, Sampling, policy_step
from baselines.training.reversibility import ReversibilityCheck
from baselines.training.reward import RewardLog
from baselines.training.session import TrainingClock
from baselines.training.trainers import tiled
from baselines.training.tree import TreeSize
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.engines.decoding import own_decoding
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError


class OnPolicyAligner(TrainedAligner):
    """A policy gradient method on answers of at most ``max_new_tokens`` tokens, sampled at ``temperature``.

    The reward is minus the distance between the option that an answer names and the person's; ``kl_coefficient`` holds
    the policy to the model with its adapter off.
    """

    takes_cohorts = True
    turns_dropout_off = True

    def __init__(
        self,
        *,
        peft: Mapping[str, Any],
        max_new_tokens: int = 15,
        kl_coefficient: float = 0.05,
        temperature: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(peft=peft, **settings)
        if max_new_tokens < 1 or kl_coefficient < 0 or temperature <= 0:
            raise ValueError(
                "method.max_new_tokens must be 1 or more, method.temperature above 0, method.kl_coefficient 0 or more"
            )
        self.max_new_tokens = int(max_new_tokens)
        self.kl_coefficient = float(kl_coefficient)
        self.temperature = float(temperature)
        self.rewards = RewardLog()

    def _check_cohort(self) -> None:
        super()._check_cohort()
        if (self.peft or {}).get("lora_dropout"):
            raise ValueError(f"method.cohort={self.cohort}: a cohort samples without dropout; set peft.lora_dropout=0")

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """As every method; a cohort samples with the keys and values that a model keeps."""
        super().prepare(backbone, protocol)
        model = self.backbone.model
        if self.cohort > 1:
            with torch.no_grad():
                output = Anatomy(model).decoder(input_ids=self._probe(), use_cache=True)
            if getattr(output, "past_key_values", None) is None:
                raise UserError(
                    f"training.cohort={self.cohort}: a {model.config.model_type} keeps no keys and values to sample "
                    "with; use training.cohort=1."
                )

    @property
    def answers(self) -> int:
        """Answers sampled to each item of a rollout."""
        return 1

    @abstractmethod
    def objective(self, people: int) -> Objective:
        """What a cohort learns from a rollout."""

    def pass_size(self) -> TreeSize:
        """As needed: what is sampled is not known before."""
        return TreeSize()

    def train_people(self, people: Sequence[Person], recipe: Recipe, clock: TrainingClock) -> list[Trained]:
        """Train on sampled answers; each person's summary also tells what theirs named."""
        model, per_step = self.backbone.model, self.training.batch_size // self.answers
        logs = [RewardLog(self.inventory.options) for _ in people]
        prompts = []
        for person, log in zip(people, logs, strict=True):
            rows = tiled(person.examples, least=self.training.batch_size)
            ids, options = [row["input_ids"] for row in rows], [int(row["option"]) for row in rows]
            prompts.append(Prompts(ids, options, clock.timed(log.rewards_of), person.seed))
        sampling = Sampling(self.texts.tokenizer, self.temperature, self.max_new_tokens, per_step, self.answers)
        objective = self.objective(len(people))
        step = policy_step(model, prompts, sampling, objective, recipe)
        seeds = [person.seed for person in people]
        trained = train_cohort(model, seeds, recipe, clock, step, objective.weights)
        return [replace(each, told=log.summary()) for each, log in zip(trained, logs, strict=True)]

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """The prompt up to "Option" as text and as token ids, and the person's option."""
        texts = self.texts.items
        return [
            {"prompt": texts[n].rollout_text, "input_ids": texts[n].rollout, "option": value}
            for n, value in known.items()
        ]

    def train(
        self,
        rows: list[dict[str, Any]],
        seed: int,
        clock: TrainingClock,
        folder: Path,
        check: ReversibilityCheck | None = None,
    ) -> Alignment:
        """Train on sampled answers; the summary also tells what they named."""
        self.rewards = RewardLog(self.inventory.options)
        # A min_p or a repetition penalty of the model's own would make the first KL differ from 0.
        with own_decoding(self.backbone.model, {self.texts.tokenizer.eos_token_id}):
            alignment = super().train(rows, seed, clock, folder, check)
        return replace(alignment, summary={**alignment.summary, **self.rewards.summary()})
