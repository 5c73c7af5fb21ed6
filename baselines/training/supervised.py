"""LoRA, QLoRA, full fine-tuning and prompt-tuning: supervised on the known answers.

Paper, E.4: the parameter-efficient comparison, "based on a batch size of 8 and a total sample size of 120". The loss is
on the answer alone. QLoRA is LoRA on a backbone in NF4 (``method.quantization``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

from baselines.training.aligner import TrainedAligner
from baselines.training.cohort import Person
from baselines.training.session import TrainingClock
from baselines.training.trainers import Loss, SupervisedTrainer, one_device
from baselines.training.tree import Passage
from palign_bench.backbone.parts.adapters import peft_config


class SupervisedFineTuning(TrainedAligner):
    """Supervised fine-tuning of any adapter that PEFT has (``peft``: its configuration), or of all weights (null).

    Full fine-tuning keeps float32 copies of bfloat16 weights, so that small updates count.
    """

    version = 6
    takes_cohorts = True
    per_token = True
    kind = SupervisedTrainer

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
            # The same loss; of a soft prompt's texts the vocabulary's logits are computed for the answers alone.
            loss_type="chunked_nll" if self._places_itself else "nll",
            remove_unused_columns=self._places_itself,
        )

    def trainer(self, rows: list[tuple[Passage]], seed: int, clock: TrainingClock, folder: Path) -> Any:
        """TRL's supervised trainer; a soft prompt stands before each text, so that texts are padded."""
        if not self._places_itself:
            return super().trainer(rows, seed, clock, folder)
        labelled = [{"input_ids": text.ids, "labels": [-100] * text.start + text.ids[text.start :]} for (text,) in rows]
        trainer = SFTTrainer(
            model=self.backbone.model,
            args=one_device(self.configuration(seed, folder)),
            train_dataset=Dataset.from_list(labelled),
            processing_class=self.texts.tokenizer,
            peft_config=peft_config(self.peft or {}),
            callbacks=[clock],
        )
        trainer.data_collator = clock.timed(trainer.data_collator)
        return trainer

    def loss(self, people: Sequence[Person], arguments: TrainingArguments) -> Loss:
        """The mean over the batch's answer tokens, person by person."""
        return lambda log_probs, _, weights: {"loss": -(log_probs.sum(-1) * weights).sum(1)}
