"""`palign-bench efficiency` for real on a tiny model, and what is made of its numbers."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from palign_bench.report.efficiency import relative
from palign_bench.report.pictures.efficiency import pareto_front
from tests.command import cells, run, run_here


def arguments(model: Path, runs: Path, methods: str, *more: str) -> list[str]:
    options = ["efficiency", "--methods", methods, "--repeats", "2", "--runs", str(runs)]
    people = ["respondents=simulated", "respondents.count=20"]
    return [*options, "model=local", f"model.name_or_path={model}", *people, *more]


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command wrote for one method of each kind."""
    runs = tmp_path_factory.mktemp("efficiency") / "runs"
    result = run(*arguments(model, runs, "few_shot,pas,dpo"), folder=runs.parent)
    assert result.returncode == 0, result.stderr
    return runs / "efficiency" / "tiny24-corrected"


@pytest.fixture(scope="module")
def costs(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "costs.csv").set_index("method")


def test_every_file_is_there(folder: Path) -> None:
    pictures = [f"costs_{what}.{kind}" for what in ("time", "memory", "score") for kind in ("png", "pdf")]
    for name in ("costs.csv", "costs.md", "costs.tex", *pictures):
        assert (folder / name).stat().st_size > 100, name


def test_pas_is_the_unit(costs: pd.DataFrame) -> None:
    ratios = ["relative_align", "relative_one", "relative_300", "relative_memory"]
    assert list(costs.loc["pas", ratios]) == [1, 1, 1, 1]
    assert costs.loc["dpo", "relative_300"] == pytest.approx(
        costs.loc["dpo", "seconds_for_300"] / costs.loc["pas", "seconds_for_300"]
    )
    assert costs.loc["dpo", "paper_relative_time"] == 5 and pd.isna(costs.loc["few_shot", "paper_relative_time"])


def test_the_full_budget_is_extrapolated_from_measured_steps_and_marked(folder: Path, costs: pd.DataFrame) -> None:
    dpo = costs.loc["dpo"]
    assert (dpo["steps"], dpo["full_steps"], dpo["batch_size"], dpo["quantization"]) == (1, 250, 16, "nf4")
    assert dpo["full_align_seconds"] == pytest.approx(dpo["align_seconds"] + 249 * dpo["seconds_per_step"])
    assert dpo["full_training_tokens"] == pytest.approx(dpo["training_tokens"] + 249 * dpo["tokens_per_step"], rel=1e-3)
    assert 0 < dpo["tokens_per_step"] < dpo["training_tokens"], "the reference is read once, before the steps"
    assert dpo["seconds_for_one"] == pytest.approx(
        dpo["load_seconds"] + dpo["prepare_seconds"] + dpo["full_align_seconds"] + dpo["answer_seconds"]
    )
    assert list(costs["extrapolated"]) == [False, False, True]
    text = (folder / "costs.md").read_text()
    assert re.search(r"^\| DPO \(measured\) \\\*", text, re.MULTILINE)
    assert "DPO (measured) 1 of 250 steps of 16" in text and "bitsandbytes" in text


def test_a_part_of_the_budget_is_nobodys_time_and_forecast_whole(folder: Path, costs: pd.DataFrame) -> None:
    """The table beside the page is silent on what people cost, and a forecast says what the page says."""
    runs, dpo = folder.parent.parent, costs.loc["dpo"]
    shown = pd.read_csv(folder / "efficiency.csv").set_index("method")[["seconds_for_one", "seconds_for_300"]]
    assert shown.loc["dpo"].isna().all() and shown.loc["few_shot"].notna().all() and shown.loc["pas"].notna().all()
    told = run_here("forecast", "efficiency", "--people", "300", "--models=", "--runs", str(runs), folder=runs.parent)
    assert told.returncode == 0 and "DPO (measured) 1 of 250 steps of 16" in " ".join(told.stdout.split()), told.stderr
    forecast = pd.read_csv(folder / "forecast.csv").set_index("method")
    seconds = dpo["seconds_for_300"] - dpo["load_seconds"]
    assert forecast.loc["DPO (measured)", "hours"] == pytest.approx(seconds / 3600)


