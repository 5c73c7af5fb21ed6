"""`make bench` for real on a tiny model, and whether its peers answer the same questions."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from bench import __main__ as bench
from bench.growth import DEPTHS, ITEMS, KNOWN, PEOPLE, Growth, depths, random_model
from bench.probes import ProbeTimes
from bench.profile import profiled
from palign_bench.backbone.local import LocalBackbone
from palign_bench.settings import UserError
from tests.command import save_many_headed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of everything but the optional peers wrote."""
    here = tmp_path_factory.mktemp("bench")
    model = save_many_headed(here / "tiny24")
    options = ["--model", "local", "--path", str(model), "--dtype", "float32", "--respondents", "simulated"]
    amounts = ["--repeats", "1", "--plain-items", "4", "--growth", "--cohort", "2", "--steps", "1", "--together", "2"]
    bench.main([*options, *amounts, "--runs", str(here / "runs")])
    return here / "runs" / "bench"


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "bench.csv").set_index("name")


def test_seconds_and_ratios_to_ours(rows: pd.DataFrame) -> None:
    assert list(rows.columns) == ["seconds", "ratio_to_ours", "note"] and (rows["seconds"] > 0).all()
    for theirs, ours in (
        ("few_shot_answers_plain_generate", "few_shot_answers_ours"),
        ("lora_one_by_one", "lora_cohort"),
        ("few_shot_answers_one_by_one", "few_shot_answers_together"),
        ("few_shot_answers_and_audit_one_by_one", "few_shot_answers_and_audit_together"),
        ("pas_probes_scikit_learn", "pas_probes_ours"),
    ):
        ratio = rows.loc[theirs, "seconds"] / rows.loc[ours, "seconds"]
        assert rows.loc[theirs, "ratio_to_ours"] == pytest.approx(ratio)
    assert rows.loc["pas_align_and_answers", "seconds"] > rows.loc["pas_align", "seconds"]


def test_people_in_one_pass_are_timed_with_and_without_the_audit(rows: pd.DataFrame) -> None:
    notes = [rows.loc[f"few_shot_{each}_together", "note"] for each in ("answers", "answers_and_audit")]
    assert notes == [f"2 people, 180 items, {texts} free texts; 2 in a pass" for texts in (0, 20)]


def test_plain_generation_answers_as_ours_does(rows: pd.DataFrame) -> None:
    assert "100% equal answers" in rows.loc["few_shot_answers_plain_generate", "note"]


def test_growth_is_measured_drawn_and_told(folder: Path, rows: pd.DataFrame) -> None:
    told = rows.loc[f"few_shot_answers_{PEOPLE[-1]}_people", "note"]
    assert re.search(r"exponent -?[0-9.]+ \(1: linear\)", told)
    assert {f"few_shot_answers_{ITEMS[-1]}_items", f"few_shot_answers_{KNOWN[-1]}_known_answers"} <= set(rows.index)
    assert {path.name for path in folder.iterdir()} == {"bench.csv", "bench.md", "growth.png", "growth.pdf"}
    assert "load average" in (folder / "bench.md").read_text()


def test_a_profile_names_the_operators_and_their_shares(folder: Path, tmp_path: Path) -> None:
    matrix = torch.randn(300, 300)
    text = profiled("products", lambda: [matrix @ matrix for _ in range(50)])
    assert re.search(r"^aten::mm +([5-9]\d\.\d|100\.0)% .* 50$", text, re.MULTILINE), text
    options = ["--model", "local", "--path", str(folder.parents[1] / "tiny24"), "--respondents", "simulated"]
    bench.main([*options, "--dtype", "float32", "--profile", "4", "--runs", str(tmp_path)])
    written = (tmp_path / "bench" / "profile.txt").read_text()
    assert all(title in written for title in ("Few-Shot, 4 answers", "PAS, prepare", "PAS, probes of one person"))


def test_the_exponent_of_a_power_law() -> None:
    amounts = (1.0, 3.0, 10.0, 200.0)
    assert Growth("items", amounts, tuple(2.5 * x**1.7 for x in amounts)).exponent == pytest.approx(1.7)


def test_deeper_models_keep_the_shape(tiny_backbone: LocalBackbone) -> None:
    layers = tiny_backbone.model.config.num_hidden_layers
    assert depths(tiny_backbone) == [1, layers] and len(DEPTHS) == 3
    shallow = random_model(tiny_backbone, 1)
    assert shallow.model.config.hidden_size == tiny_backbone.model.config.hidden_size
    assert len(shallow.model.base_model.layers) == 1 and tiny_backbone.model.config.num_hidden_layers == layers


def test_only_methods_that_train_cohorts_are_timed_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--methods few_shot: .* dpo, lora, ppo, qlora, rloo\."):
        bench.main(["--cohort", "2", "--methods", "lora,few_shot"])
    assert capsys.readouterr().out == "", "it was refused once the model had been loaded"


def test_one_item_does_not_tell_what_the_others_take_where_a_beginning_is_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for options in (["--plain-items", "1", "--peers", "generate", "openvino", "vllm"], ["--plain-items", "0"]):
        with pytest.raises(
            UserError, match=r"--plain-items 1: give 2 or more: of openvino, vllm|items 0: give 1 or more"
        ):
            bench.main(options)
    assert capsys.readouterr().out == "", "it was refused once the model had been loaded"


def test_growth_and_probes_have_the_processors_clock_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a second of sleep is none of the processor's."""
    told: list[float] = []

    def timed(clock: Callable[[Callable[[], None]], float]) -> None:
        told.append(clock(lambda: time.sleep(0.5)))

    def growth(*arguments: Any) -> list[Growth]:
        timed(arguments[-1])
        return []

    def probes(*arguments: Any) -> ProbeTimes:
        timed(arguments[-1])
        return ProbeTimes(1, 1, 1.0, 1.0, 0.0)

    monkeypatch.setattr(bench, "measure_growth", growth)
    monkeypatch.setattr(bench, "draw_growth", lambda *_: [])
    monkeypatch.setattr(bench, "time_probes", probes)
    options = ["--model", "local", "--path", str(folder.parents[1] / "tiny24"), "--respondents", "simulated"]
    amounts = ["--repeats", "1", "--plain-items", "2", "--growth", "--processor-time", "--dtype", "float32"]
    bench.main([*options, *amounts, "--runs", str(tmp_path)])
    assert len(told) == 2 and max(told) < 0.25
