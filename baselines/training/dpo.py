"""DPO (Rafailov et al. 2023; paper, C.2): the person's option is preferred to the opposite one.

"If a subject's labeled answer is 'Very Accurate,' the negative sample would be 'Very Inaccurate.'" Neutral answers have
no opposite and are left out. The reference policy is the same model with its adapter off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer

from baselines.training.aligner import Lora, in_float32, lora_of, one_device
from baselines.training.cohort import Passage, Person, Recipe, Trained, answer_log_probs, train_cohort
from baselines.training.cohort_aligner import CohortAligner
from baselines.training.session import TrainingClock
from palign_bench.backbone.alignment import Alignment
from palign_bench.questionnaire.inventory import HIGHEST, LOWEST


class DPOTrainerOfTokens(DPOTrainer):
    """TRL's trainer, its rows taken as tokenized: tokens are made once per run, and are those that will be asked."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class DirectPreferenceOptimization(CohortAligner):
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

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        return super().told(rows) | {"beta": self.beta, "pairs": len(rows)}

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
        return self.lora_alignment(trainer.model, self.lora, {})

    @property
    def adapter(self) -> Lora:
        return self.lora

    def passages(self, rows: list[dict[str, Any]]) -> list[tuple[Passage, ...]]:
        """The dialogue with the preferred answer, and with the rejected one."""

        def passage(row: dict[str, Any], answer: str) -> Passage:
            return Passage(row["prompt_ids"] + row[answer], len(row["prompt_ids"]))

        return [(passage(row, "chosen_ids"), passage(row, "rejected_ids")) for row in rows]

    def train_many(self, people: Sequence[Person], clock: TrainingClock) -> list[Trained]:
        """Equation 7 of Rafailov et al.; the reference's log-probabilities are read once for everyone."""
        recipe = self.recipe()
        reference = self._reference(people, recipe)

        def loss(log_probs: Tensor, _: Tensor, chosen: Tensor, counts: Tensor) -> dict[str, Tensor]:
            rows = torch.arange(len(people), device=chosen.device)[:, None]
            rewards = self.beta * (log_probs - reference[rows, chosen])  # (people, batch, 2)
            margins = rewards[..., 0] - rewards[..., 1]
            right = (margins > 0).float()
            values = {"loss": -logsigmoid(margins), "rewards/margins": margins, "rewards/accuracies": right}
            return {name: (value * counts).sum(1) / counts.sum(1) for name, value in values.items()}

        return train_cohort(self.local.model, people, loss, recipe, clock)

    def _reference(self, people: Sequence[Person], recipe: Recipe) -> Tensor:
        """The bare model's log-probabilities of the answers ``(people, most examples, 2)``, each text read once."""
        texts = {(*p.ids, p.start): p for person in people for example in person.examples for p in example}
        keys, size = list(texts), 2 * self.batch_size
        parts = [[texts[key] for key in keys[start : start + size]] for start in range(0, len(keys), size)]
        with torch.no_grad():
            found = torch.cat([answer_log_probs(self.local.model, part, recipe.length)[0] for part in parts]).cpu()
        row = {key: index for index, key in enumerate(keys)}
        most = max(len(person.examples) for person in people)
        reference = torch.zeros(len(people), most, 2)
        for index, person in enumerate(people):
            own = [[row[(*p.ids, p.start)] for p in example] for example in person.examples]
            reference[index, : len(own)] = found[torch.tensor(own)]
        return reference.to(self.local.model.device)
