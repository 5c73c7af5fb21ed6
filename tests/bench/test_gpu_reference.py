"""The stages of `make gpu-reference`, what becomes of them, and what it says on a machine without a GPU.

`make gpu-reference REHEARSAL=1`, which runs every stage, is part of `.ci/run`.
"""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from baselines.training.memory import forecast, shape_of_training
from bench.gpu_reference import __main__ as gpu_reference
from bench.gpu_reference.figures import memory, table_of
from bench.gpu_reference.reference import Reference
from bench.gpu_reference.stages import ON_A_GPU, REHEARSAL, Stage, stages
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.sources import config_of
from palign_bench.backbone.parts.adapters import peft_config
from palign_bench.files import write_atomically
from palign_bench.ledger.plan import Command, PlannedJob
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.settings import UserError, read_option
from tests.ledgers import kept_folder, row_of


def python(code: str, name: str = "stage", seconds: float = 30, gib: float = 0) -> Stage:
    """A stage that runs this program."""

    class Program(Stage):
        def command(self, seconds: float) -> list[str]:
            return [sys.executable, "-c", code]

    return Program(name, "what it shows", (code,), seconds, gib=gib)


def test_all_stages_together_fit_into_the_time() -> None:
    for scale in (ON_A_GPU, REHEARSAL):
        found = stages(Path("ledger"), ("respondents=simulated",), scale)
        assert len({stage.name for stage in found}) == len(found)
        assert sum(stage.seconds for stage in found) <= gpu_reference.MINUTES * 60
        assert all(any("ledger" in each for each in stage.arguments) for stage in found)


