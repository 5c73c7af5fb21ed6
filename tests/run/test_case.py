"""What an aligner is told of a person and of the others, and the seed that it draws from."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory, Item
from palign_bench.questionnaire.protocol import Corrected, EvaluationProtocol
from palign_bench.respondents import simulate
from palign_bench.respondents.source import RespondentSource
from palign_bench.run.assembly import told_version
from palign_bench.run.case import Cases, derived_seed, told_items
from tests.protocols import AS_RELEASED, CORRECTED


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED])
def test_a_case_tells_what_was_asked_for_and_no_more(inventory: Inventory, protocol: EvaluationProtocol) -> None:
    people = [replace(person, portrait=f"portrait of {person.id}") for person in simulate(count=6, seed=3).people]
    source = RespondentSource("file", "x", tuple(people))
    experiment: Any = SimpleNamespace(protocol=protocol, source=source, seed=0, known_answers=None, intervention=None)
    person = people[0]
    bare = Cases(experiment).case(person, frozenset({"prompt"}))
    assert (bare.others, bare.held_out, bare.portrait) == (None, None, None)
    assert bare.known == {n: person.answers[n] for n in inventory.known} and bare.missing == ()
    if protocol.name == "corrected":
        assert not set(bare.selection) & set(inventory.held_out)
    case = Cases(experiment).case(person, frozenset({"people", "held_out", "portrait"}))
    assert case.portrait == f"portrait of {person.id}"
    assert case.held_out == {n: person.answers[n] for n in inventory.held_out}
    whole = [[each.answers[item.number] for item in inventory.items] for each in people]
    assert case.others is not None and case.others.tolist() == whole[1:]  # of the whole source, not of the selection


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED], ids=lambda protocol: protocol.name)
def test_missing_answers_are_absent_and_named(inventory: Inventory, protocol: EvaluationProtocol) -> None:
    first, second = inventory.known[:2]
    full, *others = simulate(count=3, seed=3).people
    gaps = replace(full, answers={n: v for n, v in full.answers.items() if n not in (first, inventory.held_out[0])})
    source = RespondentSource("file", "x", (gaps, *others))
    experiment: Any = SimpleNamespace(protocol=protocol, source=source, seed=0, known_answers=None, intervention=None)
    case = Cases(experiment).case(gaps, frozenset({"people"}))
    assert first not in case.known and case.missing == (first,) and case.known[second] == full.answers[second]
    seen_by_others = Cases(experiment).case(others[0], frozenset({"people"})).others
    assert seen_by_others is not None and np.isnan(seen_by_others[0, inventory.column[first]])
    # An answer that a method is not told of is not missing, whoever gave it.
    told = Cases(SimpleNamespace(**vars(experiment) | {"known_answers": 5})).case(gaps, frozenset())
    assert len(told.known) + len(told.missing) == 5


def test_what_is_chosen_on_is_changed_as_what_is_told(inventory: Inventory) -> None:
    """`as_released` chooses on the held-out answers: unchanged, they would pull the choice back to the real person."""
    person = simulate(count=1, seed=3).people[0]
    change = Intervention.parse("inverted", inventory)
    source = RespondentSource("file", "x", (person,))
    for protocol in (CORRECTED, AS_RELEASED):
        job: Any = SimpleNamespace(protocol=protocol, source=source, seed=0, known_answers=None, intervention=change)
        case = Cases(job).case(person, frozenset())
        assert case.selection == {n: 6 - person.answers[n] for n in case.selection} and len(case.selection) >= 30
    assert [told_version(each, None, change) for each in (CORRECTED, AS_RELEASED)] == [None, 2]


def test_answers_told_are_spread_over_scales_that_have_no_subscales() -> None:
    items = tuple(Item(number, "Sing.", 1, "MNP"[number % 3]) for number in range(1, 28))
    known = tuple(range(1, 19))
    triad = Inventory("triad", items, known, {scale: scale for scale in "MNP"})
    for seed in range(20):
        for count in range(1, 19):
            told = [triad[number].scale for number in told_items(triad, count, seed)]
            assert {count // 3, -(-count // 3)} >= {told.count(scale) for scale in "MNP"}
    versions = [told_version(Corrected(triad), count, None) for count in (3, None)]
    assert versions == [3, None]  # cells of the earlier choice are others


def test_answers_told_of_ipip_neo_are_those_that_always_were(inventory: Inventory) -> None:
    assert told_items(inventory, 5, 0) == {12, 29, 56, 233, 270}
    assert [told_version(CORRECTED, count, None) for count in (5, None)] == [3, None]
    assert {inventory[number].scale for number in told_items(inventory, 5, 1)} == set("ACENO")
    assert {inventory[number].subscale for number in told_items(inventory, 30, 1)} == set(inventory.subscales)


def test_what_is_chosen_on_is_a_part_of_what_is_told(inventory: Inventory) -> None:
    """Whatever the seed: with few answers told, one drawn from all known ones would often be none of them."""
    person = simulate(count=1, seed=3).people[0]
    source = RespondentSource("file", "x", (person,))
    for count, chosen in ((1, 0), (5, 1), (10, 5), (30, 5), (60, 30), (120, 30)):
        for seed in range(5):
            job: Any = SimpleNamespace(
                protocol=CORRECTED, source=source, seed=seed, known_answers=count, intervention=None
            )
            case = Cases(job).case(person, frozenset())
            assert len(case.selection) == chosen and case.selection.items() <= case.known.items()
            assert len(case.fitting) == count - chosen


def test_derived_seeds_depend_on_seed_and_person_alone() -> None:
    ids = [f"p{n}" for n in range(1000)]
    seeds = {i: derived_seed(0, i) for i in ids}
    assert seeds == {i: derived_seed(0, i) for i in random.Random(0).sample(ids, len(ids))}
    assert len({*seeds.values(), *(derived_seed(1, i) for i in ids)}) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    # From `printf 0:p1 | sha256sum`: every process and machine derives the same.
    assert derived_seed(0, "p1") == 0xFC7902413132B41D >> 1


def test_people_of_whom_a_method_is_told_nothing_are_counted(inventory: Inventory) -> None:
    """They answer some known items, as people must, but none that the job's methods are told of."""
    full, *others = simulate(count=3, seed=3).people
    source = RespondentSource("file", "x", (full, *others))
    job: Any = SimpleNamespace(
        protocol=CORRECTED, source=source, people=source.people, seed=0, known_answers=5, intervention=None
    )
    told = Cases(job).case(full, frozenset()).known
    assert len(told) == 5 and Cases(job).notes() == []
    gaps = replace(full, answers={n: value for n, value in full.answers.items() if n not in told})
    job.source = RespondentSource("file", "x", (gaps, *others))
    job.people = (gaps, others[0])
    assert Cases(job).case(gaps, frozenset()).known == {}
    assert Cases(job).notes() == [
        "Methods are told nothing of 1 of 2 people: none of the 5 known items that known_answers=5 picks is answered."
    ]
    job.known_answers = None
    assert Cases(job).notes() == []
