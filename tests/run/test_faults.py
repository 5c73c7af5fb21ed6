"""Faults that really happen: what is lost, what is told, and that nothing wrong is ever scored."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.few_shot import FewShot, Vanilla
from baselines.floors import floors
from baselines.pas.aligner import PersonalityActivationSearch
from palign_bench.aligner import Case
from palign_bench.backbone import loading
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.out_of_memory import BATCH_DIVISORS, is_out_of_memory
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Respondent
from palign_bench.respondents import RespondentSource, simulate
from palign_bench.settings import UserError, read_option
from tests.command import PROGRAM, cells, environment, run, run_here, table
from tests.run.test_row import Setting, without_costs
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

FLOORS = ["method=floors", "respondents=simulated", "tracking=none"]


@pytest.fixture
def people() -> RespondentSource:
    return simulate(count=6, seed=3)


@pytest.fixture
def setting(
    tmp_path: Path, people: RespondentSource, tiny_backbone: LocalBackbone, monkeypatch: pytest.MonkeyPatch
) -> Setting:
    return Setting(tmp_path / "runs", people, tiny_backbone)


def test_memory_that_runs_out_is_known_by_type_or_words() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert (
        is_out_of_memory(caught.value)
        and is_out_of_memory(MemoryError())
        and is_out_of_memory(torch.OutOfMemoryError())
    )
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))


@contextmanager
def memory_for(backbone: LocalBackbone, positions: int) -> Iterator[list[int]]:
    """Forward passes of more positions than these run out of memory."""
    tried: list[int] = []
    plain = backbone.engine.option_log_probs

    def limited(*arguments: Any, **options: Any) -> Any:
        tried.append(backbone.engine.positions)
        if backbone.engine.positions > positions:
            torch.empty(2**60, dtype=torch.uint8)
        return plain(*arguments, **options)

    backbone.engine.option_log_probs = limited  # type: ignore[method-assign]
    try:
        yield tried
    finally:
        backbone.engine.option_log_probs = plain  # type: ignore[method-assign]


def test_a_cell_that_runs_out_of_memory_is_tried_in_smaller_batches(setting: Setting, tmp_path: Path) -> None:
    ids = [person.id for person in setting.job.people]
    _, roomy = setting.run(FewShot())
    usual = setting.backbone.engine.positions
    setting.session.answers.forget()
    setting.change(runs=tmp_path / "narrow")
    with memory_for(setting.backbone, usual // 4) as tried:
        failed, folder = setting.run(FewShot())
    assert failed == 0 and folder.finished() == set(ids) and setting.backbone.engine.positions == usual
    assert tried == [usual, usual // 4] * 3, "every cell starts with the usual batches"
    for each in ids:
        narrow, wide = folder.read(each), roomy.read(each)
        assert narrow is not None and wide is not None
        assert (narrow["cost"]["batch_divisor"], wide["cost"]["batch_divisor"]) == (4, 1)
        for number, row in wide["log_probs"].items():
            assert narrow["log_probs"][number] == pytest.approx(row, abs=1e-4)


def test_memory_that_runs_out_in_answering_aligns_nobody_again(setting: Setting) -> None:
    class Counted(FewShot):
        aligned = 0

        def align(self, case: Case) -> Alignment:
            type(self).aligned += 1
            return super().align(case)

    with memory_for(setting.backbone, setting.backbone.engine.positions // 4) as tried:
        failed, _ = setting.run(Counted())
    assert failed == 0 and len(tried) == 2 * len(setting.job.people)
    assert Counted.aligned == len(setting.job.people)


def test_a_cell_that_never_fits_fails_alone(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    usual = setting.backbone.engine.positions
    greedy = setting.job.people[1].id

    class Greedy(FewShot):
        def align(self, case: Case) -> Alignment:
            if case.respondent_id == greedy:
                torch.empty(2**60, dtype=torch.uint8)
            return super().align(case)

    failed, folder = setting.run(Greedy())
    assert failed == 1 and len(folder.finished()) == 2 and setting.backbone.engine.positions == usual
    assert "allocate" in folder.failures()[greedy]
    assert capsys.readouterr().err.count("memory ran out") == len(BATCH_DIVISORS) - 1


def test_answers_of_smaller_batches_serve_no_other_cell(setting: Setting) -> None:
    usual = setting.backbone.engine.positions
    with memory_for(setting.backbone, usual // 4):
        _, folder = setting.run(Vanilla(), "vanilla")
    records = [folder.read(person.id) for person in setting.job.people]
    assert [record and record["cost"]["reused_answers"] for record in records] == [False] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_a_failure_and_never_a_score(setting: Setting, value: float) -> None:
    broken = setting.job.people[0].id

    class Broken(FewShot):
        def align(self, case: Case) -> Alignment:
            alignment = super().align(case)
            if case.respondent_id != broken:
                return alignment
            return replace(alignment, head_shifts=torch.full((2, 64), value))

    failed, folder = setting.run(Broken())
    assert failed == 1 and broken not in folder.finished() and len(folder.finished()) == 2
    assert folder.failures()[broken].startswith("FloatingPointError: the model's logits are not finite")
    assert setting.run(FewShot())[0] == 0


def test_a_method_that_cannot_be_prepared_is_a_failed_row_and_is_tried_again(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unprepared(FewShot):
        def prepare(self, backbone: Any, inventory: Any) -> None:
            raise RuntimeError("no kernel\nfor this")

    failed, folder = setting.run(Unprepared())
    assert failed == 3 and folder.finished() == set()
    assert set(folder.failures().values()) == {"RuntimeError: no kernel\nfor this"} and len(folder.failures()) == 3
    told = capsys.readouterr().err
    assert "few_shot: 3 people not answered, preparing failed: RuntimeError: no kernel for this\n" in told
    assert setting.run(FewShot())[0] == 0 and folder.failures() == {}


def test_what_only_a_loaded_model_tells_is_recorded_too(setting: Setting) -> None:
    """A mistake of the user's that `prepare` finds is the command's to tell; `status` and retry=failed know of it."""

    class Refusing(FewShot):
        def prepare(self, backbone: Any, inventory: Any) -> None:
            raise UserError("method.k=9: the model has only 4 heads")

    with pytest.raises(UserError, match="only 4 heads"):
        setting.run(Refusing())
    folder = setting.change(retry="never").run(FewShot())[1]
    assert set(folder.failures().values()) == {"UserError: method.k=9: the model has only 4 heads"}
    assert len(folder.failures()) == 3 and folder.finished() == set()
    assert (
        setting.change(retry="failed").run(FewShot())[0] == 0
        and len(folder.finished()) == 3
        and folder.failures() == {}
    )


def test_a_failed_row_leaves_the_others_and_their_table(tmp_path: Path) -> None:
    """`python -m palign_bench` does what `palign-bench` does: the finished rows' table, and an exit code that tells."""
    (tmp_path / "twice.py").write_text(
        "from baselines.few_shot import Vanilla\n"
        "prepared = []\n"
        "class OnlyOnce(Vanilla):\n"
        "    def prepare(self, backbone, protocol):\n"
        "        prepared.append(self)\n"
        "        if len(prepared) > 1:\n"
        "            raise RuntimeError('cannot be prepared')\n"
        "        super().prepare(backbone, protocol)\n"
    )
    arguments = ["-m", "method=few_shot,vanilla", "method._target_=twice.OnlyOnce", "model=organism", "tracking=none"]
    arguments += ["respondents=simulated", "respondents.limit=2", f"runs={tmp_path / 'runs'}"]
    variables = environment(tmp_path)
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), variables.get("PYTHONPATH", "")])

    def told(*program: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            [*program, *arguments], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
        )
        return ran.returncode, ran.stdout, ran.stderr

    code, shown, errors = told(sys.executable, "-m", "palign_bench")
    assert code == 1 and "2 cells are missing" in errors and "Traceback" not in errors
    assert "Vanilla: 2 people not answered, preparing failed: RuntimeError: cannot be prepared" in errors
    assert "Few-Shot" in shown
    frame = table(tmp_path / "runs", "run").set_index("method")
    assert frame["missing_cells"].to_dict() == {"few_shot": 0, "vanilla": 2}
    code, shown, errors = told(str(PROGRAM))
    assert code == 0 and "Few-Shot: 2 people finished before" in errors and "Few-Shot" in shown
    assert table(tmp_path / "runs", "run")["missing_cells"].tolist() == [0, 0]