def test_without_a_gpu_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"finds none here .*REHEARSAL=1"):
        gpu_reference.main(["--runs", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_stage_that_is_done_is_not_run_again_and_the_others_are(tmp_path: Path) -> None:
    said: list[str] = []
    marks = tmp_path / "marks"
    fine = python(f"open({str(marks)!r}, 'a').write('x')")
    broken = python("import sys; sys.exit('palign-bench: no such thing')", "broken")
    large = python("raise SystemExit(0)", "large", gib=46)
    for _ in range(2):
        reference = Reference(tmp_path / "ledger", tmp_path / "folder", 600, said.append)
        for stage in (fine, broken, large):
            reference.do(stage, gib=20.0)
    assert marks.read_text() == "x" and "stage: done before" in said
    states = {name: (each.state, each.note) for name, each in reference.outcomes.items()}
    assert states["broken"] == ("failed", "no such thing")
    assert states["large"] == ("skipped", "needs 46 GiB of GPU memory, 20 are there")
    page = reference.write([fine, broken, large], rehearsal=True).read_text()
    assert "REHEARSAL" in page and re.search(r"broken .*failed .*no such thing", page)
    changed = python("raise SystemExit(0)")
    reference.do(changed, gib=20.0)
    assert said[-1].startswith("stage: done (") and marks.read_text() == "x", "another command is another stage"


def test_a_stage_ends_when_its_time_is_over_and_no_other_begins_after_the_last(tmp_path: Path) -> None:
    reference = Reference(tmp_path / "ledger", tmp_path / "folder", 600, lambda _: None)
    reference.do(python("import time; time.sleep(60)", seconds=0.5), None, later=1e6)
    outcome = reference.outcomes["stage"]
    assert outcome.state == "partial" and outcome.seconds < 30
    late = Reference(tmp_path / "ledger", tmp_path / "folder", 0, lambda _: None)
    late.do(python("raise SystemExit(0)", "late"), None)
    assert late.outcomes["late"].note == "no time was left; the same command does it"


def test_why_cells_failed_is_told_and_stands_in_the_page(tmp_path: Path) -> None:
    said: list[str] = []
    folder = kept_folder(
        tmp_path, "lora", {"method": {"name": "lora", "budget": "paper", "steps": 75}, "model": {}}, {}
    )
    try:
        torch.ones(2) @ torch.ones(3)
    except RuntimeError as error:
        folder.fail("p1", error)
        folder.fail("p2", error)
    Command(tmp_path, "stage", "command").write([], [PlannedJob(0, (row_of("lora", folder, ["p1", "p2"]),), ABOUT)])
    reference = Reference(tmp_path, tmp_path / "folder", 600, said.append)
    broken = replace(python("raise SystemExit(1)"), rows=1)
    reference.do(broken, None)
    assert said[-1].count("torch.ones(2) @ torch.ones(3)") == 1 and "size" in said[-1].splitlines()[-1]
    page = reference.write([broken], rehearsal=True).read_text()
    assert re.search(r"stage: Missing cells: .* 2\.", page) and "RuntimeError" in page


def test_both_benchmarks_stand_in_the_page_and_in_one_file(tmp_path: Path) -> None:
    for place, seconds in (("bench", 0.5), ("bench_8b/bench", 2.0)):
        write_atomically(
            tmp_path / place / "bench.csv", f"name,seconds,note\nours,{seconds},180 items\npeer,,missing\n"
        )
    page = Reference(tmp_path, tmp_path / "folder", 600, print).write([], rehearsal=True).read_text()
    assert "bench, ours: 0.5 s. 180 items" in page and "8b, ours: 2 s. 180 items" in page and "peer" not in page
    assert pd.read_csv(tmp_path / "folder" / "bench.csv")["stage"].tolist() == ["bench"] * 2 + ["bench_8b"] * 2


def test_stages_share_the_time_that_is_left(tmp_path: Path) -> None:
    """In ample time each takes its share; in little time the first take what they need and the last ones wait."""
    given: dict[str, float] = {}

    class Told(Stage):
        def command(self, seconds: float) -> list[str]:
            given[self.name] = round(seconds)
            return [sys.executable, "-c", ""]

    found = [Told(name, "", (name,), seconds) for name, seconds in (("a", 40), ("b", 60), ("c", 100))]
    for minutes, expected in ((20, {"a": 240, "b": 450, "c": 1200}), (2, {"a": 40, "b": 60, "c": 120})):
        reference = Reference(tmp_path / str(minutes), tmp_path / "folder", minutes * 60, lambda _: None)
        reference.do_all(found, None)
        assert given == pytest.approx(expected, abs=3)


def test_an_interrupted_stage_is_not_told_as_one_that_was_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Reference(tmp_path / "ledger", tmp_path / "folder", 600, lambda _: None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    stage = python("import time; time.sleep(60)")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(subprocess.Popen, "wait", interrupted)
        patched.setattr("bench.gpu_reference.reference._end", lambda process: process.kill())
        reference.do(stage, None)
    assert Reference(tmp_path / "ledger", tmp_path / "folder", 600, print).outcomes["stage"].state == "partial"
    assert re.search(r"stage .*partial .*interrupted", reference.write([stage], rehearsal=True).read_text())


def test_rows_share_the_time_of_their_stage_equally() -> None:
    found = {stage.name: stage for stage in stages(Path("ledger"), ("respondents=simulated",), ON_A_GPU)}
    assert found["together"].command(120)[-1] == f"row_seconds={(120 - 20) / 5:.0f}"
    assert found["together"].command(10)[-1] == "row_seconds=5"
    assert "row_seconds" not in " ".join(found["bench"].command(60))


@pytest.mark.parametrize("together", [1, 16])
def test_memory_stands_beside_its_forecast(tmp_path: Path, together: int) -> None:
    """A LoRA row that took exactly what its shapes say, for each of the people in one pass, has the ratio 1."""
    model, lora = read_option("model", "organism"), read_option("method", "lora")
    config = {"model": model, "method": lora}
    folder = kept_folder(
        tmp_path, "lora", {"method": {"name": "lora", "budget": "paper", "steps": 75}, "model": {}}, config
    )
    shape = shape_of_training(config_of(resolve_model(model)), torch.bfloat16, 2**30, peft_config(lora["peft"]), 512)
    peak = forecast(shape).total / 2**20
    folder.write_shared({"load_seconds": 0, "prepare_seconds": 0, "bare_memory_mib": 1024})
    folder.record("p1", A_RECORD | {"alignment": {"summary": {"cohort": together}},
                                    "cost": {"align_seconds": 1.0, "answer_seconds": 1.0, "tokens_per_step": 512,
                                             "peak_memory_mib": together * (peak - 1024)}})  # fmt: skip
    command = Command(tmp_path, "trained", "command")
    command.write([], [PlannedJob(0, (row_of("lora", folder, ["p1"]),), ABOUT)])
    report = table_of(tmp_path, "trained")
    assert report is not None
    table = memory({"trained": report})
    assert table is not None
    ((stage, _, bare, measured, expected, ratio),) = table.rows
    assert (stage, bare, ratio) == ("trained", "1,024", "1.00") and measured == expected


ABOUT = {"model": "organism", "protocol": "corrected", "inventory": ipip_neo_300().outline()}
A_RECORD = {
    "respondent": "p1", "seed": 0, "asked": [6], "answers": {"6": 3}, "log_probs": None, "texts": None, "audit": None,
    "truth": {"6": 3}, "scores": {"composite": 0.0}, "traits": {}, "person_traits": {}, "alignment": {"summary": {}},
}  # fmt: skip
