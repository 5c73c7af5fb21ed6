"""What a method is told (`Case`) and what it is (`Aligner`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from palign_bench.questionnaire.inventory import Answers, Inventory

if TYPE_CHECKING:
    pass
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone


@dataclass(frozen=True)
class Case:
    """What an aligner is told about one respondent.

    ``known``: the answers it may use, in the protocol's orientation (`corrected`: literal, missing absent;
    `as_released`: as stored, missing is 0). ``selection``: answers that hyperparameters may be chosen on; under
    `corrected` they are part of ``known``, under `as_released` they are the held-out answers.
    ``seed``: derived from the run's seed and the respondent's id; every random draw starts from it.
    ``others``, ``truth``, ``portrait``: only for aligners that declare the need.
    """

    respondent_id: str
    known: Answers
    selection: Answers
    seed: int
    others: Sequence[Answers] | None = None  # needs "people": all answers of every other respondent of the source
    truth: Answers | None = None  # needs "truth": the person's own held-out literal answers (a check, no method)
    portrait: str | None = None  # needs "portrait": the released P² portrait

    @property
    def fitting(self) -> Answers:
        """The known answers without those to choose on; all of them when the selection is no part of them."""
        return {number: value for number, value in self.known.items() if number not in self.selection}


class Aligner(ABC):
    """A method: known answers in, an alignment out. It owns only its method; the runner owns everything else."""

    version: ClassVar[int] = 1  # raise by hand when a change of the code changes the numbers
    needs: frozenset[str] = frozenset()  # of the backbone: its capabilities; of the source: people, truth, portrait
    needs_backbone: bool = True
    cohort: int = 1  # how many people `align_many` is given at once

    def check_shape(self, layers: int, heads: int) -> None:
        """Raise UserError for a setting that no model of this shape can serve; called before weights are loaded."""
        return

    def prepare(self, backbone: Backbone | None, inventory: Inventory) -> None:
        """Work shared by all respondents; called once before `align`, timed as shared cost."""
        self.backbone = cast(Backbone, backbone)  # None only for an aligner that declares to need none
        self.inventory = inventory

    @abstractmethod
    def align(self, case: Case) -> Alignment:
        """Work for one respondent, timed as marginal cost."""

    def warm_up(self, case: Case) -> None:
        """Run once, before costs are measured, what a first `align` pays extra for; a long method does less."""
        self.align(case)

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        """Align several respondents; a method that can align a cohort at once overrides this and sets ``cohort``."""
        return [self.align(case) for case in cases]
