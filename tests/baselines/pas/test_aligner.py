"""PAS as a whole, on a fake backbone in which the right head, direction and alpha are known."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from baselines.pas.aligner import PersonalityActivationSearch
from baselines.pas.probes import collect_activations, fit_directions, label_samples
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Answers, Inventory, Item
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError
from tests.protocols import AS_RELEASED, CORRECTED

from .fake_backbone import HEADS, LAYERS, WIDTH, FakeBackbone, Reply, case_of, person

CONF = Path(__file__).parents[3] / "conf"


def prepared(
    protocol: EvaluationProtocol, reply: Reply, answers: Answers, inventory: Inventory, **keywords: object
) -> tuple[PersonalityActivationSearch, FakeBackbone]:
    backbone = FakeBackbone(protocol, reply, planted=answers)
    aligner = PersonalityActivationSearch(**({"k": 2} | keywords))
    aligner.prepare(backbone, protocol)
    return aligner, backbone


def always_three(_: Alignment) -> dict[int, float]:
    return dict.fromkeys(range(1, 301), 3)


def size_of(alignment: Alignment) -> float:
    return 0.0 if alignment.head_shifts is None else float(alignment.head_shifts.norm())


def right_near(target: float, answers: Answers) -> Reply:
    """Answers that are the further off, the further the size of the shift is from ``target`` (negative: none)."""

    def reply(alignment: Alignment) -> dict[int, float]:
        return {number: value + abs(size_of(alignment) - target) for number, value in answers.items()}

    return reply


def test_finds_the_planted_head_and_its_direction(protocol: EvaluationProtocol, questionnaire: Inventory) -> None:
    answers = protocol.orient(person(1))
    aligner, backbone = prepared(protocol, always_three, answers, questionnaire, k=1, alphas=[2])
    alignment = aligner.align(case_of(protocol, person(1)))
    assert alignment.summary["heads"] == [[1, 2]]
    assert alignment.summary["mean_validation_accuracy"] > 0.9
    assert alignment.head_shifts is not None
    assert alignment.head_shifts.shape == (LAYERS, HEADS * WIDTH)
    shift = alignment.head_shifts.reshape(LAYERS, HEADS, WIDTH)
    assert shift.count_nonzero(dim=2).count_nonzero() == 1
    assert torch.cosine_similarity(shift[1, 2], backbone.direction, dim=0) > 0.98
    assert alignment.trained_parameters == WIDTH


def test_the_protocol_decides_on_split_and_ranking(protocol: EvaluationProtocol, questionnaire: Inventory) -> None:
    case = case_of(protocol, person(2), seed=5)
    aligner, backbone = prepared(protocol, always_three, {}, questionnaire, k=4)
    activations = collect_activations(backbone, questionnaire, "options")
    released = protocol.name == "as_released"

    def heads(by_item: bool, rank_on_training_too: bool) -> tuple[tuple[int, int], ...]:
        samples = label_samples(activations.numbers, protocol.orient(case.known), seed=5, by_item=by_item)
        options = {"k": 4, "direction": "mass_mean", "rank_on_training_too": rank_on_training_too, "penalty": 1.0}
        return fit_directions(activations, samples, **options).heads

    assert aligner.fit(case.known, 5).heads == heads(not released, released)
    assert len({heads(by_item, both) for by_item in (True, False) for both in (True, False)}) == 4


@pytest.mark.parametrize("direction", ["mass_mean", "probe"])
def test_a_person_of_opposite_answers_is_shifted_the_opposite_way(questionnaire: Inventory, direction: str) -> None:
    answers = person(1)
    aligner, _ = prepared(CORRECTED, always_three, answers, questionnaire, alphas=[1], direction=direction)
    one = aligner.align(case_of(CORRECTED, answers))
    other = aligner.align(case_of(CORRECTED, {number: 6 - value for number, value in answers.items()}))
    assert one.head_shifts is not None
    assert other.head_shifts is not None
    torch.testing.assert_close(one.head_shifts, -other.head_shifts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("search", ["grid", "golden"])
def test_alpha_zero_is_chosen_when_no_shift_helps(
    protocol: EvaluationProtocol, questionnaire: Inventory, search: str
) -> None:
    case = case_of(protocol, person(3))
    aligner, _ = prepared(protocol, always_three, case.known, questionnaire, search=search)
    alignment = aligner.align(case)
    assert alignment.head_shifts is None
    assert alignment.trained_parameters == 0
    assert alignment.summary["alpha"] == 0
    assert alignment.summary["heads"] == []
    assert len(set(alignment.summary["search"].values())) == 1
    assert alignment.system_prompt == protocol.few_shot_prompt(case.known, case.missing, ";")


def test_chooses_the_alpha_that_scores_best_on_the_selection(
    protocol: EvaluationProtocol, questionnaire: Inventory
) -> None:
    case = case_of(protocol, person(4))
    aligner, backbone = prepared(protocol, always_three, case.known, questionnaire)
    aligner.align(case)
    (alignments, items), *more = backbone.asked
    assert not more, "all alphas are put to the backbone in one call"
    assert items == list(protocol.truth(case.selection))
    assert [size_of(a) for a in alignments] == pytest.approx([size_of(alignments[1]) * a for a in (0, 1, 2, 4, 6, 8)])
    backbone.reply = right_near(4 * size_of(alignments[1]), protocol.truth(case.selection))
    alignment = aligner.align(case)
    assert alignment.summary["alpha"] == 4
    assert alignment.summary["search"]["4"] == pytest.approx(0, abs=1e-3)
    assert list(alignment.summary["search"]) == ["0", "1", "2", "4", "6", "8"]
    json.dumps(alignment.summary)


def test_among_alphas_of_equal_answers_the_likelier_true_answers_choose(
    questionnaire: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the true answer has a chance of 1/2 under a shift by 2 or 4, of 1/4 under any other."""
    case = case_of(CORRECTED, person(4))
    aligner, backbone = prepared(CORRECTED, always_three, case.known, questionnaire, alphas=[1])
    aligner.align(case)
    unit = size_of(backbone.asked[0][0][0])
    plain = FakeBackbone.answer

    def answer(self: FakeBackbone, alignment: Alignment, items: Sequence[Item]) -> AnswerSheet:
        own = 0.5 if round(size_of(alignment) / unit) in (2, 4) else 0.25
        rows = {}
        for item in items:
            rows[item.number] = [math.log((1 - own) / 4)] * 5
            rows[item.number][5 - int(case.selection[item.number])] = math.log(own)
        return replace(plain(self, alignment, items), log_probs=rows)

    monkeypatch.setattr(FakeBackbone, "answer", answer)
    again, _ = prepared(CORRECTED, always_three, case.known, questionnaire)
    summary = again.align(case).summary
    assert len(set(summary["search"].values())) == 1
    assert summary["search_nats"] == {"0": 1.386, "1": 1.386, "2": 0.693, "4": 0.693, "6": 1.386, "8": 1.386}
    assert summary["alpha"] == 2


