"""Real offline W&B runs, read back from their files, and what must not be found in them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from palign_bench.settings import UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.public import hashed_id, public_table, read_salt
from palign_bench.tracking.wandb import WandbTracker, _panels, choose_mode, has_api_key
from tests.tracking.rows import DOMAINS, FORBIDDEN, IDENTITY, RAW_IDS, SCALE_OF, a_record, row_and_table
from tests.tracking.wandb_runs import RunRead, runs_of


@pytest.fixture
def tracked(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, RunRead]:
    """A row of two people and a table, tracked offline and read back, by run name."""
    monkeypatch.setattr(sys, "argv", ["palign-bench", f"respondents.ids=[{','.join(RAW_IDS)}]"])
    runs = tmp_path / "ledger-of-somebody"
    tracker = make_tracker({"name": "wandb", "project": "test", "entity": None, "mode": "auto", "folder": None}, runs)
    tags = ["corrected", "corrected", "", "t" * 65]
    tracker.start_row(
        IDENTITY, name="few_shot-smollm2_135m", experiment="table1", tags=tags, key="few_shot-0123", scale_of=SCALE_OF
    )
    tracker.log_person(a_record(0))
    tracker.log_person(a_record(1))
    tracker.finish_row({"composite_low": float("nan"), "missing_cells": 2})
    table = pd.DataFrame(
        {
            "method": ["few_shot", "ridge"],
            "composite": np.array([6.5, np.nan]),
            "respondents": [2, 2],
            "note": ["2 people of people-of-somebody.csv", None],
        }
    )
    tracker.log_table(table, [picture, tmp_path / "scores.pdf"], "table1", "smollm2_135m-corrected", SCALE_OF)
    found = [RunRead(folder) for folder in sorted((runs / "wandb").glob("offline-run-*"))]
    return {each.run.display_name: each for each in found}


def test_a_row_is_one_run_with_its_people_and_its_own_summary(tracked: dict[str, RunRead]) -> None:
    row = tracked["few_shot-smollm2_135m"]
    assert (row.run.project, row.run.run_group, row.run.job_type) == ("test", "table1", "row")
    assert list(row.run.tags) == ["corrected", "t" * 64]
    first, second, _ = sorted(row.history, key=lambda told: told.get("composite", 99))
    assert {first["person"], second["person"]} == {1, 2}
    assert first["composite"] == pytest.approx(3.5)
    assert first["trait/openness"] == 3.25 and first["person_trait/openness"] == 2.75
    assert second["answer_seconds"] == 2.5 and second["align_seconds"] == 0.25 and second["peak_memory_mib"] == 12.0
    assert set(DOMAINS) < set(first)
    assert "openness" not in second  # without a parsed answer there is no score
    assert not {"answers", "tokens_read", "respondent"} & set(first)
    assert row.summary["missing_cells"] == 2 and row.summary["composite_low"] is None
    assert row.summary["agreeableness"] == pytest.approx(1.0)  # 0.5 and 1.5: the mean, not the last person's
    assert row.summary["openness"] == pytest.approx(0.9)  # one of the two has no such score
    assert row.summary["composite"] == pytest.approx((3.5 + 8.5) / 2)  # the table's: the mean composite
    assert row.summary["trait/openness"] == 3.75 and row.summary["answer_seconds"] == 2.0


def test_people_are_a_table_under_salted_hashes(tracked: dict[str, RunRead], tmp_path: Path) -> None:
    people = tracked["few_shot-smollm2_135m"].table("people")
    salt = read_salt(tmp_path / "ledger-of-somebody" / ".salt")
    rows = {row[people["columns"].index("respondent")]: row for row in people["data"]}
    assert list(rows) == sorted(hashed_id(salt, respondent_id) for respondent_id in RAW_IDS)  # not the file's order
    second = rows[hashed_id(salt, RAW_IDS[1])]
    assert second[people["columns"].index("openness")] is None
    assert second[people["columns"].index("trait/extraversion")] == 4.25


def test_the_table_and_its_picture_are_a_run_of_their_own(tracked: dict[str, RunRead], picture: Path) -> None:
    assert len(tracked) == 2
    run = tracked["table"]
    assert (run.run.run_group, run.run.job_type, run.run.notes) == ("table1", "table", "")
    table = run.table("table")
    assert table["columns"] == ["method", "composite", "respondents"]
    assert table["data"] == [["few_shot", 6.5, 2], ["ridge", None, 2]]
    (stored,) = (run.folder / "files/media/images").iterdir()
    assert stored.read_bytes() == picture.read_bytes()


def test_rows_of_one_method_have_numbers_of_their_own() -> None:
    rows = {"method": ["few_shot", "few_shot", "pas"], "label": ["Few-Shot [known=10]", "Few-Shot", "PAS"]}
    table = public_table(pd.DataFrame({**rows, "composite": [3.0, 2.5, 2.6]}), {})
    assert _panels(table) == {
        "composite/Few-Shot [known=10]": 3.0,
        "composite/Few-Shot": 2.5,
        "composite/pas": 2.6,
    }


def test_nothing_private_is_in_any_byte_of_the_runs(tracked: dict[str, RunRead], tmp_path: Path) -> None:
    row = tracked["few_shot-smollm2_135m"]
    assert {key: row.config[key] for key in IDENTITY if key != "method"} == {
        key: IDENTITY[key] for key in IDENTITY if key != "method"
    }
    assert row.config["method"] == {"name": "few_shot", "k": 24, "alphas": [0, 1, 2.5]}
    salt = read_salt(tmp_path / "ledger-of-somebody" / ".salt")
    files = [path for path in (tmp_path / "ledger-of-somebody" / "wandb").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for path in files:
        if path.parent.name == "logs" or path.suffix == ".log":
            continue  # W&B's own notes on this machine, never uploaded
        content = path.read_bytes()
        for word in [*FORBIDDEN, salt]:
            assert word.encode() not in content, f"{word} in {path.name}"
    assert (row.run.host, row.run.git.remote_url, row.run.git.commit) == ("", "", "")


def test_the_reader_finds_what_is_planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search above can fail: an unprotected run holds the configuration, the command line and the host."""
    import wandb

    monkeypatch.setattr(sys, "argv", ["palign-bench", f"respondents.ids=[{RAW_IDS[1]}]"])
    settings = wandb.Settings(silent=True, console="off")
    run = wandb.init(dir=str(tmp_path), mode="offline", config={"ids": RAW_IDS}, reinit="create_new", settings=settings)
    run.log({"wide": "x" * 100_000})  # longer than a block: a record in several chunks
    run.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    read = RunRead(path.parent)
    assert all(word.encode() in path.read_bytes() for word in RAW_IDS)
    assert read.run.host
    (row,) = read.history
    assert row["wide"] == "x" * 100_000