def test_a_floor_that_is_no_number_is_never_stored(setting: Setting) -> None:
    class Undefined(FewShot):
        needs_backbone = False

        def align(self, case: Case) -> Alignment:
            return Alignment(answers=dict.fromkeys(self.inventory.held_out, float("nan")))

    failed, folder = setting.run(Undefined(), "undefined")
    assert failed == 3 and folder.finished() == set()
    assert all("JSON compliant" in message for message in folder.failures().values())


def test_a_person_with_almost_no_answers_is_kept(setting: Setting, people: RespondentSource) -> None:
    """One known and one held-out answer: every method answers them, and no composite is made up."""
    inventory = setting.job.protocol.inventory
    known, held_out = inventory.known[0], inventory.held_out[0]
    sparse = Respondent("sparse", {known: 5, held_out: 2})
    source = RespondentSource("file", "x", (*people.people, sparse))
    setting.change(source=source, people=(sparse, people.people[0]))
    rows = {"few_shot": FewShot(), "pas": PersonalityActivationSearch(k=2)} | floors(["ridge", "facet_mean"])
    for name, aligner in rows.items():
        failed, folder = setting.run(aligner, name)
        assert failed == 0, folder.failures()
        record = folder.read("sparse")
        assert record is not None and record["truth"] == {str(held_out): 2}
        assert record["scores"]["composite"] is None
        domain = [score for name, score in record["scores"].items() if score is not None]
        assert domain == [abs(record["answers"][str(held_out)] - 2)]


