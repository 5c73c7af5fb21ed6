"""Trained methods that can take several people in one pass (``training.cohort=N``); TRL one by one is the default."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from baselines.training.aligner import Lora, TrainedAligner, whole
from baselines.training.cohort import Passage, Person, Recipe, Trained
from baselines.training.session import TrainingClock, training_session
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError

SEEDS = 2**31  # what the libraries take


class CohortAligner(TrainedAligner):
    """``cohort`` people are trained at once; with 1, TRL's trainer trains them one by one.

    Raises ValueError for a keyword out of its range.
    """

    def __init__(self, *, cohort: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        whole("cohort", cohort)
        self.cohort = int(cohort)
        if self.cohort > 1 and self.gradient_checkpointing:
            raise ValueError(
                "training.cohort and method.gradient_checkpointing exclude each other: recomputing draws dropout anew"
            )

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """As for one person. Raises UserError for a model whose logits a cohort would compute wrongly."""
        super().prepare(backbone, protocol)
        config = self.local.model.config
        for name in ("logits_scaling", "logit_scale", "final_logit_softcapping"):
            if self.cohort > 1 and getattr(config, name, None) not in (None, 1, 1.0):
                raise UserError(f"training.cohort={self.cohort}: the model has {name}; use training.cohort=1.")

    @property
    @abstractmethod
    def adapter(self) -> Lora:
        """What is trained for each person of a cohort."""

    @abstractmethod
    def passages(self, rows: list[dict[str, Any]]) -> list[tuple[Passage, ...]]:
        """The rows of `examples` for `train_many`."""

    @abstractmethod
    def train_many(self, people: Sequence[Person], clock: TrainingClock) -> list[Trained]:
        """Train several people's adapters in one pass."""

    def align(self, case: Case) -> Alignment:
        """Train on one person's known answers; one left over of a cohort is trained as the others were."""
        return super().align(case) if self.cohort == 1 else self.align_many([case])[0]

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        """Train several people. Who has no usable answer gets the bare model, with a reason."""
        if self.cohort == 1:
            return [self.align(case) for case in cases]
        rows = [self.examples(self.labels(case)) for case in cases]
        alignments = [Alignment(summary=self.told(each)) for each in rows]
        trained = [index for index, each in enumerate(rows) if each]
        people = [Person(self.passages(rows[index]), cases[index].seed % SEEDS) for index in trained]
        if not people:
            return alignments
        with training_session(self.local.model, self.steps, type(self).__name__) as (clock, _):
            adapters = self.train_many(people, clock)
        clock.charge_steps(self.optimizer_steps * len(people))
        shared = clock.share(len(people)) | {"cohort": len(people)}
        for index, each in zip(trained, adapters, strict=True):
            summary = self.told(rows[index]) | self.curves_of(each.logs) | shared
            alignments[index] = self.adapter_alignment(each.adapter, self.adapter, summary)
        return alignments

    def recipe(self) -> Recipe:
        """The settings of a cohort: those of TRL's trainers."""
        texts = self.texts.items.values()
        return Recipe(
            lora=self.adapter.config(),
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            length=max(len(each.turn) + len(answer) for each in texts for answer in each.answers.values()),
        )