def test_golden_section_narrows_on_the_best_alpha(questionnaire: Inventory) -> None:
    case = case_of(CORRECTED, person(4))
    aligner, backbone = prepared(CORRECTED, always_three, case.known, questionnaire, alphas=[1])
    aligner.align(case)
    unit = size_of(backbone.asked[0][0][0])
    golden, _ = prepared(CORRECTED, right_near(7.3 * unit, case.selection), case.known, questionnaire, search="golden")
    assert golden.align(case).summary["alpha"] == pytest.approx(7.3, abs=0.25)


def test_an_alpha_with_unparsed_answers_counts_as_worst(questionnaire: Inventory) -> None:
    case = case_of(AS_RELEASED, person(5))

    def reply(alignment: Alignment) -> dict[int, float]:
        return dict(case.selection) if size_of(alignment) > 0 else {}

    aligner, _ = prepared(AS_RELEASED, reply, case.known, questionnaire)
    summary = aligner.align(case).summary
    assert summary["alpha"] == 1
    assert summary["search"]["0"] == 1e6


def test_while_choosing_nothing_of_the_selection_is_seen(questionnaire: Inventory) -> None:
    """Changing the answers of the selection changes neither the prompts nor the shifts that the search tries."""
    case = case_of(CORRECTED, person(6))
    flipped = {number: 6 - value for number, value in case.selection.items()}
    changed = replace(case, known=case.known | flipped, selection=flipped)
    aligner, backbone = prepared(CORRECTED, always_three, case.known, questionnaire, alphas=[0, 1, 6])
    aligner.align_many([case, changed])
    (one, _), (other, _) = backbone.asked
    for first, second in zip(one, other, strict=True):
        assert first.system_prompt == second.system_prompt
        assert size_of(first) == size_of(second)
        assert first.head_shifts is None or torch.equal(first.head_shifts, second.head_shifts)
        for item in questionnaire.select(case.selection):
            assert f"{item.text}:" not in (first.system_prompt or "")


