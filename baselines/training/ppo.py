"""PPO (Schulman et al. 2017; paper, C.2) with a rule instead of a reward model.

The model answers a known item in at most 15 new tokens; the reward is minus the distance between the option that it
names and the person's. The reference policy is the model with its adapter off, the value model a scalar head on the
policy's own backbone: one model in memory. `trl.experimental.ppo` was last shipped in TRL 1.12.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer

from baselines.training.on_policy import OnPolicyAligner
from baselines.training.policies import Objective, Rollout, Rule
from baselines.training.session import TrainingClock
from baselines.training.trainers import one_device, tiled
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.parts.adapters import peft_config


class RuleReward(nn.Module):
    """A rule on the response's text in the shape of the reward model that TRL calls.

    ``options``: the person's own by the prompt's token ids; no prompt is the beginning of another.
    """

    base_model_prefix = "backbone"  # TRL reads hidden states from the attribute of this name, then calls `score`

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rule: Rule, options: Mapping[tuple[int, ...], int]):
        super().__init__()
        self.tokenizer = tokenizer
        self.rule = rule
        self.options = options
        self.lengths = sorted({len(prompt) for prompt in options})

    def backbone(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """The reward of each row at every position, as "hidden states" ``(rows, length, 1)``."""
        texts, options = [], []
        for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
            read = [i for i, real in zip(ids, mask, strict=True) if real]
            prompt = next(p for p in (tuple(read[:n]) for n in self.lengths) if p in self.options)
            texts.append(str(self.tokenizer.decode(read[len(prompt) :], skip_special_tokens=True)))
            options.append(self.options[prompt])
        rewards = torch.tensor(self.rule(texts, options), dtype=torch.float32, device=input_ids.device)
        everywhere = rewards[:, None, None].expand(-1, input_ids.shape[1], 1)
        return SimpleNamespace(hidden_states=(everywhere,), last_hidden_state=everywhere)

    def score(self, hidden: Tensor) -> Tensor:
        return hidden


class ValueHead(nn.Module):
    """A scalar head on the policy's own backbone, whose features it reads and does not train."""

    base_model_prefix = "backbone"

    def __init__(self, policy: Any):
        super().__init__()
        self._decoder = [Anatomy(policy.get_base_model()).decoder]  # in a list: it is the policy's submodule, not ours
        self.head = nn.Linear(policy.config.hidden_size, 1, bias=False, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)

    def backbone(self, **inputs: Any) -> Any:
        with torch.no_grad():  # the critic must not bend the policy
            return self._decoder[0](**inputs)

    def score(self, hidden: Tensor) -> Tensor:
        return self.head(hidden.float())


def in_one_pass(policy: Any, value: ValueHead, **inputs: Any) -> tuple[Any, Tensor]:
    """The policy's output and the values of its own features, which TRL's wrapper would compute a second time."""
    output = policy(**inputs)  # TRL asks for the hidden states
    return output, value.score(output.hidden_states[-1].detach())


@contextmanager
def adapter_off(policy: Any) -> Iterator[None]:
    """The reference policy; PEFT's own context first asks every module how it stands, which takes the organism long."""
    policy.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        policy.base_model.enable_adapter_layers()


