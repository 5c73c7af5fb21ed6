"""The row ``ceiling`` on the runner's own path: ahead of the floors, in the protocol's orientation."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.ceiling import Ceiling
from palign_bench.aligner import Aligner, Case
from palign_bench.questionnaire.inventory import Inventory, Respondent
from palign_bench.questionnaire.protocol import Corrected, EvaluationProtocol
from palign_bench.respondents import RespondentSource
from palign_bench.run.methods import make_aligners
from palign_bench.run.session import Session
from palign_bench.settings import UserError, read_option
from tests.protocols import AS_RELEASED, CORRECTED
from tests.run.jobs import a_job, run_alone

PEOPLE = 60
QUICK = {"sweeps": 60, "burn_in": 20}


def made(method: str, **settings: Any) -> dict[str, Aligner]:
    """The method's aligners as a command makes them."""
    return make_aligners(read_option("method", method) | settings)


def run(folder: Path, source: RespondentSource, aligners: dict[str, Aligner]) -> dict[str, Any]:
    """The records of the first people, by row, from a run that loads no backbone."""

    job = a_job(folder, source, source.people[:PEOPLE])
    records = {}
    for name, aligner in aligners.items():
        assert not aligner.needs_backbone
        failed, cells = run_alone(job, name, aligner, Session())
        assert failed == 0
        records[name] = [cells.read(person.id) for person in job.people]
    return records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory, simulated: RespondentSource) -> dict[str, Any]:
    aligners = made("ceiling", **QUICK, figures="measured")
    aligners |= made("floors", rows=["facet_mean", "item_median", "ridge"])
    return run(tmp_path_factory.mktemp("runs"), simulated, aligners)


def composites(records: list[Any]) -> np.ndarray:
    return np.array([record["scores"]["composite"] for record in records])


@pytest.mark.parametrize("floor", ["facet_mean", "item_median", "ridge"])
def test_on_people_of_the_model_it_is_ahead_of_every_floor(records: dict[str, Any], floor: str) -> None:
    """Ridge has learned from 299 others; even so the difference is beyond four standard errors."""
    difference = composites(records["ceiling"]) - composites(records[floor])
    assert difference.mean() < -4 * difference.std() / np.sqrt(PEOPLE)
    assert difference.mean() < -0.1


def test_published_figures_are_ahead_of_the_facet_mean_on_real_people(
    tmp_path: Path, papi: RespondentSource, inventory: Inventory
) -> None:
    """The measured ones are not, although they are these people's own: they invent what single items are like."""
    aligners = made("ceiling", **QUICK, figures="published")
    aligners |= made("floors", rows=["facet_mean"])
    found = run(tmp_path, papi, aligners)
    difference = composites(found["ceiling"]) - composites(found["facet_mean"])
    assert difference.mean() < -4 * difference.std() / np.sqrt(PEOPLE)


def test_the_record_tells_the_composite_that_the_model_expected(records: dict[str, Any]) -> None:
    expected = np.array([record["alignment"]["summary"]["expected_composite"] for record in records["ceiling"]])
    difference = composites(records["ceiling"]) - expected
    assert abs(difference.mean()) < 3.5 * difference.std() / np.sqrt(PEOPLE)
    assert np.corrcoef(expected, composites(records["ceiling"]))[0, 1] > 0.3


def case(protocol: EvaluationProtocol, person: Respondent, seed: int) -> Case:
    return Case(person.id, protocol.known(person), {}, seed)


def prepared(protocol: EvaluationProtocol) -> Ceiling:
    aligner = made("ceiling", **QUICK)["ceiling"]
    assert isinstance(aligner, Ceiling)
    aligner.prepare(None, protocol)
    return aligner


def test_as_released_it_answers_stored_answers(simulated: RespondentSource, inventory: Inventory) -> None:
    """The same person, also with answers missing, under both protocols: the same literal answers, keyed in one."""
    person = simulated.people[0]
    gaps = replace(person, answers={n: value for n, value in person.answers.items() if n % 7})
    literal, stored = prepared(CORRECTED), prepared(AS_RELEASED)
    for each in (person, gaps):
        answers = literal.align(case(CORRECTED, each, 5)).answers
        keyed = stored.align(case(AS_RELEASED, each, 5)).answers
        assert answers is not None and keyed is not None
        assert {n: inventory.keyed(n, value) for n, value in answers.items()} == keyed
        assert set(answers) == set(inventory.held_out) and set(answers.values()) <= {1, 2, 3, 4, 5}
    assert answers != keyed


def test_a_cohort_is_aligned_as_each_alone(simulated: RespondentSource, inventory: Inventory) -> None:
    aligner = prepared(CORRECTED)
    cases = [case(CORRECTED, person, seed) for seed, person in enumerate(simulated.people[:4])]
    assert aligner.align_many(cases) == [aligner.align(each) for each in cases]
    assert aligner.align(replace(cases[0], seed=9)) != aligner.align(cases[0])


def test_someone_who_answered_nothing_is_answered_alike_whoever_it_is(inventory: Inventory) -> None:
    alignment = prepared(CORRECTED).align(Case("nobody", {}, {}, 0))
    stored = prepared(AS_RELEASED).align(Case("nobody", {}, {}, 0))
    assert alignment.answers is not None and stored.answers is not None
    assert {n: inventory.keyed(n, value) for n, value in alignment.answers.items()} == stored.answers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"figures": "guessed"}, "method.figures=guessed: choose one of measured, published"),
        ({"sweeps": 0}, "method.sweeps=0: choose a whole number, 1 or more"),
        ({"burn_in": 1.5}, "method.burn_in=1.5: choose a whole number, 0 or more"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made("ceiling", **settings)


def test_another_inventory_is_refused(inventory: Inventory) -> None:
    with pytest.raises(UserError, match="the factor model is of ipip_neo_300, not of short"):
        prepared(Corrected(Inventory("short", inventory.items[:10], inventory.known, inventory.scales)))
