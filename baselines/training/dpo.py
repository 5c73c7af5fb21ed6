"""DPO (Rafailov et al. 2023; paper, C.2): the person's option is preferred to the opposite one.

"If a subject's labeled answer is 'Very Accurate,' the negative sample would be 'Very Inaccurate.'" Neutral answers have
no opposite and are left out. The reference policy is the same model with its adapter off, read once for all steps.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import TrainingArguments
from trl import DPOConfig

from baselines.training.aligner import TrainedAligner
from baselines.training.cohort import Person, batches
from baselines.training.reference import Reference
from baselines.training.trainers import Loss, PreferenceTrainer
from baselines.training.tree import Passage, text_sums
from palign_bench.settings import positive


class DirectPreferenceOptimization(TrainedAligner):
    """DPO with an adapter on pairs (the person's option, its opposite).

    The summary holds both answers' log-probabilities: where the preferred one falls too, only less than the other, DPO
    moves probability to answers that nobody gave (displacement; Razin et al. 2024).
    """

    version = 7  # 7: dropout of the model's own is off also where it is kept as a number
    takes_cohorts = True
    turns_dropout_off = True
    kind = PreferenceTrainer
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
        positive("method.beta", beta)
        self.beta = float(beta)

    def examples(self, known: Mapping[int, int]) -> list[tuple[Passage, Passage]]:
        """The dialogue with the preferred answer, and with the rejected one."""
        rows = []
        for number, value in known.items():
            opposite = int(self.inventory.reverse(value))
            if opposite != value:
                texts = self.texts.items[number]
                preferred, rejected = (texts.turn + texts.answers[each] for each in (value, opposite))
                rows.append((Passage(preferred, len(texts.turn)), Passage(rejected, len(texts.turn))))
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
            remove_unused_columns=False,
        )

    def loss(self, people: Sequence[Person], arguments: TrainingArguments) -> Loss:
        """Equation 7 of Rafailov et al.; the reference's log-probabilities are read once, here."""
        settings: Any = arguments
        if list(settings.loss_type) != ["sigmoid"] or settings.label_smoothing:
            raise ValueError("the loss is DPO's own (sigmoid) alone")
        beta, reference = settings.beta, self._reference(people)

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

        return loss

    def _reference(self, people: Sequence[Person]) -> Tensor:
        """The bare model's log-probabilities ``(people, most examples, 2)`` of what is trained on, else NaN."""
        size, steps = self.training.batch_size, self.training.steps
        used = [
            sorted({n for batch in islice(batches(len(p.examples), size, p.seed), steps) for n in batch})
            for p in people
        ]
        reference = torch.full((len(people), max(len(person.examples) for person in people), 2), torch.nan)
        for own, person, numbers in zip(reference, people, used, strict=True):  # apart: in passes that are theirs alone
            texts = [passage for number in numbers for passage in person.examples[number]]
            read = Reference(self.backbone.model, 2 * self.training.examples_at_once).log_probs(texts)
            own[numbers] = text_sums(torch.cat(read), [len(each) for each in read]).view(-1, 2).cpu()
        return reference.to(self.backbone.model.device)
