"""Plan cells → skip the finished → align → answer → score → record. One call runs one method on the selected people."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from tqdm import tqdm

from palign_bench.alignment import Aligner, Alignment, AnswerSheet, Case
from palign_bench.backbone.local import LocalBackbone
from palign_bench.claims import Claims, Shard
from palign_bench.costs import Cost, bare_memory_mib, measure
from palign_bench.inventory import Answers, Inventory, Respondent
from palign_bench.ledger import CellFolder, PlannedCells, Record, WriteError
from palign_bench.memory import AGAIN, within_memory
from palign_bench.protocol import EvaluationProtocol, audit_items
from palign_bench.respondents.source import RespondentSource
from palign_bench.scoring import aligned_scores, trait_scores_of
from palign_bench.tracking import Tracker

LoadBackbone = Callable[[], tuple[LocalBackbone, float]]


@dataclass(frozen=True)
class Row:
    """One row of a table: an aligner and everything that identifies its cells."""

    name: str
    aligner: Aligner
    identity: Mapping[str, Any]  # what the fingerprint covers
    config: Mapping[str, Any]  # the resolved configuration, for readers


@dataclass(frozen=True)
class Experiment:
    """What the rows of one command share."""

    runs: Path
    inventory: Inventory
    protocol: EvaluationProtocol
    source: RespondentSource
    people: Sequence[Respondent]
    model_name: str
    seed: int
    load_backbone: LoadBackbone  # loads at most once; returns the backbone and the seconds that loading took
    provenance: Mapping[str, Any]
    tracker: Tracker
    group: str
    retry: str = "all"  # which missing cells are computed; see `claims.RETRIES`
    shard: Shard | None = None  # the part of a larger run that ``people`` are

    def row_name(self, row: Row) -> str:
        """What trackers call the row: method, model, protocol, seed, and the shard where there is one."""
        part = f"-{self.shard.index}of{self.shard.count}" if self.shard else ""
        return f"{row.name}-{self.model_name}-{self.protocol.name}-{self.seed}{part}"

    def tags(self, row: Row) -> tuple[str, ...]:
        """What trackers can filter the row by."""
        part = (f"shard-{self.shard.index}of{self.shard.count}",) if self.shard else ()
        return row.name, self.model_name, self.protocol.name, self.source.name, f"seed-{self.seed}", *part

    def planned(self, row: Row) -> PlannedCells:
        """The row's cell folder and the people asked for."""
        name = f"{row.name}-{self.model_name}-{self.source.name}-{self.protocol.name}"
        folder = CellFolder.open(self.runs, name, row.config, row.identity)
        return PlannedCells(row.name, folder, tuple(person.id for person in self.people))


class LeaveOneOut(Sequence[Answers]):
    """All answers of every other person of the whole source; the elements are the same objects for everyone."""

    def __init__(self, everyone: Sequence[Answers], left_out: int):
        self._everyone = everyone
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self._everyone) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self._everyone[index + (index >= self._left_out)]