def test_changed_weights_are_another_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "tiny")
    settings = resolve_model(read_option("model", "local") | {"name_or_path": str(folder)})
    before = loading.identify(settings)
    assert loading.identify(settings) == before
    tiny_model(tiny_tokenizer(), seed=1).save_pretrained(folder)
    after = loading.identify(settings)
    assert {key for key in before if before[key] != after[key]} == {"weights_hash"}


def test_changed_people_are_other_cells(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    held_out = 9  # item 1 is known
    path.write_text(f"id,i1,i{held_out}\nanna,1,2\nben,3,4\n")
    arguments = ["method=floors", "method.rows=[constant_a,truth]", "respondents=file", f"respondents.path={path}"]
    first = run_here(*arguments, "tracking=none", folder=tmp_path)
    assert first.returncode == 0, first.stderr
    before = cells(tmp_path / "runs")
    path.write_text(f"id,i1,i{held_out}\nanna,1,3\nben,3,4\n")
    second = run_here(*arguments, "tracking=none", folder=tmp_path)
    after = cells(tmp_path / "runs")
    assert second.returncode == 0 and before.items() < after.items() and len(after) == 2 * len(before) == 8
    assert len(list((tmp_path / "runs" / "cells").glob("truth-*"))) == 2


def test_damaged_cells_are_set_aside_and_computed_again(tmp_path: Path) -> None:
    arguments = [*FLOORS, "method.rows=[random]", "respondents.limit=4"]
    assert run_here(*arguments, folder=tmp_path).returncode == 0
    before = {path: json.loads((tmp_path / "runs" / path).read_text())["record"] for path in cells(tmp_path / "runs")}
    paths = sorted(tmp_path / "runs" / path for path in before)
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:99])
    edited = paths[2].read_text().replace('"composite"', '"Composite"')
    paths[2].write_text(edited)
    again = run_here(*arguments, folder=tmp_path)
    assert again.returncode == 0 and "1 of 4 people finished before, 3 to do" in again.stderr
    assert again.stderr.count("was damaged or edited: set aside as") == 3 and "Traceback" not in again.stderr
    assert paths[2].with_suffix(".damaged").read_text() == edited
    after = {path: json.loads((tmp_path / "runs" / path).read_text())["record"] for path in cells(tmp_path / "runs")}
    assert {path: without_costs(record) for path, record in after.items()} == {
        path: without_costs(record) for path, record in before.items()
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; skips where this user may not mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("no permission to mount a small disk; RLIMIT_FSIZE stands in for it in test_ledger.py")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def test_a_full_disk_loses_nothing_and_a_larger_one_goes_on(small_disk: Path, tmp_path: Path) -> None:
    arguments = [*FLOORS, "respondents.limit=40", f"runs={small_disk / 'runs'}"]
    full = run(*arguments, folder=tmp_path)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert full.stderr.rstrip().splitlines()[-1].startswith("palign-bench: cannot ")
    assert "No space left on device. Free the disk or choose another folder with runs=PATH." in full.stderr
    before = cells(small_disk / "runs")
    assert before and not list(small_disk.rglob("*.tmp")) and not list(small_disk.rglob("*.error.json"))
    remount(small_disk, "size=64m")
    rest = run_here(*arguments, folder=tmp_path)
    assert rest.returncode == 0, rest.stderr
    after = cells(small_disk / "runs")
    assert before.items() <= after.items() and len(after) == 40 * 11
    assert not list(small_disk.rglob("*.damaged")) and not list(small_disk.rglob("*.lock"))


def test_a_read_only_disk_is_told_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    arguments = [*FLOORS, "method.rows=[constant_a]", "respondents.limit=3", f"runs={small_disk / 'runs'}"]
    remount(small_disk, "size=64m")
    assert run_here(*arguments, folder=tmp_path).returncode == 0
    (path, *_) = (small_disk / "runs").glob("cells/*/respondents/*.json")
    path.unlink()
    remount(small_disk, "ro")
    refused = run(*arguments, folder=tmp_path)
    assert refused.returncode == 1 and refused.stderr.count("\n") <= 2, refused.stderr
    assert "Read-only file system" in refused.stderr and "Traceback" not in refused.stderr
    shown = run_here("report", "run", "--runs", str(small_disk / "runs"), folder=tmp_path)
    assert shown.returncode == 0 and "Always A" in shown.stdout and "Read-only file system" in shown.stdout
    assert "Traceback" not in shown.stderr
    status = run_here("status", "--runs", str(small_disk / "runs"), folder=tmp_path)
    assert status.returncode == 0 and "1 cell missing" in status.stdout


def test_a_person_whose_prompt_is_too_long_fails_in_one_line_and_the_others_are_answered(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = setting.job.people
    known = set(setting.job.protocol.known(first))
    brief = [replace(p, answers={n: v for n, v in p.answers.items() if n not in list(known)[3:]}) for p in others]
    setting.change(people=(first, *brief))
    model = setting.backbone.model
    model.config.max_position_embeddings = 700
    setting.backbone = LocalBackbone(setting.backbone.loaded, setting.job.protocol)
    failed, folder = setting.run(FewShot())
    assert failed == 1 and folder.finished() == {person.id for person in brief}
    (told,) = folder.failures().values()
    assert re.fullmatch(r"UserError: a prompt takes [\d,]+ tokens, and the model's context holds 700\.", told)
    assert f"person {first.id} failed: {told}" in capsys.readouterr().err
