"""Real offline W&B runs, read back from their files, and what must not be found in them."""

import json
import logging
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palign_bench.settings import UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.public import hashed_id, read_salt
from palign_bench.tracking.tracker import Tracker, figures_of, public_table, thin_scales, without_places
from palign_bench.tracking.wandb import WandbTracker, choose_mode, has_api_key

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")  # LevelDB's log format; checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
DOMAINS = ("agreeableness", "conscientiousness", "extraversion", "neuroticism", "openness")

# What a row's fingerprint covers, with things planted that must not get out.
RAW_IDS = ["case-8871-raw", "case-8872-raw"]
FORBIDDEN = [*RAW_IDS, "/secret/place", "ledger-of-somebody", "people-of-somebody", "Worry about rain"]
IDENTITY: dict[str, Any] = {
    "method": {"name": "few_shot", "k": 24, "alphas": [0, 1, 2.5], "folder": "/secret/place"},
    "model": {"name": "smollm2_135m", "weights": "package"},
    "respondents": {"source": "file", "data_hash": "0123"},
    "protocol": {"name": "corrected", "version": 3},
    "seed": 3,
}
ITEMS = {str(number): DOMAINS[number % 5] for number in range(1, 31)}
SCALE_OF = ITEMS  # six held-out items of each scale


def a_record(index: int) -> dict[str, Any]:
    """A finished cell as the ledger stores it, forbidden parts included."""
    scores = {domain: 0.5 + index + 0.1 * place for place, domain in enumerate(DOMAINS)}
    return {
        "respondent": RAW_IDS[index],
        "answers": {"9": 4, "10": 2},
        "texts": {"9": "Worry about rain"},
        "audit": {"9": "Worry about rain"},
        "truth": dict.fromkeys(ITEMS, 5),
        "scores": {**scores, "composite": sum(scores.values()), **({"openness": None} if index else {})},
        "traits": dict.fromkeys(DOMAINS, 3.25 + index),
        "person_traits": dict.fromkeys(DOMAINS, 2.75 + index),
        "alignment": {"summary": {"system_prompt": "Worry about rain"}},
        "cost": {"align_seconds": 0.25, "answer_seconds": 1.5 + index, "peak_memory_mib": 12.0, "tokens_read": 7},
    }


