import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory, Item, ipip_neo_300
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from palign_bench.report import make_report
from palign_bench.report.document import Document, render, terminal
from palign_bench.report.names import BLOCKS, KNOWN_TRUTH
from palign_bench.report.table import COLUMNS_BESIDE_SCALES, build_report
from palign_bench.report.words import describe, score_table
from palign_bench.respondents.source import RespondentSource
from tests.ledgers import kept_folder, plan_of, row_of
from tests.protocols import CORRECTED
from tests.report.tables import CONSTANTS, PEOPLE, text_of

MakeRecord = Callable[..., dict[str, Any]]
MakePlan = Callable[..., Plan]


def test_columns_are_written_in_order(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    frame = make_report(plan).report.frame
    assert list(frame.columns[:6]) == [
        "method",
        "protocol",
        "model",
        "respondents",
        "agreeableness",
        "conscientiousness",
    ]
    assert list(frame.columns[9:12]) == ["composite", "composite_low", "composite_high"]
    assert list(frame.columns[-2:]) == ["paper_composite", "cells"] and frame.columns.is_unique
    assert list(frame["method"]) == ["pas", "my_own_method", *CONSTANTS]
    assert set(frame.columns) - set(ipip_neo_300().scales.values()) == COLUMNS_BESIDE_SCALES
    written = (plan.folder / "table1.csv").read_text(encoding="utf-8").splitlines()
    assert written[0].split(",") == list(frame.columns)
    assert len(written) == 1 + len(frame)


def test_a_column_per_scale_of_the_inventory(make_record: MakeRecord, make_plan: MakePlan) -> None:
    items = (Item(1, "Lie.", 1, "M"), Item(2, "Boast.", 1, "N"))
    two = Inventory("two", items, (), {"M": "machiavellianism", "N": "narcissism"})
    plan = make_plan({"pas": {"p1": make_record({1: 4}, {1: 4}, None)}}, ("p1",), inventory=two.outline())
    columns = tuple(build_report(plan).rows[0])
    assert columns[3:7] == ("respondents", "machiavellianism", "narcissism", "composite")
    assert "agreeableness" not in columns


def test_csv_and_json_round_trip(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    del twelve_people["my_own_method"]["p3"]
    plan = make_plan(twelve_people, PEOPLE)
    report = make_report(plan).report
    read = pd.read_csv(plan.folder / "table1.csv")
    document = json.loads((plan.folder / "table1.json").read_text(encoding="utf-8"))
    assert document["columns"] == list(read.columns)
    assert [row["method"] for row in document["rows"]] == list(read["method"])
    assert document["rows"] == [dict(row) for row in report.rows]
    for name in list(report.rows[0])[3:]:
        for from_csv, row in zip(read[name], document["rows"], strict=True):
            assert (pd.isna(from_csv) and row[name] is None) or from_csv == row[name], name
    assert document["rows"][1]["missing_cells"] == 1
    again = pd.read_csv(io.StringIO(read.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, read)


def test_interval_and_correlation_are_filled_for_twelve_people(
    twelve_people: dict[str, Any], make_plan: MakePlan
) -> None:
    report = build_report(make_plan(twelve_people, PEOPLE))
    good, bad, constant = report.rows[0], report.rows[1], report.rows[2]
    assert good["composite_low"] < good["composite"] < good["composite_high"]
    assert good["trait_correlation"] > 0.5 and bad["trait_correlation"] == pytest.approx(-1)
    assert constant["trait_correlation"] is None and constant["most_frequent_option_share"] == 1.0
    assert constant["specificity"] == pytest.approx(0, abs=1e-12)
    assert good["specificity"] > 1 > 0 > bad["specificity"]


def test_rebuilding_gives_the_same_files(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    names = [f"table1.{kind}" for kind in ("csv", "json", "md", "tex", "png", "pdf")]
    make_report(plan)
    first = {name: (plan.folder / name).read_bytes() for name in names}
    make_report(plan)
    assert first == {name: (plan.folder / name).read_bytes() for name in names}
    assert not list(plan.folder.glob(".*.tmp"))


def test_terminal_text(twelve_people: dict[str, Any], make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    twelve_people["a_method_with_quite_a_long_name_of_its_own"] = twelve_people.pop("my_own_method")
    plan = make_plan(twelve_people, PEOPLE, model_title="A model (4-bit)", notes=["Something to know."])
    monkeypatch.setenv("COLUMNS", "80")
    text = make_report(plan).text
    lines = text.splitlines()
    assert max(len(line) for line in lines if not line.startswith("Written to ")) <= 80  # files' names stay whole
    assert " ".join(lines[:2]) == (
        "table1: A model (4-bit), protocol corrected, 12 people in this table (source:   300 people of PAPI)"
    )
    bad, _ = [line for line in lines if line.startswith("a_method_with") and "†" in line]  # in both blocks
    assert any(float(each) > 5 for each in re.findall(r" ([0-9]+\.[0-9]+) ", bad))
    assert not any("†" in line for line in lines if line.startswith(("PAS", "Always")))
    assert any(line.startswith("† does not beat the best constant option") for line in lines)
    assert "Note: Something to know." in lines
    assert lines.index("Methods") < lines.index("Own-answers floors")
    assert "Other-people floors" not in lines
    assert "How to read it" not in lines and "4.41" not in text, "told on request"
    assert f"`palign-bench report table1 --runs {plan.runs} --legend` explains" in " ".join(text.split())
    whole = make_report(plan, legend=True, wide=True).text
    assert "How to read it" in whole and "4.41" in whole and "parsed" in whole


def test_a_folder_that_takes_no_files_is_told(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    (plan.folder / "table1.md").mkdir(parents=True)
    _, pictures, text = make_report(plan)
    assert "Always C" in text and f"Not written: cannot write {plan.folder / 'table1.md'}" in text
    assert "table1.csv" in text and pictures and not (plan.folder / "table1.tex").exists()


def test_every_column_filled_still_fits_the_terminal(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    rows = {"x" * 60: twelve_people["my_own_method"], **twelve_people}
    rows["ridge"] = rows["domain_mean"] = rows["pas"]
    del rows["ridge"]["p0"]
    report = build_report(make_plan(rows, PEOPLE, protocol="as_released", model="llama3_8b"))
    text = text_of(report)
    assert " paper " in text
    narrow = {width: terminal(describe(report), width, legend=True) for width in (80, 100, 140)}
    for width, text in narrow.items():
        assert max(map(len, text.splitlines())) <= width
    assert "parsed" in narrow[140] and "parsed" not in narrow[80].split("How to read")[0]


def test_a_scale_called_as_a_column_takes_no_column_away(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    """Many write o, c, e, a, n; the table has a column n, of people."""
    report = build_report(make_plan(twelve_people, PEOPLE))
    scales = {
        {"N": "n", "A": "paper"}.get(short, short.lower()): name for short, name in report.inventory.scales.items()
    }
    named = replace(report, inventory=replace(report.inventory, scales=scales))
    table, usual = score_table(named), score_table(report)
    heads = {"A": "scale\npaper", "N": "scale\nn"}
    assert list(table.columns) == [heads.get(name, name.lower() if name in "CEO" else name) for name in usual.columns]
    assert table.rows == usual.rows
    assert "12" in terminal(Document("", [table]), 60) and "scale" not in terminal(Document("", [table]), 60)


def test_markdown_has_title_groups_notes_and_escaped_pipes(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    twelve_people["a|b"] = twelve_people.pop("my_own_method")
    plan = make_plan(twelve_people, PEOPLE, notes=["Something to know."])
    make_report(plan)
    text = (plan.folder / "table1.md").read_text(encoding="utf-8")
    assert text.startswith("# table1: smollm2_135m, protocol corrected, 12 people")
    assert "**Own-answers floors**" in text and "- Something to know." in text and r"a\|b †" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for block in blocks:
        assert len({line.replace(r"\|", "").count("|") for line in block}) == 1


def test_latex_is_a_booktabs_tabular_with_escaped_text(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    make_report(plan)
    lines = (plan.folder / "table1.tex").read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert body[0].startswith(r"\begin{tabular}{l") and body[-1] == r"\end{tabular}"
    columns = len(body[0].split("}{")[1].rstrip("}"))
    body = body[: body.index(r"\end{tabular}") + 1]
    assert [line for line in body if line.endswith("rule")] == [r"\toprule", *[r"\midrule"] * 2, r"\bottomrule"]
    cells = [line for line in body if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    assert len(cells) == 1 + len(twelve_people)
    assert {line.count(" & ") + 1 for line in cells} == {columns}
    assert any(line.startswith(r"my\_own\_method $^\dagger$ &") for line in cells)
    assert "".join(body).isascii()
    assert sum(line.startswith(rf"\multicolumn{{{columns}}}{{l}}") for line in body) == 2


def test_mixed_code_is_told(twelve_people: dict[str, Any], make_plan: MakePlan) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    cells = plan.read()[0]
    for planned in cells:
        planned.folder.write_provenance({"git_commit": "1" * 40, "git_dirty": False})
    assert build_report(plan).notes == ()
    cells[0].folder.write_provenance({"git_commit": "2" * 40, "git_dirty": True})
    notes = build_report(plan).notes
    assert notes[0] == "Cells come from 2 git commits: 1111111111, 2222222222."
    assert "uncommitted changes" in notes[1]


def test_rows_of_one_method_are_told_apart_and_shards_join(
    make_record: MakeRecord, make_plan: MakePlan, five_items: Inventory
) -> None:
    plan = make_plan({"pas": {"p0": make_record({6: 1}, {6: 2}, 3.0)}}, ("p0",))
    (first,), about = plan.read()
    first.folder.record("p1", make_record({6: 1}, {6: 2}, 5.0, respondent="p1"))
    other = kept_folder(plan.runs, "pas", {"method": {"name": "pas", "k": 48}, "model": None})
    other.record("p0", make_record({6: 1}, {6: 2}, 7.0, respondent="p0"))
    rows = [first, row_of("pas", first.folder, ("p1",)), row_of("pas", other, ("p0",))]
    plan = plan_of(plan.runs, rows, about)
    report = build_report(plan, five_items)
    assert [row["composite"] for row in report.rows] == [4.0, 7.0]
    elsewhere = {"method": {"name": "pas", "k": 48}, "model": {"weights_hash": "another"}}
    third = kept_folder(plan.runs, "pas", elsewhere)
    prints = [f"PAS [{folder.path.name.rsplit('-', 1)[-1][:6]}]" for folder in (first.folder, other, third)]
    assert [row["label"] for row in report.rows] == [prints[0], "PAS [k=48]"]
    # Alike but for what has no short name.
    plan = plan_of(plan.runs, [*rows, row_of("pas", third, ("p0",))], about)
    assert [row["label"] for row in build_report(plan, five_items).rows] == prints


def test_how_many_answers_a_row_was_told_is_said_in_words(
    make_record: MakeRecord, make_plan: MakePlan, five_items: Inventory
) -> None:
    plan = make_plan({"pas": {"p0": make_record({6: 1}, {6: 2}, 3.0)}}, ("p0",))
    (every,), about = plan.read()
    fewer = kept_folder(plan.runs, "pas", {"method": {"name": "pas"}, "model": None, "known_answers": 30})
    fewer.record("p0", make_record({6: 1}, {6: 2}, 7.0, respondent="p0"))
    plan = plan_of(plan.runs, [every, row_of("pas", fewer, ("p0",))], about)
    assert [row["label"] for row in build_report(plan, five_items).rows] == ["PAS [known=all]", "PAS [known=30]"]


def test_the_training_budget_is_part_of_the_name(
    make_record: MakeRecord, make_plan: MakePlan, five_items: Inventory
) -> None:
    plan = make_plan({}, ("p0",))
    folder = kept_folder(plan.runs, "dpo", {"method": {"name": "dpo", "budget": "quick"}, "model": None})
    folder.record("p0", make_record({6: 1}, {6: 2}, 3.0, respondent="p0"))
    plan = plan_of(plan.runs, [row_of("dpo", folder, ("p0",))], plan_about("table1"), "other")
    report = build_report(plan, five_items)
    assert report.rows[0]["budget"] == "quick"
    assert "DPO (quick)" in text_of(report)


def plan_about(experiment: str) -> dict[str, Any]:
    return {"experiment": experiment, "model": "tiny", "protocol": "corrected", "respondents": "file", "notes": []}


def test_truth_scores_zero_on_real_people(
    papi: RespondentSource, inventory: Inventory, make_record: MakeRecord, make_plan: MakePlan
) -> None:
    people, rules = papi.people[:20], CORRECTED
    records = {}
    for person in people:
        truth = rules.truth(rules.held_out(person))
        traits = trait_scores(inventory, truth, rules.keyed)
        scores = aligned_scores(inventory, truth, truth)
        records[person.id] = make_record(truth, truth, 0.0, scores=scores, traits=traits, person_traits=traits)
    row = build_report(make_plan({"truth": records}, tuple(p.id for p in people)), inventory).rows[0]
    truths = [rules.truth(rules.held_out(person)) for person in people]
    strangers = [aligned_scores(inventory, i, j)["composite"] for i in truths for j in truths if i is not j]
    assert row["composite"] == 0 and row["trait_correlation"] == pytest.approx(1)
    assert row["specificity"] == pytest.approx(sum(s for s in strangers if s is not None) / (20 * 19))


def test_the_ceiling_is_known_truth_and_no_floor(make_record: MakeRecord, make_plan: MakePlan) -> None:
    scores = {"vanilla": 3.0, "ceiling": 1.0, "facet_mean": 2.0, "ridge": 1.5}
    rows = {key: {person: make_record({6: 3}, {6: 3}, score) for person in PEOPLE} for key, score in scores.items()}
    report = build_report(make_plan(rows, PEOPLE))
    vanilla, ceiling, *_ = report.rows
    assert (vanilla["best_own_floor"], vanilla["best_people_floor"]) == ("facet_mean", "ridge")
    assert ceiling["difference_to_best_people_floor"] == pytest.approx(-0.5)
    lines = text_of(report).splitlines()
    assert lines[lines.index(BLOCKS[KNOWN_TRUTH]) + 1].startswith("Factor-model posterior")
    assert any(line.startswith("Known truth: what the factor model") for line in lines)


def test_what_only_a_gpu_tells_is_shown_where_a_row_ran_on_one(
    twelve_people: dict[str, dict[str, Any]], make_plan: MakePlan
) -> None:
    plan = make_plan(twelve_people, PEOPLE)
    assert "joules" not in text_of(build_report(plan))
    for record in twelve_people["pas"].values():
        record["cost"] |= {"reserved_memory_mib": 4321.0, "joules": 77.5, "align_seconds": 123456.0}
    report = build_report(make_plan(twelve_people, PEOPLE))
    for text in (text_of(report), render(describe(report), "md")):
        assert "4,321" in text and "77.5" in text
    assert max(map(len, terminal(describe(report), 80).splitlines())) <= 80
