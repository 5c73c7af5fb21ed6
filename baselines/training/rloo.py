"""RLOO (Ahmadian et al. 2024): REINFORCE with a leave-one-out baseline; the same rule-based reward as PPO.

Not in the paper. It stands beside PPO because it needs no value model, takes a reward function as it is, and outlives
PPO in TRL. Several answers to one item are sampled; an answer is pushed by how much it beats the others.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from trl import RLOOConfig, RLOOTrainer

from baselines.training.on_policy import OnPolicyAligner
from baselines.training.policies import Objective, Rollout
from baselines.training.session import TrainingClock
from baselines.training.trainers import one_device, tiled
from baselines.training.tree import Passage, read
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.parts.adapters import peft_config


class RLOOTrainerOfTokens(RLOOTrainer):
    """TRL's trainer, with the prompts' token ids given: tokenizing a rendered chat again would double its beginning."""

    anatomy: Anatomy
    token_ids: Mapping[str, list[int]]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """Log-probabilities of the answers' tokens ``(rows, logits_to_keep)``, 0 after their end; entropies are NaN.

        TRL pads prompts on the left and gives no positions, so that models with absolute ones misread them: here texts
        are read from their first token on.
        """
        lengths = attention_mask[:, -logits_to_keep:].sum(1).tolist()
        texts = [
            [Passage(ids[real.bool()].tolist(), int(real.sum()) - length)]
            for ids, real, length in zip(input_ids, attention_mask, lengths, strict=True)
        ]
        size = batch_size or len(texts)
        parts = [texts[start : start + size] for start in range(0, len(texts), size)]
        found = [read(self.anatomy, part, trees=False).log_probs(self.temperature) for part in parts]
        log_probs = pad_sequence(torch.cat(found).split(lengths), batch_first=True)
        log_probs = nn.functional.pad(log_probs, (0, logits_to_keep - log_probs.shape[1]))
        return log_probs, torch.full_like(log_probs, torch.nan), None

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.token_ids[prompt] for prompt in prompts], None, {}


class LeaveOneOutObjective(Objective):
    """TRL's RLOO, person by person, with one optimizer step a rollout: what samples is what is trained."""

    def __init__(self, answers: int, arguments: RLOOConfig):
        if arguments.normalize_advantages or arguments.reward_clip_range or arguments.mask_truncated_completions:
            raise ValueError("a cohort computes TRL's defaults: advantages and rewards as they are, all answers")
        self.answers, self.beta = answers, arguments.beta

    def judge(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Advantages: how much an answer's reward, less its KL, beats the mean of the others to the same item."""
        self.sampled = rollout.sampled
        rewards = (rollout.scores - self.beta * rollout.kl.sum(2)).unflatten(1, (-1, self.answers))
        others = (rewards.sum(2, keepdim=True) - rewards) / (self.answers - 1)
        self.advantages = (rewards - others).flatten(1)
        kl = rollout.kl.sum((1, 2)) / self.sampled.sum((1, 2))
        return {"reward": rollout.scores.mean(1), "kl": kl}

    def loss(self, rows: slice, log_probs: Tensor, states: Tensor) -> Mapping[str, Tensor]:
        """REINFORCE on whole answers: the ratio to the policy that sampled is 1, its gradient is not 0."""
        summed = log_probs.masked_fill(~self.sampled[:, rows], 0.0).sum(2)
        return {"loss": -(self.advantages[:, rows] * torch.exp(summed - summed.detach())).mean(1)}


class ReinforceLeaveOneOut(OnPolicyAligner):
    """RLOO with an adapter; a batch is ``batch_size / generations`` items with ``generations`` answers each."""

    version = 6  # 6: texts are read from their first token on, and a model's own dropout is off
    curves: ClassVar[Mapping[str, str]] = {"reward": "reward", "kl": "kl", "loss": "loss"}

    def __init__(self, *, generations: int = 4, iterations: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        if generations < 2 or self.training.batch_size % generations:
            raise ValueError(
                f"method.generations={generations}: choose 2 or more, dividing "
                f"method.batch_size={self.training.batch_size}"
            )
        if iterations < 1:
            raise ValueError(f"method.iterations={iterations}: choose 1 or more")
        self.generations = int(generations)
        self.iterations = int(iterations)
        if self.cohort > 1 and self.iterations > 1:
            raise ValueError(f"method.cohort={self.cohort}: a cohort of RLOO needs method.iterations=1")

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        return super().told(rows) | {"generations": self.generations}

    def configuration(self, seed: int, folder: Path) -> RLOOConfig:
        """TRL's settings for RLOO."""
        return RLOOConfig(
            **self.arguments(seed, folder),
            max_steps=self.training.steps,
            num_generations=self.generations,
            num_iterations=self.iterations,
            max_completion_length=self.max_new_tokens,
            beta=self.kl_coefficient,
            disable_dropout=True,  # [off]; the policy is compared with itself
            router_aux_loss_coef=0.0,  # [0.001 of a mixture of experts]; no other method has it
            temperature=self.temperature,
        )

    @property
    def answers(self) -> int:
        return self.generations

    def objective(self, people: int) -> Objective:
        """For a cohort."""
        return LeaveOneOutObjective(self.generations, self.configuration(0, Path()))

    def trainer(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's trainer on the prompts."""
        rule = clock.timed(self.rewards.rewards_of)

        def reward(completions: list[str], option: list[int], **_: Any) -> list[float | None]:
            return list(rule(completions, option))

        prompts = [{"prompt": row["prompt"], "option": row["option"]} for row in rows]
        trainer = RLOOTrainerOfTokens(
            model=self.backbone.model,
            reward_funcs=reward,
            args=one_device(self.configuration(seed, folder)),
            train_dataset=Dataset.from_list(tiled(prompts, least=self.training.batch_size)),
            processing_class=self.texts.tokenizer,
            peft_config=peft_config(self.peft or {}),
            callbacks=[clock],
        )
        trainer.anatomy = Anatomy(self.backbone.model)
        trainer.token_ids = {texts.rollout_text: texts.rollout for texts in self.texts.items.values()}
        trainer.data_collator = clock.timed(trainer.data_collator)
        return trainer
