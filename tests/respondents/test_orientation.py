"""Reversed data are noticed, sound data never are, and nobody guesses."""

import csv
from pathlib import Path

import numpy as np
import pytest

from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.respondents import RespondentSource
from palign_bench.respondents.file import load_file
from palign_bench.respondents.matrix import AnswerMatrix, reverse_negative
from palign_bench.respondents.orientation import orientation_evidence
from palign_bench.respondents.source import RespondentsError


@pytest.fixture
def literal(source: RespondentSource, inventory: Inventory) -> AnswerMatrix:
    return AnswerMatrix.of(source.people, inventory)


def _write(path: Path, people: AnswerMatrix) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"i{item.number}" for item in people.inventory.items)])
        writer.writerows(
            [name, *(value or "" for value in row)]
            for name, row in zip(people.ids, people.answers.tolist(), strict=True)
        )


def test_the_real_people_correlate_as_measured(papi: RespondentSource, inventory: Inventory) -> None:
    """-0.42 between oppositely keyed items of a facet, +0.48 between same-keyed ones, 99.6 % of the former negative."""
    literal = AnswerMatrix.of(papi.people, inventory).answers
    evidence = orientation_evidence(literal, inventory)
    assert (evidence.opposite, evidence.same) == (pytest.approx(-0.42, abs=0.005), pytest.approx(0.48, abs=0.005))
    stored = orientation_evidence(reverse_negative(literal, inventory), inventory)
    assert (stored.opposite, stored.positive_share) == (pytest.approx(0.42, abs=0.005), pytest.approx(0.996, abs=0.001))
    assert (evidence.verdict, stored.verdict) == ("literal", "keyed")


def test_correlations_are_those_of_numpy(literal: AnswerMatrix, inventory: Inventory) -> None:
    complete = literal.take(np.flatnonzero((literal.answers > 0).all(axis=1))[:100])
    pairs = {1: [], -1: []}  # type: dict[int, list[float]]
    correlations = np.corrcoef(complete.answers.T)
    for first, one in enumerate(inventory.items):
        for second, other in enumerate(inventory.items[:first]):
            if one.subscale == other.subscale:
                pairs[one.sign * other.sign].append(correlations[first, second])
    evidence = orientation_evidence(complete.answers, inventory)
    assert evidence.opposite == pytest.approx(np.mean(pairs[-1]))
    assert evidence.same == pytest.approx(np.mean(pairs[1]))
    assert evidence.pairs == len(pairs[-1])


def test_reversed_data_are_refused_until_somebody_says_what_they_are(
    tmp_path: Path, literal: AnswerMatrix, inventory: Inventory
) -> None:
    path = tmp_path / "people.csv"
    _write(path, AnswerMatrix(inventory, literal.ids, reverse_negative(literal.answers, inventory)))
    with pytest.raises(
        RespondentsError, match=r"taken as literal, but look keyed .*; set respondents.orientation=keyed"
    ):
        load_file(str(path), inventory=ipip_neo_300())
    assert [p.answers for p in load_file(str(path), orientation="keyed", inventory=ipip_neo_300()).people] == [
        p.answers for p in literal.respondents()
    ]
    insisted = load_file(str(path), orientation="literal", inventory=ipip_neo_300())
    assert len(insisted.notes) == 1 and "set respondents.orientation=keyed" in insisted.notes[0]


def test_literal_data_said_to_be_keyed_are_warned_of(tmp_path: Path, literal: AnswerMatrix) -> None:
    _write(tmp_path / "people.csv", literal)
    assert load_file(str(tmp_path / "people.csv"), inventory=ipip_neo_300()).notes == ()
    assert (
        "look literal"
        in load_file(str(tmp_path / "people.csv"), orientation="keyed", inventory=ipip_neo_300()).notes[0]
    )
    with pytest.raises(RespondentsError, match=r"respondents.orientation=reversed: choose literal or keyed"):
        load_file(str(tmp_path / "people.csv"), orientation="reversed", inventory=ipip_neo_300())


def test_few_people_or_noise_are_no_evidence(literal: AnswerMatrix, inventory: Inventory) -> None:
    assert orientation_evidence(literal.answers[:10], inventory).verdict is None
    noise = np.random.default_rng(0).integers(1, 6, size=(300, len(inventory.items))).astype(np.int8)
    assert orientation_evidence(noise, inventory).verdict is None
    assert orientation_evidence(np.full_like(noise, 3), inventory).verdict is None


def test_one_scale_stored_otherwise_than_the_rest_is_named(
    tmp_path: Path, literal: AnswerMatrix, inventory: Inventory
) -> None:
    mixed = literal.answers.copy()
    for column, item in enumerate(inventory.items):
        if item.subscale == "N1" and item.sign < 0:
            mixed[:, column] = np.where(mixed[:, column] > 0, 6 - mixed[:, column], 0)
    _write(tmp_path / "people.csv", AnswerMatrix(inventory, literal.ids, mixed))
    assert load_file(str(tmp_path / "people.csv"), inventory=ipip_neo_300()).notes == (
        "people.csv: N1 look stored otherwise than the rest, which look literal",
    )


def test_why_the_orientation_cannot_be_checked(literal: AnswerMatrix, inventory: Inventory) -> None:
    """Also where there are oppositely keyed items, which one person's or constant answers say nothing about."""
    assert str(orientation_evidence(literal.answers[:1], inventory)).startswith("too few people (1) to correlate")
    alike = np.full((30, len(inventory.items)), 3, dtype=np.int8)
    assert "by too few people, or alike by all: the" in str(orientation_evidence(alike, inventory))
    for answers in (literal.answers, literal.answers[:1], alike):
        positive = np.where([item.sign > 0 for item in inventory.items], answers, 0).astype(np.int8)
        assert str(orientation_evidence(positive, inventory)).startswith("no oppositely keyed items of one scale are ")
