"""A command's jobs: planned as a whole, then computed one by one, then shown."""

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers.utils import logging as transformers_logging

from palign_bench.costs.machine import provenance
from palign_bench.ledger.plan import Command, Plan, runs_option
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report import MadeReport, draw_unnamed, make_report
from palign_bench.report.rows import RowNumbers
from palign_bench.report.standings import Standings
from palign_bench.run.case import Cases
from palign_bench.run.isolated import IsolationError, in_own_process
from palign_bench.run.job import Job
from palign_bench.run.row import run_row
from palign_bench.run.session import Session
from palign_bench.settings import Settings, UserError
from palign_bench.tracking.public import thin_scales
from palign_bench.tracking.tracker import Tracker

transformers_logging.disable_progress_bar()  # ours are per person; a bar per weight file would drown them


def resolve(settings: Iterable[Settings], session: Session) -> list[Job]:
    """Every job of a command that has rows. Mistakes are noted in the session, each once; with any there is no job."""
    jobs: list[Job] = []
    named = set()
    for each in settings:
        try:
            if not isinstance(each["method"], Mapping):
                raise UserError("method: the YAML of a method is lines of KEY: VALUE, name and _target_ among them.")
            named.add(each["method"].get("name"))
            jobs.append(Job.of(each, session))
        except UserError as error:
            session.note(error)
    sound = dict.fromkeys(job.settings["method"]["name"] for job in jobs)
    if session.mistakes and sound and len(named) > 1:
        print(f"Nothing was computed. There is no mistake in method={','.join(sound)}.", file=sys.stderr)
    for tracker in {id(job.tracker): job.tracker for job in jobs}.values():
        try:
            tracker.check_rows([row.name for job in jobs if job.tracker is tracker for row in job.rows])
        except UserError as error:
            session.note(error)
    if left_out := ",".join(job.settings["method"]["name"] for job in jobs if not job.rows):
        told = f"method={left_out} learns from other people, and respondents holds one person"
        if not any(job.rows for job in jobs):
            session.note(UserError(f"{told}."))
        elif not session.mistakes:
            print(f"{told}: left out.", file=sys.stderr)
    return [] if session.mistakes else [job for job in jobs if job.rows]


def plan(jobs: Sequence[Job], session: Session) -> None:
    """Write what the command will compute, before it computes anything. Raises WriteError."""
    places: dict[tuple[Path, str], list[tuple[int, Job]]] = {}
    for order, job in enumerate(jobs):
        job.open()
        places.setdefault((job.runs, job.experiment), []).append((order, job))
    for (runs, experiment), found in places.items():
        planned = [job.planned(order, Cases(job).notes()) for order, job in found]
        command = Command(runs, experiment, session.command)
        replaced = command.replaced(planned)
        if replaced:
            print(replaced, file=sys.stderr)
        command.write(session.arguments, planned, {job.part for _, job in found})


def compute_all(jobs: list[Job], session: Session) -> None:
    """Compute the jobs in order, with what has come out so far; what one cannot do is told, and the others go on.

    Each is left without its aligners: a prepared method would keep its model in memory while the next is loaded.
    """
    standings = {place: Standings(Command(*place, session.command)) for place in {(j.runs, j.experiment) for j in jobs}}
    for number, job in enumerate(jobs):
        computes = any(row.missing() for row in job.own_rows)
        try:
            compute(job, session)
        except UserError as error:  # what only a loaded model tells
            session.note(error)
        except IsolationError as error:  # out of memory, for one: the others are worth measuring all the same
            print(f"palign-bench: {error}", file=sys.stderr, flush=True)
        jobs[number] = replace(job, aligners={})
        if computes:
            told = standings[job.runs, job.experiment].after(job.rows, last=number == len(jobs) - 1)
            print(told, end="\n" if told else "", file=sys.stderr, flush=True)


def run(job: Job, session: Session, order: int) -> int:
    """Compute one job of a launcher or a sweeper, which may not be planned yet. Returns how many cells failed."""
    command = Command(job.runs, job.experiment, session.command)
    planned = [row for each in command.jobs() for row in each.rows]
    if not all(row in planned for row in job.rows):
        job.open()
        command.write_jobs([job.planned(order, Cases(job).notes())], f"job-{order:03d}")
        command.start(session.arguments, {job.part})
    return compute(job, session)


def compute(job: Job, session: Session) -> int:
    """Compute a job's missing cells. Returns how many failed."""
    if not job.repeats:
        return _compute_here(job, session)
    missing = any(row.missing() for row in job.own_rows)
    return in_own_process(_measure, job.composed, session, what=job.rows[0].title) if missing else 0


def _compute_here(job: Job, session: Session) -> int:
    origin = provenance()
    return sum(run_row(job, row, session, origin) for row in job.own_rows)


def _measure(settings: Settings, session: Session) -> int:
    """Compute a job under ``cost=isolated``, in the process that was made for it."""
    return _compute_here(Job.of(settings, session), session)


class Left(NamedTuple):
    """How many cells of a command are missing, and how many of these because they failed."""

    missing: int
    failed: int


def show_tables(jobs: Sequence[Job], session: Session) -> Left:
    """Build, print and track every table of the command. Returns what is left of it, of a shard its own."""
    for (runs, experiment), job in {(job.runs, job.experiment): job for job in jobs}.items():
        if Command.last(runs, experiment).id != session.command:
            name = experiment + runs_option(runs)
            print(
                f"No table: another command has planned {experiment} since. `palign-bench report {name}` shows "
                f"that one's, and `palign-bench resume {name} --list` all commands.",
                file=sys.stderr,
            )
            continue
        for plan in Command(runs, experiment, session.command).tables():
            made = make_report(plan)
            print(made.text, flush=True)
            if job.tracker.follows_people:
                _track_table(job.tracker, made, plan)
    missing = [(row, set(row.missing())) for job in jobs for row in job.own_rows]
    failed = sum(len(left.intersection(row.folder.failures())) for row, left in missing if left)
    return Left(sum(len(left) for _, left in missing), failed)


def _track_table(tracker: Tracker, made: MadeReport, plan: Plan) -> None:
    """Give the tracker a table and pictures of it that do not name a user's file; those in the ledger do."""
    report, scale_of = made.report, made.report.inventory.scale_of
    with tempfile.TemporaryDirectory(prefix="palign-bench-") as folder:
        is_named = made.pictures and report.about["respondents"] == "file"
        pictures = draw_unnamed(report, Path(folder)) if is_named else made.pictures
        thin = sorted({scale for row in report.read for scale in _thin_scales(row, report.inventory)})
        tracker.log_table(report.frame, pictures, plan.command.experiment, plan.folder.name, scale_of, thin)


def _thin_scales(row: RowNumbers, inventory: Inventory) -> list[str]:
    """The `thin_scales` of a table's row."""
    items = np.array(inventory.held_out)
    truth, answers = row.digest.truth_to(items) > 0, ~np.isnan(row.digest.answers_to(items))
    return thin_scales(truth, answers, list(inventory.scale_of.values()))
