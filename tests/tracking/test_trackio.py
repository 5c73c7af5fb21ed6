"""Real runs of Trackio, read back through the server that `trackio show` starts."""

import json
import os
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palign_bench.settings import UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.public import hashed_id, read_salt
from tests.tracking.rows import FORBIDDEN, IDENTITY, RAW_IDS, SCALE_OF, a_record, row_and_table


@pytest.fixture(scope="module", autouse=True)
def trackio_folder() -> Path:
    """Where Trackio keeps everything during the tests (`tests/conftest.py`)."""
    pytest.importorskip("trackio", reason="trackio is optional")
    return Path(os.environ["TRACKIO_DIR"])


@pytest.fixture
def project() -> str:
    return f"test-{uuid.uuid4().hex}"


def test_a_finished_row_is_wanted_until_there_is_a_run_of_it(tmp_path: Path, project: str) -> None:
    settings = {"name": "trackio", "project": project}
    tracker = make_tracker(settings, tmp_path)
    assert tracker.wants_finished_row("table1", "row-0123", RAW_IDS[:1])
    row_and_table(tracker, [a_record(0)])
    again = make_tracker(settings, tmp_path)
    assert not again.wants_finished_row("table1", "row-0123", RAW_IDS[:1])
    for experiment, key, people in (("table1", "row-4567", 1), ("another", "row-0123", 1), ("table1", "row-0123", 2)):
        assert again.wants_finished_row(experiment, key, RAW_IDS[:people])
    again.start_row(IDENTITY, "row", "table1", key="row-0123")  # cut off
    assert again.wants_finished_row("table1", "row-0123", RAW_IDS[:1])


