"""What several people of a row can share: one training, or one batch of answers. Each is charged an equal part."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from palign_bench.backbone.base import Backbone
from palign_bench.backbone.local import only_prompts_and_shifts
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.run.answers import Answered, AnswerMemo
from palign_bench.run.case import seed_everything
from palign_bench.run.cell import FAILURES, Aligned, MethodError, RowWorker
from palign_bench.run.progress import say
from palign_bench.settings import counted


def cohort_size(worker: RowWorker) -> int:
    """How many people are begun at once: those that the method aligns together, or that one batch answers.

    Measured cells are computed one by one; so is what takes long to train, of which a kill would lose several.
    """
    aligner = worker.aligner
    if aligner.cohort > 1 or worker.backbone is None or worker.job.repeats or "gradients" in aligner.needs:
        return aligner.cohort
    return worker.backbone.cohort


def begin_cohort(worker: RowWorker, people: Sequence[Respondent]) -> dict[str, Aligned]:
    """Align, or answer, these people together. Returns results by id; whoever has none is computed alone.

    Where that fails as a whole it is done for each of them alone, so that only the people at fault fail.
    """
    if len(people) < 2 or worker.job.repeats:
        return {}
    return _align_together(worker, people) if worker.aligner.cohort > 1 else _answer_together(worker, people)


def _align_together(worker: RowWorker, people: Sequence[Respondent]) -> dict[str, Aligned]:
    cases = [worker.cases.case(person, worker.aligner.needs) for person in people]
    seed_everything(worker.job.seed)
    try:
        with measure() as cost:
            alignments = worker.aligner.align_many(cases)
        if len(alignments) != len(people):
            raise MethodError(f"align_many returned {len(alignments)} alignments for {counted(len(people))}")
        worker.check_made("align_many", alignments)
    except FAILURES as error:
        _say_one_by_one(worker, people, error)
        return {}
    share = cost.above(worker.bare).share(len(people))
    return {person.id: Aligned(alignment, share) for person, alignment in zip(people, alignments, strict=True)}


def _answer_together(worker: RowWorker, people: Sequence[Respondent]) -> dict[str, Aligned]:
    """Align one by one, then answer at once."""
    assert worker.backbone is not None
    aligned: dict[str, Aligned] = {}
    for person in people:
        with suppress(*FAILURES):  # the person's own cell will meet and record it
            aligned[person.id] = worker.align(worker.cases.case(person, worker.aligner.needs))
    ids = _to_answer(worker.answers, worker.backbone, aligned)
    if len(ids) < 2:
        return aligned
    alignments = [aligned[each].alignment for each in ids]
    try:
        with measure() as cost:
            sheets = worker.backbone.answer_many(alignments, worker.items, worker.audit)
    except Exception as error:
        _say_one_by_one(worker, people, error)
        return aligned
    share = cost.above(worker.bare).share(len(ids))
    for respondent_id, sheet in zip(ids, sheets, strict=True):
        answered = worker.remembered(aligned[respondent_id].alignment, Answered(sheet, share, people=len(ids)))
        aligned[respondent_id] = replace(aligned[respondent_id], answered=answered)
    return aligned


def _to_answer(answers: AnswerMemo, backbone: Backbone, aligned: Mapping[str, Aligned]) -> list[str]:
    """Whose answers one batch can hold; of people with one prompt the first, since the others take its answers over."""
    ids: dict[str, str] = {}
    for respondent_id, each in aligned.items():
        if only_prompts_and_shifts(each.alignment) and answers.get(backbone, each.alignment) is None:
            ids.setdefault(answers.key(backbone, each.alignment) or respondent_id, respondent_id)
    return list(ids.values())


def _say_one_by_one(worker: RowWorker, people: Sequence[Respondent], error: BaseException) -> None:
    say(f"{worker.row.title}: a cohort of {len(people)} failed ({type(error).__name__}: {error}); one by one now")