class Cases:
    """Builds what an aligner is told about each person, and nothing that it did not declare to need."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._position = {person.id: i for i, person in enumerate(experiment.source.people)}
        self._everyone: list[Answers] | None = None

    def case(self, person: Respondent, needs: frozenset[str]) -> Case:
        """What an aligner with these needs is told about the person."""
        inventory, protocol = self.experiment.inventory, self.experiment.protocol
        held_out = {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        return Case(
            respondent_id=person.id,
            known=protocol.known(inventory, person),
            selection=protocol.selection(inventory, person, self.experiment.seed),
            seed=derived_seed(self.experiment.seed, person.id),
            others=LeaveOneOut(self._all_answers(), self._position[person.id]) if "people" in needs else None,
            truth=held_out if "truth" in needs else None,
            portrait=person.portrait if "portrait" in needs else None,
        )

    def _all_answers(self) -> list[Answers]:
        if self._everyone is None:
            inventory, protocol = self.experiment.inventory, self.experiment.protocol
            self._everyone = [
                dict(protocol.known(inventory, person)) | dict(protocol.truth(inventory, person))
                for person in self.experiment.source.people
            ]
        return self._everyone


class AnswerMemo:
    """Answer sheets of prompt-only alignments, so that no system prompt is answered twice by one backbone.

    Vanilla answers alike for everyone, and PAS with alpha 0 is Few-Shot: an answer taken over is still charged what it
    cost when it was computed.
    """

    def __init__(self) -> None:
        # Weak: a model that is unloaded takes its answers along, and none of a later one can be taken for its.
        self._sheets: WeakKeyDictionary[LocalBackbone, dict[str, tuple[AnswerSheet, Cost, float]]] = WeakKeyDictionary()

    @staticmethod
    def key(backbone: LocalBackbone, alignment: Alignment) -> str | None:
        """None for an alignment that more than a prompt makes."""
        if any(part is not None for part in (alignment.head_shifts, alignment.adapter, alignment.readout)):
            return None
        text = f"{backbone.protocol.name}\n{alignment.system_prompt}"
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, backbone: LocalBackbone, key: str | None) -> tuple[AnswerSheet, Cost, float] | None:
        return self._sheets.get(backbone, {}).get(key) if key else None

    def put(self, backbone: LocalBackbone, key: str | None, sheet: AnswerSheet, cost: Cost, bare: float) -> None:
        if key:
            self._sheets.setdefault(backbone, {})[key] = (sheet, cost, bare)


MEMO = AnswerMemo()


def derived_seed(seed: int, respondent_id: str) -> int:
    """A person's own seed, whatever the order, shard or process: 63 bits of SHA-256 of (seed, id)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{respondent_id}".encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, so that a method drawing from any of them repeats."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def run_row(experiment: Experiment, row: Row, planned: PlannedCells) -> int:
    """Compute the row's missing cells. Returns how many failed.

    A failed cell leaves its traceback in the ledger and the others go on; Ctrl-C and signals end the run, with every
    finished cell in place.
    """
    missing = planned.missing()
    total = len(planned.respondent_ids)
    if not total:
        _say(f"{row.name}: no people in shard={experiment.shard}, nothing to do")
        return 0
    if not missing:
        _say(f"{row.name}: all {total} people finished before, nothing to do")
        return 0
    if len(missing) < total:
        _say(f"{row.name}: {total - len(missing)} of {total} people finished before, {len(missing)} to do")
    known = set(planned.respondent_ids) - set(missing)
    todo = _to_try(planned, missing, experiment.retry)
    if not todo:
        _say(f"{row.name}: nothing to do with retry={experiment.retry}, {len(missing)} missing")
        return 0
    backbone, load_seconds = experiment.load_backbone() if row.aligner.needs_backbone else (None, 0.0)
    bare = bare_memory_mib()
    seed_everything(experiment.seed)
    with measure() as preparation:
        row.aligner.prepare(backbone, experiment.inventory)
    planned.folder.write_shared({"load_seconds": load_seconds, "prepare_seconds": preparation.seconds})
    planned.folder.write_provenance(experiment.provenance)
    experiment.tracker.start_row(
        dict(row.config), experiment.row_name(row), group=experiment.group, tags=experiment.tags(row)
    )
    for record in _finished_records(planned, known):
        experiment.tracker.log_person(record)
    outcome = _compute(CellRun(experiment, row, backbone, bare), planned, todo)
    elsewhere = set(todo) - outcome.computed if outcome.finished_elsewhere else set()
    for record in _finished_records(planned, elsewhere):
        experiment.tracker.log_person(record)
    experiment.tracker.finish_row({"missing_cells": len(planned.missing()), "failed_cells": outcome.failed})
    return outcome.failed


@dataclass
class Outcome:
    """What became of the cells that a row had to do."""

    computed: set[str] = field(default_factory=set)
    failed: int = 0  # here or in another process
    finished_elsewhere: int = 0


def _compute(cell: CellRun, planned: PlannedCells, todo: Sequence[str]) -> Outcome:
    """Compute what no other process computes; see `run_row` for what a failure does."""
    experiment, row = cell.experiment, cell.row
    people = {person.id: person for person in experiment.people}
    claims = Claims(planned.folder, todo, lambda line: _say(f"{row.name}: {line}"))
    outcome = Outcome()
    with (
        tqdm(total=len(todo), desc=row.name, unit="person", file=sys.stderr) as bar,
        closing(claims.cohorts(row.aligner.cohort)) as cohorts,  # gives the locks back, whatever ends the loop
    ):
        for respondent_ids in cohorts:
            cohort = [people[each] for each in respondent_ids]
            aligned = cell.align_cohort(cohort)
            for person in cohort:
                try:
                    record = cell.compute_within_memory(person, aligned.get(person.id))
                    planned.folder.record(person.id, record)
                    outcome.computed.add(person.id)
                    experiment.tracker.log_person(record)
                except WriteError:  # a full disk or a lost folder would fail every cell
                    raise
                except Exception as error:  # one bad cell must not end a sweep; it is recorded and retried next time
                    planned.folder.fail(person.id, error)
                    outcome.failed += 1
                    _say(f"{row.name}: person {person.id} failed: {type(error).__name__}: {error}")
                bar.update()
    outcome.failed += claims.failed_elsewhere
    outcome.finished_elsewhere = claims.finished_elsewhere
    if claims.finished_elsewhere:
        _say(f"{row.name}: {claims.finished_elsewhere} people were finished by other processes")
    return outcome