def records(path: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file: after a 7-byte file header, chunks inside 32 KiB blocks make up records."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + HEADER.size <= len(data):
        left_in_block = BLOCK - position % BLOCK
        if left_in_block < HEADER.size:
            position += left_in_block
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        parts += data[position : position + length]
        position += length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def finished_records(path: Path) -> list[Any]:
    """All records of a finished run. W&B's service writes its file out a few milliseconds after ``finish`` returns."""
    for _ in range(1000):
        if path.stat().st_size > 7:
            found = list(records(path))
            if any(record.WhichOneof("record_type") == "exit" for record in found):
                return found
        time.sleep(0.02)
    raise AssertionError(f"{path} never received the record that ends a run")


class RunRead:
    """One run as its files tell it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        (path,) = folder.glob("*.wandb")
        for record in finished_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                updates = record.run.config.update
                self.config.update({each.key: json.loads(each.value_json) for each in updates})
            elif kind == "history":
                self.history.append(self._items(record.history.item))
            elif kind == "summary":
                self.summary.update(self._items(record.summary.update))
                for each in record.summary.remove:
                    self.summary.pop(each.key or "/".join(each.nested_key), None)

    @staticmethod
    def _items(items: Any) -> dict[str, Any]:
        return {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items}

    def table(self, name: str) -> dict[str, Any]:
        (path,) = (self.folder / "files/media/table").glob(f"{name}_*.table.json")
        return dict(json.loads(path.read_text()))


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever account this machine has, tests know none; W&B's caches stay in the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "scores.png"
    Image.new("RGB", (8, 6), "white").save(path)
    return path


@pytest.fixture
def tracked(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, RunRead]:
    """A row of two people and a table, tracked offline and read back, by run name."""
    monkeypatch.setattr(sys, "argv", ["palign-bench", f"respondents.ids=[{','.join(RAW_IDS)}]"])
    runs = tmp_path / "ledger-of-somebody"
    tracker = make_tracker({"name": "wandb", "project": "test", "entity": None, "mode": "auto", "folder": None}, runs)
    tags = ["corrected", "corrected", "", "t" * 65]
    tracker.start_row(
        IDENTITY, name="few_shot-smollm2_135m", group="table1", tags=tags, key="few_shot-0123", scale_of=SCALE_OF
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
    assert row.summary["composite"] == pytest.approx(1.0 + 1.1 + 1.2 + 1.3 + 0.9)
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


def test_names_stay_and_places_do_not() -> None:
    named = {"model": {"name": "owner/model", "dtype": "float32", "heads": np.int64(3)}, "names": ["a", {"k": None}]}
    assert without_places(named) == named
    places = ["/data/m", "~/m", "./m", "../m", "C:\\m", "http://host/m", "models/of/mine"]
    assert without_places({"values": places, **dict.fromkeys("abc", places[0])}) == {"values": []}


def row_and_table(tracker: WandbTracker, records: list[dict[str, Any]]) -> None:
    tracker.start_row(IDENTITY, "row", "group", ["row"], key="row-0123", scale_of=SCALE_OF)
    for record in records:
        tracker.log_person(record)
    tracker.finish_row({"missing_cells": 0})
    tracker.log_table(pd.DataFrame({"method": ["row"], "composite": [6.5]}), [], "group", "model-corrected", SCALE_OF)


def runs_of(folder: Path) -> list[RunRead]:
    found = [RunRead(each) for each in (folder / "wandb").glob("offline-run-*")]
    return sorted(found, key=lambda read: str(read.run.job_type))  # rows, then tables


def test_a_restart_continues_its_run_and_updates_the_table(tmp_path: Path) -> None:
    """A sweep that is interrupted and goes on leaves one run for the row and one for the table."""
    interrupted = WandbTracker(mode="offline", folder=tmp_path / "1", salt_file=tmp_path / ".salt")
    interrupted.start_row(IDENTITY, "row", "group", key="row-0123", scale_of=SCALE_OF)
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


def test_under_an_agent_one_run_holds_the_metric(tmp_path: Path) -> None:
    """`wandb agent` names the run; row and table go into it, the sweep's metric into its summary."""
    code = (
        "from pathlib import Path; from tests.tracking.test_wandb import *\n"
        "tracker = WandbTracker(mode='offline', folder=Path('runs'), salt_file=Path('.salt'))\n"
        "assert tracker.follows_finished_rows; row_and_table(tracker, [a_record(0)])\n"
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


def test_what_hangs_on_fewer_than_three_answers_stays_here(tmp_path: Path) -> None:
    """The mean of one answer is that answer; the composite without the other scales would be it, too."""
    one_item = {number: scale for number, scale in SCALE_OF.items() if scale != "openness" or number == "4"}
    assert list(one_item.values()).count("openness") == 1
    record = a_record(0)
    assert thin_scales(record["truth"], one_item) == ["openness"]
    assert thin_scales(record["truth"], SCALE_OF) == []
    unanswered = record["truth"] | dict.fromkeys([n for n in SCALE_OF if SCALE_OF[n] == "openness"][:4])
    assert thin_scales(unanswered, SCALE_OF) == ["openness"]
    figures = figures_of(record, ["openness"])
    hidden = {"openness", "composite", "trait/openness", "person_trait/openness"}
    assert set(figures_of(record)) - set(figures) == hidden
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    tracker.start_row(IDENTITY, "row", "group", key="k", scale_of=one_item)
    tracker.log_person(record)
    tracker.finish_row({})
    table = pd.DataFrame({"method": ["row"], "openness": [0.9], "extraversion": [0.7], "composite": [3.5],
                          "respondents": [1]})  # fmt: skip
    tracker.log_table(table, [], "group", "t", one_item)
    row, shown = runs_of(tmp_path)
    assert not hidden & set(row.summary) and row.summary["extraversion"] == pytest.approx(0.7)
    assert not hidden & {key for told in row.history for key in told} and not hidden & set(
        row.table("people")["columns"]
    )
    assert shown.table("table")["columns"] == ["method", "extraversion", "respondents"]
    assert list(public_table(table.assign(respondents=3), one_item).columns) == list(table.columns)


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


def test_make_tracker_names_the_wrong_key() -> None:
    assert type(make_tracker({"name": "none"})) is Tracker
    tracker = make_tracker({"name": "wandb", "folder": "elsewhere"}, Path("ledger"))
    assert isinstance(tracker, WandbTracker)
    assert (tracker.folder, tracker.salt_file) == (Path("elsewhere"), Path("ledger/.salt"))
    with pytest.raises(UserError, match="tracking=mlflow: choose wandb, tensorboard or none"):
        make_tracker({"name": "mlflow"})
    with pytest.raises(UserError, match=r"tracking\.projekt: no such key; the keys are name, project"):
        make_tracker({"name": "wandb", "projekt": "x"})


def test_salt_is_made_once_and_kept_private(tmp_path: Path) -> None:
    salt = read_salt(tmp_path / "new" / ".salt")
    assert read_salt(tmp_path / "new" / ".salt") == salt and len(salt) == 64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".salt"]
    assert (tmp_path / "new" / ".salt").stat().st_mode & 0o077 == 0
    other = read_salt(tmp_path / "other" / ".salt")
    assert hashed_id(salt, "1") != hashed_id(other, "1") and hashed_id(salt, "1") != hashed_id(salt, "2")


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
        tracker.start_row(IDENTITY, "row", "group", key="1", scale_of=SCALE_OF)
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
        "tracker.start_row({'seed': 1}, 'row', 'group'); tracker.finish_row({'composite': 1.0})\n"
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
