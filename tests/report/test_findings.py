"""What is said about small tables whose numbers are computed by hand."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan, Row
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.findings import findings, next_step
from palign_bench.report.statistics import mean_interval
from palign_bench.report.table import build_report
from tests.ledgers import kept_folder, plan_of, row_of

MakeRecord = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]
PEOPLE = tuple(f"p{number}" for number in range(1, 13))  # rows on fewer than ten of them are not ranked
HELD_OUT = (6, 7, 8, 9, 10)
TRUTH = dict(zip(PEOPLE, [5, 1] * 6, strict=True))  # to every item


@pytest.fixture
def said(five_items: Inventory, make_record: MakeRecord, make_plan: MakePlan) -> Callable[..., list[str]]:
    """The findings on rows given as, by method, each person's one answer to all items; more of a record by keyword."""

    def say(rows: Mapping[str, Sequence[int]], summaries: Mapping[str, Any] | None = None, **about: Any) -> list[str]:
        records = {
            name: {
                person: make_record(
                    dict.fromkeys(HELD_OUT, answer),
                    dict.fromkeys(HELD_OUT, TRUTH[person]),
                    5.0 * abs(answer - TRUTH[person]),
                    alignment={"summary": (summaries or {}).get(name, {}).get(person, {})},
                )
                for person, answer in zip(PEOPLE, answers, strict=False)
            }
            for name, answers in rows.items()
        }
        return findings(build_report(make_plan(records, PEOPLE, **about), five_items))

    return say


Said = Callable[..., list[str]]


def test_few_shot_that_uses_the_person(said: Said) -> None:
    # Vanilla 3 for all: 10 each. Few-Shot 4, 2, 5, 2, thrice over: 5, 5, 0, 5. Differences -5, -5, -10, -5.
    low, high = mean_interval([-5.0, -5.0, -10.0, -5.0] * 3) or (0, 0)
    found = said({"vanilla": [3] * 12, "few_shot": [4, 2, 5, 2] * 3})
    (line,) = [each for each in found if each.startswith("Few-Shot")]
    assert f"told nothing: -6.25, 95 % interval {low:+.2f} to {high:+.2f}, 12 people: better" in line
    # Against the eleven others, five alike and six opposite: a 4 scores 5 and 15, own 5; a 5 scores 0 and 20, own 0.
    alike, extreme = (5 * 5 + 6 * 15) / 11 - 5, (5 * 0 + 6 * 20) / 11
    assert f"fit others worse by {(3 * alike + extreme) / 4:.2f}: it uses what it is told." in line


def test_few_shot_that_does_not_use_the_person(said: Said) -> None:
    def line_of(vanilla: Sequence[int], few_shot: Sequence[int]) -> str:
        found = said({"vanilla": list(vanilla) * 3, "few_shot": list(few_shot) * 3})
        (line,) = [each for each in found if each.startswith("Few-Shot")]
        return line

    same = "Few-Shot answers as Vanilla does, to the last item: what it is told changes nothing."
    assert line_of([3, 3, 3, 3], [3, 3, 3, 3]) == same
    assert line_of([3, 3, 3, 3], [4, 3, 2, 3]).endswith("it is open whether being told of the person helps.")
    assert line_of([4, 2, 4, 2], [3, 3, 3, 3]).endswith("being told of the person makes it worse.")


def alphas(*chosen: float, tried: Sequence[str] = ("0", "2", "4")) -> dict[str, Any]:
    """What PAS says of each person's choice; of those beyond it had too little to choose on."""
    summaries: list[dict[str, Any]] = [{"alpha": alpha, "search": dict.fromkeys(tried, 3.0)} for alpha in chosen]
    summaries += [{"alpha": 0.0, "search": {}}] * (len(PEOPLE) - len(chosen))
    return {"pas": dict(zip(PEOPLE, summaries, strict=True))}


def test_how_often_pas_added_nothing(said: Said) -> None:
    def line_of(answers: Sequence[int], summaries: Mapping[str, Any]) -> str:
        (line,) = [each for each in said({"vanilla": [3] * 12, "pas": answers}, summaries) if each.startswith("PAS")]
        return line

    # The row's settings name no prompt, so Vanilla's it is.
    line = line_of([3] * 12, alphas(*[0.0, 2.0] * 6))
    assert "adds nothing that shows to its prompt, Vanilla (0.00" in line.replace("+0.00", "0.00")
    assert line.endswith(": alpha 0, the prompt alone, was chosen for 6 of 12 people.")
    assert line_of([5, 1, 5, 2] * 3, alphas(*[0.0] * 12)).startswith("PAS adds to its prompt, Vanilla (-8.75")
    few = "whose answers are too few to fit or to choose on."
    for without, told in (
        (1, f"was chosen for 11 of 12 people; it is what is left for 1 of 12 people, {few}"),
        (12, f"is what is left for 12 of 12 people, {few}"),
    ):
        line = line_of([3] * 12, alphas(*[0.0] * (12 - without)))
        assert line.endswith(f": alpha 0, the prompt alone, {told}")


