"""The Dark Triad people: the floors of the released 300, and what picking them did, to the figures measured before."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.respondents.dark_triad import (
    TEST_SET,
    TEST_SET_RELEASE,
    dark_triad_layout,
    load_dark_triad,
    load_population,
)
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.orientation import orientation_evidence
from palign_bench.respondents.population import Population
from palign_bench.respondents.released import FOLDER_VARIABLE, locate
from palign_bench.respondents.selection import select_people
from palign_bench.respondents.source import RespondentsError

LAYOUT = dark_triad_layout()


@pytest.fixture(scope="module")
def everybody() -> Population:
    try:
        return Population(load_population(download=False))
    except RespondentsError as error:
        pytest.skip(f"the Dark Triad population is not at hand ({error})")


@pytest.fixture(scope="module")
def released() -> AnswerMatrix:
    try:
        return AnswerMatrix.of(load_dark_triad(download=False).people, LAYOUT)
    except RespondentsError as error:
        pytest.skip(f"the Dark Triad test set is not at hand ({error})")


def test_floors_of_the_released_300_to_three_decimals(released: AnswerMatrix) -> None:
    found = Population(released).describe()
    expected = {
        "always E": 6.807,
        "always D": 4.312,
        "always C": 3.214,
        "always B": 3.246,
        "always A": 5.193,
        "own scale mean": 2.091,
    }
    for floor, value in expected.items():
        assert found[f"composite: {floor}"] == pytest.approx(value, abs=0.0011), floor
    assert found["composite: item median of others"] == pytest.approx(2.585, abs=0.0011)
    assert found["composite: ridge on others"] == pytest.approx(1.697, abs=0.012)  # penalty 10; here it is chosen
    alphas = [found[f"alpha {scale}"] for scale in "MNP"]
    assert alphas == pytest.approx([0.922, 0.886, 0.886], abs=0.0006)
    assert [found[f"mean {scale}"] for scale in "MNP"] == pytest.approx([3.70, 3.10, 2.82], abs=0.006)
    assert [found[f"r known-held-out {scale}"] for scale in "MNP"] == pytest.approx([0.85, 0.80, 0.75], abs=0.016)


def test_answers_are_literal_and_the_signs_are_those_of_the_data(everybody: Population, released: AnswerMatrix) -> None:
    for answers in (everybody.matrix.answers, released.answers):
        evidence = orientation_evidence(answers, LAYOUT)
        assert evidence.verdict == "literal" and evidence.positive_share == 0
    keyed = everybody.matrix.keyed()
    for column, item in enumerate(LAYOUT.items):
        rest = [c for c, other in enumerate(LAYOUT.items) if other.scale == item.scale and c != column]
        complete = ~np.isnan(keyed).any(axis=1)
        assert np.corrcoef(keyed[complete][:, column], keyed[complete][:, rest].sum(axis=1))[0, 1] > 0.1


def test_the_released_split_signs_and_missing_answers(released: AnswerMatrix) -> None:
    split = json.loads((locate(TEST_SET_RELEASE, download=False) / "dark_triad_split.json").read_text())
    assert [n - 1 for n in LAYOUT.known] == split["train_index"]
    assert [n - 1 for n in LAYOUT.held_out] == split["test_index"]
    assert (released.answers == 0).sum() == 17 and ((released.answers == 0).sum(axis=1) > 0).sum() == 1


def test_the_whole_population_is_as_measured(everybody: Population) -> None:
    assert len(everybody.matrix) == 18_192 and (everybody.matrix.answers == 0).sum() == 748
    found = everybody.describe()
    for name, value, tolerance in (
        ("alpha M", 0.861, 0.001), ("alpha N", 0.805, 0.001), ("alpha P", 0.798, 0.001),
        ("r known-held-out M", 0.73, 0.006), ("r known-held-out N", 0.65, 0.006), ("r known-held-out P", 0.61, 0.006),
        ("composite: always C", 3.684, 0.015), ("composite: own scale mean", 2.803, 0.015),
        ("composite: item median of others", 3.079, 0.015), ("composite: ridge on others", 2.378, 0.015),
    ):  # fmt: skip
        assert found[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.parametrize(
    ("rule", "always_c", "own", "alpha_m"),
    [
        ("nearest", (3.06, 3.20), (2.00, 2.12), (0.915, 0.935)),
        ("random_member", (3.60, 3.76), (2.73, 2.90), (0.84, 0.885)),
        ("random", (3.53, 3.72), (2.68, 2.92), (0.82, 0.885)),
    ],
)
def test_the_nearest_to_the_centre_are_easier_to_predict(
    everybody: Population,
    rule: str,
    always_c: tuple[float, float],
    own: tuple[float, float],
    alpha_m: tuple[float, float],
) -> None:
    """The table of how people were picked: ranges over its three seeds, widened for another stream of chance."""
    rows = np.zeros(len(everybody.matrix), dtype=bool)
    rows[select_people(everybody.matrix, 300, rule, seed=0).rows] = True
    found = everybody.describe(rows)
    for name, (low, high) in {
        "composite: always C": always_c,
        "composite: own scale mean": own,
        "alpha M": alpha_m,
    }.items():
        assert low < found[name] < high, name


def test_released_people_are_in_the_population(everybody: Population, released: AnswerMatrix) -> None:
    rows = {row.tobytes() for row in everybody.matrix.answers}
    assert all(row.tobytes() in rows for row in released.answers)


def test_sources_name_themselves_and_nothing_else_leaves_the_loader(everybody: Population) -> None:
    source = load_respondents({"name": "dark_triad", "rule": "random", "count": 20, "seed": 1}, LAYOUT)
    assert (source.name, len(source.people)) == ("dark_triad_random", 20)
    assert source.description == "20 of 18192 people of the Dark Triad data, picked at random"
    assert all(person.id.isdecimal() and max(person.answers) <= 27 for person in source.people)
    assert "'US'" not in repr(source) and "country" not in repr(source)
    again = load_respondents({"name": "dark_triad", "rule": "random", "count": 20, "seed": 2}, LAYOUT)
    assert again.data_hash != source.data_hash
    with pytest.raises(RespondentsError, match=r"respondents.rule=best: choose one of released, all, nearest"):
        load_respondents({"name": "dark_triad", "rule": "best"}, LAYOUT)


def test_people_of_another_inventory_are_refused() -> None:
    with pytest.raises(
        RespondentsError, match=r"respondents=dark_triad answers inventory=dark_triad, not ipip_neo_300"
    ):
        load_respondents({"name": "dark_triad"}, ipip_neo_300())
    with pytest.raises(RespondentsError, match=r"respondents=simulated answers inventory=ipip_neo_300, not dark_triad"):
        load_respondents({"name": "simulated"}, LAYOUT)


def test_a_changed_file_is_refused(released: AnswerMatrix, tmp_path: Path) -> None:
    content = (
        (Path(os.environ[FOLDER_VARIABLE]) / "dark_triad" / TEST_SET).read_bytes()
        if FOLDER_VARIABLE in os.environ
        else b"[]"
    )
    (tmp_path / TEST_SET).write_bytes(content.replace(b"4", b"5", 1))
    with pytest.raises(RespondentsError, match=f"{TEST_SET} is not the released file"):
        load_dark_triad(str(tmp_path))
