"""Real offline W&B runs, read back from their files, and what must not be found in them."""

from __future__ import annotations

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
from palign_bench.tracking.public import hashed_id, public_config, read_salt
from palign_bench.tracking.tracker import NoTracker
from palign_bench.tracking.wandb import WandbTracker, choose_mode, has_api_key

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")  # LevelDB's log format; checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
DOMAINS = ("agreeableness", "conscientiousness", "extraversion", "neuroticism", "openness")

# A configuration as a runner would hand it over, with things planted that must not get out.
RAW_IDS = ["case-8871-raw", "case-8872-raw"]
FORBIDDEN = [*RAW_IDS, "septuagenarian", "femalevalue", "Norwegia", "/secret/place", "sk-token-123", "Worry about rain"]
CONFIG: dict[str, Any] = {
    "method": {"_target_": "baselines.few_shot.FewShot", "name": "few_shot", "k": 24, "alphas": [0, 1, 2.5]},
    "model": {
        "name": "smollm2_135m",
        "name_or_path": "/secret/place/model",
        "api_key": "sk-token-123",
        "max_new_tokens": 15,
        "base_url": "http://sk-token-123@/secret/place",
    },
    "respondents": {
        "name": "file",
        "limit": 2,
        "ids": RAW_IDS,
        "path": "/secret/place/people.csv",
        "anything_else": "septuagenarian",
        "description": "2 people of /secret/place/people.csv",
    },
    "protocol": {"name": "corrected"},
    "age": "septuagenarian",
    "person": {"sex": "femalevalue", "country": "Norwegia"},
    "runs": Path("/secret/place/runs"),
    "seed": 3,
}


