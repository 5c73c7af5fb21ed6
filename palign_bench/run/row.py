"""Plan cells → skip the finished → compute the others → record. One call runs one method on the selected people."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from tqdm import tqdm

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.costs.clock import Cost, measure
from palign_bench.costs.machine import machine_state
from palign_bench.costs.memory import bare_memory
from palign_bench.costs.repeats import shared_cost
from palign_bench.files import WriteError
from palign_bench.ledger.plan import PlannedCells
from palign_bench.run.case import seed_everything
from palign_bench.run.cell import CellRun, say
from palign_bench.run.claims import Claims
from palign_bench.run.cohort import begin_cohort, cohort_size
from palign_bench.run.experiment import Experiment, Row
from palign_bench.settings import UserError

WARM_UP_ITEMS = 8


def run_row(experiment: Experiment, row: Row, planned: PlannedCells) -> int:
    """Compute the row's missing cells. Returns how many failed.

    A failed cell leaves its traceback in the ledger and the others go on; where the method cannot be prepared, all of
    the row's cells have failed. Ctrl-C and signals end the run, with every finished cell in place.
    """
    missing = planned.missing()
    total = len(planned.respondent_ids)
    if not total:
        say(f"{row.name}: no people in shard={experiment.shard}, nothing to do")
        return 0
    if not missing:
        say(f"{row.name}: all {total} people finished before, nothing to do")
        return 0
    if len(missing) < total:
        say(f"{row.name}: {total - len(missing)} of {total} people finished before, {len(missing)} to do")
    known = set(planned.respondent_ids) - set(missing)
    todo = _to_try(planned, missing, experiment.retry)
    if not todo:
        say(f"{row.name}: nothing to do with retry={experiment.retry}, {len(missing)} missing")
        return 0
    try:
        backbone, load_seconds = experiment.load_backbone() if row.aligner.needs_backbone else (None, 0.0)
        before = machine_state()
        if experiment.repeats and backbone is not None:
            backbone.answer(Alignment(), experiment.protocol.inventory.items[:WARM_UP_ITEMS])
        bare = bare_memory()
        preparations = [_prepare(experiment, row, backbone).above(bare) for _ in range(experiment.repeats or 1)]
    except UserError:  # the command itself tells it
        raise
    except Exception as error:  # one row must not end a sweep; it is recorded and retried next time
        return _fail_all(row, planned, todo, error)
    shared = {"load_seconds": load_seconds, "bare_memory_mib": bare.mib, "bare_reserved_mib": bare.reserved_mib}
    planned.folder.write_shared(shared | shared_cost(preparations))
    planned.folder.write_provenance(experiment.provenance)
    experiment.tracker.start_row(
        dict(row.config), experiment.row_name(row), group=experiment.group, tags=experiment.tags(row)
    )
    _tell_finished(experiment, planned, known)
    cell = CellRun(experiment, row, backbone, bare)
    if experiment.repeats:
        cell.warm_up(experiment.people[0])
    outcome = _compute(cell, planned, todo)
    if experiment.repeats:
        planned.folder.write_measurement(
            {"cost_repeats": experiment.repeats, "before": before, "after": machine_state()}
        )
    elsewhere = set(todo) - outcome.computed if outcome.finished_elsewhere else set()
    _tell_finished(experiment, planned, elsewhere)
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
    claims = Claims(planned.folder, todo, lambda line: say(f"{row.name}: {line}"))
    outcome = Outcome()
    with (
        tqdm(total=len(todo), desc=row.name, unit="person", file=sys.stderr) as bar,
        closing(claims.cohorts(cohort_size(cell))) as cohorts,  # gives the locks back, whatever ends the loop
    ):
        for respondent_ids in cohorts:
            cohort = [people[each] for each in respondent_ids]
            begun = begin_cohort(cell, cohort)
            for person in cohort:
                try:
                    record = cell.compute(person, begun.get(person.id))
                    planned.folder.record(person.id, record)
                    outcome.computed.add(person.id)
                    experiment.tracker.log_person(record)
                except WriteError:  # a full disk or a lost folder would fail every cell
                    raise
                except Exception as error:  # one bad cell must not end a sweep; it is recorded and retried next time
                    planned.folder.fail(person.id, error)
                    outcome.failed += 1
                    say(f"{row.name}: person {person.id} failed: {type(error).__name__}: {error}")
                bar.update()
    outcome.failed += claims.failed_elsewhere
    outcome.finished_elsewhere = claims.finished_elsewhere
    if claims.finished_elsewhere:
        say(f"{row.name}: {claims.finished_elsewhere} people were finished by other processes")
    return outcome


def _fail_all(row: Row, planned: PlannedCells, todo: Sequence[str], error: Exception) -> int:
    """Record that no cell of a row can be computed, and say it in one line. Returns how many failed."""
    for respondent_id in todo:
        planned.folder.fail(respondent_id, error)
    reason = " ".join(str(error).split())
    say(f"{row.name}: none of {len(todo)} people can be answered, preparing failed: {type(error).__name__}: {reason}")
    return len(todo)


def _prepare(experiment: Experiment, row: Row, backbone: Backbone | None) -> Cost:
    seed_everything(experiment.seed)
    with measure() as cost:
        row.aligner.prepare(backbone, experiment.protocol)
    return cost


def _to_try(planned: PlannedCells, missing: Sequence[str], retry: str) -> list[str]:
    """The missing cells that ``retry`` asks for: all, those that failed before (failed) or all but these (never)."""
    if retry == "all":
        return list(missing)
    failed = planned.folder.failures()
    return [each for each in missing if (each in failed) == (retry == "failed")]


def _tell_finished(experiment: Experiment, planned: PlannedCells, respondent_ids: Collection[str]) -> None:
    """Tell the tracker of cells that were finished before or elsewhere."""
    if experiment.tracker.follows_people:
        for _, record in planned.folder.read_all(each for each in planned.respondent_ids if each in respondent_ids):
            experiment.tracker.log_person(record)
