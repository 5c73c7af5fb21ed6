"""Effects that a broken method cannot show: seeded, on the organism, where methods that work do personalise.

Margins are about half of what was seen when they were written, so that another machine's rounding does not matter.
"""

import numpy as np
import pytest

from palign_bench.questionnaire.protocol import audit_items, parse_released
from tests.organism.conftest import Testbed

PEOPLE, TRAINED_PEOPLE = 16, 2


@pytest.fixture(scope="module")
def vanilla(testbed: Testbed) -> np.ndarray:
    return testbed.composites("vanilla", testbed.people[:PEOPLE])


@pytest.fixture(scope="module")
def few_shot(testbed: Testbed) -> np.ndarray:
    return testbed.composites("few_shot", testbed.people[:PEOPLE])


def test_few_shot_beats_vanilla_and_comes_near_the_ceiling(
    testbed: Testbed, vanilla: np.ndarray, few_shot: np.ndarray
) -> None:
    ceiling = testbed.composites("ceiling", testbed.people[:PEOPLE], sweeps=100)
    assert few_shot.mean() < vanilla.mean() - 1.0
    assert ceiling.mean() - 0.1 < few_shot.mean() < 1.25 * ceiling.mean()


def test_the_answers_of_a_shuffled_person_are_no_help(
    testbed: Testbed, vanilla: np.ndarray, few_shot: np.ndarray
) -> None:
    """The same options as often, each under another statement."""
    aligner, generator, composites = testbed.aligner("few_shot"), np.random.default_rng(0), []
    for person in testbed.people[:PEOPLE]:
        shuffled = dict(zip(person.answers, generator.permutation(list(person.answers.values())).tolist(), strict=True))
        answers = testbed.answers(testbed.align(aligner, person, told=shuffled))
        composites.append(testbed.composite(answers, person))
    assert few_shot.mean() < np.mean(composites) - 1.0


def test_more_known_answers_are_better(testbed: Testbed, few_shot: np.ndarray) -> None:
    aligner, means = testbed.aligner("few_shot"), []
    for count in (5, 30):
        sheets = [testbed.answers(testbed.align(aligner, p, count)) for p in testbed.people[:PEOPLE]]
        means.append(np.mean([testbed.composite(a, p) for a, p in zip(sheets, testbed.people, strict=False)]))
    assert means[0] > means[1] + 0.3 and means[1] > few_shot.mean() + 0.1


@pytest.mark.parametrize("method", ["few_shot", "personality_prompt_template", "readout"])
def test_an_alignment_is_worse_for_anybody_else(testbed: Testbed, method: str) -> None:
    aligner = testbed.aligner(method)
    people = testbed.people[:6]
    sheets = [testbed.answers(testbed.align(aligner, person)) for person in people]
    table = np.array([[testbed.composite(answers, person) for person in people] for answers in sheets])
    own = np.diag(table)
    others = (table.sum(axis=1) - own) / (len(people) - 1)
    assert (others - own).mean() > 0.5
    assert (others > own).mean() >= 0.8


def test_a_portrait_says_what_a_list_says(testbed: Testbed, vanilla: np.ndarray) -> None:
    portrait = testbed.composites("personality_prompt_template", testbed.people[:PEOPLE])
    assert portrait.mean() < vanilla.mean() - 0.8


@pytest.mark.parametrize("method", ["vanilla", "few_shot", "personality_prompt_template"])
def test_what_it_writes_freely_names_an_option(testbed: Testbed, method: str) -> None:
    aligner, items = testbed.aligner(method), audit_items(testbed.inventory)
    named = [
        parse_released(text) is not None
        for person in testbed.people[:6]
        for text in (testbed.backbone.answer(testbed.align(aligner, person), items, items).audit or {}).values()
    ]
    assert len(named) == 120 and sum(named) >= 114


def test_pas_at_its_alpha_is_not_worse_on_the_selection_than_at_none(testbed: Testbed) -> None:
    """Whatever the search tried, alpha 0 among it."""
    for method in ("pas", "pas_no_prompt"):
        aligner = testbed.aligner(method)
        for person in testbed.people[:2]:
            summary = testbed.align(aligner, person).summary
            tried = {float(alpha): score for alpha, score in summary["search"].items()}
            assert tried[summary["alpha"]] <= tried[0.0]


# Learning rates at which a few steps move this small model; the paper's are for eight billion parameters.
TRAINED = {
    "lora": {"steps": 60, "learning_rate": 3e-3},
    "full_finetuning": {"steps": 60, "learning_rate": 5e-4},
    "prompt_tuning": {"steps": 120, "learning_rate": 2e-1},
    "qlora": {"steps": 60, "learning_rate": 3e-3},
    "dpo": {"steps": 80, "learning_rate": 1e-4},
    "ppo": {"steps": 20, "batch_size": 32, "learning_rate": 1e-3},
    "rloo": {"steps": 30, "learning_rate": 1e-3},
}


@pytest.mark.parametrize("method", TRAINED)
def test_a_trained_method_beats_vanilla_on_its_own_person(testbed: Testbed, vanilla: np.ndarray, method: str) -> None:
    trained = testbed.composites(method, testbed.people[:TRAINED_PEOPLE], **TRAINED[method])
    assert trained.mean() < vanilla[:TRAINED_PEOPLE].mean() - 0.3
