"""Plan cells → skip the finished → compute the others → record. One call runs one method on the selected people."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.costs.clock import Cost, measure
from palign_bench.costs.machine import TOLD_PACKAGES, machine_state
from palign_bench.costs.memory import bare_memory
from palign_bench.costs.repeats import shared_cost
from palign_bench.files import WriteError
from palign_bench.ledger.plan import Row
from palign_bench.run.case import seed_everything
from palign_bench.run.cell import FAILURES, RowWorker, check_model
from palign_bench.run.claims import Claims
from palign_bench.run.cohort import begin_cohort, cohort_size
from palign_bench.run.job import Job
from palign_bench.run.progress import Progress, say
from palign_bench.run.session import Session
from palign_bench.settings import UserError, counted

WARM_UP_ITEMS = 8


def run_row(job: Job, row: Row, session: Session, provenance: Mapping[str, Any]) -> int:
    """Compute the row's missing cells. Returns how many failed.

    A failed cell leaves its traceback in the ledger and the others go on; where the method cannot be prepared, all of
    the row's cells have failed. Ctrl-C and signals end the run, with every finished cell in place.
    """
    missing = row.missing()
    todo = _to_try(row, missing, job, provenance)
    if not todo:
        finished = set(row.ids) - set(missing)
        if finished and job.tracker.wants_finished_row(job.experiment, _key(job, row), finished):
            _track(job, row, finished)
            job.tracker.finish_row({"missing_cells": len(missing)})
        return 0
    aligner = job.aligners[row.name]
    aligner.measured = bool(job.repeats)
    backbone, load_seconds = None, 0.0
    try:
        if aligner.needs_backbone:
            backbone, load_seconds = session.load_backbone(job.model, job.protocol)
        before = _conditions(job) if job.repeats else {}
        if job.repeats and backbone is not None:
            backbone.answer(Alignment(), job.protocol.inventory.items[:WARM_UP_ITEMS])
        # Of rows without a model the first alone collects: a floor takes less time than that, and leaves little behind.
        bare = bare_memory(collect=backbone is not None or row.name == job.rows[0].name)
        preparations = [_prepare(job, aligner, backbone).above(bare) for _ in range(job.repeats or 1)]
    except WriteError:  # a full disk or a lost folder holds no record either
        raise
    except UserError as error:  # the command itself tells it
        for each in todo:
            row.folder.fail(each, error)
        raise
    except FAILURES as error:  # one row must not end a sweep; it is recorded and retried next time
        for each in todo:
            row.folder.fail(each, error)
        reason = " ".join(str(error).split())
        say(f"{row.title}: {counted(len(todo))} not answered, preparing failed: {type(error).__name__}: {reason}")
        return len(todo)
    shared = {"load_seconds": load_seconds, "bare_memory_mib": bare.mib}
    row.folder.write_shared(shared | shared_cost(preparations))
    row.folder.write_provenance(provenance)
    if job.repeats:
        row.folder.add_measurement(before)
    _track(job, row, set(row.ids) - set(missing))
    if backbone is not None and job.variant is not None:  # aligned as ever, asked otherwise
        backbone = backbone.asking(job.variant.asked(job.protocol))
    worker = RowWorker(job, row, backbone, bare, session.answers)
    if job.repeats:
        worker.warm_up(job.people[0])
    failed = _compute(worker, todo)
    job.tracker.finish_row({"missing_cells": len(row.missing()), "failed_cells": failed})
    return failed


def _track(job: Job, row: Row, finished: Collection[str]) -> None:
    """Open the row at the tracker and tell it of the people who were finished before."""
    name, key = job.tracked_name(row), _key(job, row)
    identity = row.folder.identity() if job.tracker.follows_people else {}
    job.tracker.start_row(
        identity, name, job.experiment, job.tags(row), key=key, scale_of=job.protocol.inventory.scale_of
    )
    _tell_finished(job, row, finished)


def _key(job: Job, row: Row) -> str:
    return f"{row.folder.path.name}/{job.shard or ''}"


def _compute(worker: RowWorker, todo: Sequence[str]) -> int:
    """Compute what no other process computes, as `run_row` says. Returns how many failed, here or elsewhere."""
    job, row = worker.job, worker.row
    people = {person.id: person for person in job.people}
    claims = Claims(row.folder, todo, lambda line: say(f"{row.title}: {line}"))
    computed, started = set[str](), time.monotonic()
    with (
        closing(Progress(row.title, len(todo))) as progress,
        closing(claims.cohorts(cohort_size(worker))) as cohorts,  # gives the locks back, whatever ends the loop
    ):
        for respondent_ids in cohorts:
            cohort = [people[each] for each in respondent_ids]
            progress.begun += len(cohort)
            begun = begin_cohort(worker, cohort)
            for person in cohort:
                try:
                    record = worker.compute(person, begun.get(person.id))
                    if job.repeats:
                        row.folder.add_measurement(_conditions(job))
                    row.folder.record(person.id, record)
                    computed.add(person.id)
                    job.tracker.log_person(record)
                except WriteError:  # a full disk or a lost folder would fail every cell
                    raise
                except FAILURES as error:  # one bad cell must not end a sweep; it is recorded and retried next time
                    row.folder.fail(person.id, error)
                    progress.fail(person.id, error)
                progress.update()
            if job.row_seconds and time.monotonic() - started >= job.row_seconds and progress.done < progress.people:
                left = progress.people - progress.done
                say(f"{row.title}: row_seconds={job.row_seconds:g} are over, {left} left; the same command goes on")
                break
    if claims.finished_elsewhere:
        say(f"{row.title}: {counted(claims.finished_elsewhere)} finished by other processes")
        _tell_finished(job, row, set(todo) - computed)
    return progress.failed + claims.failed_elsewhere


def _conditions(job: Job) -> dict[str, Any]:
    """The conditions of a measurement: repeats and the machine's state."""
    return {"cost_repeats": job.repeats, **machine_state()}


