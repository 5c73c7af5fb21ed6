import random
from pathlib import Path

import pandas as pd
import pytest

from bench.ledger_scale import a_record
from palign_bench.backbone.loading.weights import parameters_of
from palign_bench.files import LedgerError
from palign_bench.ledger.plan import Plan
from palign_bench.report.forecast import ALL_ROWS, MeasuredRow, forecast, write_forecast
from palign_bench.settings import UserError, read_option
from tests.ledgers import kept_folder, plan_of, row_of

REFERENCE = Path(__file__).parents[2] / "runs" / "reference" / "2026-11-21-table1" / "table1.csv"
FACTORS = {"smollm2_135m": 1.0, "llama3_8b": 59.69788, "llama3_70b": 524.50435}


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("smollm2_135m", 134_515_008),  # as the reference table says of full fine-tuning
        ("llama3_8b", 8_030_261_248),  # as the hub says
        ("llama3_70b", 70_553_706_496),
        ("mistral_7b", 7_248_023_552),
    ],
)
def test_parameters_are_counted_without_weights(model: str, parameters: int) -> None:
    assert parameters_of(read_option("model", model)) == parameters


@pytest.fixture
def measured() -> list[MeasuredRow]:
    """Two rows of the reference table, with round sizes."""
    frame = pd.read_csv(REFERENCE).set_index("method")
    found = []
    for method in ("vanilla", "ridge"):
        row = frame.loc[method]
        seconds = row["align_seconds"] + row["answer_seconds"]
        found.append(MeasuredRow(method, method == "vanilla", row["shared_seconds"], seconds, 20_000.0, 5, 10_000))
    return found