class CellRun:
    """Computes cells of one row, one person at a time."""

    def __init__(self, experiment: Experiment, row: Row, backbone: LocalBackbone | None, bare_mib: float):
        self.experiment = experiment
        self.row = row
        self.backbone = backbone
        self.bare_mib = bare_mib
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
            _say(f"{self.row.name}: a cohort of {len(people)} failed ({type(error).__name__}: {error}); one by one now")
            return {}
        share = Cost(cost.seconds / len(people), cost.peak_memory_mib)
        return {case.respondent_id: (alignment, share) for case, alignment in zip(cases, alignments, strict=True)}

    def compute_within_memory(self, person: Respondent, aligned: tuple[Alignment, Cost] | None = None) -> Record:
        """`compute`; where memory runs out, again in smaller batches, which the record's ``batch_divisor`` tells."""
        if self.backbone is None:
            return self.compute(person, aligned)

        def attempt(divisor: int) -> Record:
            self.batch_divisor = divisor
            return self.compute(person, aligned)

        return within_memory(
            self.backbone.engine, attempt, lambda: _say(f"{self.row.name}: person {person.id}: {AGAIN}")
        )

    def compute(self, person: Respondent, aligned: tuple[Alignment, Cost] | None = None) -> Record:
        """Align (unless a cohort did), answer, score: the record of one finished cell."""
        case = self.cases.case(person, self.row.aligner.needs)
        if aligned is None:
            seed_everything(case.seed)
            with measure() as aligning:
                alignment = self.row.aligner.align(case)
        else:
            alignment, aligning = aligned
        sheet, answering, reused = self._answer(alignment)
        inventory, protocol = self.experiment.inventory, self.experiment.protocol
        truth = protocol.truth(inventory, person)
        literal = {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        peak = max(aligning.memory_above(self.bare_mib), answering.memory_above(self.bare_mib))
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
                "answer_seconds": answering.seconds,
                "peak_memory_mib": peak,
                "tokens_read": sheet.tokens_read,
                "tokens_generated": sheet.tokens_generated,
                "optimizer_steps": int(alignment.summary.get("optimizer_steps", 0)),
                "reused_answers": reused,
                "batch_divisor": self.batch_divisor,
            },
        }

    def _answer(self, alignment: Alignment) -> tuple[AnswerSheet, Cost, bool]:
        if alignment.answers is not None:
            held_out = self.experiment.inventory.held_out
            answers = {n: alignment.answers[n] for n in held_out if n in alignment.answers}
            return AnswerSheet(asked=held_out, answers=answers), Cost(), False
        assert self.backbone is not None, f"{self.row.name} needs no backbone but made an alignment without answers"
        key = MEMO.key(self.backbone, alignment)
        taken_over = MEMO.get(self.backbone, key)
        if taken_over is not None:
            sheet, cost, bare = taken_over
            return sheet, Cost(cost.seconds, cost.memory_above(bare) + self.bare_mib), True
        if alignment.readout is not None and not self.experiment.protocol.reading.generates:
            prompt_alone = replace(alignment, readout=None)
            key_alone = MEMO.key(self.backbone, prompt_alone)
            # The neutral prompt is everyone's, so its answers are worth computing for the memo.
            if key_alone and (alignment.system_prompt is None or MEMO.get(self.backbone, key_alone)):
                return self._under_readout(alignment, prompt_alone)
        with measure() as cost:
            sheet = self.backbone.answer(alignment, self.items, self.audit)
        if self.batch_divisor == 1:
            MEMO.put(self.backbone, key, sheet, cost, self.bare_mib)
        return sheet, cost, False

    def _under_readout(self, alignment: Alignment, prompt_alone: Alignment) -> tuple[AnswerSheet, Cost, bool]:
        """A readout changes what is made of a prompt's log-probabilities; these are taken over, and charged."""
        assert self.backbone is not None
        bare_sheet, bare_cost, reused = self._answer(prompt_alone)
        with measure() as cost:
            sheet = self.backbone.under_readout(alignment, bare_sheet, self.items, self.audit)
        peak = max(bare_cost.peak_memory_mib, cost.peak_memory_mib)
        return sheet, Cost(bare_cost.seconds + cost.seconds, peak), reused


def _to_try(planned: PlannedCells, missing: Sequence[str], retry: str) -> list[str]:
    """The missing cells that ``retry`` asks for: all, those that failed before (failed) or all but these (never)."""
    if retry == "all":
        return list(missing)
    failed = planned.folder.failures()
    return [each for each in missing if (each in failed) == (retry == "failed")]


def _finished_records(planned: PlannedCells, known: Collection[str]) -> Iterator[Record]:
    for _, record in planned.folder.read_all(each for each in planned.respondent_ids if each in known):
        yield record


def _keys(by_number: Mapping[int, Any] | None) -> dict[str, Any] | None:
    return None if by_number is None else {str(number): value for number, value in by_number.items()}


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
