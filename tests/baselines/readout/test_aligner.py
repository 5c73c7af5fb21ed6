"""The readout as a method, on planted hidden states: recovers people, chooses on known answers only, leaks nothing."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from baselines.readout.aligner import ClosedFormReadout
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.parts.ordinal import medians
from palign_bench.costs.clock import Cost, charge, measure
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol
from tests.protocols import AS_RELEASED, CORRECTED

from .planted import SETTINGS, PlantedBackbone, answer_by, case_of, prepared

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture(params=[CORRECTED, AS_RELEASED], ids=lambda protocol: protocol.name)
def protocol(request: pytest.FixtureRequest) -> EvaluationProtocol:
    return request.param


def predicted(alignment: Alignment, backbone: PlantedBackbone, numbers: tuple[int, ...]) -> dict[int, int]:
    """Literal answers that the readout alone would give."""
    assert alignment.readout is not None
    return dict(zip(numbers, medians(alignment.readout.cuts(backbone, numbers)).tolist(), strict=True))


def mean_error(answers: dict[int, float], truth: dict[int, float]) -> float:
    return sum(abs(value - truth[number]) for number, value in answers.items()) / len(answers)


def test_recovers_people_whose_answers_are_linear_in_the_features(protocol, inventory):
    backbone = PlantedBackbone(protocol, inventory)
    people = [answer_by(backbone, inventory, seed) for seed in range(5)]
    aligner = prepared(backbone, inventory)
    alignments = aligner.align_many([case_of(protocol, inventory, answers) for answers in people])
    for answers, alignment in zip(people, alignments, strict=True):
        assert mean_error(predicted(alignment, backbone, inventory.held_out), answers) < 0.45  # always C: 1.2
        assert alignment.summary["weight"] == 1
    others = predicted(alignments[0], backbone, inventory.held_out)
    assert mean_error(others, people[1]) > 0.9


@pytest.mark.parametrize("system_prompt", ["none", "few_shot"])
def test_whoever_answers_nothing_of_a_scale_is_read_by_the_others(inventory, system_prompt):
    backbone = PlantedBackbone(CORRECTED, inventory)
    answers = answer_by(backbone, inventory, 0)
    without = {n: value for n, value in answers.items() if inventory[n].scale != "O"}
    aligner = prepared(backbone, inventory, system_prompt=system_prompt)
    alignment = aligner.align(case_of(CORRECTED, inventory, without))
    assert alignment.summary["weight"] == 1 and None not in alignment.summary["weights"].values()
    assert mean_error(predicted(alignment, backbone, inventory.held_out), answers) < 0.45


def test_learns_nothing_from_features_that_do_not_matter(inventory):
    backbone = PlantedBackbone(CORRECTED, inventory)
    answers = answer_by(backbone, inventory, 0)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(9)).tolist()
    unrelated = {number: answers[1 + shuffled[number - 1]] for number in answers}
    alignment = prepared(backbone, inventory, weights=[1]).align(case_of(CORRECTED, inventory, unrelated))
    assert mean_error(predicted(alignment, backbone, inventory.held_out), unrelated) > 1.0


def test_together_or_one_by_one_is_the_same(protocol, inventory):
    backbone = PlantedBackbone(protocol, inventory)
    people = [answer_by(backbone, inventory, seed) for seed in range(4)]
    del people[2][inventory.known[5]]  # a missing answer
    aligner = prepared(backbone, inventory)
    cases = [case_of(protocol, inventory, answers) for answers in people]
    for case, together in zip(cases, aligner.align_many(cases), strict=True):
        alone = aligner.align(case)
        assert alone.summary["weight"] == together.summary["weight"]
        for name, tensor in alone.tensors().items():
            torch.testing.assert_close(tensor, together.tensors()[name], rtol=1e-5, atol=1e-6)
    assert len(aligner.align(cases[2]).readout.numbers) == 119


@pytest.mark.parametrize("prior", ["none", "people"])
@pytest.mark.parametrize("system_prompt", ["none", "few_shot"])
def test_held_out_answers_change_no_alignment(protocol, inventory, prior, system_prompt):
    backbone = PlantedBackbone(protocol, inventory)
    people = [answer_by(backbone, inventory, seed, noise=0.5) for seed in range(12)]
    order = list(inventory.held_out)
    permuted = people[0] | dict(zip(order, [people[0][number] for number in order[7:] + order[:7]], strict=True))
    aligner = prepared(backbone, inventory, prior=prior, system_prompt=system_prompt)
    more = {"others": people[1:]} if prior == "people" else {}
    one, two = (aligner.align(case_of(protocol, inventory, answers, **more)) for answers in (people[0], permuted))
    assert one.summary == two.summary
    assert one.system_prompt == two.system_prompt
    assert one.tensors().keys() == two.tensors().keys() != set()
    assert all(torch.equal(tensor, two.tensors()[name]) for name, tensor in one.tensors().items())


def test_a_model_that_is_right_already_keeps_its_own_answers(inventory):
    backbone = PlantedBackbone(CORRECTED, inventory, own_option="B")
    constant = dict.fromkeys(range(1, 301), 4)
    alignment = prepared(backbone, inventory).align(case_of(CORRECTED, inventory, constant))
    assert alignment.summary["weight"] == 0
    assert alignment.readout is None
    assert alignment.stored_bytes() == 0


def test_with_a_system_prompt_the_weight_is_chosen_on_answers_kept_out_of_it(protocol, inventory):
    backbone = PlantedBackbone(protocol, inventory)
    case = case_of(protocol, inventory, answer_by(backbone, inventory, 1))
    alignment = prepared(backbone, inventory, system_prompt="few_shot").align(case)
    ((prompt, asked),) = backbone.asked
    assert len(asked) == 30
    assert set(asked) < set(inventory.known)
    assert prompt == protocol.few_shot_prompt({n: v for n, v in case.known.items() if n not in asked})
    assert alignment.system_prompt == protocol.few_shot_prompt(case.known)
    assert alignment.readout is not None


def test_other_people_teach_what_the_features_do_not(inventory):
    truth = PlantedBackbone(CORRECTED, inventory)
    people = [answer_by(truth, inventory, seed, noise=0.3) for seed in range(150)]
    blind = PlantedBackbone(CORRECTED, inventory)
    states = list(blind.states.values())
    blind.states = dict(zip(blind.states, states[40:] + states[:40], strict=True))
    case = case_of(CORRECTED, inventory, people[0], others=people[1:])
    errors = []
    for prior in ("none", "people"):
        alignment = prepared(blind, inventory, prior=prior, weights=[1]).align(case)
        errors.append(mean_error(predicted(alignment, blind, inventory.held_out), people[0]))
    assert errors[1] < 0.6 < errors[0]


def test_stored_answers_are_predicted_in_the_protocols_orientation(inventory):
    literal = PlantedBackbone(CORRECTED, inventory)
    answers = answer_by(literal, inventory, 2)
    stored = PlantedBackbone(AS_RELEASED, inventory)
    items = inventory.select(inventory.held_out)
    scores = []
    for backbone in (literal, stored):
        case = case_of(backbone.protocol, inventory, answers)
        alignment = prepared(backbone, inventory, weights=[1]).align(case)
        scores.append(alignment.readout.option_scores(backbone, items).scores)
    for item, one, two in zip(items, *scores, strict=True):
        assert torch.allclose(two, one if item.sign > 0 else one.flip(-1), atol=1e-6)


@pytest.mark.parametrize("prior", ["none", "people"])
def test_saved_and_loaded_it_is_the_same(tmp_path, inventory, prior):
    backbone = PlantedBackbone(CORRECTED, inventory)
    people = [answer_by(backbone, inventory, seed) for seed in range(9)]
    alignment = prepared(backbone, inventory, prior=prior).align(
        case_of(CORRECTED, inventory, people[0], others=people[1:])
    )
    alignment.save(tmp_path)
    loaded = Alignment.load(tmp_path)
    items = inventory.select(inventory.held_out)
    before, after = (each.readout.option_scores(backbone, items) for each in (alignment, loaded))
    assert torch.equal(before.scores, after.scores)
    assert before.weight == after.weight
    assert loaded.stored_bytes() == alignment.stored_bytes() < 4000
    assert (tmp_path / "alignment.safetensors").stat().st_size < alignment.stored_bytes() + 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "friends"}, "method.prior=friends: choose one of none, people"),
        ({"system_prompt": "long"}, "method.system_prompt=long"),
        ({"contrasts": ["smell"]}, "method.contrasts"),
        ({"depths": [1.5]}, "method.depths"),
        ({"noises": [0]}, "method.noises"),
        ({"weights": [2]}, "method.weights"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ClosedFormReadout(**(SETTINGS | settings))


@pytest.mark.parametrize(
    ("name", "needs_people"), [("readout", False), ("few_shot_readout", False), ("readout_people", True)]
)
def test_its_yaml_makes_it(name: str, needs_people: bool):
    with initialize_config_dir(str(CONF), version_base=None):
        settings = OmegaConf.to_container(compose("config", [f"method={name}"]).method)
    assert settings.pop("name") == name
    assert settings.pop("title")
    aligner = instantiate(settings, _convert_="all")
    assert ("people" in aligner.needs) == needs_people
    assert (aligner.system_prompt == "few_shot") == name.startswith("few_shot")


def test_a_person_without_answers_is_refused(inventory: Inventory):
    backbone = PlantedBackbone(CORRECTED, inventory)
    with pytest.raises(ValueError, match="known answers"):
        prepared(backbone, inventory).align(case_of(CORRECTED, inventory, dict.fromkeys(inventory.held_out, 3)))


def test_too_few_answers_to_keep_one_out_are_told_as_that(inventory: Inventory):
    """Of two, one is kept out to choose the weight on: too few for a person alone, enough with what others answer."""
    backbone = PlantedBackbone(CORRECTED, inventory)
    people = [answer_by(backbone, inventory, seed) for seed in range(8)]
    two = {n: people[0][n] for n in (*inventory.known[:2], *inventory.held_out)}
    case = case_of(CORRECTED, inventory, two, others=people[1:])
    few_shot = {"system_prompt": "few_shot"}
    with pytest.raises(ValueError, match=r"of 2 known answers 1 are kept out .* method.weights=\[1\] chooses none"):
        prepared(backbone, inventory, **few_shot).align(case)
    assert prepared(backbone, inventory, **few_shot, weights=[1]).align(case).readout is not None
    assert prepared(backbone, inventory, **few_shot, prior="people").align(case).summary["weights"]


class SlowBackbone(PlantedBackbone):
    """Takes a tenth of a second to read texts, of one token each."""

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        time.sleep(0.1)
        charge(tokens_read=len(texts))
        return super().hidden_states(texts, layers)


@pytest.mark.parametrize("measured", [False, True])
def test_preparing_costs_the_same_whichever_row_is_first(inventory: Inventory, measured: bool):
    """300 statements, affirmed and denied. What is measured for its own sake is read anew, else it is read once."""
    backbone = SlowBackbone(CORRECTED, inventory)
    rows = [ClosedFormReadout(**SETTINGS | {"system_prompt": prompt}) for prompt in ("none", "few_shot")]
    costs: list[Cost] = []
    with measure() as whole:
        started = time.perf_counter()
        for aligner in (*rows, rows[0]):
            aligner.measured = measured
            with measure() as cost:
                aligner.prepare(backbone, CORRECTED)
            costs.append(cost)
        elapsed = time.perf_counter() - started
    assert [cost.amounts["tokens_read"] for cost in costs] == [600, 600, 600]
    assert all(0.2 <= cost.seconds < 0.4 for cost in costs) and whole.amounts["tokens_read"] == 1800
    assert elapsed >= 0.6 if measured else elapsed < 0.4
    alignment = rows[0].align(case_of(CORRECTED, inventory, answer_by(backbone, inventory, 0)))
    with measure() as answering:
        predicted(alignment, backbone, inventory.held_out)
    assert "tokens_read" not in answering.amounts, "the shared cost is no person's"