def test_the_reference_table_by_hand(measured: list[MeasuredRow]) -> None:
    """Vanilla: 1.1315 s + 300 × 15.3955 s = 4,619.79 s = 1.28328 h, the table's own "300 people"."""
    frame = forecast(measured, (300, 300_000), FACTORS, shards=64).set_index(["people", "model", "method"])

    def told(people: int, model: str, method: str, column: str) -> float:
        return float(frame.loc[(people, model, method), column])

    assert told(300, "smollm2_135m", "vanilla", "hours") == pytest.approx(1.28328, rel=1e-5)
    assert told(300, "llama3_8b", "vanilla", "hours") == pytest.approx(76.6089, rel=1e-5)
    assert told(300, "llama3_70b", "vanilla", "hours") == pytest.approx(673.084, rel=1e-5)
    assert told(300_000, "smollm2_135m", "vanilla", "hours") == pytest.approx(1282.96, rel=1e-5)
    # A regression reads no model: 4.659 s whatever its size.
    for model in FACTORS:
        assert told(300, model, "ridge", "hours") == pytest.approx(0.00129421, rel=1e-5)
    # The largest of 64 shards has 4,688 people: 1.1315 s + 4,688 × 15.3955 s = 72,175.4 s.
    assert told(300_000, "smollm2_135m", "vanilla", "days") == pytest.approx(0.835364, rel=1e-5)
    assert told(300, "llama3_8b", "vanilla", "files") == 305
    assert told(300, "llama3_8b", "vanilla", "gib") == pytest.approx(6_010_000 / 1_073_741_824)
    assert told(300, "llama3_8b", ALL_ROWS, "cells") == 600 and told(300, "llama3_8b", ALL_ROWS, "files") == 610
    assert told(300, "llama3_8b", ALL_ROWS, "wandb_runs") == 3 and told(300, "llama3_8b", ALL_ROWS, "wandb_rows") == 602
    assert told(300, "llama3_8b", ALL_ROWS, "hours") == pytest.approx(76.6089 + 0.00129421, rel=1e-5)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A floor and a method on three people; each cell aligns in 1 s and answers in 2 s."""
    config = {"model": read_option("model", "llama3_8b")}
    generator, people = random.Random(0), ("p1", "p2", "p3")
    planned = []
    for method, model in (("ridge", None), ("pas", {"name": "llama3_8b", "weights": "random"})):
        folder = kept_folder(tmp_path, method, {"method": {"name": method}, "model": model, "seed": 0}, config)
        for person in people:
            folder.record(person, a_record(person, generator))
        folder.write_shared({"load_seconds": 100.0, "prepare_seconds": 6.0})
        planned.append(row_of(method, folder, people))
    about = {"experiment": "table1", "model": "llama3_8b", "model_title": "Llama", "protocol": "corrected",
             "respondents": "simulated", "respondents_description": "made-up people", "notes": []}  # fmt: skip
    return plan_of(tmp_path, planned, about)


def test_a_ledger_is_measured_and_the_forecast_written(plan: Plan) -> None:
    text = write_forecast(plan, (1200,), ["llama3_70b", "llama3_8b"], shards=10)
    frame = pd.read_csv(plan.folder / "forecast.csv").set_index(["model", "method"])
    assert list(frame.index) == [
        (model, method) for model in ("llama3_8b", "llama3_70b") for method in ("Ridge on others", "PAS", ALL_ROWS)
    ]
    assert frame.loc[("llama3_8b", "PAS"), "hours"] == pytest.approx((6 + 1200 * 3) / 3600)  # loading left out
    assert frame.loc[("llama3_70b", "PAS"), "hours"] == pytest.approx(3606 / 3600 * 70_553_706_496 / 8_030_261_248)
    assert frame.loc[("llama3_70b", "Ridge on others"), "hours"] == pytest.approx(3606 / 3600)
    assert frame.loc[("llama3_8b", "PAS"), "days"] == pytest.approx((6 + 120 * 3) / 86400)
    (folder,) = plan.runs.glob("cells/pas-*")
    sizes = [path.stat().st_size for path in (folder / "respondents").iterdir()]
    per_person = frame.loc[("llama3_8b", "PAS"), "gib"] * 2**30 / 1200
    assert sum(sizes) / 3 < per_person < sum(sizes) / 3 + 1000  # the digest's share and the folder's own files
    assert frame.loc[("llama3_8b", "PAS"), "files"] == 1200 + len([p for p in folder.iterdir() if p.is_file()])
    written = (plan.folder / "forecast.md").read_text(encoding="utf-8")
    assert "1,200 people" in text and "## 1,200 people" in written and "are extrapolated by arithmetic" in written
    assert r"llama3_70b \* hours" in written and "llama3_8b hours" in written and "llama3_70b × 8.8" in written
    assert "\n- Ridge on others: what they learn" in written


@pytest.mark.parametrize("shards", [1, 64])
def test_on_a_narrow_terminal_columns_give_way_not_labels(
    plan: Plan, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = write_forecast(plan, (300, 300_000), ["llama3_70b", "smollm2_135m"], shards)
    tables, _, notes = text.partition("Note: ")
    assert max(map(len, tables.splitlines())) <= 80
    assert sum(line.startswith("Ridge on others  ") for line in tables.splitlines()) == 2
    assert "llama3_70b *" in tables and ("days with" in tables) == (shards == 64)
    assert "Note: Columns marked * are extrapolated" in notes and "Note: *" not in text
    assert "All columns are in" in notes


BUDGETS = {
    "a": "quick",
    "b": "measured",
    "c": "custom: steps=5",
    "d": "custom: r=4",
    "e": "paper, no NF4",
    "f": "testbed",
}


def test_trained_rows_are_charged_the_papers_steps_and_other_budgets_are_told(plan: Plan) -> None:
    """Of LoRA's 75 steps ``a`` took 5 in 1 s, 0.1 s each: 1 + 70 × 0.1 s, and 2 s for the answers."""
    generator, planned = random.Random(0), list(plan.read()[0])
    for name, budget in BUDGETS.items():
        method = {"name": "lora", "budget": budget, "steps": 5 if name in "abc" else 75, "batch_size": 8}
        folder = kept_folder(plan.runs, name, {"method": method, "model": {"name": "llama3_8b"}, "seed": 0})
        record = a_record("p1", generator)
        record["cost"]["seconds_per_step"] = None if name == "c" else 0.1
        folder.record("p1", record)
        folder.write_shared({"load_seconds": 100.0, "prepare_seconds": 6.0})
        planned.append(row_of("lora", folder, ["p1"]))
    plan = plan_of(plan.runs, planned, plan.read()[1], "trained")
    text = " ".join(write_forecast(plan, (300,), [], shards=1).split())
    frame = pd.read_csv(plan.folder / "forecast.csv")
    hours = frame[frame["method"].str.startswith("LoRA")]["hours"].tolist()
    assert hours == pytest.approx([(6 + 300 * each) / 3600 for each in (10, 10, 3, 3, 3, 3)])
    assert (
        "Neither the paper's budget nor the testbed's: LoRA (quick) 5 of 75 steps of 8, LoRA (measured) 5 of 75 steps "
        "of 8, LoRA (custom: steps=5), LoRA (custom: r=4). Where steps are told, the seconds are extrapolated to the "
        "paper's number of them, in batches of that size, from what a step took; the others' are as measured."
    ) in text


def test_a_row_whose_preparing_is_not_known_is_named(plan: Plan) -> None:
    """Its hours are in no total, and the page says so; of such rows alone there is no forecast."""
    (folder,) = plan.runs.glob("cells/pas-*")
    (folder / "shared.json").unlink()
    text = " ".join(write_forecast(plan, (300,), [], shards=1).split())
    assert 'Left out, also of "all rows", since what preparing took is not known' in text and "it back): PAS." in text
    frame = pd.read_csv(plan.folder / "forecast.csv").set_index("method")
    assert list(frame.index) == ["Ridge on others", ALL_ROWS]
    (folder,) = plan.runs.glob("cells/ridge-*")
    (folder / "shared.json").unlink()
    with pytest.raises(LedgerError, match=r"no finished cell of a row with a shared\.json"):
        write_forecast(plan, (300,), [], shards=1)


def test_nothing_measured_and_unknown_models(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model=gpt5 does not exist"):
        write_forecast(plan, (300,), ["gpt5"], shards=1)
    empty = kept_folder(tmp_path, "dpo", {"method": {"name": "dpo"}, "model": None})
    plan = plan_of(tmp_path, [row_of("dpo", empty, ("p1",))], plan.read()[1], "other")
    with pytest.raises(LedgerError, match="no finished cell"):
        write_forecast(plan, (300,), [], shards=1)
