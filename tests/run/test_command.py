"""The jobs of a command, one after the other."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.ledger.cells import CellFolder
from palign_bench.respondents import simulate
from palign_bench.run.command import compute_all
from palign_bench.run.job import Job
from palign_bench.run.session import Session
from palign_bench.settings import UserError
from tests.ledgers import row_of
from tests.run.jobs import a_job


class Holding(Aligner):
    """Keeps a large object once it is prepared, as methods keep their backbone."""

    needs_backbone = False
    held: weakref.ref[Any] | None = None
    found_alive: bool | None = None

    def prepare(self, backbone: Any, protocol: Any) -> None:
        if Holding.held is not None:
            gc.collect()
            Holding.found_alive = Holding.held() is not None
        self.large = type("Large", (), {})()
        Holding.held = weakref.ref(self.large)

    def align(self, case: Case) -> Alignment:
        return Alignment(answers={})


class Refusing(Aligner):
    """Is refused by what only preparing tells."""

    needs_backbone = False

    def prepare(self, backbone: Any, protocol: Any) -> None:
        raise UserError("no such thing")

    def align(self, case: Case) -> Alignment:
        raise AssertionError


def job_of(runs: Path, name: str, aligner: Aligner) -> Job:
    source = simulate(count=2, seed=3)
    identity = {"row": name}
    row = row_of(name, CellFolder.at(runs, name, identity), [person.id for person in source.people])
    row.folder.keep({}, identity)
    job = a_job(runs, source, source.people)
    return replace(job, aligners={name: aligner}, identities={name: identity}, rows=(row,))


def test_a_finished_jobs_model_is_let_go_before_the_next_is_loaded(tmp_path: Path) -> None:
    compute_all([job_of(tmp_path, "one", Holding()), job_of(tmp_path, "two", Holding())], Session())
    assert Holding.found_alive is False


def test_what_one_job_cannot_do_is_told_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job_of(tmp_path, name, Refusing()) for name in ("one", "two")] + [job_of(tmp_path, "three", Holding())]
    session = Session()
    compute_all(jobs, session)
    assert session.mistakes == ["no such thing"] and capsys.readouterr().err.count("palign-bench: no such thing") == 1
    assert [len(job.own_rows[0].missing()) for job in jobs] == [2, 2, 0]
