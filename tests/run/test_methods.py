"""From a method's settings to its rows; what keeps a method of one's own from spoiling the others'."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from baselines.few_shot import FewShot
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.untouched import state_of
from palign_bench.report.names import BLOCKS
from palign_bench.respondents import RespondentSource, simulate
from palign_bench.run.checks import check_needs
from palign_bench.run.methods import for_people, make_aligners, title_and_block
from palign_bench.run.session import Session
from palign_bench.settings import UserError, options, read_option
from tests.command import run_here
from tests.protocols import CORRECTED
from tests.rows import shipped
from tests.run.test_row import Setting, without_costs


class MyMethod(Aligner):
    """A user's own method; it learns from other people where told so."""

    def __init__(self, needs: frozenset[str] = frozenset()):
        self.needs = needs

    def align(self, case: Case) -> Alignment:
        return Alignment()


@pytest.mark.parametrize(
    ("method", "needs", "expected"),
    [
        ({}, {"prompt"}, ("mine", "methods")),
        ({"title": "Mine"}, {"prompt", "people"}, ("Mine", "people_methods")),
        ({"title": "Mine", "block": "checks"}, {"people"}, ("Mine", "checks")),
        ({"title": {"other": "Other"}}, {"prompt"}, ("mine", "methods")),
        ({"title": {"mine": "Mine, first row"}}, {"prompt"}, ("Mine, first row", "methods")),
    ],
)
def test_a_methods_own_title_and_the_block_that_its_needs_decide(
    method: dict[str, Any], needs: set[str], expected: tuple[str, str]
) -> None:
    assert title_and_block({"name": "mine"} | method, "mine", MyMethod(frozenset(needs))) == expected


def test_a_block_that_no_table_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"method.block=mine: choose one of methods, people_methods"):
        title_and_block({"name": "mine", "block": "mine"}, "mine", MyMethod())


def test_every_shipped_row_has_a_title_and_a_block() -> None:
    found = {}
    for name in options("method"):
        method, aligners = shipped(name)
        found |= {row: title_and_block(method, row, aligner) for row, aligner in aligners.items()}
    assert all(title != row and block in BLOCKS for row, (title, block) in found.items())
    assert len({title for title, _ in found.values()}) == len(found)
    assert found["readout_people"] == ("Readout, others' answers", "people_methods")
    assert found["ridge"] == ("Ridge on others", "other_people_floors")
    assert found["constant_c"] == ("Always C", "own_answers_floors")
    assert (found["truth"][1], found["ceiling"][1], found["pas"][1]) == ("checks", "known_truth", "methods")


class Spoiling(FewShot):
    """Does something to the bare model and leaves it so, for one person."""

    def __init__(self, spoil: Callable[[LocalBackbone], Any], person: str):
        self.spoil, self.person = spoil, person

    def align(self, case: Case) -> Alignment:
        if case.respondent_id == self.person:
            with torch.no_grad():
                self.spoil(self.backbone)
        return super().align(case)


def weights_moved(backbone: LocalBackbone) -> None:
    next(backbone.model.parameters()).view(-1)[7] += 2**-7


def hook_left(backbone: LocalBackbone) -> None:
    backbone.anatomy.output_projections[0].register_forward_pre_hook(lambda *_: None)


def adapter_left(backbone: LocalBackbone) -> None:
    from peft import LoraConfig, get_peft_model

    get_peft_model(backbone.model, LoraConfig(r=2, target_modules=["q_proj"]))  # B is 0: it answers as before


def forward_replaced(backbone: LocalBackbone) -> None:
    layer = backbone.anatomy.layers[0]
    layer.forward = layer.forward


def left_in_training(backbone: LocalBackbone) -> None:
    backbone.model.train()


def soft_prompt_left(backbone: LocalBackbone) -> None:
    backbone.virtual = torch.zeros(1, 4)


@pytest.fixture
def people() -> RespondentSource:
    return simulate(count=6, seed=3)


def loaded_organism() -> tuple[Session, LocalBackbone]:
    session = Session()
    backbone, _ = session.load_backbone(resolve_model(read_option("model", "organism")), CORRECTED)
    assert isinstance(backbone, LocalBackbone)
    return session, backbone


@pytest.mark.parametrize(
    "spoil", [weights_moved, hook_left, adapter_left, forward_replaced, left_in_training, soft_prompt_left]
)
def test_what_a_method_leaves_on_the_model_fails_its_cells_and_spoils_no_other_row(
    spoil: Callable[[LocalBackbone], Any], people: RespondentSource, tmp_path: Path
) -> None:
    session, backbone = loaded_organism()
    assert backbone.is_as_loaded()
    setting = Setting(tmp_path / "runs", people, backbone)
    setting.session = session
    setting.change(model=resolve_model(read_option("model", "organism")))
    first, second, third = (person.id for person in setting.job.people)
    failed, folder = setting.run(Spoiling(spoil, second), "spoiling")
    assert failed == 2 and folder.read(first) is not None
    assert folder.failures()[second] == folder.failures()[third]
    assert "align changed the model and did not undo it" in folder.failures()[second]
    after = setting.run(FewShot())[1]
    alone = Setting(tmp_path / "alone", people, loaded_organism()[1]).run(FewShot())[1]
    for person in (first, second, third):
        assert without_costs(after.read(person)) == without_costs(alone.read(person))


