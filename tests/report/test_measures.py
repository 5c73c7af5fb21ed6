import random
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import DOMAINS, Inventory, ipip_neo_300
from palign_bench.questionnaire.scoring import aligned_scores
from palign_bench.report.document import terminal
from palign_bench.report.measures import Difference
from palign_bench.report.table import Report, build_report
from palign_bench.report.words import describe

MakeRecord = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]
HELD_OUT = (6, 7, 8, 9, 10)
PEOPLE = ("p1", "p2", "p3")
TRUTH = {"p1": dict.fromkeys(HELD_OUT, 5), "p2": dict.fromkeys(HELD_OUT, 3), "p3": dict.fromkeys(HELD_OUT[:4], 1)}


def row_of(report: Report, key: str) -> dict[str, Any]:
    (row,) = [row for row in report.rows if row["method"] == key]
    return dict(row)


@pytest.fixture
def three_people(five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan) -> Report:
    """p3 has no openness answer, so that nobody has a composite for p3."""

    def records(answered: dict[str, tuple[float, float | None]]) -> dict[str, Any]:
        return {p: make_record(dict.fromkeys(HELD_OUT, v), TRUTH[p], score) for p, (v, score) in answered.items()}

    rows = {
        "few_shot": records({"p1": (4, 5.0), "p2": (3, 0.0), "p3": (3, None)}),
        "pas": records({"p2": (2, 5.0)}),
        "vanilla": records({"p1": (3, 10.0), "p2": (3, 0.0)}),
        "constant_a": records({"p1": (5, 0.0), "p2": (5, 10.0), "p3": (5, None)}),
        "constant_c": records({"p1": (3, 10.0), "p2": (3, 0.0), "p3": (3, None)}),
        "domain_mean": records({"p1": (4.8, 1.0)}),
        "ridge": records({"p1": (4, 5.0), "p2": (3.2, 1.0), "p3": (1, None)}),
    }
    return build_report(make_plan(rows, PEOPLE), five_items)


def test_counts(three_people: Report) -> None:
    few_shot, pas = row_of(three_people, "few_shot"), row_of(three_people, "pas")
    assert (few_shot["respondents"], few_shot["missing_cells"], few_shot["unscored"]) == (3, 0, 1)
    assert (pas["respondents"], pas["missing_cells"], pas["unscored"]) == (1, 2, 0)
    assert three_people.people == 3


def test_composite_is_the_mean_over_scored_people(three_people: Report) -> None:
    assert row_of(three_people, "few_shot")["composite"] == 2.5
    assert row_of(three_people, "few_shot")["agreeableness"] == 0.5


