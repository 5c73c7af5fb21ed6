"""Floors against published figures, hand-made cases and scikit-learn."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge as ScikitRidge

from baselines.floors import PENALTIES, ROWS, Floor, floors, ridge
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory, Item, Respondent
from palign_bench.questionnaire.protocol import AsReleased, Corrected, EvaluationProtocol
from palign_bench.questionnaire.scoring import as_matrix
from palign_bench.respondents.source import RespondentSource
from tests.protocols import AS_RELEASED, CORRECTED

SCALES = {"A": "agreeableness", "C": "conscientiousness", "N": "neuroticism"}
# Known: 1, 2 (facet A1), 3 (A2), 4 (C1). Held out: 5 (A1, keyed), 6 (A1, reversed), 7 (A3), 8 (N1), 9 (C1, reversed).
TINY = Inventory(
    "tiny",
    tuple(
        Item(number, f"Statement {number}.", sign, facet[0], facet)
        for number, (sign, facet) in enumerate(
            [(1, "A1"), (-1, "A1"), (1, "A2"), (1, "C1"), (1, "A1"), (-1, "A1"), (1, "A3"), (1, "N1"), (-1, "C1")], 1
        )
    ),
    known=(1, 2, 3, 4),
    scales=SCALES,
    stores_keyed=True,
)


TINY_CORRECTED, TINY_AS_RELEASED = Corrected(TINY), AsReleased(TINY)


def aligned(row: str, protocol: EvaluationProtocol, case: Case) -> Answers:
    """The answers of one floor, made and prepared as the runner does."""
    floor = floors([row])[row]
    floor.prepare(None, protocol)
    answers = floor.align(case).answers
    assert answers is not None
    return answers


def a_case(known: Answers, others: Sequence[Answers] | None = None, seed: int = 0) -> Case:
    table = None if others is None else as_matrix([item.number for item in TINY.items], others)
    return Case("anyone", known, {}, seed, others=table)


def cases(protocol: EvaluationProtocol, people: Sequence[Respondent]) -> list[Case]:
    """One case a person, with the other people's answers."""
    table = as_matrix([item.number for item in protocol.inventory.items], [person.answers for person in people])
    return [
        Case(
            person.id,
            protocol.known(person),
            {},
            seed=index,
            missing=tuple(n for n in protocol.inventory.known if n not in person.answers),
            others=np.delete(table, index, axis=0),
            held_out=protocol.held_out(person),
        )
        for index, person in enumerate(people)
    ]


def random_people(inventory: Inventory, count: int, seed: int = 0) -> list[Respondent]:
    """People with a trait per domain and missing answers here and there."""
    generator = np.random.default_rng(seed)
    people = []
    for index in range(count):
        traits = {domain: generator.normal(3.0, 0.8) for domain in DOMAINS}
        answers = {
            item.number: inventory.keyed(item.number, inventory.nearest(traits[item.scale] + generator.normal(0, 0.9)))
            for item in inventory.items
            if generator.random() > 0.03
        }
        people.append(Respondent(f"p{index}", answers))
    return people


def test_the_nearest_option() -> None:
    assert [TINY.nearest(value) for value in (2.5, 3.5, 2.49, 0.2, 5.7, 1.0)] == [3, 4, 2, 1, 5, 1]


def test_constants_answer_one_option_under_both_protocols() -> None:
    for protocol in (TINY_CORRECTED, TINY_AS_RELEASED):
        for row, value in zip(["constant_a", "constant_c", "constant_e"], [5, 3, 1], strict=True):
            assert aligned(row, protocol, a_case({1: 4})) == dict.fromkeys([5, 6, 7, 8, 9], value)


def test_own_means_round_half_up_in_the_keyed_direction() -> None:
    known = {1: 4, 2: 3, 3: 1, 4: 2}  # keyed: A1 = 4, 3 -> 3.5; A2 = 1; C1 = 2; A = 8/3; all = 2.5
    facet = aligned("facet_mean", TINY_CORRECTED, a_case(known))
    assert facet == {5: 4, 6: 2, 7: 3, 8: 3, 9: 4}  # 6: 3.5 rounds to 4 keyed, then reversed (not 2.5 up to 3)
    domain = aligned("domain_mean", TINY_CORRECTED, a_case(known))
    assert domain == {5: 3, 6: 3, 7: 3, 8: 3, 9: 4}
    # As released the same literal answers give keyed predictions; item 4 is missing.
    stored = aligned("facet_mean", TINY_AS_RELEASED, a_case({1: 4, 2: 3, 3: 1}))
    assert stored == {5: 4, 6: 4, 7: 3, 8: 3, 9: 3}  # C1 and N1 fall back to all: 8/3


def test_own_mean_of_somebody_who_answered_nothing_is_the_midpoint() -> None:
    assert set(aligned("facet_mean", TINY_AS_RELEASED, a_case({})).values()) == {3}


