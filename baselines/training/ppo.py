"""PPO (Schulman et al. 2017; paper, C.2) with a rule instead of a reward model.

The model answers a known item in at most 15 new tokens; the reward is minus the distance between the option that it
names and the person's. The reference policy is the model with its adapter off, the value model a scalar head on the
policy's own backbone: one model in memory. `trl.experimental.ppo` was last shipped in TRL 1.12.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from baselines.training.aligner import TrainedAligner, lora_of, one_device, tiled
from baselines.training.reward import RewardLog
from baselines.training.session import TrainingClock
from palign_bench.backbone.alignment import Alignment

Rewards = Callable[[list[str], list[int]], list[float]]


class RuleReward(nn.Module):
    """A rule on the response's text in the shape of the reward model that TRL calls.

    ``people``: the person's option by the prompt's token ids; no prompt is the beginning of another.
    """

    base_model_prefix = "backbone"  # TRL reads hidden states from the attribute of this name, then calls `score`

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rule: Rewards, people: Mapping[tuple[int, ...], int]):
        super().__init__()
        self.tokenizer = tokenizer
        self.rule = rule
        self.people = people
        self.lengths = sorted({len(prompt) for prompt in people})

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """The reward of each row at every position, as "hidden states" ``(rows, length, 1)``."""
        texts, people = [], []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            read = [i for i, real in zip(ids, mask, strict=True) if real]
            prompt = next(p for p in (tuple(read[:n]) for n in self.lengths) if p in self.people)
            texts.append(str(self.tokenizer.decode(read[len(prompt) :], skip_special_tokens=True)))
            people.append(self.people[prompt])
        rewards = torch.tensor(self.rule(texts, people), dtype=torch.float32, device=input_ids.device)
        everywhere = rewards[:, None, None].expand(-1, input_ids.shape[1], 1)
        return SimpleNamespace(hidden_states=(everywhere,), last_hidden_state=everywhere)

    def score(self, hidden: Tensor) -> Tensor:
        return hidden


class ValueHead(nn.Module):
    """A scalar head on the policy's own backbone, whose features it reads and does not train."""

    base_model_prefix = "backbone"

    def __init__(self, policy: Any):
        super().__init__()
        self._decoder = [policy.get_base_model().base_model]  # in a list: it is the policy's submodule, not ours
        self.head = nn.Linear(policy.config.hidden_size, 1, bias=False, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)

    def backbone(self, **inputs: Any) -> Any:
        with torch.no_grad():  # the critic must not bend the policy
            return self._decoder[0](**inputs)

    def score(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.head(hidden.float())
        return values


def in_one_pass(policy: Any, value: ValueHead) -> Callable[..., tuple[Any, Tensor]]:
    """The policy's output and the values of its own features, which TRL's wrapper would compute a second time."""

    def forward(**inputs: Any) -> tuple[Any, Tensor]:
        output = policy(**inputs)  # TRL asks for the hidden states
        return output, value.score(output.hidden_states[-1].detach())

    return forward


class ProximalPolicyOptimization(TrainedAligner):
    """PPO with LoRA and the rule-based reward. Raises ValueError for a keyword out of its range."""

    version = 1
    curves: ClassVar[Mapping[str, str]] = {
        "objective/scores": "reward",
        "objective/kl": "kl",
        "loss/policy_avg": "loss",
    }

    def __init__(
        self,
        lora: Mapping[str, Any],
        max_new_tokens: int = 15,
        epochs: int = 4,
        kl_coefficient: float = 0.05,
        temperature: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.lora = lora_of(lora)
        if max_new_tokens < 1 or epochs < 1 or kl_coefficient < 0 or temperature <= 0:
            raise ValueError(
                "method.max_new_tokens and method.epochs must be 1 or more, method.temperature above 0 and "
                "method.kl_coefficient 0 or more"
            )
        self.max_new_tokens = int(max_new_tokens)
        self.epochs = int(epochs)
        self.kl_coefficient = float(kl_coefficient)
        self.temperature = float(temperature)

    @property
    def optimizer_steps(self) -> int:
        return self.steps * self.epochs

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """Token ids of the prompt up to "Option", and the person's option."""
        return [{"input_ids": self.texts.items[n].rollout, "person": value} for n, value in known.items()]

    def train(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Alignment:
        log = RewardLog()
        tokenizer = self.texts.tokenizer
        people = {tuple(row["input_ids"]): int(row["person"]) for row in rows}
        policy: Any = get_peft_model(self.local.model, self.lora.config())
        reward: Any = RuleReward(tokenizer, clock.timed(log.rewards_of), people)
        value: Any = ValueHead(policy)
        arguments = PPOConfig(
            **self.arguments(seed, folder),
            total_episodes=self.batch_size * self.steps,
            num_ppo_epochs=self.epochs,
            num_mini_batches=1,
            local_rollout_forward_batch_size=self.batch_size,
            response_length=self.max_new_tokens,
            temperature=self.temperature,
            kl_coef=self.kl_coefficient,
            stop_token="eos",
            missing_eos_penalty=None,  # the paper's reward looks at the named option alone
            num_sample_generations=0,
        )
        trainer = PPOTrainer(
            args=one_device(arguments),
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=reward,
            train_dataset=Dataset.from_list(
                [{"input_ids": row["input_ids"]} for row in tiled(rows, least=self.batch_size)]
            ),
            value_model=value,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        wrapper = trainer.accelerator.unwrap_model(trainer.model)
        wrapper.forward = in_one_pass(policy, value)
        trainer.dataloader.collate_fn = clock.timed(trainer.dataloader.collate_fn)
        trainer.train()
        return self.lora_alignment(policy, self.lora, {"ppo_epochs": self.epochs} | log.summary())