def test_phases_and_conditions_are_told(folder: Path, costs: pd.DataFrame) -> None:
    pas = costs.loc["pas"]
    assert 0 < pas["search_seconds"] <= pas["align_seconds"] and pas["prepare_seconds"] > 0
    assert pas["answer_seconds_low"] <= pas["answer_seconds"] <= pas["answer_seconds_high"]
    assert set(costs["cost_repeats"]) == {2} and (costs["total_memory_mib"] > costs["bare_memory_mib"]).all()
    text = (folder / "costs.md").read_text()
    assert "load average" in text and "threads" in text and "random" not in text.lower()


def test_it_is_an_experiment_like_the_others(folder: Path) -> None:
    """Its page is rebuilt from what was measured; what is missing is measured, and nothing else."""
    runs = folder.parent.parent
    page = (folder / "costs.csv").read_bytes()
    (folder / "costs.csv").unlink()
    assert run_here("report", "efficiency", "--runs", str(runs), folder=runs.parent).returncode == 0
    assert (folder / "costs.csv").read_bytes() == page
    (lost,) = (runs / "cells").glob("few_shot-*/respondents/*.json")
    lost.unlink()
    before = cells(runs)
    told = run_here("status", "efficiency", "--runs", str(runs), folder=runs.parent)
    assert "1 cell missing" in told.stdout and "DPO" in told.stdout
    resumed = run("resume", "efficiency", "--runs", str(runs), folder=runs.parent)
    assert resumed.returncode == 0, resumed.stderr
    assert before.items() <= cells(runs).items() and len(cells(runs)) == len(before) + 1
    assert (folder / "costs.md").is_file() and resumed.stderr.count("Loading") == 1


def test_random_weights_say_what_they_cannot_tell_and_show_no_score(tmp_path: Path, model: Path) -> None:
    random = ["model.weights=random", "model.shape={model_type: llama, vocab_size: 49152, hidden_size: 64, "
              "intermediate_size: 64, num_hidden_layers: 3, num_attention_heads: 8, num_key_value_heads: 4, "
              "max_position_embeddings: 8192}"]  # fmt: skip
    options = ["efficiency", "--methods", "pas", "--repeats", "1", "--runs", str(tmp_path / "runs")]
    result = run(*options, "model=llama3_8b", "respondents=simulated", "respondents.count=5", *random, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    said = " ".join(result.stdout.split())
    assert "cannot tell any score" in said and "full 15 tokens" in said
    assert not list(tmp_path.rglob("costs_score.*")) and list(tmp_path.rglob("costs_time.png"))


def test_mistakes_are_one_line(model: Path, tmp_path: Path) -> None:
    for methods, named in (("few_shot", "pas must be among them"), ("pas,nonsense", "nonsense does not exist")):
        result = run_here(*arguments(model, tmp_path, methods), folder=tmp_path)
        assert result.returncode == 1 and named in result.stderr and "Traceback" not in result.stderr


def test_without_pas_nothing_is_relative() -> None:
    names = ("full_align_seconds", "seconds_for_one", "seconds_for_300", "total_memory_mib")
    row: dict[str, Any] = {"method": "dpo", **dict.fromkeys(names, 2.0)}
    unmeasured = {"method": "pas", **dict.fromkeys(names)}
    assert relative([row, unmeasured])[0]["relative_one"] is None
    assert relative([row, unmeasured | dict.fromkeys(names, 4.0)])[0]["relative_one"] == 0.5


def test_pareto_front() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (2.0, 4.0), (3.0, 3.0), (4.0, 1.0), (9.0, 2.0)]
    assert pareto_front(points) == [(1.0, 5.0), (2.0, 3.0), (4.0, 1.0)]