def test_an_alpha_that_was_chosen_on_the_scored_answers_is_no_evidence(said: Said) -> None:
    """Whatever is shifted: of six tries that include none, the best on these answers is never worse than none."""
    rows = {"vanilla": [3] * 12, "pas": [5, 1, 5, 2] * 3}
    for protocol, tried, verdict in (
        ("corrected", ("0", "2"), "PAS adds to its prompt"),
        ("as_released", ("0", "2"), "PAS against its prompt"),
        ("as_released", ("2",), "PAS adds to its prompt"),
    ):
        found = said(rows, alphas(*[2.0] * 12, tried=tried), protocol=protocol)
        (line,) = [each for each in found if each.startswith("PAS")]
        assert line.startswith(f"{verdict}, Vanilla (-8.75"), line
        told = [each for each in found if each.startswith("Under this protocol PAS chooses alpha on the very answers")]
        assert bool(told) == (verdict == "PAS against its prompt"), found


def test_an_alpha_that_is_fixed_was_not_chosen(said: Said) -> None:
    def line_of(summaries: Mapping[str, Any]) -> str:
        (line,) = [each for each in said({"pas": [3] * 12}, summaries) if each.startswith("PAS")]
        return line

    assert line_of(alphas(*[4.0] * 12, tried=["4"])) == "PAS: alpha is fixed at 4."
    left = "0, the prompt alone, is what is left for 2 of 12 people, whose answers are too few to fit or to choose on."
    assert line_of(alphas(*[4.0] * 10, tried=["4"])) == f"PAS: alpha is fixed at 4; {left}"


def test_one_person_is_no_share_of_people(said: Said) -> None:
    for alpha, told in ((0.0, "the one person"), (2.0, "nobody")):
        assert f"PAS: alpha 0, the prompt alone, was chosen for {told}." in said({"pas": [3]}, alphas(alpha))


def test_the_floor_and_the_constant(said: Said) -> None:
    rows = {
        "few_shot": [5, 1, 5, 1],
        "vanilla": [3] * 4,
        "constant_c": [3] * 4,
        "facet_mean": [4, 2, 4, 2],
    }
    found = said({name: answers * 3 for name, answers in rows.items()})
    assert found[0] == "Lowest composite: Few-Shot, 0.00 (12 people)."
    # Own facet mean scores 5 for everyone: Few-Shot is 5 better and Vanilla 5 worse, for each of them.
    assert found[1].startswith("Better than Own facet mean, which reads no sentence: Few-Shot -5.00; worse: Vanilla +5")
    assert "Not better than answering every item with one option: Vanilla." in found
    assert any(
        each.startswith("One option for nearly everything: Vanilla answers C to 100 % of the items") for each in found
    )


def test_below_ten_people_differences_have_no_verdict(said: Said) -> None:
    rows = {"few_shot": [5, 1, 5, 2], "vanilla": [3] * 4, "pas": [5, 1, 5, 1], "facet_mean": [4, 2, 4, 2]}
    found = said(rows, alphas(*[2.0] * 12))
    against = "Few-Shot -3.75, Vanilla +5.00, PAS -5.00 (paired differences)."
    assert f"Against Own facet mean, which reads no sentence: {against}" in found
    few_shot, pas = (next(each for each in found if each.startswith(name)) for name in ("Few-Shot against", "PAS"))
    assert few_shot.startswith("Few-Shot against Vanilla, which is told nothing: -8.75, 95 % interval ")
    assert few_shot.endswith(", 4 people.")
    assert pas.startswith("PAS against its prompt, Vanilla (-10.00, 95 % interval ")
    assert "Few-Shot, Vanilla, PAS: 4 people, so no ranking between them." in found


def test_rows_that_differ_in_their_budget_keep_it(
    five_items: Inventory, make_record: MakeRecord, tmp_path: Path
) -> None:
    def row(budget: str) -> Row:
        folder = kept_folder(tmp_path, budget, {"method": {"name": "lora", "budget": budget}, "model": None})
        folder.record("p1", make_record(dict.fromkeys(HELD_OUT, 4), dict.fromkeys(HELD_OUT, 5), 5.0, respondent="p1"))
        return row_of("lora", folder, ["p1"])

    def last(*budgets: str) -> str:
        about = {"experiment": "table1", "model_title": "tiny", "respondents": "papi"}
        return findings(build_report(plan_of(tmp_path, [row(each) for each in budgets], about), five_items))[-1]

    assert last("quick", "measured") == "LoRA (quick), LoRA (measured): 1 person, so no ranking between them."
    assert last("quick") == "LoRA: 1 person, so no ranking of it."


def test_a_floor_that_wins_is_named_first(said: Said) -> None:
    found = said({"few_shot": [4, 2, 4, 2], "vanilla": [3] * 4, "ridge": [5, 1, 5, 1]})
    assert found[0] == (
        "Lowest composite: Ridge on others, 0.00, which reads no sentence; lowest of the methods without other "
        "people's answers: Few-Shot, 5.00 (4 people)."
    )


