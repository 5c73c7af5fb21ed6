"""People of a row who are answered in one batch: the same records as alone, their costs shared, failures their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.few_shot import FewShot, Vanilla
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory, Item
from palign_bench.respondents import RespondentSource, simulate
from tests.protocols import CORRECTED
from tests.run.test_row import Fragile, Setting, without_costs


class Batches(LocalBackbone):
    """Keeps of how many people each call answered."""

    def __init__(self, loaded: LoadedModel):
        super().__init__(loaded, CORRECTED, cohort=2)
        self.sizes: list[int] = []

    def answer(self, alignment: Alignment, items: Sequence[Item], audit: Sequence[Item] = ()) -> AnswerSheet:
        self.sizes.append(1)
        return super().answer(alignment, items, audit)

    def answer_many(
        self, alignments: Sequence[Alignment], items: Sequence[Item], audit: Sequence[Item] = ()
    ) -> list[AnswerSheet]:
        self.sizes.append(len(alignments))
        return super().answer_many(alignments, items, audit)


@pytest.fixture(scope="module")
def people() -> RespondentSource:
    return simulate(count=6, seed=3)


@pytest.fixture
def backbone(tiny: LoadedModel, inventory: Inventory) -> Batches:
    """Two people's answers fill a forward pass."""
    return Batches(tiny)


@pytest.fixture
def setting(tmp_path: Path, people: RespondentSource, backbone: Batches) -> Setting:
    return Setting(tmp_path / "together", people, backbone)


class Brief(FewShot):
    """A beginning of the prompt, of a length of each person's own: whole prompts would take the oracle minutes."""

    def align(self, case: Case) -> Alignment:
        text = super().align(case).system_prompt or ""
        return Alignment(system_prompt=text[: 200 + case.seed % 300])


class Shifted(Brief):
    """A shift of each person's own besides the prompt, drawn from the person's seed."""

    def align(self, case: Case) -> Alignment:
        return replace(super().align(case), head_shifts=torch.randn(2, 64))


@pytest.mark.parametrize("aligner", [Brief(), Shifted()])
def test_a_record_is_what_it_is_alone(
    setting: Setting, backbone: Batches, tiny: LoadedModel, tmp_path: Path, aligner: Brief
) -> None:
    _, together = setting.run(aligner)
    assert backbone.sizes == [2, 1]
    whole = LocalBackbone(tiny, CORRECTED, "full_prompts")
    _, alone = Setting(tmp_path / "alone", setting.job.source, whole).run(aligner)
    records: list[Any] = [together.read(person.id) for person in setting.job.people]
    for record in records:
        own: Any = alone.read(record["respondent"])
        for number, row in own["log_probs"].items():
            assert record["log_probs"][number] == pytest.approx(row, abs=1e-4)
        exact = [{k: v for k, v in without_costs(each).items() if k != "log_probs"} for each in (record, own)]
        assert exact[0] == exact[1]
    assert [record["cost"]["answered_together"] for record in records] == [2, 2, 1]
    seconds = [record["cost"]["answer_seconds"] for record in records]
    assert seconds[0] == seconds[1] != seconds[2] and min(seconds) > 0
    assert not any(record["cost"]["reused_answers"] for record in records)


def test_one_prompt_is_answered_once(setting: Setting, backbone: Batches) -> None:
    _, folder = setting.run(Vanilla(), "vanilla")
    records: list[Any] = [folder.read(person.id) for person in setting.job.people]
    assert backbone.sizes == [1] and [record["cost"]["reused_answers"] for record in records] == [False, True, True]


def test_answers_of_a_batch_are_taken_over_by_another_row(setting: Setting, backbone: Batches) -> None:
    setting.change(people=setting.job.people[:2])
    costs = [setting.run(Brief(), name)[1].read(setting.job.people[0].id)["cost"] for name in ("one", "two")]
    assert backbone.sizes == [2] and [cost["reused_answers"] for cost in costs] == [False, True]
    assert costs[0]["answer_seconds"] == costs[1]["answer_seconds"] and costs[1]["answered_together"] == 2


def test_who_cannot_be_aligned_fails_alone(setting: Setting, backbone: Batches) -> None:
    setting.change(people=setting.job.source.people[:4])
    ids = [person.id for person in setting.job.people]
    failed, folder = setting.run(Fragile([ids[0]]))
    assert failed == 1 and folder.failures() == {ids[0]: "RuntimeError: no alignment for you"}
    assert folder.finished() == set(ids[1:]) and backbone.sizes == [1, 2]


def test_who_cannot_be_answered_fails_alone(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    broken = setting.job.people[0].id

    class Broken(Shifted):
        def align(self, case: Case) -> Alignment:
            alignment = super().align(case)
            if case.respondent_id != broken:
                return alignment
            return replace(alignment, head_shifts=torch.full((2, 64), float("nan")))

    failed, folder = setting.run(Broken())
    assert failed == 1 and list(folder.failures()) == [broken] and len(folder.finished()) == 2
    assert "a cohort of 2 failed (FloatingPointError" in capsys.readouterr().err


def test_an_interruption_costs_at_most_one_batch(setting: Setting) -> None:
    setting.change(people=setting.job.source.people[:6])
    ids = [person.id for person in setting.job.people]

    class Interrupted(Brief):
        def align(self, case: Case) -> Alignment:
            if case.respondent_id == ids[3]:
                raise KeyboardInterrupt
            return super().align(case)

    with pytest.raises(KeyboardInterrupt):
        setting.run(Interrupted())
    rest = Fragile()
    failed, folder = setting.run(rest)
    assert failed == 0 and rest.given == ids[2:] and folder.finished() == set(ids)


def test_measured_and_trained_people_are_taken_one_by_one(setting: Setting, backbone: Batches, tmp_path: Path) -> None:
    class Trained(Brief):
        needs = frozenset({"prompt", "gradients"})

    setting.change(people=setting.job.people[:2]).run(Trained(), "trained")
    assert backbone.sizes == [1, 1]
    backbone.sizes.clear()
    setting.change(runs=tmp_path / "measured", repeats=1).run(Brief())
    assert set(backbone.sizes) == {1}


class Paired(Brief):
    """Aligns two people at once, unless one of them is not to be aligned."""

    cohort = 2

    def __init__(self, fails_for: str = "") -> None:
        self.fails_for = fails_for
        self.sizes: list[int] = []

    def align_many(self, cases: Sequence[Case]) -> list[Alignment]:
        self.sizes.append(len(cases))
        return super().align_many(cases)

    def align(self, case: Case) -> Alignment:
        if case.respondent_id == self.fails_for:
            raise RuntimeError("no alignment for you")
        return super().align(case)


def test_a_method_may_align_several_people_at_once(setting: Setting, backbone: Batches) -> None:
    aligner = Paired()
    _, folder = setting.run(aligner)
    records: list[Any] = [folder.read(person.id) for person in setting.job.people]
    seconds = [record["cost"]["align_seconds"] for record in records]
    assert aligner.sizes == [2] and seconds[0] == seconds[1] != seconds[2]
    assert backbone.sizes == [1, 1, 1] and {record["cost"]["answered_together"] for record in records} == {1}


def test_of_people_aligned_at_once_only_those_at_fault_fail(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [person.id for person in setting.job.people]
    failed, folder = setting.run(Paired(ids[1]))
    assert failed == 1 and list(folder.failures()) == [ids[1]] and folder.finished() == {ids[0], ids[2]}
    assert "a cohort of 2 failed (RuntimeError: no alignment for you); one by one now" in capsys.readouterr().err
