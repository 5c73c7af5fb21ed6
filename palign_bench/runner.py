"""Plan cells → skip the finished → align → answer → score → record. One call runs one method on the selected people."""

from __future__ import annotations

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from tqdm import tqdm

from palign_bench.alignment import Aligner, Alignment, AnswerSheet, Case
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs import Cost, MemoryLevel, bare_memory, measure
from palign_bench.errors import UserError
from palign_bench.inventory import Answers, Inventory, Respondent
from palign_bench.ledger import CellFolder, PlannedCells, Record
from palign_bench.protocol import EvaluationProtocol, audit_items
from palign_bench.provenance import machine_state
from palign_bench.repeats import median_cost, shared_cost
from palign_bench.respondents.source import RespondentSource
from palign_bench.scoring import aligned_scores, trait_scores_of
from palign_bench.tracking import Tracker

WARM_UP_ITEMS = 8
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
    known_answers: int | None = None  # how many of them a method is told; None: all
    repeats: int | None = None  # cost=isolated: every cell is computed so often, after a warm-up, and none taken over

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
        self._told = told_items(experiment.inventory, experiment.known_answers, experiment.seed)

    def case(self, person: Respondent, needs: frozenset[str]) -> Case:
        """What an aligner with these needs is told about the person."""
        inventory, protocol = self.experiment.inventory, self.experiment.protocol
        held_out = {n: person.answers[n] for n in inventory.held_out if n in person.answers}
        known = protocol.known(inventory, person)
        selection = protocol.selection(inventory, person, self.experiment.seed)
        untold = frozenset(known) - self._told
        return Case(
            respondent_id=person.id,
            known={n: value for n, value in known.items() if n not in untold},
            selection={n: value for n, value in selection.items() if n not in untold},
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


def told_items(inventory: Inventory, count: int | None, seed: int) -> frozenset[int]:
    """The known items of which a method is told the answers: the same for everyone, nested, spread over the domains.

    Five are one of each domain, thirty one of each facet. Raises UserError for a count that the inventory lacks.
    """
    known = sorted(inventory.known)
    if count is None:
        return frozenset(known)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(known):
        raise UserError(f"known_answers={count}: choose a whole number from 1 to {len(known)}, or null for all.")
    generator = random.Random(f"known-answers-{seed}")
    generator.shuffle(known)
    of_facet: Counter[str] = Counter()
    of_domain: Counter[tuple[int, str]] = Counter()
    ranks: dict[int, tuple[int, int]] = {}
    for number in known:
        item = inventory[number]
        turn = of_facet[item.facet]
        ranks[number] = (turn, of_domain[turn, item.domain])
        of_facet[item.facet] += 1
        of_domain[turn, item.domain] += 1
    return frozenset(sorted(known, key=ranks.__getitem__)[:count])


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
    missing = set(planned.missing())
    total = len(planned.respondent_ids)
    if not missing:
        _say(f"{row.name}: all {total} people finished before, nothing to do")
        return 0
    if len(missing) < total:
        _say(f"{row.name}: {total - len(missing)} of {total} people finished before, {len(missing)} to do")
    backbone, load_seconds = experiment.load_backbone() if row.aligner.needs_backbone else (None, 0.0)
    before = machine_state()
    if experiment.repeats and backbone is not None:
        backbone.answer(Alignment(), experiment.inventory.items[:WARM_UP_ITEMS])
    bare = bare_memory()
    preparations = [_prepare(experiment, row, backbone).above(bare) for _ in range(experiment.repeats or 1)]
    shared = {"load_seconds": load_seconds, "bare_memory_mib": bare.mib, "bare_reserved_mib": bare.reserved_mib}
    planned.folder.write_shared(shared | shared_cost(preparations))
    planned.folder.write_provenance(experiment.provenance)
    experiment.tracker.start_row(
        dict(row.config),
        name=f"{row.name}-{experiment.model_name}-{experiment.protocol.name}-{experiment.seed}",
        group=experiment.group,
        tags=(row.name, experiment.model_name, experiment.protocol.name, experiment.source.name),
    )
    for record in _finished_records(planned):
        experiment.tracker.log_person(record)
    failed = 0
    cell = CellRun(experiment, row, backbone, bare)
    if experiment.repeats:
        cell.warm_up(experiment.people[0])
    todo = [person for person in experiment.people if person.id in missing]
    with tqdm(total=len(todo), desc=row.name, unit="person", file=sys.stderr) as bar:
        for start in range(0, len(todo), row.aligner.cohort):
            cohort = todo[start : start + row.aligner.cohort]
            aligned = {} if experiment.repeats else cell.align_cohort(cohort)
            for person in cohort:
                try:
                    record = cell.compute(person, aligned.get(person.id))
                    planned.folder.record(person.id, record)
                    experiment.tracker.log_person(record)
                except Exception as error:  # one bad cell must not end a sweep; it is recorded and retried next time
                    planned.folder.fail(person.id, error)
                    failed += 1
                    _say(f"{row.name}: person {person.id} failed: {type(error).__name__}: {error}")
                bar.update()
    if experiment.repeats:
        planned.folder.write_measurement({"repeats": experiment.repeats, "before": before, "after": machine_state()})
    experiment.tracker.finish_row({"missing_cells": len(planned.missing()), "failed_cells": failed})
    return failed


def _prepare(experiment: Experiment, row: Row, backbone: LocalBackbone | None) -> Cost:
    seed_everything(experiment.seed)
    with measure() as cost:
        row.aligner.prepare(backbone, experiment.inventory)
    return cost


class CellRun:
    """Computes cells of one row, one person at a time."""

    def __init__(self, experiment: Experiment, row: Row, backbone: LocalBackbone | None, bare: MemoryLevel):
        self.experiment = experiment
        self.row = row
        self.backbone = backbone
        self.bare = bare
        self.cases = Cases(experiment)
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
        share = cost.share(len(people))
        return {case.respondent_id: (alignment, share) for case, alignment in zip(cases, alignments, strict=True)}

    def warm_up(self, person: Respondent) -> None:
        """What a first alignment pays for libraries and kernels is no cost of the method; see `Aligner.warm_up`."""
        case = self.cases.case(person, self.row.aligner.needs)
        seed_everything(case.seed)
        try:
            self.row.aligner.warm_up(case)
        except Exception as error:  # the person's own cell will meet and record it
            _say(f"{self.row.name}: the warm-up failed: {type(error).__name__}: {error}")

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
        MEMO.put(self.backbone, key, sheet, cost)
        return sheet, cost, False

    def _under_readout(self, alignment: Alignment, prompt_alone: Alignment) -> tuple[AnswerSheet, Cost, bool]:
        """A readout changes what is made of a prompt's log-probabilities; these are taken over, and charged."""
        assert self.backbone is not None
        bare_sheet, bare_cost, reused = self._answer(prompt_alone)
        with measure() as cost:
            sheet = self.backbone.under_readout(alignment, bare_sheet, self.items, self.audit)
        return sheet, bare_cost.followed_by(cost.above(self.bare)), reused


def _finished_records(planned: PlannedCells) -> Iterator[Record]:
    for respondent_id in planned.respondent_ids:
        record = planned.folder.read(respondent_id)
        if record is not None:
            yield record


def _keys(by_number: Mapping[int, Any] | None) -> dict[str, Any] | None:
    return None if by_number is None else {str(number): value for number, value in by_number.items()}


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