def test_everything_but_alpha_is_refitted_on_all_known_answers(questionnaire: Inventory) -> None:
    case = case_of(CORRECTED, person(7))
    aligner, backbone = prepared(CORRECTED, always_three, case.known, questionnaire, alphas=[4])
    alignment = aligner.align(case)
    searched = backbone.asked[0][0][0]
    assert alignment.system_prompt == prompts.few_shot_system_prompt(questionnaire, case.known)
    assert alignment.system_prompt != searched.system_prompt
    # The same answers with nothing to keep out are fitted at once on all of them.
    at_once = aligner.align(Case("someone", case.known, {}, case.seed))
    assert alignment.head_shifts is not None
    assert at_once.head_shifts is not None
    assert searched.head_shifts is not None
    assert torch.equal(alignment.head_shifts, at_once.head_shifts)
    assert not torch.equal(alignment.head_shifts, searched.head_shifts)
    assert alignment.summary["refitted"] is True


def test_as_released_chooses_on_the_held_out_answers_and_keeps_the_fit(questionnaire: Inventory) -> None:
    case = case_of(AS_RELEASED, person(8))
    aligner, backbone = prepared(AS_RELEASED, always_three, case.known, questionnaire, alphas=[2])
    alignment = aligner.align(case)
    ((searched,), items), *_ = backbone.asked
    assert items == list(questionnaire.held_out)
    assert searched.system_prompt == alignment.system_prompt
    assert alignment.system_prompt is not None
    assert alignment.system_prompt.startswith(prompts.FEW_SHOT_OPENING + ";")
    assert ":Unknown" in alignment.system_prompt
    assert alignment.head_shifts is not None
    assert searched.head_shifts is not None
    assert torch.equal(alignment.head_shifts, searched.head_shifts)
    assert alignment.summary["refitted"] is False


def test_without_system_prompt_only_the_shift_is_left(questionnaire: Inventory) -> None:
    case = case_of(CORRECTED, person(9))
    aligner, backbone = prepared(
        CORRECTED, always_three, case.known, questionnaire, system_prompt="none", alphas=[0, 3]
    )
    assert aligner.align(case).system_prompt is None
    assert [a.system_prompt for a in backbone.asked[0][0]] == [None, None]


def test_together_equals_one_by_one(protocol: EvaluationProtocol, questionnaire: Inventory) -> None:
    cases = [case_of(protocol, person(i), seed=i) for i in range(3)]
    cases.insert(1, case_of(protocol, {}, seed=9))
    aligner, backbone = prepared(protocol, always_three, cases[0].known, questionnaire)
    aligner.align(cases[0])
    unit = size_of(backbone.asked[0][0][1])
    backbone.reply = right_near(2 * unit, person(0))
    together = aligner.align_many(cases)
    assert {a.summary["alpha"] for a in together} != {0}
    for case, alignment in zip(cases, together, strict=True):
        alone = aligner.align(case)
        assert alone.summary == alignment.summary
        assert alone.system_prompt == alignment.system_prompt
        assert (alone.head_shifts is None) == (alignment.head_shifts is None)
        if alone.head_shifts is not None and alignment.head_shifts is not None:
            assert torch.equal(alone.head_shifts, alignment.head_shifts)