def test_rows_on_most_of_the_people_are_compared_on_those_they_share(said: Said) -> None:
    found = said({"few_shot": [5, 1, 5], "vanilla": [3] * 4, "lora": [5]})
    assert found[0] == "Lowest composite: Few-Shot, 0.00 (the 3 people whom these rows share)."


def test_what_cannot_be_said(said: Said, five_items: Inventory, make_plan: MakePlan, make_record: MakeRecord) -> None:
    assert said({"constant_c": [3] * 4}) == []  # no method
    assert said({"few_shot": [3] * 4}, weights="random") == [
        "The weights are random: the scores mean nothing, the costs are those of the model's shape."
    ]
    assert said({"few_shot": [3] * 4}, model_caveat="It reads no words.")[-1] == "It reads no words."
    few = said({"few_shot": [3] * 4, "vanilla": [3] * 4, "lora": [4]})
    assert "LoRA: 1 person, so no ranking of it." in few


def test_the_next_command(five_items: Inventory, make_plan: MakePlan, make_record: MakeRecord, tmp_path: Path) -> None:
    def step(people: Sequence[str], asked: Sequence[str], runs: str = "runs", **about: Any) -> str:
        # 45 s a person
        record = make_record({6: 3}, {6: 3}, 1.0)
        record["cost"] |= {"align_seconds": 30.0, "answer_seconds": 15.0}
        plan = make_plan({"few_shot": dict.fromkeys(people, record)}, tuple(asked), **about)
        return next_step(build_report(plan, five_items), Path(runs))

    assert step(["p1"], ["p1"]).startswith(
        "Next: `palign-bench resume table1 respondents.limit=5` for 5 people (about 3 min"
    )
    assert "limit=2` for 2 people (less than a minute here" in step(["p1"], ["p1"], source_people=2)
    assert "resume table1 respondents=simulated respondents.limit=5" in step(["p1"], ["p1"], respondents="simulated")
    assert step(["p1"], ["p1"], source_people=1).startswith("Next: `palign-bench forecast table1`")
    elsewhere = step(["p1"], ["p1"], runs="my runs")
    assert "`palign-bench resume table1 --runs 'my runs' respondents.limit=5`" in elsewhere
    assert step(["p1"], ["p1", "p2", "p3"]) == "Next: `palign-bench resume table1` computes the 2 missing cells."


def test_failed_cells_are_not_told_to_be_computed(
    five_items: Inventory, make_plan: MakePlan, make_record: MakeRecord
) -> None:
    record = make_record({6: 3}, {6: 3}, 1.0)
    for asked, told in (
        (("p1", "p2"), "tries again."),
        (("p1", "p2", "p3", "p4"), "tries again, and computes 2 others."),
    ):
        plan = make_plan({"few_shot": {"p1": record}}, asked)
        (row,) = plan.read()[0]
        row.folder.fail("p2", ValueError("no answers"))
        step = next_step(build_report(plan, five_items), Path("runs"))
        where = "why and where the tracebacks lie is told above"
        assert step == f"Next: 1 cell failed, {where}; `palign-bench resume table1` {told}"


def test_given_answers_are_not_asked_for_more_people(
    five_items: Inventory, make_plan: MakePlan, make_record: MakeRecord
) -> None:
    record = make_record({6: 3}, {6: 3}, 1.0)
    plan = make_plan({"constant_c": {"p1": record}, "given_lab": {"p1": record}}, ("p1",), source_people=300)
    assert next_step(build_report(plan, five_items), Path("runs")) == (
        "Next: `palign-bench report table1 --legend` for the columns."
    )


def test_two_settings_of_one_floor_are_two_floors(
    five_items: Inventory, make_plan: MakePlan, make_record: MakeRecord, tmp_path: Path
) -> None:
    """A method is told apart from the floor that the table measured it against, not from the last one of its name."""

    def row(name: str, answers: Sequence[int], **settings: int) -> Row:
        folder = kept_folder(tmp_path, name, {"method": {"name": name, **settings}, "model": None})
        for person, answer in zip(PEOPLE, answers, strict=True):
            truth = dict.fromkeys(HELD_OUT, TRUTH[person])
            record = make_record(dict.fromkeys(HELD_OUT, answer), truth, 5.0 * abs(answer - TRUTH[person]))
            folder.record(person, {**record, "respondent": person})
        return row_of(name, folder, PEOPLE)

    answers = {1: [5, 1] * 6, 9: [3] * 12}
    rows = [row("lora", [4, 2] * 6), *(row("facet_mean", each, k=k) for k, each in answers.items())]
    (plan,) = [plan_of(tmp_path, rows, {"experiment": "table1", "model_title": "tiny", "respondents": "papi"})]
    (line,) = [each for each in findings(build_report(plan, five_items)) if "reads no sentence: " in each]
    assert line.startswith("Better than Own facet mean [k=1], which reads no sentence: none; worse: LoRA +5.00"), line
