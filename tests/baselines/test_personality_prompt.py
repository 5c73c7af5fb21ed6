"""P²: who writes the portrait, what it is written from, and that it is written once."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.few_shot import FewShot, Vanilla
from baselines.personality_prompt import PORTRAIT_VERSION, PersonalityPrompt
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import measure
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.respondents import RespondentSource
from palign_bench.run.session import Session
from palign_bench.settings import read_option
from tests.protocols import AS_RELEASED, CORRECTED
from tests.run.jobs import a_job, run_alone


class Asked(LocalBackbone):
    """The tiny model, which keeps what it was asked to write."""

    def __init__(self, loaded: LoadedModel, protocol: EvaluationProtocol):
        super().__init__(loaded, protocol)
        self.asked: list[tuple[Any, ...]] = []

    def generate(self, alignment: Alignment, system: str, user: str, max_new_tokens: int, temperature: float) -> str:
        self.asked.append((alignment, system, user, max_new_tokens, temperature))
        return super().generate(alignment, system, user, max_new_tokens, temperature)


@pytest.fixture
def writer(tiny: LoadedModel) -> Asked:
    return Asked(tiny, CORRECTED)


@pytest.fixture
def cases(inventory: Inventory, simulated: RespondentSource) -> Sequence[Case]:
    protocol = CORRECTED
    return [
        Case(person.id, dict(list(protocol.known(person).items())[:5]), {}, seed=index)
        for index, person in enumerate(simulated.people[:2])
    ]


def prepared(backbone: LocalBackbone, inventory: Inventory, folder: Path, **settings: Any) -> PersonalityPrompt:
    aligner = PersonalityPrompt(**{"max_new_tokens": 6, "portraits": str(folder), **settings})
    aligner.prepare(backbone, backbone.protocol)
    return aligner


def test_the_portrait_is_the_whole_system_prompt(
    writer: Asked, inventory: Inventory, cases: Sequence[Case], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    alignment = prepared(writer, inventory, tmp_path, max_new_tokens=6).align(cases[0])
    request = prompts.portrait_request(inventory, cases[0].known)
    assert writer.asked == [(Alignment(), "You are a helpful assistant.", request, 6, 0.6)]
    (kept,) = tmp_path.iterdir()
    assert alignment.system_prompt == json.loads(kept.read_text())["portrait"] != ""
    assert alignment.head_shifts is None and alignment.summary["writer"] == "tiny"
    assert writer.dialogue(alignment, inventory[9], "")[0] == alignment.system_prompt


def test_cells_of_earlier_portraits_are_other_cells() -> None:
    assert PersonalityPrompt().version == PersonalityPrompt(writer={"name": "other"}).version == PORTRAIT_VERSION
    assert {PersonalityPrompt(writer=writer).version for writer in ("released", "template")} == {1}


def test_defaults_are_those_of_the_released_code() -> None:
    assert (PersonalityPrompt().max_new_tokens, PersonalityPrompt().temperature) == (1024, 0.6)
    configured = read_option("method", "personality_prompt")
    assert (configured["max_new_tokens"], configured["temperature"], configured["writer"]) == (1024, 0.6, "self")


def test_a_portrait_is_written_once_and_charged_each_time(
    writer: Asked, inventory: Inventory, cases: Sequence[Case], tmp_path: Path
) -> None:
    with measure() as written:
        first = prepared(writer, inventory, tmp_path).align(cases[0])
    (kept,) = tmp_path.iterdir()
    portrait = json.loads(kept.read_text())
    assert 0 < portrait["cost"]["seconds"] < written.seconds
    portrait["cost"] |= {"seconds": 70.0, "joules": 9.0}  # as if a GPU had taken longer
    kept.write_text(json.dumps(portrait))
    with measure() as read:
        again = prepared(writer, inventory, tmp_path).align(cases[0])
    assert len(writer.asked) == 1 and again.system_prompt == first.system_prompt
    assert 70 < read.seconds < 71 and read.joules is not None and read.joules >= 9
    assert read.amounts == written.amounts and written.amounts.keys() == {"tokens_read", "tokens_generated"}


def test_where_costs_are_measured_every_portrait_is_written_anew_and_none_is_kept(
    writer: Asked, simulated: RespondentSource, tmp_path: Path
) -> None:
    session = Session()
    session.load_backbone = lambda *_: (writer, 0.0)  # type: ignore[method-assign]
    person = simulated.people[0]

    def cost(runs: Path, repeats: int | None) -> dict[str, Any]:
        aligner = PersonalityPrompt(max_new_tokens=6, portraits=str(tmp_path / "portraits"))
        job = a_job(runs, simulated, [person], repeats=repeats)
        failed, folder = run_alone(job, "personality_prompt", aligner, session)
        record = folder.read(person.id)
        assert failed == 0 and record is not None
        return dict(record["cost"])

    fresh = cost(tmp_path / "fresh", repeats=3)
    assert len(writer.asked) == 4 and not (tmp_path / "portraits").exists(), "a warm-up and three repeats"
    in_passing = cost(tmp_path / "in_passing", repeats=None)
    (kept,) = (tmp_path / "portraits").iterdir()
    kept.write_text("{")  # whoever reads it fails
    measured = cost(tmp_path / "measured", repeats=3)
    assert len(writer.asked) == 9 and kept.read_text() == "{"
    for each in (fresh, measured):
        assert 0 < each["align_tokens_read"] == in_passing["align_tokens_read"]
        assert 0 < each["align_tokens_generated"] == in_passing["align_tokens_generated"]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.7},
        {"max_new_tokens": 7},
        {"seed": 5},
        {"known": {1: 5}},
        {"weights": "other"},
        {"device_kind": "cuda"},
    ],
)
def test_anything_that_can_change_a_portrait_has_it_written_anew(
    writer: Asked, inventory: Inventory, cases: Sequence[Case], tmp_path: Path, change: dict[str, Any]
) -> None:
    prepared(writer, inventory, tmp_path).align(cases[0])
    of_writer = {"weights": writer.loaded.weights_hash, "device_kind": writer.model.device.type}
    assert writer.identity.items() >= of_writer.items()
    writer.identity = writer.identity | {key: change.pop(key) for key in of_writer if key in change}
    of_case = {key: change.pop(key) for key in ("seed", "known") if key in change}
    prepared(writer, inventory, tmp_path, **change).align(replace(cases[0], **of_case))
    assert len(writer.asked) == 2 and len(list(tmp_path.iterdir())) == 2


def test_a_portrait_repeats_from_the_same_state_and_people_have_their_own(
    writer: Asked, inventory: Inventory, cases: Sequence[Case], tmp_path: Path
) -> None:
    texts = []
    for index in range(2):
        for case in cases:
            torch.manual_seed(case.seed)  # as the runner does
            aligner = prepared(writer, inventory, tmp_path / str(index), temperature=1.0)
            texts.append(aligner.align(case).system_prompt)
    assert texts[:2] == texts[2:] and texts[0] != texts[1]


def test_another_model_can_write(
    writer: Asked, inventory: Inventory, cases: Sequence[Case], tmp_path: Path, tiny_folder: Path
) -> None:
    settings = resolve_model(read_option("model", "local") | {"name_or_path": str(tiny_folder), "dtype": "float32"})
    aligner = prepared(writer, inventory, tmp_path, writer=settings)
    assert aligner.align(cases[0]).summary["writer"] == settings["name"] != "tiny"
    assert writer.asked == []


def test_released_portraits_are_taken_as_they_are(writer: Asked, inventory: Inventory, cases: Sequence[Case]) -> None:
    aligner = PersonalityPrompt(writer="released")
    assert aligner.needs == {"prompt", "portrait"}
    with pytest.warns(UserWarning, match="describe every negatively keyed item's opposite"):
        aligner.prepare(writer, writer.protocol)
    assert aligner.align(replace(cases[0], portrait="You are odd.")).system_prompt == "You are odd."
    with pytest.raises(ValueError, match=r"^this person has no released portrait"):
        aligner.align(cases[0])
    assert writer.asked == []


def test_released_portraits_need_no_warning_as_released(writer: Asked, inventory: Inventory) -> None:
    writer.protocol = AS_RELEASED
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PersonalityPrompt(writer="released").prepare(writer, writer.protocol)


def test_every_person_of_papi_has_a_portrait(papi: RespondentSource) -> None:
    portraits = [person.portrait for person in papi.people]
    assert all(portraits) and len(set(portraits)) == 300


def test_vanilla_is_neutral_and_few_shot_is_the_protocols(
    writer: Asked, inventory: Inventory, cases: Sequence[Case]
) -> None:
    vanilla, few_shot = Vanilla(), FewShot()
    for aligner in (vanilla, few_shot):
        aligner.prepare(writer, writer.protocol)
    assert vanilla.align(cases[0]) == Alignment()
    assert writer.dialogue(Alignment(), inventory[9], "")[0] == prompts.NEUTRAL_SYSTEM_PROMPT
    told = few_shot.align(cases[0]).system_prompt
    assert told == prompts.few_shot_system_prompt(inventory, cases[0].known)
    few_shot.prepare(writer, AS_RELEASED)
    stored = prompts.few_shot_system_prompt(inventory, AS_RELEASED.orient(cases[0].known), separator="")
    assert few_shot.align(cases[0]).system_prompt == stored != told