class Server:
    """The local server of Trackio, asked over HTTP."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def ask(self, what: str, **arguments: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/{what}", json.dumps(arguments).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def runs(self, project: str) -> dict[str, str]:
        """The id of every run, by its name."""
        return {each["name"]: each["id"] for each in self.ask("get_runs_for_project", project=project)}

    def logged(self, project: str, id_: str) -> dict[str, dict[int, Any]]:
        """What a run has logged: by name, then by step."""
        found: dict[str, dict[int, Any]] = {}
        for line in self.ask("get_logs", project=project, run_id=id_):
            for name, value in line.items():
                if name not in ("step", "timestamp") and value is not None:
                    steps = found.setdefault(name, {})
                    assert line["step"] not in steps, f"{name} was logged twice at step {line['step']}"
                    steps[line["step"]] = value
        return found


@pytest.fixture
def server(trackio_folder: Path) -> Iterator[Server]:
    import trackio

    app, url, *_ = trackio.show(open_browser=False, block_thread=False, host="127.0.0.1", share=False)
    yield Server(url)
    app.close()


def follow(project: str, runs: Path, people: list[dict[str, Any]], picture: Path) -> None:
    tracker = make_tracker({"name": "trackio", "project": project}, runs)
    tracker.start_row(
        IDENTITY | {"runs": "/secret/place"}, "few/shot-0", "table1", ("few_shot",), key="few_shot-0", scale_of=SCALE_OF
    )
    for record in people:
        tracker.log_person(record)
    tracker.finish_row({"missing_cells": 1, "composite_low": float("nan")})
    table = pd.DataFrame(
        {
            "method": ["few_shot", "ridge"],
            "composite": np.array([4.5, np.nan]),
            "people": pd.array([2, None], "Int64"),
            "note": [RAW_IDS] * 2,
        }
    )
    tracker.log_table(table, [picture], "table1", "tiny-corrected", SCALE_OF)


def test_rows_people_and_tables_are_served_and_nothing_private(
    tmp_path: Path, project: str, picture: Path, server: Server
) -> None:
    people = [a_record(0), a_record(1)]
    follow(project, tmp_path / "ledger-of-somebody", people, picture)

    runs = server.runs(project)
    (row,), (table,) = [[name for name in runs if name.startswith(kind)] for kind in ("few_shot-0-", "table-")]
    config = server.ask("get_run_configs", project=project)
    kept = next(each for key, each in config.items() if key in (row, runs[row]))
    assert kept["seed"] == 3 and kept["method"] == {"name": "few_shot", "k": 24, "alphas": [0, 1, 2.5]}
    assert kept["tags"] == ["few_shot"] and kept["_Group"] == "table1" and kept["_Username"] is None

    told = server.logged(project, runs[row])
    assert sorted(told["person/composite"]) == [1, 2]
    assert sorted(told["person/composite"].values()) == pytest.approx([each["scores"]["composite"] for each in people])
    assert len(told["person/openness"]) == 1  # the second person has none
    assert told["mean/answer_seconds"] == {2: pytest.approx(2.0)} and told["mean/missing_cells"] == {2: 1}
    assert told["people_finished"] == {1: 1, 2: 2}
    salt = read_salt(tmp_path / "ledger-of-somebody" / ".salt")
    listed = told["people"][2]["_value"]
    assert [each["respondent"] for each in listed] == sorted(hashed_id(salt, each) for each in RAW_IDS)

    shown = server.logged(project, runs[table])
    assert shown["table"][0]["_value"] == [
        {"method": "few_shot", "composite": 4.5, "people": 2},
        {"method": "ridge", "composite": None, "people": None},
    ]
    assert set(shown) == {"table", "picture/run", "mean/rows"}
    everything = json.dumps([config, told, shown])
    assert hashed_id(salt, RAW_IDS[0]) in everything
    for private in (*FORBIDDEN, salt):
        assert private not in everything


def test_a_restart_replaces_its_run(
    tmp_path: Path, project: str, picture: Path, server: Server, trackio_folder: Path
) -> None:
    interrupted = make_tracker({"name": "trackio", "project": project}, tmp_path)
    interrupted.start_row(IDENTITY, "few/shot-0", "table1", key="few_shot-0", scale_of=SCALE_OF)
    interrupted.log_person(a_record(0))
    interrupted._run.finish()  # type: ignore[attr-defined]  # what was logged is written
    follow(project, tmp_path, [a_record(0)], picture)
    first = server.runs(project)
    follow(project, tmp_path, [a_record(0), a_record(1)], picture)
    assert server.runs(project) == first and len(first) == 2
    (row,) = [id_ for name, id_ in first.items() if name.startswith("few_shot")]
    assert server.logged(project, row)["people_finished"] == {1: 1, 2: 2}
    assert len(list((trackio_folder / "media" / project).rglob("*.png"))) == 1
    follow(project, tmp_path / "another", [a_record(0)], picture)
    assert len(server.runs(project)) == 4  # another ledger's runs are others


def test_nothing_is_asked_of_the_network_or_said_on_the_console(
    tmp_path: Path, project: str, picture: Path, monkeypatch: Any, capfd: Any
) -> None:
    """A token of the hub, or a Space in the environment, takes nothing there."""
    import trackio

    asked: list[Any] = []
    monkeypatch.setattr("trackio.run._get_default_namespace", lambda: asked.append("who") or "somebody")
    monkeypatch.setattr("trackio.run.RemoteClient", lambda *each, **_: asked.append(each))
    for name, value in {"HF_TOKEN": "hf_x", "TRACKIO_SPACE_ID": "me/space", "TRACKIO_SERVER_URL": "http://x"}.items():
        monkeypatch.setenv(name, value)
    follow(project, tmp_path, [a_record(0)], picture)
    assert not asked and capfd.readouterr() == ("", "")
    trackio.Run(url=None, client=None, project=project, name="unprotected").finish()
    assert asked == ["who"]  # Trackio's own way of making a run
    assert len(list(trackio.Api().runs(project))) == 2


def test_what_cannot_be_kept_is_said_once(
    tmp_path: Path, project: str, picture: Path, monkeypatch: Any, caplog: Any
) -> None:
    from trackio import sqlite_storage

    blocked = tmp_path / "file"
    blocked.write_text("no folder can be made here")
    monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", blocked / "trackio")
    follow(project, tmp_path, [a_record(0)], picture)
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("palign_bench")]
    assert warning.startswith("Trackio could not keep everything (NotADirectoryError")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"projekt": "x"}, r"tracking\.projekt: no such key; the keys are name, project"),
        ({"project": "registry-x"}, r"tracking\.project=registry-x: .*reserved"),
    ],
)
def test_refused(settings: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        make_tracker({"name": "trackio"} | settings)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match="tracking=trackio needs the package trackio: pip install trackio"):
        make_tracker({"name": "trackio"})