def test_a_restart_replaces_its_run_and_updates_the_table(tmp_path: Path) -> None:
    """A sweep that is interrupted and goes on leaves one run for the row and one for the table."""
    interrupted = WandbTracker(mode="offline", folder=tmp_path / "1", salt_file=tmp_path / ".salt")
    interrupted.start_row(IDENTITY, "row", "table1", key="row-0123", scale_of=SCALE_OF)
    interrupted.log_person(a_record(0))
    interrupted._run.finish()
    for number in ("2", "3"):
        tracker = WandbTracker(mode="offline", folder=tmp_path / number, salt_file=tmp_path / ".salt")
        row_and_table(tracker, [a_record(0), a_record(1)])
    ids = {(read.run.job_type, read.run.run_id) for number in "123" for read in runs_of(tmp_path / number)}
    assert len(ids) == 2 and "row-0123" not in str(ids)
    other = WandbTracker(mode="offline", folder=tmp_path / "4", salt_file=tmp_path / "another" / ".salt")
    row_and_table(other, [])
    assert not ids & {(read.run.job_type, read.run.run_id) for read in runs_of(tmp_path / "4")}


def test_a_finished_row_is_wanted_until_there_is_a_run_of_it(tmp_path: Path) -> None:
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    assert tracker.wants_finished_row("table1", "row-0123", RAW_IDS[:1])
    row_and_table(tracker, [a_record(0)])
    again = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    assert not again.wants_finished_row("table1", "row-0123", RAW_IDS[:1])
    for experiment, key, people in (("table1", "row-4567", 1), ("another", "row-0123", 1), ("table1", "row-0123", 2)):
        assert again.wants_finished_row(experiment, key, RAW_IDS[:people])
    again.start_row(IDENTITY, "row", "table1", key="row-0123")  # cut off
    assert again.wants_finished_row("table1", "row-0123", RAW_IDS[:1])
    disabled = WandbTracker(mode="disabled", folder=tmp_path, salt_file=tmp_path / ".salt")
    assert not disabled.wants_finished_row("table1", "row-4567", RAW_IDS[:1])


