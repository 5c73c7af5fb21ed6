"""One cell: align, answer, score, with what it cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.base import Backbone
from palign_bench.backbone.engines.out_of_memory import AGAIN, within_memory
from palign_bench.costs.clock import Cost, measure
from palign_bench.costs.figures import cell_costs
from palign_bench.costs.memory import MemoryLevel
from palign_bench.costs.repeats import median_cost
from palign_bench.ledger.plan import Row
from palign_bench.ledger.record import Record
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.questionnaire.protocol import audit_items
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from palign_bench.run.answers import Answered, AnswerMemo
from palign_bench.run.case import Cases, seed_everything
from palign_bench.run.job import Job
from palign_bench.run.progress import say

Result = TypeVar("Result")
FAILURES = (Exception, SystemExit)  # that end a cell, and no other


class MethodError(RuntimeError):
    """A method does not keep to what `Aligner` asks of it."""


@dataclass(frozen=True)
class Aligned:
    """An alignment, what it cost, and the answers where they are there already."""

    alignment: Alignment
    cost: Cost
    answered: Answered | None = None


class RowWorker:
    """Computes cells of one row, one person at a time (what several share: `palign_bench.run.cohort`)."""

    def __init__(self, job: Job, row: Row, backbone: Backbone | None, bare: MemoryLevel, answers: AnswerMemo):
        self.job = job
        self.row = row
        self.aligner = job.aligners[row.name]
        self.answers = answers
        self.backbone = backbone
        self.bare = bare
        self.cases = Cases(job)
        self.batch_divisor = 1  # of the positions in one forward pass; above 1 only while memory runs out
        inventory = job.protocol.inventory
        self.items = inventory.select(job.asked)
        needless = job.protocol.reading.generates or job.variant is not None  # every answer is generated, or few asked
        self.audit = [] if needless else audit_items(inventory)

    def _within_memory(self, person: str, work: Callable[[], Result]) -> Result:
        """``work()``; where memory runs out, again in smaller batches, which the record's ``batch_divisor`` tells."""
        if self.backbone is None:
            return work()

        def attempt(divisor: int) -> Result:
            self.batch_divisor = max(self.batch_divisor, divisor)
            return work()

        return within_memory(self.backbone.engine, attempt, lambda: say(f"{self.row.title}: person {person}: {AGAIN}"))

    def warm_up(self, person: Respondent) -> None:
        """What a first alignment pays for libraries and kernels is no cost of the method; see `Aligner.warm_up`."""
        case = self.cases.case(person, self.aligner.needs)
        seed_everything(case.seed)
        try:
            self.aligner.warm_up(case)
        except Exception as error:  # the person's own cell will meet and record it
            say(f"{self.row.title}: the warm-up failed: {type(error).__name__}: {error}")

    def compute(self, person: Respondent, aligned: Aligned | None = None) -> Record:
        """The record of one finished cell. Where costs are measured: of several times, with nothing taken over."""
        if not self.job.repeats:
            return self._compute(person, aligned)
        records = []
        for _ in range(self.job.repeats):
            self.answers.forget()
            records.append(self._compute(person, None))
        return records[0] | {"cost": median_cost([record["cost"] for record in records])}

    def _compute(self, person: Respondent, aligned: Aligned | None) -> Record:
        """Align, answer (each unless a cohort did), score. Memory that runs out in answering aligns nobody again."""
        case = self.cases.case(person, self.aligner.needs)
        try:
            aligned = aligned or self._within_memory(person.id, lambda: self.align(case))
            alignment, aligning = aligned.alignment, aligned.cost
            answered = aligned.answered or self._within_memory(person.id, lambda: self._answer(alignment))
            divisor = self.batch_divisor
        finally:
            self.batch_divisor = 1
        sheet, answering = answered.sheet, answered.cost
        protocol, inventory = self.job.protocol, self.job.protocol.inventory
        held_out = {n: value for n, value in protocol.held_out(person).items() if n in self.job.asked}
        truth = {n: value for n, value in protocol.truth(held_out).items() if n in self.job.asked}
        return {
            "respondent": person.id,
            "seed": case.seed,
            "asked": list(sheet.asked),
            "answers": _keys(sheet.answers),
            "log_probs": _keys(sheet.log_probs),
            "ties": sheet.ties,
            "texts": _keys(sheet.texts),
            "audit": _keys(sheet.audit),
            "truth": _keys(truth),
            "scores": aligned_scores(inventory, sheet.answers, truth),
            "traits": trait_scores(inventory, sheet.answers, protocol.keyed),
            "person_traits": trait_scores(inventory, held_out),
            **self._dose(person, case),
            "alignment": {"summary": dict(alignment.summary)},
            "cost": {
                **cell_costs(
                    aligning,
                    answering,
                    stored_bytes=alignment.stored_bytes(),
                    trained_parameters=alignment.trained_parameters,
                ),
                "reused_answers": answered.reused,
                "answered_together": answered.people,
                "batch_divisor": divisor,
            },
        }

    def _dose(self, person: Respondent, case: Case) -> Record:
        """By how much each scale's known answers were changed, where the job changes them."""
        change, protocol = self.job.intervention, self.job.protocol
        if change is None:
            return {}
        given = {n: value for n, value in protocol.known(person).items() if n in case.known}
        return {"dose": change.dose(given, protocol.inventory)}

    def align(self, case: Case) -> Aligned:
        """One person's alignment with what it cost. Raises MethodError for what is none, or a changed model."""
        seed_everything(case.seed)
        with measure() as cost:
            alignment = self.aligner.align(case)
        self.check_made("align", [alignment])
        return Aligned(alignment, cost.above(self.bare))

    def check_made(self, by: str, alignments: Sequence[Any]) -> None:
        """Raise MethodError for what a method made that is no alignment, and where it left the model changed."""
        for each in alignments:
            if not isinstance(each, Alignment):
                raise MethodError(f"{by} returned {type(each).__name__}; return an Alignment")
        check_model(self.backbone, by)

    def _answer(self, alignment: Alignment) -> Answered:
        if alignment.answers is not None:
            answers = {n: alignment.answers[n] for n in self.job.asked if n in alignment.answers}
            return Answered(AnswerSheet(asked=self.job.asked, answers=answers), Cost())
        if self.backbone is None:
            raise MethodError("align returned an Alignment without answers, and needs_backbone is False; give answers=")
        if taken_over := self.answers.get(self.backbone, alignment):
            return taken_over
        if alignment.readout is not None and not self.job.protocol.reading.generates:
            prompt_alone = replace(alignment, readout=None)
            # The neutral prompt is everyone's, so its answers are worth computing for the memo.
            is_everyones = alignment.system_prompt is None and self.answers.key(self.backbone, prompt_alone)
            if is_everyones or self.answers.get(self.backbone, prompt_alone):
                return self._under_readout(alignment, prompt_alone)
        with measure() as cost:
            sheet = self.backbone.answer(alignment, self.items, self.audit)
        return self.remembered(alignment, Answered(sheet, cost.above(self.bare)))

    def remembered(self, alignment: Alignment, answered: Answered) -> Answered:
        """The same answers, kept for whoever has the same prompt; those of smaller batches serve no other cell."""
        assert self.backbone is not None
        if self.batch_divisor == 1:
            self.answers.put(self.backbone, alignment, answered)
        return answered

    def _under_readout(self, alignment: Alignment, prompt_alone: Alignment) -> Answered:
        """A readout changes what is made of a prompt's log-probabilities; these are taken over, and charged.

        So is one audit, as where nothing is taken over: the prompt's own, of the same items after the same beginning,
        whose seconds no clock tells from the log-probabilities'. The tokens written are those of the readout's.
        """
        assert self.backbone is not None
        bare = self._answer(prompt_alone)
        with measure() as cost:
            reread = self.backbone.under_readout(alignment, bare.sheet, self.items, ())
        with measure() as auditing:
            sheet = self.backbone.under_readout(alignment, reread, (), self.audit)
        charged = bare.cost.followed_by(cost.above(self.bare))
        written = {name: each for name, each in auditing.amounts.items() if name == "tokens_generated"}
        return replace(bare, sheet=sheet, cost=replace(charged, amounts=charged.amounts | written))


def check_model(backbone: Backbone | None, by: str) -> None:
    """Raise MethodError where the bare model is no longer what was loaded; the next row loads it anew."""
    if backbone is not None and not backbone.is_as_loaded():
        raise MethodError(f"{by} changed the model and did not undo it; return what changes it in an Alignment")


def _keys(by_number: Mapping[int, Any] | None) -> dict[str, Any] | None:
    return None if by_number is None else {str(number): value for number, value in by_number.items()}