def test_item_median_is_taken_over_answers_given() -> None:
    others = [{5: 1, 6: 1, 7: 2}, {5: 5, 6: 2, 7: 3}, {5: 4}]  # item 6 keyed: 5, 4 -> 4.5 -> 5, literally 1
    assert aligned("item_median", TINY_CORRECTED, a_case({}, others)) == {5: 4, 6: 1, 7: 3, 8: 3, 9: 3}
    more = [{5: 1, 6: 1, 7: 2}, {5: 5, 6: 2, 7: 3, 8: 2}, {5: 4}]
    assert aligned("item_median", TINY_AS_RELEASED, a_case({}, more)) == {
        5: 4,
        6: 5,
        7: 3,
        8: 2,
        9: 3,
    }


@pytest.mark.parametrize("row", ["item_median", "ridge"])
def test_other_people_are_needed_where_declared(row: str) -> None:
    assert floors([row])[row].needs == {"people"}
    with pytest.raises(ValueError, match="only one person"):
        aligned(row, TINY_CORRECTED, a_case({1: 4}, others=[]))
    assert set(aligned(row, TINY_CORRECTED, a_case({1: 4}, others=[{5: 2}]))) == set(TINY.held_out)


def test_ridge_agrees_with_scikit_learn_and_with_the_definition_of_its_criterion() -> None:
    generator = np.random.default_rng(1)
    weights = generator.normal(size=(12, 7)) / 10
    inputs = generator.normal(size=(60, 12)) * 4
    outputs = inputs @ weights + generator.normal(size=(60, 7))
    inputs, outputs = inputs - inputs.mean(axis=0), outputs - outputs.mean(axis=0)
    new = generator.normal(size=12)
    predicted, penalty = ridge(inputs, outputs, new)

    errors = {}
    for candidate in PENALTIES:  # generalised cross-validation with the hat matrix written out
        hat = inputs @ np.linalg.solve(inputs.T @ inputs + candidate * np.eye(12), inputs.T) + 1 / 60
        residual = outputs - hat @ outputs
        errors[candidate] = (residual**2).sum() / (60 - np.trace(hat)) ** 2
    assert penalty == min(errors, key=errors.__getitem__)
    assert penalty not in (PENALTIES[0], PENALTIES[-1])
    fitted = ScikitRidge(alpha=penalty).fit(inputs, outputs)
    np.testing.assert_allclose(predicted, fitted.predict(new[None])[0], atol=1e-10)


def test_ridge_answers_as_scikit_learn_would_from_mean_imputed_literal_answers(inventory: Inventory) -> None:
    people = random_people(inventory, 40)
    case = cases(CORRECTED, people)[7]
    floor = floors(["ridge"])["ridge"]
    floor.prepare(None, CORRECTED)
    alignment = floor.align(case)
    others = [person.answers for index, person in enumerate(people) if index != 7]
    numbers = [item.number for item in inventory.items]
    table = np.array([[answers.get(n, np.nan) for n in numbers] for answers in others])
    means = np.nanmean(table, axis=0)
    table = np.where(np.isnan(table), means, table)
    known, held_out = [n - 1 for n in inventory.known], [n - 1 for n in inventory.held_out]
    own = [people[7].answers.get(n, means[n - 1]) for n in inventory.known]
    fitted = ScikitRidge(alpha=alignment.summary["penalty"]).fit(table[:, known], table[:, held_out])
    literal = fitted.predict([own])[0]  # keying mirrors columns, which ridge with an intercept does not feel
    expected = {
        n: inventory.keyed(n, min(max(np.floor(inventory.keyed(n, value) + 0.5), 1), 5))
        for n, value in zip(inventory.held_out, literal, strict=True)
    }
    assert alignment.answers == expected


def test_ridge_is_fitted_on_what_is_told(inventory: Inventory) -> None:
    """Told ten answers it is the regression on ten items, not that on all with most of them filled in."""
    people = random_people(inventory, 40)
    told = inventory.known[::12]
    whole = cases(CORRECTED, people)[7]
    case = replace(
        whole,
        known={n: value for n, value in whole.known.items() if n in told},
        missing=tuple(n for n in whole.missing if n in told),
    )
    floor = floors(["ridge"])["ridge"]
    floor.prepare(None, CORRECTED)
    alignment = floor.align(case)
    assert case.others is not None
    table = inventory.keyed_matrix(case.others)
    means = np.nanmean(table, axis=0)
    table = np.where(np.isnan(table), means, table)
    columns, held_out = ([inventory.column[n] for n in numbers] for numbers in (told, inventory.held_out))
    own = [inventory.keyed(n, case.known[n]) if n in case.known else means[inventory.column[n]] for n in told]
    fitted = ScikitRidge(alpha=alignment.summary["penalty"]).fit(table[:, columns], table[:, held_out])
    keyed = np.clip(np.floor(fitted.predict([own])[0] + 0.5), 1, 5)
    expected = {n: inventory.keyed(n, v) for n, v in zip(inventory.held_out, keyed, strict=True)}
    assert alignment.answers == expected and alignment.trained_parameters == 11 * 180


