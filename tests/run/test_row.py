"""The runner: what is missing is computed, what fails is recorded, and nobody's result depends on anybody else."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.few_shot import FewShot, Vanilla
from baselines.floors import floors
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import part
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Row
from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.respondents import RespondentSource, simulate
from palign_bench.run.session import Session
from palign_bench.run.survey import Shard
from palign_bench.settings import read_option
from palign_bench.tracking.tracker import Tracker
from tests.protocols import AS_RELEASED, CORRECTED
from tests.run.jobs import a_job, run_alone


class Watched(Tracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.wanted = False

    follows_people = True

    def wants_finished_row(self, experiment: str, key: str, people: Collection[str]) -> bool:
        return self.wanted

    def start_row(self, identity: Any, name: str, experiment: str, tags: Sequence[str] = (), **_: Any) -> None:
        self.told.append(("start", name))

    def log_person(self, record: Any) -> None:
        self.told.append(("person", record["respondent"]))

    def finish_row(self, summary: Any) -> None:
        self.told.append(("finish", dict(summary)))


class Fragile(FewShot):
    """Fails for the people named, and counts whom it was given."""

    def __init__(self, fails_for: Sequence[str] = ()) -> None:
        self.fails_for = list(fails_for)
        self.given: list[str] = []

    def align(self, case: Case) -> Alignment:
        self.given.append(case.respondent_id)
        if case.respondent_id in self.fails_for:
            raise RuntimeError("no alignment for you")
        return super().align(case)


@pytest.fixture(scope="module")
def people() -> RespondentSource:
    return simulate(count=6, seed=3)


class Setting:
    """A job on the tiny model whose parts a test can exchange."""

    def __init__(self, runs: Path, source: RespondentSource, backbone: LocalBackbone):
        self.loads = 0
        self.backbone = backbone
        self.tracker = Watched()
        self.session = Session()
        self.session.load_backbone = self._load  # type: ignore[method-assign]
        self.job = a_job(runs, source, source.people[:3], tracker=self.tracker)

    def _load(self, *_: Any) -> tuple[LocalBackbone, float]:
        self.loads += 1
        return self.backbone, 1.5

    def change(self, **changes: Any) -> Setting:
        self.job = replace(self.job, **changes)
        return self

    def run(self, aligner: Aligner, name: str = "few_shot") -> tuple[int, CellFolder]:
        return run_alone(self.job, name, aligner, self.session)


@pytest.fixture
def setting(tmp_path: Path, people: RespondentSource, tiny_backbone: LocalBackbone) -> Setting:
    return Setting(tmp_path / "runs", people, tiny_backbone)


def without_costs(record: Any) -> dict[str, Any]:
    assert record is not None
    return {key: value for key, value in record.items() if key != "cost"}


def test_a_record_holds_what_the_ledger_promises(setting: Setting, inventory: Inventory) -> None:
    failed, folder = setting.run(FewShot())
    person = setting.job.people[0]
    record = folder.read(person.id)
    assert failed == 0 and record is not None
    assert set(record) == {
        "respondent", "seed", "asked", "answers", "log_probs", "texts", "audit", "truth", "scores", "traits",
        "person_traits", "alignment", "cost", "ties",
    }  # fmt: skip
    assert record["asked"] == list(inventory.held_out) and len(record["answers"]) == 180
    assert record["truth"] == {str(n): person.answers[n] for n in inventory.held_out if n in person.answers}
    for number, row in record["log_probs"].items():
        assert np.exp(row).sum() == pytest.approx(1, abs=1e-5)
        assert record["answers"][number] == 5 - int(np.argmax(row))
    by_domain: dict[str, list[float]] = {}
    for number, value in record["truth"].items():
        by_domain.setdefault(inventory[int(number)].scale, []).append(abs(record["answers"][number] - value))
    means = [sum(each) / len(each) for each in by_domain.values()]
    assert record["scores"]["composite"] == pytest.approx(sum(means))
    assert record["texts"] is None and len(record["audit"]) == 20
    assert record["cost"]["tokens_read"] > 180 and record["cost"]["reused_answers"] is False
    assert folder.shared()["load_seconds"] == 1.5 and folder.provenance() == [{"git_commit": None}]


def test_generating_protocol_keeps_texts_and_needs_no_audit(setting: Setting) -> None:
    setting.change(protocol=AS_RELEASED, people=setting.job.people[:1])
    setting.backbone.protocol = AS_RELEASED
    _, folder = setting.run(FewShot())
    record = folder.read(setting.job.people[0].id)
    assert record is not None
    assert len(record["texts"]) == 180 and record["log_probs"] is None and record["audit"] is None
    assert set(record["answers"]) <= set(record["texts"])


def test_a_row_begins_nobody_once_its_seconds_are_over(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    method = Fragile()
    failed, folder = setting.change(row_seconds=1e-9).run(method)
    people = [each.id for each in setting.job.people]
    assert failed == 0 and method.given == people[:1] and sorted(folder.finished()) == people[:1]
    assert "row_seconds=1e-09 are over, 2 left; the same command goes on" in capsys.readouterr().err
    setting.run(method)
    setting.change(row_seconds=None).run(method)
    assert method.given == people, "nobody twice, and the rest without a limit"


def test_resuming_is_a_set_difference(setting: Setting) -> None:
    everyone = setting.job.source.people
    setting.change(people=everyone[:2]).run(FewShot())
    folder = setting.run(FewShot())[1]
    kept = {path.name: path.stat().st_mtime_ns for path in (folder.path / "respondents").iterdir()}
    assert setting.loads == 1, "a row that is complete must not load the model"
    aligner = Fragile()
    chosen = (everyone[4], everyone[1], everyone[2], everyone[0])
    failed, again = setting.change(people=chosen).run(aligner)
    assert (failed, again) == (0, folder)
    assert aligner.given == [everyone[4].id, everyone[2].id]
    assert folder.finished() == {person.id for person in chosen}
    for name, modified in kept.items():
        assert (folder.path / "respondents" / name).stat().st_mtime_ns == modified


def test_what_is_done_and_left_is_told(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    everyone = setting.job.source.people
    setting.change(people=everyone[:2]).run(FewShot())
    assert "finished before" not in capsys.readouterr().err
    setting.change(people=everyone[:3]).run(FewShot())
    assert "few_shot: 2 of 3 people finished before, 1 to do" in capsys.readouterr().err
    setting.run(FewShot())
    assert "few_shot: 3 people finished before, nothing to do\n" in capsys.readouterr().err
    # Cells are not computed again for a new version of a package, which says nothing of numbers; but it is told.
    place = setting.run(FewShot())[1].path / "provenance.json"
    (kept,) = json.loads(place.read_text())
    place.write_text(json.dumps([{**kept, "packages": {**kept.get("packages", {}), "torch": "2.1"}}]))
    capsys.readouterr()
    setting.run(FewShot())
    assert "nothing to do (by torch 2.1; installed: torch " in capsys.readouterr().err


def test_a_failing_cell_is_recorded_and_only_it_is_retried(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = (person.id for person in setting.job.people)
    failed, folder = setting.run(Fragile([second]))
    assert failed == 1
    assert folder.finished() == {first, third}
    assert folder.failures() == {second: "RuntimeError: no alignment for you"}
    assert f"person {second} failed: RuntimeError: no alignment for you" in capsys.readouterr().err
    trace = json.loads((folder.path / "respondents" / f"{second}.error.json").read_text())["traceback"]
    assert "raise RuntimeError" in trace
    assert setting.tracker.told[-1] == ("finish", {"missing_cells": 1, "failed_cells": 1})
    mended = Fragile()
    assert setting.run(mended)[0] == 0
    assert mended.given == [second]
    assert folder.failures() == {} and folder.finished() == {first, second, third}


def test_ctrl_c_ends_the_run_and_keeps_what_is_finished(setting: Setting) -> None:
    class Interrupted(FewShot):
        def align(self, case: Case) -> Alignment:
            if case.respondent_id == setting.job.people[1].id:
                raise KeyboardInterrupt
            return super().align(case)

    with pytest.raises(KeyboardInterrupt):
        setting.run(Interrupted())
    rest = Fragile()
    _, folder = setting.run(rest)
    assert rest.given == [person.id for person in setting.job.people[1:]]
    assert folder.failures() == {}


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED])
def test_results_do_not_depend_on_neighbours_order_or_limit(
    tmp_path: Path, people: RespondentSource, tiny_backbone: LocalBackbone, protocol: EvaluationProtocol
) -> None:
    tiny_backbone.protocol = protocol
    person = people.people[1]
    records = []
    for index, chosen in enumerate([(person,), people.people[:2], people.people[2:0:-1]]):
        setting = Setting(tmp_path / str(index), people, tiny_backbone).change(people=chosen, protocol=protocol)
        records.append(without_costs(setting.run(FewShot())[1].read(person.id)))
    assert records[0] == records[1] == records[2]


def test_floors_of_other_people_do_not_depend_on_the_limit(setting: Setting, people: RespondentSource) -> None:
    person = people.people[0]
    for row in ("item_median", "ridge", "random"):
        aligner = floors([row])[row]
        _, alone = setting.change(people=(person,), runs=setting.job.runs / "a").run(aligner, row)
        _, crowd = setting.change(people=people.people, runs=setting.job.runs / "b").run(aligner, row)
        assert without_costs(alone.read(person.id)) == without_costs(crowd.read(person.id))
    assert setting.loads == 0


def test_every_generator_starts_from_the_persons_seed(setting: Setting) -> None:
    """Whatever a method draws from: it does not depend on who came before."""
    drawn: dict[str, list[Any]] = {}

    class Drawing(Aligner):
        needs_backbone = False

        def align(self, case: Case) -> Alignment:
            draws = (random.random(), np.random.rand(), torch.rand(1).item())
            drawn.setdefault(case.respondent_id, []).append(draws)
            return Alignment(answers={})

    source = setting.job.source
    setting.run(Drawing(), "drawing")
    setting.change(people=source.people[:3][::-1], runs=setting.job.runs / "again").run(Drawing(), "drawing")
    assert all(first == second for first, second in drawn.values())
    assert len({draws[0] for draws in drawn.values()}) == 3


def test_an_answer_taken_over_is_charged_all_the_same(setting: Setting) -> None:
    _, folder = setting.run(Vanilla(), "vanilla")
    records: list[Any] = [folder.read(person.id) for person in setting.job.people]
    assert [record["cost"]["reused_answers"] for record in records] == [False, True, True]
    assert len({record["cost"]["answer_seconds"] for record in records}) == 1
    assert len({record["cost"]["tokens_read"] for record in records}) == 1 and records[1]["cost"]["tokens_read"] > 0
    assert records[0]["answers"] == records[1]["answers"] and records[0]["log_probs"] == records[2]["log_probs"]
    assert records[0]["cost"]["answer_seconds"] > 0


class Searching(FewShot):
    """Searches a while, answers under the neutral prompt, and counts what it was asked to do."""

    def __init__(self) -> None:
        self.warmed: list[str] = []
        self.aligned: list[str] = []

    def warm_up(self, case: Case) -> None:
        self.warmed.append(case.respondent_id)

    def align(self, case: Case) -> Alignment:
        self.aligned.append(case.respondent_id)
        with part("search"):
            self.backbone.answer(Alignment(), self.inventory.items[:2])
        return Alignment()


def test_the_search_is_a_part_of_align_and_its_tokens_are_told(setting: Setting) -> None:
    setting.change(people=setting.job.people[:1])
    record = setting.run(Searching())[1].read(setting.job.people[0].id)
    assert record is not None
    assert 0 < record["cost"]["search_seconds"] <= record["cost"]["align_seconds"]
    assert 0 < record["cost"]["align_tokens_read"] < record["cost"]["tokens_read"]
    assert (record["cost"]["reserved_memory_mib"], record["cost"]["joules"]) == (None, None)  # on a CPU


def test_measured_cells_are_computed_anew_each_time_after_a_warm_up(setting: Setting) -> None:
    people = setting.job.people[:2]
    aligner = Searching()
    failed, folder = setting.change(people=people, repeats=3).run(aligner)
    assert failed == 0
    assert aligner.warmed == [people[0].id]
    assert aligner.aligned == [person.id for person in people for _ in range(3)]
    for person in people:
        record = folder.read(person.id)
        assert record is not None and record["cost"]["reused_answers"] is False
        assert record["cost"]["cost_repeats"] == 3 and record["cost"]["optimizer_steps"] == 0
        low, high = record["cost"]["quartiles"]["answer_seconds"]
        assert 0 < low <= record["cost"]["answer_seconds"] <= high
    assert folder.shared()["prepare_seconds"] >= 0
    states = folder.measurement()
    assert len(states) == 1 + len(people) and {state["cost_repeats"] for state in states} == {3}
    assert all(len(state["load_averages"]) == 3 and state["torch_threads"] >= 1 for state in states)


def test_measuring_changes_no_answer(setting: Setting) -> None:
    person = setting.job.people[0]
    setting.change(people=[person])
    _, plain = setting.run(FewShot())
    setting.change(runs=setting.job.runs / "measured", repeats=2)
    _, measured = setting.run(FewShot())
    assert without_costs(plain.read(person.id)) == without_costs(measured.read(person.id))


def test_a_record_holds_nothing_of_another_person_and_no_demography(setting: Setting) -> None:
    people = setting.job.people
    setting.run(FewShot())
    setting.run(floors(["ridge"])["ridge"], "ridge")
    texts = [path.read_text() for path in setting.job.runs.rglob("*.json")]
    assert len(texts) >= 6
    for path in setting.job.runs.rglob("respondents/*.json"):
        others = [person.id for person in people if person.id != path.stem]
        assert not [other for other in others if other in path.read_text()]
    for text in texts:
        assert not [word for word in ('"age"', '"sex"', '"country"', '"timestamp"', "female") if word in text.lower()]


def test_the_tracker_hears_of_everyone_who_is_finished(setting: Setting) -> None:
    ids = [person.id for person in setting.job.people]
    setting.change(people=setting.job.people[:1]).run(FewShot())
    setting.change(people=setting.job.source.people[:3]).run(FewShot())
    people = [told for kind, told in setting.tracker.told if kind == "person"]
    assert people == [ids[0], *ids]  # a second command's run is whole by itself
    assert setting.tracker.told[0] == ("start", "few_shot-tiny-corrected-0")


def test_a_tracked_rows_name_tells_it_from_others_of_its_method(setting: Setting) -> None:
    """By what was set otherwise than usual, but for texts: where files lie never leaves the machine."""
    usual = read_option("method", "pas")
    unusual = usual | {"k": 5, "penalty": 0.5, "probe_prompt": "/home/anna/prompt.txt"}
    intervention = Intervention.parse("N+1", ipip_neo_300())
    changed = replace(setting.job, composed={"method": unusual}, known_answers=30, intervention=intervention)
    row = Row("pas", "PAS", "methods", CellFolder(setting.job.runs), ())
    begins = "pas-none-corrected-0"
    assert replace(setting.job, composed={"method": usual}).tracked_name(row) == begins
    expected = f"{begins}-known_answers=30-intervention=N+1-k=5-penalty=0.5"
    assert changed.tracked_name(row) == expected
    assert replace(changed, shard=Shard(2, 4)).tracked_name(row) == f"{expected}-2of4"


def test_a_finished_row_that_was_never_told_of_is_told_too(setting: Setting) -> None:
    """Another experiment computed it, or another trial of a sweep."""
    setting.run(FewShot())
    setting.tracker.told.clear()
    setting.run(FewShot())
    assert not setting.tracker.told
    setting.tracker.wanted = True
    setting.run(FewShot())
    kinds = [kind for kind, _ in setting.tracker.told]
    assert kinds == ["start", *["person"] * len(setting.job.people), "finish"]


def test_no_tracker_is_needed(setting: Setting) -> None:
    assert setting.change(tracker=Tracker()).run(Vanilla(), "vanilla")[0] == 0


def test_without_a_tracker_no_finished_record_is_read(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.change(tracker=Tracker())
    _, folder = setting.run(Fragile(fails_for=[setting.job.people[1].id]))
    assert len(folder.finished()) == 2

    def unwanted(*_: Any) -> Any:
        raise AssertionError("a record was read")

    monkeypatch.setattr(CellFolder, "read_all", unwanted)
    assert setting.run(Fragile())[0] == 0 and len(folder.finished()) == 3
