"""One cell: align, answer, score, with what it cost."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from tqdm import tqdm

from palign_bench.alignment import Alignment, AnswerSheet
from palign_bench.backbone.local import LocalBackbone
from palign_bench.cases import Cases, seed_everything
from palign_bench.costs import Cost, MemoryLevel, measure
from palign_bench.experiment import Experiment, Row
from palign_bench.inventory import Respondent
from palign_bench.ledger import Record
from palign_bench.memory import AGAIN, within_memory
from palign_bench.protocol import audit_items
from palign_bench.repeats import median_cost
from palign_bench.scoring import aligned_scores, trait_scores_of


class AnswerMemo:
    """Answer sheets of prompt-only alignments, so that no system prompt is answered twice by one backbone.

    Vanilla answers alike for everyone, and PAS with alpha 0 is Few-Shot: an answer taken over is still charged what it
    cost when it was computed.
    """

    def __init__(self) -> None:
        # Weak: a model that is unloaded takes its answers along, and none of a later one can be taken for its.
        self._sheets: WeakKeyDictionary[LocalBackbone, dict[str, tuple[AnswerSheet, Cost]]] = WeakKeyDictionary()

    @staticmethod
    def key(backbone: LocalBackbone, alignment: Alignment) -> str | None:
        """None for an alignment that more than a prompt makes."""
        if any(part is not None for part in (alignment.head_shifts, alignment.adapter, alignment.readout)):
            return None
        text = f"{backbone.protocol.name}\n{alignment.system_prompt}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, backbone: LocalBackbone, key: str | None) -> tuple[AnswerSheet, Cost] | None:
        return self._sheets.get(backbone, {}).get(key) if key else None

    def put(self, backbone: LocalBackbone, key: str | None, sheet: AnswerSheet, cost: Cost) -> None:
        """``cost``: its memory above the bare model's, so that it holds for any row."""
        if key:
            self._sheets.setdefault(backbone, {})[key] = (sheet, cost)

    def forget(self) -> None:
        """Take nothing over from here on."""
        self._sheets.clear()


MEMO = AnswerMemo()