def _prepare(job: Job, aligner: Aligner, backbone: Backbone | None) -> Cost:
    seed_everything(job.seed)
    with measure() as cost:
        aligner.prepare(backbone, job.protocol)
    check_model(backbone, "prepare")
    return cost


def _to_try(row: Row, missing: Sequence[str], job: Job, provenance: Mapping[str, Any]) -> list[str]:
    """The missing cells that the command asks for, and a line on what is left alone and by what it was computed.

    ``job.retry``: all, those that failed before (failed) or all but these (never).
    """
    total = len(row.ids)
    if not total:
        say(f"{row.title}: no people in shard={job.shard}, nothing to do")
        return []
    if not missing:
        say(f"{row.title}: {counted(total)} finished before, nothing to do{_by_other_versions(row, provenance)}")
        return []
    if len(missing) < total:
        before = f"{total - len(missing)} of {counted(total)} finished before, {len(missing)} to do"
        say(f"{row.title}: {before}{_by_other_versions(row, provenance)}")
    todo = list(missing)
    if job.retry != "all":
        failed = row.folder.failures()
        todo = [each for each in missing if (each in failed) == (job.retry == "failed")]
    if not todo:
        say(f"{row.title}: nothing to do with retry={job.retry}, {len(missing)} missing")
    return todo


def _by_other_versions(row: Row, provenance: Mapping[str, Any]) -> str:
    """What the finished cells were computed with where none of them is of the versions that are installed."""
    installed = {name: provenance.get("packages", {}).get(name) for name in TOLD_PACKAGES}
    kept = [{name: each.get("packages", {}).get(name) for name in TOLD_PACKAGES} for each in row.folder.provenance()]
    if not kept or installed in kept:
        return ""
    other = [name for name in TOLD_PACKAGES if kept[-1][name] != installed[name]]
    told, now = (", ".join(f"{name} {of[name]}" for name in other) for of in (kept[-1], installed))
    return f" (by {told}; installed: {now}; another runs= computes them anew)"


def _tell_finished(job: Job, row: Row, respondent_ids: Collection[str]) -> None:
    """Tell the tracker of cells that were finished before or elsewhere."""
    if job.tracker.follows_people:
        for _, record in row.folder.read_all(each for each in row.ids if each in respondent_ids):
            job.tracker.log_person(record)