def test_a_state_is_the_same_again_when_all_is_undone() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model.register_buffer("grows", torch.zeros(2), persistent=False)
    before = state_of(model)
    model.grows.add_(1)  # as rotary tables do
    assert state_of(model) == before
    for changed in (model[0].weight.data, model[0].bias.data, model[1].running_mean):
        kept = changed.clone()
        changed[-1] += 1e-7 if changed is model[0].bias.data else 0.5
        assert state_of(model) != before
        changed.copy_(kept)
        assert state_of(model) == before
    handle = model[1].register_forward_hook(lambda *_: None)
    assert state_of(model) != before
    handle.remove()
    assert state_of(model.half()) != before


class Together(FewShot):
    """Aligns two at once, and returns what it is told to."""

    cohort = 2

    def __init__(self, returned: Callable[[list[Alignment]], Any]):
        self.returned = returned

    def align_many(self, cases: Sequence[Case]) -> Any:
        return self.returned([self.align(case) for case in cases])


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda made: made[:1], "align_many returned 1 alignments for 2 people"),
        (lambda made: ["x", *made[1:]], "align_many returned str; return an Alignment"),
    ],
)
def test_a_cohort_that_comes_back_otherwise_is_aligned_one_by_one(
    returned: Callable[[list[Alignment]], Any],
    told: str,
    people: RespondentSource,
    tiny_backbone: LocalBackbone,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setting = Setting(tmp_path / "runs", people, tiny_backbone)
    failed, folder = setting.run(Together(returned))
    assert failed == 0 and not folder.failures()
    assert told in capsys.readouterr().err


class Returning(FewShot):
    def __init__(self, made: Callable[[], Any]):
        self.made = made

    def align(self, case: Case) -> Any:
        return self.made()


def leave() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: "text", "MethodError: align returned str; return an Alignment"),
        (lambda: None, "MethodError: align returned NoneType; return an Alignment"),
        (leave, "SystemExit: 3"),
        (lambda: Alignment(system_prompt=3), r"TypeError: Alignment(system_prompt=…) is a int; give a text or None"),
        (lambda: Alignment(summary={"a": 1, "loss": np.float32(3)}), "summary=…): 'loss' is no JSON value"),
        (lambda: Alignment(summary={"loss": float("nan")}), "summary=…): 'loss' is no JSON value"),
        (lambda: Alignment(head_shifts=torch.ones(2, 3)), "shape (2, 3) do not fit: this model takes (layers, width)"),
    ],
)
def test_what_is_no_alignment_fails_its_cells_with_the_reason(
    made: Callable[[], Any], told: str, people: RespondentSource, tiny_backbone: LocalBackbone, tmp_path: Path
) -> None:
    failed, folder = Setting(tmp_path / "runs", people, tiny_backbone).run(Returning(made))
    assert failed == 3 and all(told in each for each in folder.failures().values()), folder.failures()


def test_without_a_model_and_without_answers_there_is_nothing_to_score(
    people: RespondentSource, tiny_backbone: LocalBackbone, tmp_path: Path
) -> None:
    method = Returning(Alignment)
    method.needs_backbone = False
    failed, folder = Setting(tmp_path / "runs", people, tiny_backbone).run(method)
    assert failed == 3 and all("give answers=" in each for each in folder.failures().values()), folder.failures()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "mine"}, "method=mine: its YAML has no _target_: name the class"),
        ({"_target_": f"{__name__}.MyMethod"}, f"the method of {__name__}.MyMethod has no name"),
        ({"name": "mine", "_target_": "pathlib.Path"}, "method=mine: PosixPath is no palign_bench.aligner.Aligner."),
        ({"name": "mine", "_target_": f"{__name__}.Nothing"}, "method=mine: "),
    ],
)
def test_a_yaml_that_makes_no_method_is_told_in_one_line(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError) as caught:
        make_aligners(settings)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and "\\n" not in str(caught.value)


def test_a_need_that_nothing_offers_is_told() -> None:
    model = {"name": "tiny", "engine": "auto", "quantization": "none"}
    told = r"method=mine needs promt: nothing offers that \(did you mean prompt\?\); choose among activations, "
    with pytest.raises(UserError, match=told):
        check_needs({"mine": MyMethod(frozenset({"promt"}))}, model)


def test_one_person_leaves_out_what_learns_from_others() -> None:
    both = {"alone": MyMethod(), "others": MyMethod(frozenset({"people"}))}
    method = {"name": "mine", "title": {"others": "On others"}}
    assert for_people(method, both, 2) == (both, [])
    kept, notes = for_people(method, both, 1)
    assert list(kept) == ["alone"] and notes == ["There is one person, and nobody to learn from: without On others."]
    assert for_people(method, {"others": both["others"]}, 1)[0] == {}


def test_a_command_goes_on_without_what_learns_from_others(tmp_path: Path) -> None:
    people = ["respondents=simulated", "respondents.count=1", "tracking=none", "runs=runs"]
    ran = run_here("-m", "method=own_means,floors", *people, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = "There is one person, and nobody to learn from: without Item median of others, Ridge on others."
    assert told in " ".join(ran.stdout.split())
