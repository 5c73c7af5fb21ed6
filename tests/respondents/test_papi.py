"""Loading PAPI: turning stored into literal answers, and the download, served here on loopback.

Tests of the download use an invented release of two people; those that take the fixture ``papi`` need the real files.
"""

import hashlib
import http.server
import json
import os
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.respondents.papi import ANSWERS, PORTRAITS, RELEASE, SPLIT, load_papi
from palign_bench.respondents.released import (
    FOLDER_VARIABLE,
    Release,
    ReleaseUnavailableError,
    cache_folder,
)
from palign_bench.respondents.source import RespondentsError, RespondentSource

REAL_FOLDER = Path(os.environ.get(FOLDER_VARIABLE) or cache_folder())  # before a test changes the environment


@dataclass
class Site:
    """A web server on loopback; ``faults`` maps a file name to what goes wrong, and how many times."""

    url: str
    faults: dict[str, tuple[str, int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urllib.request.install_opener(None)  # type: ignore[arg-type]  # it remembers the proxies of its first use
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PALIGN_CACHE_DIR", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.fixture
def invented(tmp_path: Path, inventory: Inventory) -> Path:
    """A folder with a release of two people: the first picked 5 throughout, the second 2 and left item 1 out."""
    folder = tmp_path / "published"
    folder.mkdir()
    rows = []
    for case, literal in ((11, 5), (22, 2)):
        stored = {f"i{item.number}": literal if item.sign > 0 else 6 - literal for item in inventory.items}
        rows.append({"case": case, "sex": 1, "age": 7171, "country": "Ruritania", "hour": 13} | stored)
    rows[1]["i1"] = 0
    split = {"train_index": list(inventory.known), "test_index": list(inventory.held_out)}
    portraits = [{"input": "…", "output": [f"You are person {k}."]} for k in (1, 2)]
    for name, document in ((ANSWERS, rows), (SPLIT, split), (PORTRAITS, portraits)):
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture
def site(invented: Path) -> Iterator[Site]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            site.requests.append(name)
            fault, left = site.faults.get(name, ("", 0))
            site.faults[name] = (fault, left - 1)
            content = (invented / name).read_bytes()
            if left <= 0:
                fault = ""
            self.send_response(503 if fault == "unavailable" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault == "wrong":
                content = content.replace(b"1", b"3")
            self.wfile.write(content[: len(content) // 2] if fault == "broken" else content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_address[1]}/PAPI")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def _release(folder: Path, url: str = "http://127.0.0.1:9/PAPI") -> Release:
    contents = {name: (folder / name).read_bytes() for name in (ANSWERS, SPLIT, PORTRAITS)}
    return Release(url, {name: (hashlib.sha256(c).hexdigest(), len(c)) for name, c in contents.items()})


def _cached() -> list[str]:
    return sorted(path.name for path in cache_folder().iterdir())


def test_stored_answers_become_literal(invented: Path, inventory: Inventory) -> None:
    source = load_papi(str(invented), release=_release(invented))
    first, second = source.people
    everything = {item.number for item in inventory.items}
    assert dict(first.answers) == dict.fromkeys(everything, 5)
    assert dict(second.answers) == dict.fromkeys(everything - {1}, 2)
    assert (first.id, second.id) == ("11", "22")
    assert (first.portrait, second.portrait) == ("You are person 1.", "You are person 2.")
    assert (source.name, source.description) == ("papi", "2 people of PAPI")


def test_nothing_else_about_a_person_leaves_the_loader(invented: Path) -> None:
    source = load_papi(str(invented), release=_release(invented))
    told = repr(source.people)
    assert "Ruritania" not in told
    assert "7171" not in told
    assert {name for person in source.people for name in vars(person)} == {"id", "answers", "portrait"}


@pytest.fixture
def groups_umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_download_fills_the_cache_once(
    site: Site, invented: Path, groups_umask: None, capsys: pytest.CaptureFixture[str]
) -> None:
    release = _release(invented, site.url)
    source = load_papi(release=release)
    assert source == load_papi(str(invented), release=release)
    assert _cached() == sorted(release.files)
    assert {path.stat().st_mode & 0o777 for path in cache_folder().iterdir()} == {0o640}  # the umask's, for a group
    assert "Downloading PAPI: 100%" in capsys.readouterr().err
    assert load_papi(release=release) == source
    assert sorted(site.requests) == sorted(release.files)


def test_a_damaged_file_in_the_cache_is_fetched_again(site: Site, invented: Path) -> None:
    release = _release(invented, site.url)
    source = load_papi(release=release)
    (cache_folder() / SPLIT).write_text("{}", encoding="utf-8")
    assert load_papi(release=release) == source
    assert site.requests.count(SPLIT) == 2


@pytest.mark.parametrize("fault", ["broken", "unavailable"])
def test_one_failure_is_retried(site: Site, invented: Path, fault: str) -> None:
    site.faults[PORTRAITS] = (fault, 1)
    assert len(load_papi(release=_release(invented, site.url)).people) == 2
    assert site.requests.count(PORTRAITS) == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("broken", "download of Test-set.json failed: the connection broke off after"),
        ("unavailable", "download of Test-set.json failed: Service Unavailable"),
        ("wrong", r"the downloaded Test-set.json is not the released file \(its SHA-256 differs\)"),
    ],
)
def test_lasting_failure_is_one_line_and_leaves_nothing(site: Site, invented: Path, fault: str, told: str) -> None:
    site.faults[ANSWERS] = (fault, 99)
    with pytest.raises(ReleaseUnavailableError, match=told) as caught:
        load_papi(release=_release(invented, site.url))
    message = str(caught.value)
    assert "\n" not in message
    assert f"{site.url}/{ANSWERS}" in message
    assert f"{FOLDER_VARIABLE} or respondents.folder" in message
    assert "respondents=simulated" in message
    assert _cached() == []
    assert site.requests == [ANSWERS] * (1 if fault == "wrong" else 2)


def test_what_came_before_a_failure_is_kept(site: Site, invented: Path) -> None:
    site.faults[PORTRAITS] = ("broken", 2)
    release = _release(invented, site.url)
    with pytest.raises(ReleaseUnavailableError):
        load_papi(release=release)
    assert _cached() == sorted([ANSWERS, SPLIT])
    assert len(load_papi(release=release).people) == 2
    assert site.requests.count(ANSWERS) == 1


def test_no_server_and_no_permission_to_download_are_told(
    invented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ReleaseUnavailableError, match=r"download of Test-set\.json failed: Connection refused"):
        load_papi(release=_release(invented))
    with pytest.raises(ReleaseUnavailableError, match=r"lacks .* and downloading is off"):
        load_papi(download=False, release=_release(invented))
    (tmp_path / "occupied").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("PALIGN_CACHE_DIR", str(tmp_path / "occupied"))
    with pytest.raises(ReleaseUnavailableError, match="cannot write to the cache folder"):
        load_papi(release=_release(invented))


def test_folder_precedence(invented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = _release(invented)
    monkeypatch.setenv(FOLDER_VARIABLE, str(invented))
    assert len(load_papi(release=release).people) == 2
    with pytest.raises(RespondentsError, match=r"respondents.folder=.* is no folder"):
        load_papi(str(tmp_path / "elsewhere"), release=release)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "elsewhere"))
    with pytest.raises(RespondentsError, match=rf"{FOLDER_VARIABLE}=.* is no folder"):
        load_papi(release=release)
    assert len(load_papi(str(invented), release=release).people) == 2


def test_a_named_folder_must_be_as_released(invented: Path) -> None:
    release = _release(invented)
    (invented / SPLIT).write_text("{}", encoding="utf-8")
    with pytest.raises(RespondentsError, match=rf"{SPLIT} is not the released file") as caught:
        load_papi(str(invented), release=release)
    assert not isinstance(caught.value, ReleaseUnavailableError)
    (invented / SPLIT).unlink()
    with pytest.raises(RespondentsError, match=rf"lacks {SPLIT}"):
        load_papi(str(invented), release=release)


def test_another_split_is_refused(invented: Path, inventory: Inventory) -> None:
    split = {"train_index": list(reversed(inventory.known)), "test_index": list(inventory.held_out)}
    (invented / SPLIT).write_text(json.dumps(split), encoding="utf-8")
    with pytest.raises(RespondentsError, match="splits the items otherwise"):
        load_papi(str(invented), release=_release(invented))


def test_auto_says_why_people_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    source = load_respondents({"name": "auto", "count": 4, "limit": 2, "ids": None}, ipip_neo_300())
    assert source.name == "simulated"
    told = "4 simulated people (PAPI not reachable: download of Test-set.json failed: Connection refused)"
    assert source.description == told
    with pytest.raises(ReleaseUnavailableError):
        load_respondents({"name": "papi"}, ipip_neo_300())


def test_auto_does_not_pass_over_a_folder_that_is_not_as_released(invented: Path) -> None:
    with pytest.raises(RespondentsError, match="is not the released file"):
        load_respondents({"name": "auto", "folder": str(invented)}, ipip_neo_300())  # the real checksums


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "respondents.name=None: choose one of papi, simulated, file, dark_triad, auto"),
        ({"name": "mturk"}, "respondents.name=mturk: choose one of"),
        ({"name": "simulated", "folder": "x"}, "respondents.folder is no setting of respondents=simulated"),
        ({"name": "papi", "download": "perhaps"}, "respondents.download=perhaps: give true or false"),
        ({"name": "file"}, "respondents.path is not set"),
        ({"name": "file", "path": 7}, "7: name the file .csv, .tsv or .txt"),
    ],
)
def test_bad_settings_are_told(settings: dict[str, object], told: str) -> None:
    with pytest.raises(RespondentsError, match=told):
        load_respondents(settings, ipip_neo_300())


