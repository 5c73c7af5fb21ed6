"""RLOO (Ahmadian et al. 2024): REINFORCE with a leave-one-out baseline; the same rule-based reward as PPO.

Not in the paper. It stands beside PPO because it needs no value model, takes a reward function as it is, and outlives
PPO in TRL. Several answers to one item are sampled; an answer is pushed by how much it beats the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from baselines.training.aligner import TrainedAligner, in_float32, lora_of, one_device, tiled
from baselines.training.reward import RewardLog
from baselines.training.session import TrainingClock
from palign_bench.backbone.alignment import Alignment


class RLOOTrainerOfTokens(RLOOTrainer):
    """TRL's trainer, with the prompts' token ids given: tokenizing a rendered chat again would double its beginning."""

    token_ids: Mapping[str, list[int]]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.token_ids[prompt] for prompt in prompts], None, {}


class ReinforceLeaveOneOut(TrainedAligner):
    """RLOO with LoRA; a batch is ``batch_size / generations`` items with ``generations`` answers each.

    Raises ValueError for a keyword out of its range.
    """

    version = 1
    curves: ClassVar[Mapping[str, str]] = {"reward": "reward", "kl": "kl", "loss": "loss"}

    def __init__(
        self,
        lora: Mapping[str, Any],
        max_new_tokens: int = 15,
        generations: int = 4,
        iterations: int = 1,
        kl_coefficient: float = 0.05,
        temperature: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.lora = lora_of(lora)
        if generations < 2 or self.batch_size % generations:
            raise ValueError(
                f"method.generations={generations}: choose 2 or more, dividing method.batch_size={self.batch_size}"
            )
        if max_new_tokens < 1 or iterations < 1 or kl_coefficient < 0 or temperature <= 0:
            raise ValueError(
                "method.max_new_tokens and method.iterations must be 1 or more, method.temperature above 0 and "
                "method.kl_coefficient 0 or more"
            )
        self.max_new_tokens = int(max_new_tokens)
        self.generations = int(generations)
        self.iterations = int(iterations)
        self.kl_coefficient = float(kl_coefficient)
        self.temperature = float(temperature)

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """The prompt up to "Option", and the person's option."""
        return [{"prompt": self.texts.items[n].rollout_text, "person": value} for n, value in known.items()]

    def train(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Alignment:
        log = RewardLog()
        rule = clock.timed(log.rewards_of)

        def reward(completions: list[str], person: list[int], **_: Any) -> list[float | None]:
            return list(rule(completions, person))

        arguments = RLOOConfig(
            **self.arguments(seed, folder),
            max_steps=self.steps,
            num_generations=self.generations,
            num_iterations=self.iterations,
            max_completion_length=self.max_new_tokens,
            beta=self.kl_coefficient,
            temperature=self.temperature,
            gradient_accumulation_steps=1,
        )
        trainer = RLOOTrainerOfTokens(
            model=self.local.model,
            reward_funcs=reward,
            args=one_device(arguments),
            train_dataset=Dataset.from_list(tiled(rows, least=self.batch_size)),
            processing_class=self.texts.tokenizer,
            peft_config=self.lora.config(),
            callbacks=[clock],
        )
        trainer.token_ids = {texts.rollout_text: texts.rollout for texts in self.texts.items.values()}
        trainer.data_collator = clock.timed(trainer.data_collator)
        in_float32(trainer.model)
        trainer.train()
        return self.lora_alignment(trainer.model, self.lora, {"generations": self.generations} | log.summary())
