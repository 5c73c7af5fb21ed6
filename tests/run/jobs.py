"""Jobs without a command line."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Row
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.respondents import RespondentSource
from palign_bench.run.job import Job
from palign_bench.run.row import run_row
from palign_bench.run.session import Session
from palign_bench.tracking.tracker import Tracker
from tests.protocols import CORRECTED


def a_job(runs: Path, source: RespondentSource, people: Sequence[Respondent], **changes: Any) -> Job:
    """A job of these people on a model called tiny, under `corrected`, with no row yet."""
    job = Job(
        composed={"method": {"name": "test"}},
        settings={},
        runs=runs,
        experiment="test",
        protocol=CORRECTED,
        source=source,
        people=tuple(people),
        model={"name": "tiny"},
        seed=0,
        known_answers=None,
        repeats=None,
        retry="all",
        shard=None,
        tracker=Tracker(),
        aligners={},
        identities={},
        rows=(),
    )
    return replace(job, **changes)


def run_alone(job: Job, name: str, aligner: Aligner, session: Session) -> tuple[int, CellFolder]:
    """Compute one row of the job: how many cells failed, and the folder of the cells."""
    identity = {"row": name, "protocol": job.protocol.name}
    row = Row(name, name, "methods", CellFolder.at(job.runs, name, identity), tuple(each.id for each in job.people))
    row.folder.keep({"name": name}, identity)
    with_row = replace(job, aligners={name: aligner}, identities={name: identity}, rows=(row,))
    return run_row(with_row, row, session, {"git_commit": None}), row.folder
