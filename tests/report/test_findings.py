"""What is said about small tables whose numbers are computed by hand."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from palign_bench.ledger.plan import Plan, Row
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.findings import findings, next_step
from palign_bench.report.table import build_report
from tests.ledgers import kept_folder, plan_of, row_of

MakeRecord = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]
PEOPLE = ("p1", "p2", "p3", "p4")
HELD_OUT = (6, 7, 8, 9, 10)
TRUTH = {"p1": 5, "p2": 1, "p3": 5, "p4": 1}  # to every item


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
    # Vanilla 3 for all: 10 each. Few-Shot 4, 2, 5, 2: 5, 5, 0, 5. Differences -5, -5, -10, -5.
    low, high = stats.ttest_1samp([-5.0, -5.0, -10.0, -5.0], 0).confidence_interval(0.95)
    (line,) = [each for each in said({"vanilla": [3] * 4, "few_shot": [4, 2, 5, 2]}) if each.startswith("Few-Shot")]
    assert f"told nothing: -6.25, 95 % interval {low:+.2f} to {high:+.2f}, 4 people: better" in line
    # Against the three others: p1's 4s 15, 5, 15 (mean 35/3), own 5; p2 and p4 alike; p3's 5s 20, 0, 20, own 0.
    assert f"fit others worse by {(3 * (35 / 3 - 5) + 40 / 3) / 4:.2f}: it uses what it is told." in line


def test_few_shot_that_does_not_use_the_person(said: Said) -> None:
    rows = {"vanilla": [3, 3, 3, 3], "few_shot": [3, 3, 3, 3]}
    assert "Few-Shot answers as Vanilla does, to the last item: what it is told changes nothing." in said(rows)
    (line,) = [each for each in said({"vanilla": [3] * 4, "few_shot": [4, 3, 3, 3]}) if each.startswith("Few-Shot")]
    assert line.endswith("it is open whether being told of the person helps.")
    (line,) = [each for each in said({"vanilla": [4, 2, 4, 2], "few_shot": [3] * 4}) if each.startswith("Few-Shot")]
    assert line.endswith("being told of the person makes it worse.")


def test_how_often_pas_added_nothing(said: Said) -> None:
    summaries = [{"alpha": alpha, "search": {"0": 3.0}} for alpha in (0.0, 0.0, 2.0, 0.0)]
    alphas = {"pas": dict(zip(PEOPLE, summaries, strict=True))}
    for line in said({"vanilla": [3] * 4, "pas": [3, 3, 3, 3]}, alphas):
        if line.startswith("PAS"):  # the row's settings name no prompt, so Vanilla's it is
            assert "adds nothing that shows to its prompt, Vanilla (0.00" in line.replace("+0.00", "0.00")
            assert line.endswith("alpha 0, the prompt alone, was chosen for 3 of 4 people.")
            break
    else:
        raise AssertionError("nothing is said of PAS")
    (line,) = [each for each in said({"vanilla": [3] * 4, "pas": [5, 1, 5, 2]}, alphas) if each.startswith("PAS")]
    assert line.startswith("PAS adds to its prompt, Vanilla (-8.75")
    few = "whose answers are too few to fit or to choose on."
    for without, told in (
        (1, f"was chosen for 2 of 4 people; it is what is left for 1 of 4 people, {few}"),
        (4, f"is what is left for 4 of 4 people, {few}"),
    ):
        mixed = [{"alpha": 0.0, "search": {}}] * without + summaries[without:]
        found = said({"vanilla": [3] * 4, "pas": [3] * 4}, {"pas": dict(zip(PEOPLE, mixed, strict=True))})
        (line,) = [each for each in found if each.startswith("PAS")]
        assert line.endswith(f"alpha 0, the prompt alone, {told}")


def test_the_floor_and_the_constant(said: Said) -> None:
    rows = {"few_shot": [5, 1, 5, 1], "vanilla": [3] * 4, "constant_c": [3] * 4, "facet_mean": [4, 2, 4, 2]}
    found = said(rows)
    assert found[0] == "Lowest composite: Few-Shot, 0.00 (4 people)."
    # Own facet mean scores 5 for everyone: Few-Shot is 5 better and Vanilla 5 worse, for each of them.
    assert found[1].startswith("Better than Own facet mean, which reads no sentence: Few-Shot -5.00; worse: Vanilla +5")
    assert "Not better than answering every item with one option: Vanilla." in found
    assert any(
        each.startswith("One option for nearly everything: Vanilla answers C to 100 % of the items") for each in found
    )
    assert "Few-Shot, Vanilla: 4 people, so no ranking between them." in found


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

    rows = [row("lora", [4, 2, 4, 2]), row("facet_mean", [5, 1, 5, 1], k=1), row("facet_mean", [3, 3, 3, 3], k=9)]
    (plan,) = [plan_of(tmp_path, rows, {"experiment": "table1", "model_title": "tiny", "respondents": "papi"})]
    (line,) = [each for each in findings(build_report(plan, five_items)) if "reads no sentence: " in each]
    assert line.startswith("Better than Own facet mean [k=1], which reads no sentence: none; worse: LoRA +5.00"), line