def test_real_people(papi: RespondentSource, inventory: Inventory) -> None:
    assert len(papi.people) == len({person.id for person in papi.people}) == 300
    incomplete = [person for person in papi.people if len(person.answers) < 300]
    assert sum(300 - len(person.answers) for person in incomplete) == 52
    assert len(incomplete) == 41
    assert {value for person in papi.people for value in person.answers.values()} == {1, 2, 3, 4, 5}
    portraits = [person.portrait for person in papi.people]
    assert all(portrait and "You" in portrait for portrait in portraits)
    assert len(set(portraits)) == 300


def test_real_answers_are_literal(papi: RespondentSource, inventory: Inventory) -> None:
    """Trusting and distrusting people go against each other in literal answers (+0.73 as stored)."""
    by_text = {item.text: item.number for item in inventory.items}
    trust, distrust = by_text["Trust others."], by_text["Distrust people."]
    both = [person.answers for person in papi.people if trust in person.answers and distrust in person.answers]
    pairs = [(answers[trust], answers[distrust]) for answers in both]
    assert np.corrcoef(np.array(pairs).T)[0, 1] == pytest.approx(-0.73, abs=0.01)


def test_always_c_scores_as_measured(papi: RespondentSource, inventory: Inventory) -> None:
    """The floor 3.792 of the released test set, computed here from scratch."""
    composites = []
    for person in papi.people:
        composite = 0.0
        for domain in "ACENO":
            held_out = [n for n in inventory.held_out if inventory[n].scale == domain and n in person.answers]
            composite += sum(abs(person.answers[n] - 3) for n in held_out) / len(held_out)
        composites.append(composite)
    assert sum(composites) / len(composites) == pytest.approx(3.792, abs=0.0005)


def test_the_pinned_checksums_are_those_of_the_real_files(papi: RespondentSource, tmp_path: Path) -> None:
    """A copy loads, with its sizes as pinned; one changed byte is caught."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in RELEASE.files:
        shutil.copyfile(REAL_FOLDER / name, copy / name)
    assert {name: (copy / name).stat().st_size for name in RELEASE.files} == {
        n: s for n, (_, s) in RELEASE.files.items()
    }
    assert load_papi(str(copy)) == papi
    content = (copy / ANSWERS).read_bytes()
    (copy / ANSWERS).write_bytes(content.replace(b"3", b"4", 1))
    with pytest.raises(RespondentsError, match=f"{ANSWERS} is not the released file"):
        load_papi(str(copy))
