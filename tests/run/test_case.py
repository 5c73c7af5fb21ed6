"""What an aligner is told of a person and of the others, and the seed that it draws from."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import AsReleased, Corrected, EvaluationProtocol
from palign_bench.respondents import simulate
from palign_bench.respondents.source import make_source
from palign_bench.run.case import Cases, LeaveOneOut, derived_seed


def test_everyone_else_is_everyone_else() -> None:
    everyone: list[Any] = [{1: n} for n in range(5)]
    for left_out in range(5):
        others = LeaveOneOut(everyone, left_out)
        expected = everyone[:left_out] + everyone[left_out + 1 :]
        assert len(others) == 4 and list(others) == expected
        assert all(mine is theirs for mine, theirs in zip(others, expected, strict=True))
        assert [others[i] for i in range(-4, 0)] == expected
        assert others[1:3] == expected[1:3] and others[::-1] == expected[::-1]
        for outside in (4, -5):
            with pytest.raises(IndexError):
                others[outside]
    assert list(LeaveOneOut(everyone[:1], 0)) == []


@pytest.mark.parametrize("protocol", [Corrected(), AsReleased()])
def test_a_case_tells_what_was_asked_for_and_no_more(inventory: Inventory, protocol: EvaluationProtocol) -> None:
    people = [replace(person, portrait=f"portrait of {person.id}") for person in simulate(count=6, seed=3).people]
    source = make_source("file", "x", people)
    experiment: Any = SimpleNamespace(inventory=inventory, protocol=protocol, source=source, seed=0, known_answers=None)
    person = people[0]
    bare = Cases(experiment).case(person, frozenset({"prompt"}))
    assert (bare.others, bare.truth, bare.portrait) == (None, None, None)
    assert set(bare.known) <= set(inventory.known) and bare.known == protocol.known(inventory, person)
    if protocol.name == "corrected":
        assert not set(bare.selection) & set(inventory.held_out)
    case = Cases(experiment).case(person, frozenset({"people", "truth", "portrait"}))
    assert case.portrait == f"portrait of {person.id}"
    assert case.truth == {n: person.answers[n] for n in inventory.held_out if n in person.answers}
    assert case.others is not None and len(case.others) == len(people) - 1  # of the whole source, not of the selection
    whole = [{**protocol.known(inventory, each), **protocol.truth(inventory, each)} for each in people]
    assert list(case.others) == whole[1:] and whole[0] not in case.others


def test_derived_seeds_depend_on_seed_and_person_alone() -> None:
    ids = [f"p{n}" for n in range(1000)]
    seeds = {i: derived_seed(0, i) for i in ids}
    assert seeds == {i: derived_seed(0, i) for i in random.Random(0).sample(ids, len(ids))}
    assert len({*seeds.values(), *(derived_seed(1, i) for i in ids)}) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    # From `printf 0:p1 | sha256sum`: every process and machine derives the same.
    assert derived_seed(0, "p1") == 0xFC7902413132B41D >> 1
