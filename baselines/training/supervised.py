"""LoRA, QLoRA, full fine-tuning and prompt-tuning: supervised on the known answers.

Paper, E.4: the parameter-efficient comparison, "based on a batch size of 8 and a total sample size of 120". The loss is
on the answer alone. QLoRA is LoRA on a backbone in NF4 (``method.quantization``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from trl import SFTConfig

from baselines.training.aligner import TrainedAligner
from baselines.training.cohort import Person
from baselines.training.session import TrainingClock
from baselines.training.trainers import Loss, SupervisedTrainer
from baselines.training.tree import Passage


class SupervisedFineTuning(TrainedAligner):
    """Supervised fine-tuning of any adapter that PEFT has (``peft``: its configuration), or of all weights (null).

    Full fine-tuning keeps float32 copies of bfloat16 weights, so that small updates count.
    """

    version = 6
    takes_cohorts = True
    per_token = True
    kind = SupervisedTrainer

    def __init__(self, *, peft: Mapping[str, Any] | None, **settings: Any) -> None:
        super().__init__(peft=peft, **settings)
        if self._places_itself:
            self.version = 7  # of a soft prompt; 7: the model's own logits, also where it scales them

    def examples(self, known: Mapping[int, int]) -> list[tuple[Passage]]:
        """The dialogue with its answer."""
        texts = ((self.texts.items[number], value) for number, value in known.items())
        return [(Passage(each.turn + each.answers[value], len(each.turn)),) for each, value in texts]

    def configuration(self, seed: int, folder: Path) -> SFTConfig:
        """TRL's settings for supervised training."""
        return SFTConfig(
            **self.arguments(seed, folder),
            max_steps=self.training.steps,
            # The rows are tokenized and labelled: nothing to prepare, and nothing that max_length [1024] could cut.
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            loss_type="nll",  # [chunked_nll]; it is computed here, on the answers alone
            remove_unused_columns=False,
        )

    def trainer(self, rows: list[tuple[Passage]], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's supervised trainer."""
        trainer = super().trainer(rows, seed, clock, folder)
        trainer.has_soft_prompt = self._places_itself
        return trainer

    def loss(self, people: Sequence[Person], arguments: TrainingArguments) -> Loss:
        """The mean over the batch's answer tokens, person by person."""
        return lambda log_probs, _, weights: {"loss": -(log_probs.sum(-1) * weights).sum(1)}
