"""The tables that a command planned, built and printed at its end."""

import sys
from collections.abc import Sequence

from palign_bench.ledger.plan import Command
from palign_bench.report import make_report
from palign_bench.run.job import Job
from palign_bench.run.session import Session


def show_tables(session: Session, jobs: Sequence[Job]) -> int:
    """Build, print and track every table of the command. Returns how many cells are missing, of a shard its own."""
    missing = sum(len(row.missing()) for job in jobs for row in job.own_rows)
    places = {(job.runs, job.experiment): job for job in jobs}
    for (runs, experiment), job in places.items():
        if Command.last(runs, experiment).id != session.command:
            print(
                f"No table: another command has planned {experiment} since. `palign-bench report {experiment}` shows "
                f"that one's, and `palign-bench resume {experiment} --list` all commands.",
                file=sys.stderr,
            )
            continue
        for plan in Command(runs, experiment, session.command).tables():
            report, pictures, text = make_report(plan)
            print(text, flush=True)
            job.tracker.log_table(report.frame, pictures, experiment, plan.folder.name, job.scale_of)
    return missing