def test_someone_who_is_neutral_throughout_gets_no_shift_and_a_reason(
    protocol: EvaluationProtocol, questionnaire: Inventory
) -> None:
    case = case_of(protocol, dict.fromkeys(range(1, 301), 3))
    aligner, backbone = prepared(protocol, always_three, person(0), questionnaire)
    alignment = aligner.align(case)
    assert alignment.head_shifts is None
    assert alignment.summary["alpha"] == 0
    assert "neutral or missing" in alignment.summary["reason"]
    assert backbone.asked == []


def test_someone_without_an_answer_to_choose_on_gets_no_shift_and_a_reason(questionnaire: Inventory) -> None:
    case = replace(case_of(CORRECTED, person(0)), selection={})
    aligner, backbone = prepared(CORRECTED, always_three, person(0), questionnaire)
    alignment = aligner.align(case)
    assert (alignment.head_shifts, alignment.summary["alpha"], alignment.summary["search"]) == (None, 0, {})
    assert alignment.summary["reason"] == "none of the answers that alpha is chosen on is there"
    assert backbone.asked == []


def test_too_many_heads_are_a_clear_error(questionnaire: Inventory) -> None:
    with pytest.raises(UserError, match=r"method\.k=13: the model has only 12 heads"):
        prepared(CORRECTED, always_three, person(0), questionnaire, k=13)


def test_activations_that_are_not_finite_are_a_clear_error(questionnaire: Inventory) -> None:
    backbone = FakeBackbone(CORRECTED, always_three, person(0), noise=float("inf"))
    with pytest.raises(UserError, match=r"model\.dtype=float32"):
        PersonalityActivationSearch(k=1).prepare(backbone, CORRECTED)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"direction": "mean"}, r"method\.direction=mean: choose one of mass_mean, probe"),
        ({"probe_prompt": "yes"}, r"method\.probe_prompt=yes: choose one of options, agree"),
        ({"system_prompt": "p2"}, r"method\.system_prompt=p2: choose one of few_shot, none"),
        ({"search": "random"}, r"method\.search=random: choose one of grid, golden"),
        ({"k": 0}, r"method\.k=0"),
        ({"k": 2.5}, r"method\.k=2\.5"),
        ({"alphas": []}, r"method\.alphas"),
        ({"alphas": "0"}, r"method\.alphas"),
        ({"alphas": [1, -2]}, r"method\.alphas"),
        ({"alphas": 3}, r"method\.alphas"),
        ({"alphas": [float("nan")]}, r"method\.alphas"),
        ({"penalty": 0}, r"method\.penalty=0"),
    ],
)
def test_bad_keywords_are_named(keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PersonalityActivationSearch(**keywords)


def test_both_rows_compose_and_differ_in_the_system_prompt_only() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        rows = {
            name: OmegaConf.to_container(compose(overrides=[f"+method={name}"]).method)
            for name in ("pas", "pas_no_prompt")
        }
    assert rows["pas_no_prompt"] == rows["pas"] | {
        "name": "pas_no_prompt",
        "title": "PAS, no prompt",
        "system_prompt": "none",
    }
    for name, row in rows.items():
        assert row.pop("name") == name
        assert row.pop("title").startswith("PAS")
        aligner = instantiate(row)
        assert isinstance(aligner, PersonalityActivationSearch)
        given = {key: value for key, value in row.items() if key != "_target_"}
        assert given | {"alphas": tuple(given["alphas"])} == vars(aligner)