class CellRun:
    """Computes cells of one row, one person at a time."""

    def __init__(self, experiment: Experiment, row: Row, backbone: LocalBackbone | None, bare: MemoryLevel):
        self.experiment = experiment
        self.row = row
        self.backbone = backbone
        self.bare = bare
        self.cases = Cases(experiment)
        self.batch_divisor = 1  # of the positions in one forward pass; above 1 only while memory runs out
        self.items = experiment.inventory.select(experiment.inventory.held_out)
        # Under `as_released` every answer is freely generated already; the audit would ask the same again.
        self.audit = [] if experiment.protocol.reading.generates else audit_items(experiment.inventory)

    def align_cohort(self, people: Sequence[Respondent]) -> dict[str, tuple[Alignment, Cost]]:
        """Alignments of several people at once, each charged its share; none where the method takes them singly.

        A cohort that fails as a whole is left to `compute`, one by one, so that only the people at fault fail.
        """
        if len(people) < 2:
            return {}
        cases = [self.cases.case(person, self.row.aligner.needs) for person in people]
        seed_everything(self.experiment.seed)
        try:
            with measure() as cost:
                alignments = self.row.aligner.align_many(cases)
        except Exception as error:
            say(f"{self.row.name}: a cohort of {len(people)} failed ({type(error).__name__}: {error}); one by one now")
            return {}
        share = cost.share(len(people))
        return {case.respondent_id: (alignment, share) for case, alignment in zip(cases, alignments, strict=True)}

    def compute_within_memory(self, person: Respondent, aligned: tuple[Alignment, Cost] | None = None) -> Record:
        """`compute`; where memory runs out, again in smaller batches, which the record's ``batch_divisor`` tells."""
        if self.backbone is None:
            return self.compute(person, aligned)

        def attempt(divisor: int) -> Record:
            self.batch_divisor = divisor
            return self.compute(person, aligned)

        return within_memory(
            self.backbone.engine, attempt, lambda: say(f"{self.row.name}: person {person.id}: {AGAIN}")
        )

    def warm_up(self, person: Respondent) -> None:
        """What a first alignment pays for libraries and kernels is no cost of the method; see `Aligner.warm_up`."""
        case = self.cases.case(person, self.row.aligner.needs)
        seed_everything(case.seed)
        try:
            self.row.aligner.warm_up(case)
        except Exception as error:  # the person's own cell will meet and record it
            say(f"{self.row.name}: the warm-up failed: {type(error).__name__}: {error}")

    def compute(self, person: Respondent, aligned: tuple[Alignment, Cost] | None = None) -> Record:
        """The record of one finished cell. Where costs are measured: of several times, with nothing taken over."""
        if not self.experiment.repeats:
            return self._compute(person, aligned)
        records = []
        for _ in range(self.experiment.repeats):
            MEMO.forget()
            records.append(self._compute(person, None))
        return records[0] | {"cost": median_cost([record["cost"] for record in records])}

    def _compute(self, person: Respondent, aligned: tuple[Alignment, Cost] | None) -> Record:
        """Align (unless a cohort did), answer, score."""
        case = self.cases.case(person, self.row.aligner.needs)
        read, generated = self._tokens()
        if aligned is None:
            seed_everything(case.seed)
            with measure() as aligning:
                alignment = self.row.aligner.align(case)
        else:
            alignment, aligning = aligned
        aligning = aligning.above(self.bare)
        read_now, generated_now = self._tokens()
        sheet, answering, reused = self._answer(alignment)
        both = aligning.followed_by(answering)
        inventory, protocol = self.experiment.inventory, self.experiment.protocol
        truth = protocol.truth(inventory, person)
        literal = {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        return {
            "respondent": person.id,
            "seed": case.seed,
            "asked": list(sheet.asked),
            "answers": _keys(sheet.answers),
            "log_probs": _keys(sheet.log_probs),
            "texts": _keys(sheet.texts),
            "audit": _keys(sheet.audit),
            "truth": _keys(truth),
            "scores": aligned_scores(inventory, sheet.answers, truth),
            "traits": trait_scores_of(inventory, sheet.answers, protocol.keyed),
            "person_traits": trait_scores_of(inventory, literal, type(inventory).keyed),
            "alignment": {
                "summary": dict(alignment.summary),
                "stored_bytes": alignment.stored_bytes(),
                "trained_parameters": alignment.trained_parameters,
            },
            "cost": {
                "align_seconds": aligning.seconds + float(alignment.summary.get("charged_seconds", 0.0)),
                "search_seconds": aligning.parts.get("search", 0.0),
                "answer_seconds": answering.seconds,
                "peak_memory_mib": both.peak_memory_mib,
                "reserved_memory_mib": both.reserved_memory_mib,
                "joules": both.joules,
                "tokens_read": sheet.tokens_read,
                "tokens_generated": sheet.tokens_generated,
                "align_tokens_read": read_now - read,
                "align_tokens_generated": generated_now - generated,
                "training_tokens": int(alignment.summary.get("training_tokens", 0)),
                "optimizer_steps": int(alignment.summary.get("optimizer_steps", 0)),
                "seconds_per_step": alignment.summary.get("seconds_per_step"),
                "reused_answers": reused,
                "batch_divisor": self.batch_divisor,
            },
        }

    def _tokens(self) -> tuple[int, int]:
        return (self.backbone.engine.tokens_read, self.backbone.engine.tokens_generated) if self.backbone else (0, 0)

    def _answer(self, alignment: Alignment) -> tuple[AnswerSheet, Cost, bool]:
        if alignment.answers is not None:
            held_out = self.experiment.inventory.held_out
            answers = {n: alignment.answers[n] for n in held_out if n in alignment.answers}
            return AnswerSheet(asked=held_out, answers=answers), Cost(), False
        assert self.backbone is not None, f"{self.row.name} needs no backbone but made an alignment without answers"
        key = MEMO.key(self.backbone, alignment)
        taken_over = MEMO.get(self.backbone, key)
        if taken_over is not None:
            sheet, cost = taken_over
            return sheet, cost, True
        if alignment.readout is not None and not self.experiment.protocol.reading.generates:
            prompt_alone = replace(alignment, readout=None)
            key_alone = MEMO.key(self.backbone, prompt_alone)
            # The neutral prompt is everyone's, so its answers are worth computing for the memo.
            if key_alone and (alignment.system_prompt is None or MEMO.get(self.backbone, key_alone)):
                return self._under_readout(alignment, prompt_alone)
        with measure() as cost:
            sheet = self.backbone.answer(alignment, self.items, self.audit)
        cost = cost.above(self.bare)
        if self.batch_divisor == 1:
            MEMO.put(self.backbone, key, sheet, cost)
        return sheet, cost, False

    def _under_readout(self, alignment: Alignment, prompt_alone: Alignment) -> tuple[AnswerSheet, Cost, bool]:
        """A readout changes what is made of a prompt's log-probabilities; these are taken over, and charged."""
        assert self.backbone is not None
        bare_sheet, bare_cost, reused = self._answer(prompt_alone)
        with measure() as cost:
            sheet = self.backbone.under_readout(alignment, bare_sheet, self.items, self.audit)
        return sheet, bare_cost.followed_by(cost.above(self.bare)), reused


def _keys(by_number: Mapping[int, Any] | None) -> dict[str, Any] | None:
    return None if by_number is None else {str(number): value for number, value in by_number.items()}


def say(line: str) -> None:
    """A line beside the progress bars."""
    tqdm.write(line, file=sys.stderr)