def test_random_is_seeded_and_uniform(inventory: Inventory) -> None:
    first = aligned("random", CORRECTED, a_case({}, seed=3))
    assert first == aligned("random", CORRECTED, a_case({}, seed=3))
    assert first != aligned("random", CORRECTED, a_case({}, seed=4))
    drawn = [v for seed in range(100) for v in aligned("random", CORRECTED, a_case({}, seed=seed)).values()]
    shares = np.bincount(np.array(drawn, dtype=int), minlength=6)[1:] / len(drawn)
    np.testing.assert_allclose(shares, 0.2, atol=0.02)


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED], ids=lambda protocol: protocol.name)
def test_no_floor_sees_the_persons_own_held_out_answers(inventory: Inventory, protocol: EvaluationProtocol) -> None:
    people = random_people(inventory, 12)
    changed = list(people)
    mirrored = {n: value if n in inventory.known else 6 - value for n, value in people[5].answers.items()}
    changed[5] = Respondent(people[5].id, mirrored)
    every = floors([row for row, made in ROWS.items() if row != "truth" and made().exists_for(inventory)])
    for row, floor in every.items():
        floor.prepare(None, protocol)
        # One instance for everybody, as in a sweep: what it remembers of person 5 as another's neighbour must not leak.
        before = [floor.align(case).answers for case in cases(protocol, people)]
        after = [floor.align(case).answers for case in cases(protocol, changed)]
        assert before[5] == after[5], row
        if "people" in floor.needs:
            assert any(before[index] != after[index] for index in range(12) if index != 5), row


def test_a_floor_that_has_met_others_answers_like_a_fresh_one(inventory: Inventory) -> None:
    every = cases(CORRECTED, random_people(inventory, 8))
    for row in ("item_median", "ridge"):
        floor = floors([row])[row]
        floor.prepare(None, CORRECTED)
        assert [floor.align(case).answers for case in every] == [aligned(row, CORRECTED, case) for case in every]


def test_truth_is_literal_whatever_the_protocol() -> None:
    case = Case("anyone", {}, {}, 0, held_out={5: 4, 6: 2})
    for protocol in (CORRECTED, AS_RELEASED):
        assert aligned("truth", protocol, case) == {5: 4, 6: 2}
    assert floors(["truth"])["truth"].needs == {"held_out"}


def test_rows_are_checked_and_keep_their_order() -> None:
    assert list(floors(["ridge", "constant_c"])) == ["ridge", "constant_c"]
    assert not any(floor.needs_backbone for floor in floors(list(ROWS)).values())
    assert all(isinstance(floor, Floor) for floor in floors(list(ROWS)).values())
    with pytest.raises(ValueError, match=r"unknown constant_h; choose among constant_a, .*, ridge, truth"):
        floors(["constant_a", "constant_h"])
    with pytest.raises(ValueError, match=r"empty"):
        floors([])
    with pytest.raises(ValueError, match=r"give a list"):
        floors("ridge")


def composite(inventory: Inventory, truths: Sequence[Answers], alignments: Sequence[Alignment]) -> float:
    """Eq. 2 of the paper in numpy: sum over domains of the mean over people of the mean absolute difference."""
    numbers = list(inventory.held_out)

    def table(rows: Sequence[Answers]) -> np.ndarray:
        return np.array([[row.get(n, np.nan) for n in numbers] for row in rows], dtype=float)

    difference = np.abs(table([a.answers or {} for a in alignments]) - table(truths))
    domains = np.array([inventory[n].scale for n in numbers])
    return float(sum(np.nanmean(difference[:, domains == domain], axis=1).mean() for domain in DOMAINS))


PUBLISHED = {  # written as published: the number of decimals is the precision
    "corrected": {
        "constant_a": "9.509",
        "constant_b": "4.970",
        "constant_c": "3.792",
        "constant_d": "5.922",
        "constant_e": "10.491",
        "domain_mean": "2.856",
        "facet_mean": "2.739",
        "item_median": "2.894",
        "truth": "0.000",
    },
    "as_released": {
        "constant_a": "8.33",
        "constant_b": "4.04",
        "constant_c": "3.799",
        "constant_d": "6.86",
        "constant_e": "11.68",
        "truth": "3.86",
    },
}


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED], ids=lambda protocol: protocol.name)
def test_floors_on_the_real_people(inventory: Inventory, papi: RespondentSource, protocol: EvaluationProtocol) -> None:
    every = cases(protocol, papi.people)
    truths = [protocol.truth(protocol.held_out(person)) for person in papi.people]

    def score(row: str) -> float:
        floor = floors([row])[row]
        floor.prepare(None, protocol)
        return composite(inventory, truths, floor.align_many(every))

    for row, published in PUBLISHED[protocol.name].items():
        decimals = len(published.split(".")[1])
        assert f"{score(row):.{decimals}f}" == published, row
    assert 1.8 < score("ridge") < 1.95
    assert score("random") == pytest.approx(6.93, abs=0.1)