def test_an_interval_of_few_people_stays_within_what_a_composite_can_be(
    three_people: Report, five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    student = stats.ttest_1samp([0.0, 5.0], 0).confidence_interval(0.95)
    assert student.low < 0 and student.high > 20, "five scales of a distance up to 4 each"
    few_shot = row_of(three_people, "few_shot")
    assert (few_shot["composite_low"], few_shot["composite_high"]) == (0, 20)
    assert "0.00–20.00" in terminal(describe(three_people))
    near = {person: make_record({}, {}, score) for person, score in zip(PEOPLE, (9.0, 10.0, 11.0), strict=True)}
    row = row_of(build_report(make_plan({"lora": near}, PEOPLE), five_items), "lora")
    student = stats.ttest_1samp([9.0, 10.0, 11.0], 0).confidence_interval(0.95)
    assert (row["composite_low"], row["composite_high"]) == pytest.approx((student.low, student.high))


def test_a_difference_is_over_shared_people(three_people: Report) -> None:
    rows = {row.name: row for row in three_people.read}
    assert Difference(rows["few_shot"], rows["vanilla"]).values == [-5.0, 0.0]
    assert Difference(rows["few_shot"], rows["pas"]).values == [-5.0]
    assert not Difference(rows["pas"], rows["domain_mean"]) and Difference(rows["pas"], None).mean is None


def test_differences_are_paired(three_people: Report) -> None:
    # Shared people p1, p2: both constants average 5; the unfinished domain mean (1.0 on p1 alone) must not win.
    few_shot = row_of(three_people, "few_shot")
    assert few_shot["difference_to_best_own_floor"] == 2.5 - 5.0
    assert few_shot["difference_to_best_people_floor"] == 2.5 - 3.0
    # PAS has p2 only, where always-C scores 0 and ridge 1; over all people the constants average 5.
    pas = row_of(three_people, "pas")
    assert (pas["best_own_floor"], pas["difference_to_best_own_floor"]) == ("constant_c", 5.0)
    assert pas["difference_to_best_people_floor"] == 4.0
    assert row_of(three_people, "ridge")["difference_to_best_people_floor"] == 0.0
    assert row_of(three_people, "constant_a")["difference_to_best_own_floor"] == 0.0


def test_beating_the_best_constant(three_people: Report) -> None:
    assert row_of(three_people, "few_shot")["beats_best_constant"] is True
    assert row_of(three_people, "pas")["beats_best_constant"] is False
    assert row_of(three_people, "vanilla")["beats_best_constant"] is False  # as good as always-C is not better
    assert row_of(three_people, "constant_c")["beats_best_constant"] is None
    assert row_of(three_people, "domain_mean")["beats_best_constant"] is False  # 1.0 against 0.0 of always-A on p1


def test_without_floors_there_is_nothing_to_compare_with(
    five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    report = build_report(make_plan({"pas": {"p1": make_record({6: 4}, {6: 4}, 1.0)}}, ("p1",)), five_items)
    row = row_of(report, "pas")
    assert row["difference_to_best_own_floor"] is row["difference_to_best_people_floor"] is None
    assert row["beats_best_constant"] is row["specificity"] is row["trait_correlation"] is None


def test_specificity_by_hand(three_people: Report) -> None:
    # few_shot: p1's 4s are 5 off p1's truth and 5 off p2's: 0. p2's 3s are 0 off p2's, 10 off p1's: 10. p3: no score.
    assert row_of(three_people, "few_shot")["specificity"] == 5.0
    # The truth of p1 comes from other rows: p2's 2s are 15 off it and 5 off their own.
    assert row_of(three_people, "pas")["specificity"] == 10.0
    assert row_of(three_people, "constant_c")["specificity"] == 0.0


@pytest.mark.parametrize("protocol", ["corrected", "as_released"])
def test_specificity_equals_the_definition(protocol: str, make_record: MakeRecord, make_plan: MakePlan) -> None:
    inventory = ipip_neo_300()
    generator = random.Random(protocol)
    people = tuple(f"p{i}" for i in range(12))

    def draw(missing: float, otherwise: dict[int, int]) -> dict[int, int]:
        return otherwise | {n: generator.randint(1, 5) for n in inventory.held_out if generator.random() >= missing}

    zeros = dict.fromkeys(inventory.held_out, 0) if protocol == "as_released" else {}
    truth = {p: draw(0.05, zeros) for p in people}
    answers = {p: draw(0.1, {}) for p in people}

    def composite(own: str, other: str) -> float:
        score = aligned_scores(inventory, answers[own], truth[other])["composite"]
        assert score is not None
        return score

    rows = {"pas": {p: make_record(answers[p], truth[p], composite(p, p)) for p in people}}
    expected = 0.0
    for i in people:
        expected += (sum(composite(i, j) for j in people if j != i) / 11 - composite(i, i)) / 12
    report = build_report(make_plan(rows, people, protocol=protocol), inventory)
    assert row_of(report, "pas")["specificity"] == pytest.approx(expected, abs=1e-12)
    assert abs(expected) > 1e-3
    low, high = report.rows[0]["composite_low"], report.rows[0]["composite_high"]
    assert low < report.rows[0]["composite"] < high


def test_trait_correlation_by_hand(five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan) -> None:
    own = [(1, 1, 1, 1, 1), (3, 2, 2, 2, 3), (2, 3, 3, 3, 2)]
    # r per domain: 0.5, 1, none (always 3: counts as 0), -1, 0.5
    answered = [(1, 1, 3, 3, 1), (2, 2, 3, 2, 2), (3, 3, 3, 1, 3)]
    names = list(DOMAINS.values())
    rows: dict[str, dict[str, Any]] = {"pas": {}, "constant_c": {}}
    for person, traits, person_traits in zip(PEOPLE, answered, own, strict=True):
        told = dict(zip(names, person_traits, strict=True))
        record = make_record({6: 3}, {6: 3}, 1.0, person_traits=told)
        rows["pas"][person] = {**record, "traits": dict(zip(names, traits, strict=True))}
        rows["constant_c"][person] = record
    report = build_report(make_plan(rows, PEOPLE), five_items)
    assert row_of(report, "pas")["trait_correlation"] == pytest.approx((0.5 + 1 + 0 - 1 + 0.5) / 5)
    assert row_of(report, "constant_c")["trait_correlation"] is None


def test_most_frequent_option_rounds_real_numbers_half_up(
    five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    answers = [{6: 2.5, 7: 3.4, 8: 3, 9: 4.5}, {6: 1, 7: 5.4, 8: 0.2, 9: 5}]  # options 3 3 3 5 and 1 5 1 5
    records = {f"p{i}": make_record(a, TRUTH["p1"], 1.0) for i, a in enumerate(answers)}
    report = build_report(make_plan({"ridge": records}, ("p0", "p1")), five_items)
    assert row_of(report, "ridge")["most_frequent_option_share"] == 3 / 8


def test_unparsed_rate_and_agreement_of_the_audit(
    five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    answers = {6: 5, 7: 4, 8: 3, 9: 2}
    audits = [{"6": " (A).", "7": " is fine to me", "8": " B."}, {"6": " A<|im_end|>", "7": " (B)", "8": " (E)"}]
    records = {f"p{i}": make_record(answers, answers, 1.0, audit=audit) for i, audit in enumerate(audits)}
    floor = {"p0": make_record(answers, answers, 1.0)}
    report = build_report(make_plan({"pas": records, "constant_a": floor}, ("p0", "p1")), five_items)
    assert row_of(report, "pas")["unparsed_rate"] == 1 / 6
    assert row_of(report, "pas")["audit_agreement"] == 3 / 5
    assert row_of(report, "constant_a")["unparsed_rate"] is None


def test_unparsed_rate_as_released_counts_answers(
    five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    record = make_record({6: 5, 7: 4, 8: 3}, TRUTH["p1"], None, asked=list(HELD_OUT), texts={"6": " A."})
    rows = {"pas": {"p1": record}, "random": {"p1": {**record, "texts": None}}}
    report = build_report(make_plan(rows, ("p1",), protocol="as_released"), five_items)
    assert row_of(report, "pas")["unparsed_rate"] == 2 / 5
    assert row_of(report, "random")["unparsed_rate"] == 2 / 5, "nothing was generated: what it left out"


def test_whoever_leaves_hard_items_out_is_compared_on_the_others(
    inventory: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    """The floor's own answers without those far off are no better than the floor; a row with others, on these items."""
    generator = random.Random(5)

    def scored(answers: dict[int, int], truth: dict[int, int]) -> dict[str, Any]:
        return make_record(answers, truth, None, scores=aligned_scores(inventory, answers, truth))

    rows: dict[str, dict[str, Any]] = {"domain_mean": {}, "easy": {}, "own": {}, "constant_c": {}}
    by_hand = []
    for person in PEOPLE:
        truth, floor = ({n: generator.randint(1, 5) for n in inventory.held_out} for _ in range(2))
        easy = {n: value for n, value in floor.items() if abs(value - truth[n]) <= 1}
        own = {n: min(5, value + 1) for n, value in easy.items()}
        for name, answers in (("domain_mean", floor), ("easy", easy), ("own", own)):
            rows[name][person] = scored(answers, truth)
        rows["constant_c"][person] = scored(dict.fromkeys(truth, 3), truth)
        on_easy = [aligned_scores(inventory, {n: each[n] for n in easy}, truth)["composite"] for each in (own, floor)]
        by_hand.append((on_easy[0] or 0) - (on_easy[1] or 0))
    report = build_report(make_plan(rows, PEOPLE), inventory)
    easy_row, floor_row = row_of(report, "easy"), row_of(report, "domain_mean")
    assert easy_row["composite"] < floor_row["composite"] - 1
    assert easy_row["difference_to_best_own_floor"] == 0
    assert row_of(report, "own")["difference_to_best_own_floor"] == pytest.approx(sum(by_hand) / 3)
    assert 0.2 < easy_row["unparsed_rate"] < 0.8 and floor_row["unparsed_rate"] is None
    assert any("Answered a part of the items" in note and "easy" in note for note in report.notes)


def test_costs(five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan) -> None:
    records = {}
    for person, seconds, memory, size in zip(PEOPLE, (1.0, 2.0, 60.0), (5.0, 900.0, 7.0), (10, 20, 90), strict=True):
        record = make_record({6: 3}, {6: 3}, 1.0)
        record["cost"] |= {"align_seconds": seconds, "answer_seconds": 2 * seconds, "peak_memory_mib": memory}
        record["cost"] |= {"stored_bytes": size, "trained_parameters": 2 * size}
        records[person] = record
    plan = make_plan({"pas": records}, PEOPLE)
    (planned,), _ = plan.read()
    planned.folder.write_shared({"load_seconds": 1.5, "prepare_seconds": 0.25, "machine": "of the test"})
    row = row_of(build_report(plan, five_items), "pas")
    assert (row["shared_seconds"], row["align_seconds"], row["answer_seconds"]) == (1.75, 2.0, 4.0)
    assert (row["peak_memory_mib"], row["stored_bytes"], row["trained_parameters"]) == (900.0, 20, 40)
    assert (row["seconds_for_one"], row["seconds_for_300"]) == (1.75 + 6, 1.75 + 300 * 6)
    unrecorded = ("search_seconds", "reserved_memory_mib", "joules", "training_tokens", "cost_repeats")
    assert {row[name] for name in unrecorded} == {None}, "cells of before these were recorded stay readable"


def test_costs_of_cells_measured_for_their_own_sake(
    five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    cost = {"search_seconds": 0.5, "reserved_memory_mib": 12.0, "joules": 7.0, "training_tokens": 40, "cost_repeats": 3}
    record = make_record({6: 3}, {6: 3}, 1.0)
    record["cost"] |= cost
    plan = make_plan({"pas": {PEOPLE[0]: record}}, PEOPLE[:1])
    (planned,), _ = plan.read()
    for load in (0.25, 1.75, 1.0):
        planned.folder.add_measurement({"cost_repeats": 3, "load_averages": [load, 9.0, 9.0]})
    report = build_report(plan, five_items)
    row = row_of(report, "pas")
    assert {name: row[name] for name in cost} == cost
    assert "median of 3 repeats: all rows; the machine's load average was 0.2 to 1.8." in " ".join(report.notes)