def a_record(index: int) -> dict[str, Any]:
    """A finished cell as the ledger stores it, forbidden parts included."""
    scores = {domain: 0.5 + index + 0.1 * place for place, domain in enumerate(DOMAINS)}
    return {
        "respondent": RAW_IDS[index],
        "answers": {"9": 4, "10": 2},
        "texts": {"9": "Worry about rain"},
        "audit": {"9": "Worry about rain"},
        "truth": {"9": 5},
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
    runs = tmp_path / "runs"
    tracker = make_tracker({"name": "wandb", "project": "test", "entity": None, "mode": "auto", "folder": None}, runs)
    tracker.start_row(CONFIG, name="few_shot-smollm2_135m", group="table1", tags=["corrected"])
    tracker.log_person(a_record(0))
    tracker.log_person(a_record(1))
    tracker.finish_row({"method": "few_shot", "composite_low": float("nan"), "missing_cells": 2})
    table = pd.DataFrame(
        {
            "method": ["few_shot", "ridge"],
            "composite": np.array([6.5, np.nan]),
            "respondents": [2, 2],
            "note": [None, "best"],
        }
    )
    tracker.log_table(table, [picture, tmp_path / "scores.pdf"], "Two people, corrected")
    found = [RunRead(folder) for folder in sorted((runs / "wandb").glob("offline-run-*"))]
    return {each.run.display_name: each for each in found}


def test_a_row_is_one_run_with_its_people_and_its_own_summary(tracked: dict[str, RunRead]) -> None:
    row = tracked["few_shot-smollm2_135m"]
    assert (row.run.project, row.run.run_group, row.run.job_type) == ("test", "table1", "row")
    assert list(row.run.tags) == ["corrected"]
    first, second, _ = row.history
    assert first["person"] == 1 and second["person"] == 2
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
    salt = read_salt(tmp_path / "runs" / ".salt")
    hashes = [row[people["columns"].index("respondent")] for row in people["data"]]
    assert hashes == [hashed_id(salt, respondent_id) for respondent_id in RAW_IDS]
    assert people["data"][1][people["columns"].index("openness")] is None
    assert people["data"][1][people["columns"].index("trait/extraversion")] == 4.25


def test_the_table_and_its_picture_are_a_run_of_their_own(tracked: dict[str, RunRead], picture: Path) -> None:
    assert len(tracked) == 2
    run = tracked["table"]
    assert (run.run.run_group, run.run.job_type, run.run.notes) == ("table1", "table", "Two people, corrected")
    table = run.table("table")
    assert table["columns"] == ["method", "composite", "respondents", "note"]
    assert table["data"] == [["few_shot", 6.5, 2, None], ["ridge", None, 2, "best"]]
    (stored,) = (run.folder / "files/media/images").iterdir()
    assert stored.read_bytes() == picture.read_bytes()


def test_nothing_private_is_in_any_byte_of_the_runs(tracked: dict[str, RunRead], tmp_path: Path) -> None:
    row = tracked["few_shot-smollm2_135m"]
    assert row.config["method"] == CONFIG["method"]
    assert row.config["model"] == {"name": "smollm2_135m", "max_new_tokens": 15}
    assert row.config["respondents"] == {"name": "file", "limit": 2}
    assert row.config["seed"] == 3
    salt = read_salt(tmp_path / "runs" / ".salt")
    files = [path for path in (tmp_path / "runs" / "wandb").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for path in files:
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


def test_public_config_keeps_what_explains_a_number() -> None:
    plain = {"method": {"k": 24, "system_prompt": "few_shot"}, "model": {"num_key_value_heads": 3, "revision": None}}
    assert public_config(plain) == plain
    assert public_config({"model": {"name_or_path": "owner/model", "dtype": "float32"}}) == {
        "model": {"name_or_path": "owner/model", "dtype": "float32"}
    }
    places = [
        "/data/m",
        "~/m",
        "./m",
        "../m",
        "C:\\m",
        "http://host/m",
        "people of /data/m",
        "tests/tracking/test_wandb.py",
    ]
    assert public_config({"values": places[:-1], "respondents": "papi"}) == {"values": [], "respondents": "papi"}
    assert public_config({"names": [np.float32(0.5), b"bytes", object(), ["a", {"id": 1}]]}) == {
        "names": [0.5, ["a", {}]]
    }


def test_public_config_takes_an_existing_relative_path_for_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert public_config({"name_or_path": "models/mine"}) == {"name_or_path": "models/mine"}
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert public_config({"name_or_path": "models/mine"}) == {}


def test_modes(tmp_path: Path) -> None:
    nobody = {"NETRC": str(tmp_path / "none")}
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


def test_a_key_in_netrc_counts_for_its_host_only(tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine api.wandb.ai\n  login user\n  password {'k' * 40}\n")
    path.chmod(0o600)
    assert has_api_key({"NETRC": str(path)})
    assert not has_api_key({"NETRC": str(path), "WANDB_BASE_URL": "https://wandb.example.org"})
    path.write_text("this is no netrc")
    assert not has_api_key({"NETRC": str(path)})


def test_make_tracker_names_the_wrong_key() -> None:
    assert isinstance(make_tracker({"name": "none"}), NoTracker)
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


def everything(tracker: WandbTracker) -> None:
    tracker.start_row(CONFIG, "row", "group")
    tracker.log_person(a_record(0))
    tracker.log_person(a_record(1))
    tracker.finish_row({"composite": 1.0})
    tracker.log_table(pd.DataFrame({"method": ["a"]}), [], "title")


def test_a_failing_tracker_says_so_once_and_steps_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    with caplog.at_level(logging.WARNING):
        everything(WandbTracker(mode="offline", folder=blocked / "runs", salt_file=tmp_path / ".salt"))
    (warning,) = caplog.messages
    assert "NotADirectoryError" in warning and "ledger" in warning and "\n" not in warning


def test_a_run_that_breaks_off_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    with caplog.at_level(logging.WARNING):
        tracker.start_row(CONFIG, "row", "group")
        tracker.log_person(a_record(0))
        tracker._run.finish()  # what a crashed W&B service looks like from here: logging to it raises
        tracker.log_person(a_record(1))
        tracker.finish_row({"composite": 1.0})
    assert len(caplog.messages) == 1
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert [row["person"] for row in RunRead(folder).history] == [1]


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
