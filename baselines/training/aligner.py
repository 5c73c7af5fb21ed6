"""What all trained methods share: settings, the way from a person's answers to an alignment, and its summary."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoraConfig

from baselines.training.session import TrainingClock, thinned, training_session
from baselines.training.texts import TrainingTexts
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.adapters import lora_tensors
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError

SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation (Hu et al. 2021); with an NF4 backbone, QLoRA (Dettmers et al. 2023)."""

    rank: int
    alpha: float
    dropout: float
    target_modules: str | Sequence[str]

    def config(self) -> LoraConfig:
        """PEFT's settings."""
        targets = self.target_modules
        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            bias="none",
            task_type="CAUSAL_LM",
        )

    def settings(self) -> dict[str, Any]:
        """What `palign_bench.backbone.parts.adapters` needs to put the tensors on again."""
        targets = self.target_modules
        return {
            "rank": self.rank,
            "alpha": self.alpha,
            "target_modules": targets if isinstance(targets, str) else list(targets),
        }


class TrainedAligner(Aligner):
    """A method that trains weights on one person's known answers.

    ``steps`` optimizer steps (rollouts for PPO) of ``batch_size`` examples; ``warmup`` is the share of the steps in
    which the learning rate rises, so that it scales with the budget; ``budget`` names where the steps come
    from. Raises ValueError for a keyword out of its range.
    """

    needs = frozenset({"prompt", "gradients"})

    def __init__(
        self,
        *,
        learning_rate: float,
        batch_size: int,
        steps: int,
        warmup: float = 0.0,
        weight_decay: float = 0.0,
        schedule: str = "linear",
        gradient_checkpointing: bool = False,
        budget: str = "custom",
    ) -> None:
        positive("learning_rate", learning_rate)
        whole("batch_size", batch_size)
        whole("steps", steps)
        if not (_is_number(warmup) and 0 <= warmup <= 1):
            raise ValueError(f"method.warmup={warmup}: choose a share of the steps between 0 and 1")
        if not (_is_number(weight_decay) and weight_decay >= 0):
            raise ValueError(f"method.weight_decay={weight_decay}: choose 0 or a positive number")
        if schedule not in SCHEDULES:
            raise ValueError(f"method.schedule={schedule}: choose one of {', '.join(SCHEDULES)}")
        self.learning_rate = float(learning_rate)
        self.batch_size = int(batch_size)
        self.steps = int(steps)
        self.warmup = float(warmup)
        self.weight_decay = float(weight_decay)
        self.schedule = "constant_with_warmup" if schedule == "constant" and warmup else schedule
        self.gradient_checkpointing = gradient_checkpointing
        self.budget = budget

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """Tokenize the known items once for all people. Raises UserError for a GPU that the trainers would not use."""
        super().prepare(backbone, protocol)
        assert isinstance(backbone, LocalBackbone), "training needs a model in this process"
        if backbone.model.device.index:
            raise UserError(
                f"model.device={backbone.model.device}: the trainers use the first visible GPU; set "
                f"CUDA_VISIBLE_DEVICES={backbone.model.device.index} and model.device=cuda."
            )
        self.local = backbone
        self.texts = TrainingTexts.of(backbone)

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup * self.steps)

    def labels(self, case: Case) -> dict[int, int]:
        """The option that stands beside each answered known item, as the protocol labels it."""
        return {number: int(value) for number, value in self.protocol.orient(case.known).items()}

    @abstractmethod
    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """The training rows made from the answered known items; none where the method can learn nothing from them."""

    @abstractmethod
    def train(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Alignment:
        """Train on the model and return its trained tensors; the caller takes them off the model again."""

    def align(self, case: Case) -> Alignment:
        """Train on one person's known answers. Without a usable one the alignment is the bare model, with a reason."""
        rows = self.examples(self.labels(case))
        told = self.told(rows)
        if not rows:
            return Alignment(summary=told)
        seed = case.seed % 2**31  # what the libraries take
        torch.manual_seed(seed)
        with training_session(self.local.model, self.steps, type(self).__name__) as (clock, folder):
            trained = self.train(rows, seed, clock, folder)
        clock.charge_steps(self.optimizer_steps)
        summary = told | dict(trained.summary) | self.curves_of(clock.logs) | clock.summary()
        return replace(trained, summary=summary)

    def warm_up(self, case: Case) -> None:
        """One step on the person's answers."""
        once = copy.copy(self)
        once.steps = 1
        once.align(case)

    @property
    def optimizer_steps(self) -> int:
        """How often the optimizer moves the weights."""
        return self.steps

    curves: ClassVar[Mapping[str, str]] = {"loss": "loss"}  # what the trainer logs, and how the summary calls it

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        """What the summary says before any training, with the reason where there is nothing to train on."""
        reason = {} if rows else {"reason": "no known answer to learn from"}
        return reason | {
            "budget": self.budget,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "examples": len(rows),
        }

    def curves_of(self, logs: Mapping[str, list[float]]) -> dict[str, Any]:
        """First and last value and a thinned curve of each. Raises FloatingPointError when one is not finite."""
        found: dict[str, Any] = {}
        for logged, name in self.curves.items():
            values = logs.get(logged)
            if not values:
                continue
            if not all(map(math.isfinite, values)):
                raise FloatingPointError(f"training diverged: {name} is not finite; lower method.learning_rate")
            found |= {f"first_{name}": values[0], f"last_{name}": values[-1], f"{name}_curve": thinned(values)}
        return found

    def arguments(self, seed: int, folder: Path) -> dict[str, Any]:
        """The trainer's settings that all methods share; what TRL or transformers would do otherwise is in brackets."""
        return {
            "output_dir": str(folder),
            "save_strategy": "no",  # [checkpoints]
            "report_to": "none",  # [every tracker installed]; the ledger is what is tracked
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # [on: a diverged loss is logged as the mean before it]
            "disable_tqdm": True,
            "per_device_train_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.weight_decay,
            "lr_scheduler_type": self.schedule,
            "optim": "adamw_torch",
            "bf16": False,  # [autocast, on CPU too]; the weights' own type is the computing type
            "gradient_checkpointing": self.gradient_checkpointing,  # [on]
            "use_cpu": self.local.model.device.type == "cpu",
            "dataloader_pin_memory": False,
            "seed": seed,
        }

    def lora_alignment(self, model: Any, lora: Lora, summary: Mapping[str, Any]) -> Alignment:
        """The alignment that a PEFT model's LoRA tensors make."""
        return self.adapter_alignment(lora_tensors(model), lora, summary)

    def adapter_alignment(
        self, tensors: Mapping[str, torch.Tensor], lora: Lora, summary: Mapping[str, Any]
    ) -> Alignment:
        """The alignment that LoRA tensors by PEFT's names make."""
        return Alignment(
            adapter=tensors,
            adapter_kind="lora",
            adapter_settings=lora.settings(),
            trained_parameters=sum(tensor.numel() for tensor in tensors.values()),
            summary=summary,
        )


def one_device(arguments: Any) -> Any:
    """Keep the trainer on the model's device: on several GPUs it would wrap the model in DataParallel."""
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def in_float32(model: Any) -> None:
    """Train the adapter in float32: TRL turns it to bfloat16 on a 4-bit model, where small steps round to nothing."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def lora_of(settings: Mapping[str, Any] | None) -> Lora:
    """The ``lora`` block of a method. Raises ValueError for an unknown key or a value out of range."""
    try:
        lora = Lora(**dict(settings or {}))
    except TypeError as error:
        raise ValueError(f"method.lora: {error}; give rank, alpha, dropout, target_modules") from error
    whole("lora.rank", lora.rank)
    positive("lora.alpha", lora.alpha)
    if not (_is_number(lora.dropout) and 0 <= lora.dropout < 1):
        raise ValueError(f"method.lora.dropout={lora.dropout}: choose a number from 0 up to, but not, 1")
    return lora


def tiled(rows: list[dict[str, Any]], least: int) -> list[dict[str, Any]]:
    """The rows, repeated until there are at least ``least``: TRL drops a last batch that is not full."""
    return [rows[i % len(rows)] for i in range(max(len(rows), least))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def positive(key: str, value: object) -> None:
    if not _is_number(value) or value <= 0:  # type: ignore[operator]
        raise ValueError(f"method.{key}={value}: choose a positive number")


def whole(key: str, value: object) -> None:
    if not _is_number(value) or value != int(value) or value < 1:  # type: ignore[call-overload,operator]
        raise ValueError(f"method.{key}={value}: choose a whole number, 1 or more")