def test_under_an_agent_one_run_holds_the_metric(tmp_path: Path) -> None:
    """`wandb agent` names the run; row and table go into it, the sweep's metric into its summary."""
    code = (
        "from pathlib import Path; from palign_bench.tracking.wandb import WandbTracker\n"
        "from tests.tracking.rows import *\n"
        "tracker = WandbTracker(mode='offline', folder=Path('runs'), salt_file=Path('.salt'))\n"
        "row_and_table(tracker, [a_record(0)]); assert tracker.wants_finished_row('table1', 'row-0123', RAW_IDS[:1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "WANDB_RUN_ID": "trial123", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (read,) = runs_of(tmp_path / "runs")
    assert read.run.run_id == "trial123"
    assert read.summary["composite"] == pytest.approx(3.5) and read.table("table")["data"] == [["row", 6.5]]


def test_one_bad_value_costs_that_value_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = a_record(0)
    bad["scores"] = {**bad["scores"], "openness": object()}
    broken = {"respondent": "x"}
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    row_and_table(tracker, [bad, broken, a_record(1)])
    row, table = runs_of(tmp_path)
    assert len(row.table("people")["data"]) == 2 and table.run.job_type == "table"
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("palign_bench")]
    assert "KeyError" in warning  # said once


def test_modes(tmp_path: Path) -> None:
    nobody: dict[str, str] = {}
    keyed = {**nobody, "WANDB_API_KEY": "k" * 40}
    assert choose_mode("auto", nobody) == "offline"
    assert choose_mode("auto", keyed) == "online"
    assert choose_mode("auto", {**keyed, "WANDB_MODE": "offline"}) == "offline"
    assert choose_mode("auto", {**nobody, "WANDB_MODE": "online"}) == "offline"
    assert choose_mode("auto", {**nobody, "WANDB_MODE": "disabled"}) == "disabled"
    assert choose_mode("offline", keyed) == "offline"
    with pytest.raises(UserError, match="wandb login"):
        choose_mode("online", nobody)
    with pytest.raises(UserError, match="choose auto, online, offline, disabled"):
        choose_mode("sometimes", nobody)


def test_a_key_in_netrc_counts_for_its_host_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    path.write_text(f"machine api.wandb.ai\n  login user\n  password {'k' * 40}\n")
    path.chmod(0o600)
    assert has_api_key({})
    assert not has_api_key({"WANDB_BASE_URL": "https://wandb.example.org"})
    path.write_text("this is no netrc")
    assert not has_api_key({})


def test_a_failing_tracker_says_so_once_and_steps_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    with caplog.at_level(logging.WARNING):
        row_and_table(
            WandbTracker(mode="offline", folder=blocked / "runs", salt_file=tmp_path / ".salt"), [a_record(0)]
        )
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("palign_bench")]
    assert "NotADirectoryError" in warning and "ledger" in warning and "\n" not in warning


def test_a_run_that_breaks_off_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    with caplog.at_level(logging.WARNING):
        tracker.start_row(IDENTITY, "row", "table1", key="1", scale_of=SCALE_OF)
        tracker._run.finish()  # what a crashed W&B service looks like from here: logging to it raises
        tracker.log_person(a_record(1))
        tracker.finish_row({"missing_cells": 1})
        row_and_table(tracker, [a_record(0)])  # the next row is followed all the same
    assert len([each for each in caplog.records if each.name.startswith("palign_bench")]) == 1
    assert sorted(read.run.display_name for read in runs_of(tmp_path)) == ["row", "row", "table"]


def test_an_unreachable_server_means_offline_without_a_word_on_the_console(tmp_path: Path) -> None:
    """In a fresh process with a key: nothing is asked, nothing but one warning is printed, and the run is kept."""
    code = (
        "from pathlib import Path; from palign_bench.tracking import choose, wandb; wandb._INIT_SECONDS = 2\n"
        "tracker = choose.make_tracker({'name': 'wandb'}, Path('runs')); assert tracker.mode == 'online'\n"
        "tracker.start_row({'seed': 1}, 'row', 'table1'); tracker.finish_row({'composite': 1.0})\n"
    )
    environment = {**os.environ, "WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("W&B cannot be reached (") and "logging offline" in line
    (folder,) = (tmp_path / "runs" / "wandb").glob("offline-run-*")
    assert RunRead(folder).summary["composite"] == 1.0
