"""What a method is told (`Case`) and what it is (`Aligner`)."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.questionnaire.inventory import Answers, Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol


@dataclass(frozen=True)
class Case:
    """What an aligner is told about one respondent. All answers are literal; a missing one is absent.

    ``known``: the answers it may use. ``selection``: answers that hyperparameters may be chosen on; under `corrected`
    a part of ``known``, under `as_released` the held-out answers. ``seed``: derived from the run's seed and the
    respondent's id; every random draw starts from it. ``missing``: known items that the method is told of and the
    person left unanswered. ``others``, ``held_out``, ``portrait``: only for aligners that declare the need.
    """

    respondent_id: str
    known: Answers
    selection: Answers
    seed: int
    missing: tuple[int, ...] = ()
    others: NDArray[Any] | None = None  # needs "people": everyone else of the source, (people, items), NaN for missing
    held_out: Answers | None = None  # needs "held_out": the person's own held-out answers (a check, no method)
    portrait: str | None = None  # needs "portrait": the released P² portrait

    @property
    def fitting(self) -> Answers:
        """The known answers without those to choose on; all of them when the selection is no part of them."""
        return {number: value for number, value in self.known.items() if number not in self.selection}


class Aligner(ABC):
    """A method: known answers in, an alignment out. It owns only its method; the runner owns everything else.

    A constructor raises ValueError for a keyword out of its range.
    """

    version: int = 1  # raise by hand when a change of the code changes the numbers
    needs: frozenset[str] = frozenset()  # of the model: its capabilities, unquantized weights; of the source: people, …
    needs_backbone: bool = True
    cohort: int = 1  # how many people `align_many` is given at once
    data_hash: str | None = None  # SHA-256 of the files that the method reads; part of a cell's identity
    measured: bool = False  # set by the runner where costs are measured: no earlier work may be taken over

    @property
    def block(self) -> str:
        """The block of the table in which its rows stand, a key of `report.names.BLOCKS`; ``block:`` of a YAML wins."""
        return "people_methods" if "people" in self.needs else "methods"

    backbone: Backbone  # from `prepare` on; absent where ``needs_backbone`` is False
    protocol: EvaluationProtocol
    inventory: Inventory

    def exists_for(self, inventory: Inventory) -> bool:
        """Whether the row makes sense for this inventory; where not, it is left out of the table."""
        return True

    def check_inventory(self, inventory: Inventory) -> None:
        """Raise UserError for an inventory that the method cannot serve; called before anything is loaded."""
        return

    def notes(self, people: Collection[str]) -> Sequence[str]:
        """What the table says about its rows, beside a source of people with these ids; after `check_inventory`.

        Notes may leave the machine: no ids in them. Raises UserError for people of whom it can serve nobody.
        """
        return ()

    def check_shape(self, layers: int, heads: int) -> None:
        """Raise UserError for a setting that no model of this shape can serve; called before weights are loaded."""
        return

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        """Work shared by all respondents; called once before `align`, timed as shared cost.

        ``backbone`` is None for an aligner that declares to need none.
        """
        if backbone is not None:
            self.backbone = backbone
        self.protocol = protocol
        self.inventory = protocol.inventory

    @abstractmethod
    def align(self, case: Case) -> Alignment:
        """Work for one respondent, timed as marginal cost."""

    def warm_up(self, case: Case) -> None:
        """Run once, before costs are measured, what a first `align` pays extra for; a long method does less."""
        self.align(case)

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        """Align several respondents; a method that can align a cohort at once overrides this and sets ``cohort``."""
        return [self.align(case) for case in cases]