class ClippedObjective(Objective):
    """TRL's PPO, person by person: GAE, clipped ratios and values, advantages whitened over a person's tokens."""

    def __init__(self, people: int, width: int, arguments: PPOConfig, device: torch.device):
        if arguments.kl_estimator != "k1" or arguments.whiten_rewards or arguments.num_mini_batches != 1:
            raise ValueError("a cohort computes TRL's defaults: kl_estimator k1, rewards as they are, one mini-batch")
        self.arguments, self.passes = arguments, arguments.num_ppo_epochs
        self.heads = nn.Parameter(torch.zeros(people, width, device=device))

    @property
    def weights(self) -> Sequence[nn.Parameter]:
        return (self.heads,)

    def values(self, states: Tensor) -> Tensor:
        """``(people, answers, places)`` of ``(people, answers, places, width)``, which are read and not trained."""
        return torch.einsum("pasw,pw->pas", states.float(), self.heads)

    @torch.no_grad()
    def judge(self, rollout: Rollout) -> Mapping[str, Tensor]:
        """Advantages and returns. TRL gives the reward one place after the end token where the batch has that place."""
        arguments, lengths, sampled = self.arguments, rollout.lengths, rollout.sampled
        places = torch.arange(sampled.shape[-1], device=lengths.device)
        longest = lengths.amax(1, keepdim=True)  # of a person's batch, as if it were trained alone
        self.sampled, self.old = sampled, rollout.log_probs
        self.valued = (places <= lengths[..., None]) & (places < longest[..., None])
        self.old_values = values = self.values(rollout.states).masked_fill(~self.valued, 0.0)
        rewards = -arguments.kl_coef * rollout.kl
        end = torch.where(lengths < longest, lengths, lengths - 1)
        rewards.scatter_add_(-1, end[..., None], rollout.scores[..., None])
        advantages, following, later = torch.zeros_like(rewards), torch.zeros(()), torch.zeros(())
        for place in reversed(range(len(places))):
            error = rewards[..., place] + arguments.gamma * following - values[..., place]
            advantages[..., place] = later = error + arguments.gamma * arguments.lam * later
            following = values[..., place]
        self.returns = advantages + values
        mean = _mean(advantages, sampled)[:, None, None]
        count = sampled.sum((1, 2))
        variance = _mean((advantages - mean) ** 2, sampled) * count / (count - 1)
        self.advantages = ((advantages - mean) * torch.rsqrt(variance[:, None, None] + 1e-8)).masked_fill(~sampled, 0.0)
        return {"objective/scores": rollout.scores.mean(1), "objective/kl": rollout.kl.sum(2).mean(1)}

    def loss(self, rows: slice, log_probs: Tensor, states: Tensor) -> Mapping[str, Tensor]:
        """Equation 7 of Schulman et al. and the clipped error of the values."""
        arguments, sampled, valued = self.arguments, self.sampled[:, rows], self.valued[:, rows]
        ratio = torch.exp((log_probs - self.old[:, rows]).masked_fill(~sampled, 0.0))
        clipped = ratio.clamp(1 - arguments.cliprange, 1 + arguments.cliprange)
        policy = _mean(torch.maximum(-self.advantages[:, rows] * ratio, -self.advantages[:, rows] * clipped), sampled)
        values, old, returns = self.values(states[:, :, :-1]), self.old_values[:, rows], self.returns[:, rows]
        near = torch.clamp(values, old - arguments.cliprange_value, old + arguments.cliprange_value)
        error = 0.5 * _mean(torch.maximum((values - returns) ** 2, (near - returns) ** 2), valued)
        return {"loss": policy + arguments.vf_coef * error, "loss/policy_avg": policy}


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Of each person's masked values."""
    return (values * mask).sum((1, 2)) / mask.sum((1, 2))


class ProximalPolicyOptimization(OnPolicyAligner):
    """PPO with an adapter and the rule-based reward."""

    version = 7  # 7: dropout of the model's own is off also where it is kept as a number
    curves: ClassVar[Mapping[str, str]] = {
        "objective/scores": "reward",
        "objective/kl": "kl",
        "loss/policy_avg": "loss",
    }

    def __init__(self, *, epochs: int = 4, **settings: Any) -> None:
        super().__init__(**settings)
        if epochs < 1:
            raise ValueError(f"method.epochs={epochs}: choose 1 or more")
        self.epochs = int(epochs)

    @property
    def optimizer_steps(self) -> int:
        return self.training.steps * self.epochs

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        return super().told(rows) | {"ppo_epochs": self.epochs}

    def configuration(self, seed: int, folder: Path) -> PPOConfig:
        """TRL's settings for PPO."""
        return PPOConfig(
            **self.arguments(seed, folder),
            total_episodes=self.training.batch_size * self.training.steps,
            max_steps=self.training.steps,  # the same, for a cohort
            max_grad_norm=0.0,  # TRL's PPO clips no gradient: a cohort shall not either
            num_ppo_epochs=self.epochs,
            num_mini_batches=1,
            local_rollout_forward_batch_size=self.training.examples_at_once,
            response_length=self.max_new_tokens,
            temperature=self.temperature,
            kl_coef=self.kl_coefficient,
            stop_token="eos",
            missing_eos_penalty=None,  # the paper's reward looks at the named option alone
            num_sample_generations=0,
        )

    def objective(self, people: int) -> Objective:
        """For a cohort."""
        model = self.backbone.model
        return ClippedObjective(people, Anatomy(model).width, self.configuration(0, Path()), model.device)

    def trainer(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's trainer on the prompts, with the rule as its reward model."""
        tokenizer = self.texts.tokenizer
        options = {tuple(row["input_ids"]): int(row["option"]) for row in rows}
        policy: Any = get_peft_model(self.backbone.model, peft_config(self.peft or {}))
        reward: Any = RuleReward(tokenizer, clock.timed(self.rewards.rewards_of), options)
        value: Any = ValueHead(policy)
        trainer: Any = PPOTrainer(
            args=one_device(self.configuration(seed, folder)),
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=reward,
            train_dataset=Dataset.from_list(
                [{"input_ids": row["input_ids"]} for row in tiled(rows, least=self.training.batch_size)]
            ),
            value_model=value,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.null_ref_context = partial(adapter_off, policy)
        wrapper = trainer.accelerator.unwrap_model(trainer.model)
        wrapper.forward = partial(in_one_pass, policy, value)
        if self.training.gradient_checkpointing:  # TRL's PPO has the setting and never turns it on
            policy.enable_input_require_grads()
            wrapper.gradient_checkpointing_enable()
        trainer.dataloader.collate_fn = clock.timed(trainer.dataloader.collate_fn)
        return trainer

    def policy(self, trainer: Any) -> Any:
        """The policy alone, without the value head beside it."""
        return trainer.policy_model
