"""DPO (Rafailov et al. 2023; paper, C.2): the person's option is preferred to the opposite one.

"If a subject's labeled answer is 'Very Accurate,' the negative sample would be 'Very Inaccurate.'" Neutral answers have
no opposite and are left out. The reference policy is the same model with its adapter off.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from baselines.training.aligner import TrainedAligner, in_float32, lora_of, one_device
from baselines.training.session import TrainingClock
from palign_bench.alignment import Alignment
from palign_bench.inventory import HIGHEST, LOWEST


class DPOTrainerOfTokens(DPOTrainer):
    """TRL's trainer, its rows taken as tokenized: tokens are made once per run, and are those that will be asked."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class DirectPreferenceOptimization(TrainedAligner):
    """DPO with LoRA on pairs (the person's option, its opposite). Raises ValueError for a keyword out of its range."""

    version = 1
    curves: ClassVar[Mapping[str, str]] = {
        "loss": "loss",
        "rewards/margins": "margin",
        "rewards/accuracies": "pair_accuracy",
    }

    def __init__(self, lora: Mapping[str, Any], beta: float = 0.1, **settings: Any) -> None:
        super().__init__(**settings)
        self.lora = lora_of(lora)
        if not beta > 0:
            raise ValueError(f"method.beta={beta}: choose a positive number")
        self.beta = float(beta)

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """Token ids of the dialogue, of the preferred answer and of the rejected one."""
        rows = []
        for number, value in known.items():
            opposite = LOWEST + HIGHEST - value
            if opposite != value:
                texts = self.texts.items[number]
                chosen, rejected = texts.answers[value], texts.answers[opposite]
                rows.append({"prompt_ids": texts.turn, "chosen_ids": chosen, "rejected_ids": rejected})
        return rows

    def train(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Alignment:
        arguments = DPOConfig(
            **self.arguments(seed, folder),
            max_steps=self.steps,
            beta=self.beta,
            max_length=None,  # [1024, cut from the end, where the answer stands]
        )
        trainer = DPOTrainerOfTokens(
            model=self.local.model,
            ref_model=None,
            args=one_device(arguments),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.texts.tokenizer,
            peft_config=self.lora.config(),
            callbacks=[clock],
        )
        trainer.data_collator = clock.timed(trainer.data_collator)
        in_float32(trainer.model)
        trainer.train()
        return self.lora_alignment(trainer.model, self.lora, {"beta": self.beta, "pairs": len(rows)})
