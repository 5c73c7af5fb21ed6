"""The settings that every trained method has: rate, steps, batches and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palign_bench.settings import is_number, one_of, positive, whole

if TYPE_CHECKING:
    import torch

# transformers' names. Of the latter two AdamW's moments are kept in 8 bits (Dettmers et al. 2022), and of the last in
# the computer's memory too, from where they come when they are needed; both are bitsandbytes', on a GPU.
ADAMW, ADAMW_8BIT, PAGED_ADAMW_8BIT = OPTIMIZERS = ("adamw_torch", "adamw_8bit", "paged_adamw_8bit")
SCHEDULES = ("constant", "linear", "cosine", "constant_with_warmup")


@dataclass(frozen=True)
class TrainingSettings:
    """How one person's weights are trained. Raises ValueError for a number out of its range.

    ``steps`` optimizer steps (rollouts for on-policy methods) of ``batch_size`` examples. ``micro_batch``: examples in
    one pass, whose gradients are added up to the batch's; None: the whole batch. ``warmup``: the share of the steps in
    which the learning rate rises. ``optim``: one of `OPTIMIZERS`. ``budget`` names where the numbers come from.
    """

    learning_rate: float
    batch_size: int
    steps: int
    micro_batch: int | None = None
    warmup: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "linear"
    gradient_checkpointing: bool = False
    optim: str = ADAMW
    budget: str = "custom"

    def __post_init__(self) -> None:
        positive("method.learning_rate", self.learning_rate)
        whole("method.batch_size", self.batch_size)
        whole("method.steps", self.steps)
        if self.micro_batch is not None:
            whole("method.micro_batch", self.micro_batch)
            if self.batch_size % self.micro_batch:
                raise ValueError(
                    f"method.micro_batch={self.micro_batch}: choose a divisor of method.batch_size={self.batch_size}"
                )
        if not (is_number(self.warmup) and 0 <= self.warmup <= 1):
            raise ValueError(f"method.warmup={self.warmup}: choose a share of the steps between 0 and 1")
        if not (is_number(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"method.weight_decay={self.weight_decay}: choose 0 or a positive number")
        one_of("method.schedule", self.schedule, SCHEDULES)
        one_of("method.optim", self.optim, OPTIMIZERS)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> TrainingSettings:
        """The settings of a method's file that are neither its adapter's nor its own. Raises ValueError."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(settings.keys() - set(names))
        if unknown:
            raise ValueError(
                f"method.{unknown[0]} is no setting of this method; those of training are {', '.join(names)}"
            )
        return cls(**settings)

    @property
    def warmup_steps(self) -> int:
        """Steps in which the rate rises from 0; fewer than ``steps``, since the first of them trains nothing."""
        return min(round(self.warmup * self.steps), self.steps - 1)

    @property
    def scheduler(self) -> str:
        """transformers' name of the schedule."""
        return "constant_with_warmup" if self.schedule == "constant" and self.warmup else self.schedule

    @property
    def examples_at_once(self) -> int:
        """Examples in one pass."""
        return self.micro_batch or self.batch_size

    @property
    def accumulation(self) -> int:
        """Passes whose gradients make one optimizer step."""
        return self.batch_size // self.examples_at_once

    def in_smaller_passes(self) -> TrainingSettings | None:
        """The same optimizer steps with the next smaller micro-batch; None where it is one example already."""
        smaller = [size for size in range(1, self.examples_at_once // 2 + 1) if self.batch_size % size == 0]
        return replace(self, micro_batch=smaller[-1]) if smaller else None

    def arguments(self, device: torch.device, seed: int, folder: Path) -> dict[str, Any]:
        """transformers' `TrainingArguments` of every trainer; what it or TRL would do otherwise is in brackets."""
        fused = self.optim == ADAMW and device.type in ("cpu", "cuda")  # all weights are updated at once
        return {
            "output_dir": str(folder),
            "save_strategy": "no",  # [checkpoints]
            "report_to": "none",  # [every tracker installed]; the ledger is what is tracked
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # [on: a diverged loss is logged as the mean before it]
            "disable_tqdm": True,
            "per_device_train_batch_size": self.examples_at_once,
            "gradient_accumulation_steps": self.accumulation,
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "weight_decay": self.weight_decay,
            "lr_scheduler_type": self.scheduler,
            "optim": f"{ADAMW}_fused" if fused else self.optim,
            "bf16": False,  # [autocast, on CPU too]; the weights' own type is the computing type
            "gradient_checkpointing": self.gradient_checkpointing,  # [on]
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
            "use_cpu": device.type == "cpu",
            "dataloader_pin_memory": False,
            "seed": seed,
        }
