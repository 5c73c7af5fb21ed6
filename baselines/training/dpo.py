"""DPO (Rafailov et al. 2023; paper, C.2): the person's option is preferred to the opposite one.

"If a subject's labeled answer is 'Very Accurate,' the negative sample would be 'Very Inaccurate.'" Neutral answers have
no opposite and are left out. The reference policy is the same model with its adapter off; its log-probabilities are
read once for all steps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import disable_dropout_in_model

from baselines.training.aligner import TrainedAligner, one_device
from baselines.training.cohort import Passage, Person, Recipe, Trained, answer_log_probs, train_cohort
from baselines.training.session import TrainingClock
from palign_bench.backbone.parts.adapters import peft_config


class DPOTrainerOfTokens(DPOTrainer):
    """TRL's trainer, its rows taken as tokenized: tokens are made once per run, and are those that will be asked."""

    _pairs_in_step = 0
    _passes_in_step = 1

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The reference's log-probabilities as two columns; TRL would hash all weights first and leave a file."""
        found: list[Tensor] = []
        for start in range(0, len(dataset), batch_size):
            rows = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
            inputs = self._prepare_inputs(self.data_collator(rows))
            found.append(torch.stack(self.compute_ref_log_probs(self.model, inputs), dim=1).cpu())
        chosen, rejected = torch.cat(found).float().T.tolist()
        return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> Any:
        """The micro-batches of one optimizer step; how many pairs they hold is kept for the loss."""
        samples, items = super().get_batch_samples(*arguments, **options)
        self._pairs_in_step = sum(len(each["input_ids"]) // 2 for each in samples)
        self._passes_in_step = max(len(samples), 1)
        return samples, items

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """TRL's loss, weighted so that a short last micro-batch does not count for more than its pairs."""
        loss = super().compute_loss(model, inputs, *arguments, **options)
        assert not isinstance(loss, tuple), "outputs are asked for in evaluation alone"
        return loss * (len(inputs["input_ids"]) // 2 * self._passes_in_step / self._pairs_in_step)


class DirectPreferenceOptimization(TrainedAligner):
    """DPO with an adapter on pairs (the person's option, its opposite).

    Raises ValueError for a keyword out of its range. The summary holds both answers' log-probabilities: where the
    preferred one falls too, only less than the other, DPO moves probability to answers that nobody gave (displacement;
    Razin et al. 2024).
    """

    version = 2
    takes_cohorts = True
    curves: ClassVar[Mapping[str, str]] = {
        "loss": "loss",
        "rewards/margins": "margin",
        "rewards/accuracies": "pair_accuracy",
        "logps/chosen": "chosen_log_prob",
        "logps/rejected": "rejected_log_prob",
        "rewards/chosen": "chosen_reward",
        "rewards/rejected": "rejected_reward",
    }

    def __init__(self, peft: Mapping[str, Any], beta: float = 0.1, **settings: Any) -> None:
        super().__init__(peft=peft, **settings)
        if not beta > 0:
            raise ValueError(f"method.beta={beta}: choose a positive number")
        self.beta = float(beta)

    def examples(self, known: Mapping[int, int]) -> list[dict[str, Any]]:
        """Token ids of the dialogue, of the preferred answer and of the rejected one."""
        rows = []
        for number, value in known.items():
            opposite = int(self.inventory.reverse(value))
            if opposite != value:
                texts = self.texts.items[number]
                chosen, rejected = texts.answers[value], texts.answers[opposite]
                rows.append({"prompt_ids": texts.turn, "chosen_ids": chosen, "rejected_ids": rejected})
        return rows

    def told(self, rows: Sequence[Any]) -> dict[str, Any]:
        return super().told(rows) | {"beta": self.beta, "pairs": len(rows)}

    def curves_of(self, logs: Mapping[str, list[float]]) -> dict[str, Any]:
        """As for every method; and by how many nats both answers' log-probabilities changed, over the last fifth."""
        found = super().curves_of(logs)
        for which in ("chosen", "rejected"):
            late = logs[f"rewards/{which}"][-max(1, self.training.steps // 5) :]
            found[f"{which}_change"] = sum(late) / len(late) / self.beta
        return found

    def configuration(self, seed: int, folder: Path) -> DPOConfig:
        """TRL's settings for DPO; it turns dropout off by itself."""
        return DPOConfig(
            **self.arguments(seed, folder),
            max_steps=self.training.steps,
            beta=self.beta,
            max_length=None,  # [1024, cut from the end, where the answer stands]
            precompute_ref_log_probs=True,  # [in every step]
        )

    def trainer(self, rows: list[dict[str, Any]], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's trainer on the pairs."""
        trainer = DPOTrainerOfTokens(
            model=self.local.model,
            ref_model=None,
            args=one_device(self.configuration(seed, folder)),
            train_dataset=Dataset.from_list(rows),
            processing_class=self.texts.tokenizer,
            peft_config=peft_config(self.peft or {}),
            callbacks=[clock],
        )
        trainer.data_collator = clock.timed(trainer.data_collator)
        return trainer

    def passages(self, rows: list[dict[str, Any]]) -> list[tuple[Passage, ...]]:
        """The dialogue with the preferred answer, and with the rejected one."""

        def passage(row: dict[str, Any], answer: str) -> Passage:
            return Passage(row["prompt_ids"] + row[answer], len(row["prompt_ids"]))

        return [(passage(row, "chosen_ids"), passage(row, "rejected_ids")) for row in rows]

    def train_many(self, people: Sequence[Person], recipe: Recipe, clock: TrainingClock) -> list[Trained]:
        """Equation 7 of Rafailov et al.; the reference's log-probabilities are read once for everyone."""
        configuration: Any = recipe.arguments
        if list(configuration.loss_type) != ["sigmoid"] or configuration.label_smoothing:
            raise ValueError("a cohort has DPO's own loss (sigmoid) alone")
        if configuration.disable_dropout:
            disable_dropout_in_model(self.local.model)
        beta, reference = configuration.beta, self._reference(people, recipe)

        def loss(log_probs: Tensor, chosen: Tensor, weights: Tensor) -> dict[str, Tensor]:
            rows = torch.arange(len(people), device=chosen.device)[:, None]
            rewards = beta * (log_probs - reference[rows, chosen])  # (people, batch, 2)
            margins = rewards[..., 0] - rewards[..., 1]
            values = {
                "loss": -logsigmoid(margins),
                "rewards/margins": margins,
                "rewards/accuracies": (margins > 0).float(),
                **{f"logps/{which}": log_probs[..., i] for i, which in enumerate(("chosen", "rejected"))},
                **{f"rewards/{which}": rewards[..., i] for i, which in enumerate(("chosen", "rejected"))},
            }
            return {name: (value * weights).sum(1) for name, value in values.items()}

        return train_cohort(self.local.model, people, loss, recipe, clock)

    def _reference(self, people: Sequence[Person], recipe: Recipe) -> Tensor:
        """The bare model's log-probabilities of the answers ``(people, most examples, 2)``, each text read once."""
        texts = {(*p.ids, p.start): p for person in people for example in person.examples for p in example}
        keys, size = list(texts), 2 * recipe.examples_at_once
        parts = [[texts[key] for key in keys[start : start + size]] for start in range(0, len(keys), size)]
        with torch.no_grad():
            found = torch.cat([answer_log_probs(self.local.model, part, recipe.length) for part in parts]).cpu()
        row = {key: index for index, key in enumerate(keys)}
        most = max(len(person.examples) for person in people)
        reference = torch.zeros(len(people), most, 2)
        for index, person in enumerate(people):
            own = [[row[(*p.ids, p.start)] for p in example] for example in person.examples]
            reference[index, : len(own)] = found[torch.tensor(own)]
        return reference.to(self.local.model.device)
