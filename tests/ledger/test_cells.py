"""The ledger: whole cells or none, whatever happens to process, disk or file, and exactly what is missing."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palign_bench.files import LedgerError, canonical, read_json, write_atomically, write_json
from palign_bench.ledger.cells import CellFolder, fingerprint
from palign_bench.settings import UserError
from tests.ledger.cells import IDENTITY, a_record
from tests.ledgers import kept_folder, row_of

AWKWARD_IDS = [
    "172481", "../../escape", "..", ".", "a/b", "a\\b", "a.error", "x.json", "x.error.json", "ümlaut 你好", "%2E",
    "a b", "~", "-rf", "*", "con", "x" * 160, "é" * 30, "A", "a", ".hidden",
]  # fmt: skip


def leftovers(path: Path) -> list[str]:
    """Temporary files that a failed write forgot."""
    return [each.name for each in path.rglob("*.tmp")]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond ``size`` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_writing_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file.json"
    write_json(path, {"ü": [1, None]})
    assert read_json(path) == {"ü": [1, None]}
    write_atomically(path, "short")
    assert path.read_text() == "short"
    assert [each.name for each in path.parent.iterdir()] == ["file.json"]


def test_files_can_be_read_by_whom_the_folder_allows(tmp_path: Path) -> None:
    """A ledger shared by a group follows the umask, as every other file does."""
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_atomically(tmp_path / "kept", "x")
    assert (tmp_path / "kept").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_failing_step_leaves_the_old_content(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(step, full)
        with pytest.raises(LedgerError, match=r"cannot write .*file\.json: No space left on device\. .*runs=PATH"):
            write_atomically(path, "new")
        with pytest.raises(LedgerError):
            write_atomically(tmp_path / "first.json", "new")
    assert path.read_text() == "old"
    assert not (tmp_path / "first.json").exists() and not leftovers(tmp_path)


def test_a_disk_that_fills_up_midway(tmp_path: Path, folder: CellFolder) -> None:
    folder.record("before", a_record("before"))
    body = a_record("after") | {"texts": {str(n): "x" * 1000 for n in range(180)}}
    with largest_file(50_000), pytest.raises(LedgerError) as caught:
        folder.record("after", body)
    assert "\n" not in str(caught.value) and isinstance(caught.value, UserError)
    assert folder.finished() == {"before"} and not leftovers(tmp_path)
    folder.record("after", body)
    assert folder.read("after") == body


def test_an_interruption_in_the_middle_of_a_write_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file.json", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LedgerError, match=r"taken.*: Not a directory|File exists"):
        kept_folder(tmp_path / "taken", "name", IDENTITY)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o500)
    with pytest.raises(LedgerError, match="Permission denied"):
        kept_folder(tmp_path / "runs", "name", IDENTITY)


def test_kill_dash_nine_in_the_middle_of_writing(tmp_path: Path) -> None:
    """A process that rewrites one file without pause is killed ten times; the file is whole each time."""
    path = tmp_path / "file.json"
    code = (
        "import sys, itertools; from pathlib import Path; from palign_bench.ledger.cells import write_json\n"
        "for n in itertools.count(): write_json(Path(sys.argv[1]), {'n': n, 'long': ['x' * 100] * 2000, 'end': n})"
    )
    for round_ in range(10):
        path.unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-c", code, str(path)])
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.003 * round_)
        process.send_signal(signal.SIGKILL)
        process.wait()
        document = read_json(path)
        assert document["n"] == document["end"] and len(document["long"]) == 2000


def test_a_record_comes_back_as_stored(folder: CellFolder) -> None:
    body = a_record("1") | {"log_probs": {"9": [-0.1, -2.5, -3.0, -4.0, -1e-30]}, "text": 'Option (A)"\n<|im_end|> ü'}
    folder.record("1", body)
    assert folder.read("1") == body
    assert folder.read("2") is None
    assert folder.finished() == {"1"}


def test_a_record_that_is_no_number_is_refused(folder: CellFolder) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        folder.record("1", {"score": float("nan")})
    assert folder.finished() == set()


def test_awkward_ids_stay_inside_the_folder_and_apart(tmp_path: Path, folder: CellFolder) -> None:
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for respondent_id in AWKWARD_IDS:
        folder.fail(respondent_id, ValueError(respondent_id))
    assert folder.failures() == {respondent_id: f"ValueError: {respondent_id}" for respondent_id in AWKWARD_IDS}
    assert folder.finished() == set()
    for respondent_id in AWKWARD_IDS:
        folder.record(respondent_id, a_record(respondent_id))
    assert folder.finished() == set(AWKWARD_IDS) and folder.failures() == {}
    for respondent_id in AWKWARD_IDS:
        assert folder.read(respondent_id) == a_record(respondent_id)
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.parent for path in written} == {folder.path / "respondents"}
    assert len(written) == len(AWKWARD_IDS)


@settings(max_examples=150, deadline=None)
@given(first=st.text(min_size=1, max_size=20), second=st.text(min_size=1, max_size=20))
def test_no_two_ids_share_a_file(tmp_path_factory: pytest.TempPathFactory, first: str, second: str) -> None:
    try:
        (first + second).encode()
    except UnicodeEncodeError:  # a lone surrogate is no text that a file could hold
        return
    folder = CellFolder(tmp_path_factory.mktemp("ids"))
    folder.record(first, a_record(first))
    folder.record(second, a_record(second))
    assert folder.finished() == {first, second}
    assert folder.read(first) == a_record(first)


def test_a_failure_is_told_until_the_cell_is_finished(folder: CellFolder) -> None:
    try:
        raise RuntimeError("out of luck")
    except RuntimeError as error:
        folder.fail("1", error)
    assert folder.failures() == {"1": "RuntimeError: out of luck"}
    stored = read_json(folder.path / "respondents" / "1.error.json")
    assert "Traceback" in stored["traceback"] and 'raise RuntimeError("out of luck")' in stored["traceback"]
    assert row_of("few_shot", folder, ("1",)).missing() == ["1"]
    folder.record("1", a_record("1"))
    assert folder.failures() == {} and folder.finished() == {"1"}


def test_a_kill_between_record_and_forgetting_the_failure(folder: CellFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.fail("1", ValueError("x"))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        folder.record("1", a_record("1"))
    assert (folder.path / "respondents" / "1.error.json").exists()
    assert folder.finished() == {"1"} and folder.failures() == {}


def changed(document: Any) -> Iterator[Any]:
    """Every document that differs from this one in one leaf."""
    if isinstance(document, dict):
        for key, value in document.items():
            for other in changed(value):
                yield document | {key: other}
            yield {k: v for k, v in document.items() if k != key}
            yield {(f"{k}_" if k == key else k): v for k, v in document.items()}
    elif isinstance(document, list):
        yield document[::-1]
        yield document[:-1]
    elif isinstance(document, str):
        yield document + " "
    else:
        yield 1 if document is None else None
        yield 17


def test_fingerprint_changes_with_anything_and_not_with_order() -> None:
    others = [fingerprint(each) for each in changed(IDENTITY)]
    assert len(others) > 15
    assert len({fingerprint(IDENTITY), *others}) == 1 + len({canonical(each) for each in changed(IDENTITY)})
    reordered = dict(reversed(IDENTITY.items()))
    assert fingerprint(reordered) == fingerprint(IDENTITY)
    assert len(fingerprint(IDENTITY)) == 12 and int(fingerprint(IDENTITY), 16) >= 0


def test_fingerprint_is_a_hash_of_plain_json() -> None:
    """From `sha256sum` of {"a":{"ü":"x"},"b":[1,2.5,null,true]}: a change here orphans all cells on users' disks."""
    assert fingerprint({"b": [1, 2.5, None, True], "a": {"ü": "x"}}) == "55f2191f7fd5"


def test_folders_of_different_identities_differ_and_keep_their_settings(tmp_path: Path) -> None:
    one = kept_folder(tmp_path, "name", IDENTITY, {"runs": "a"})
    same = kept_folder(tmp_path, "name", IDENTITY, {"runs": "b"})
    other = kept_folder(tmp_path, "name", IDENTITY | {"seed": 1}, {"runs": "a"})
    assert one == same != other
    assert one.path.name == f"name-{fingerprint(IDENTITY)}" and one.path.parent == tmp_path / "cells"
    assert one.identity() == IDENTITY and other.identity()["seed"] == 1
    assert (one.path / "config.yaml").read_text() == "runs: a\n"


def test_provenance_grows_and_the_first_shared_cost_stays(folder: CellFolder) -> None:
    assert folder.provenance() == [] and folder.shared() == {}
    for commit in ("a", "b", "a"):
        folder.write_provenance({"git_commit": commit})
    assert folder.provenance() == [{"git_commit": "a"}, {"git_commit": "b"}]
    folder.write_shared({"load_seconds": 1.5})
    folder.write_shared({"load_seconds": 99.0})
    assert folder.shared() == {"load_seconds": 1.5}


def test_conditions_of_measurement_add_up(tmp_path: Path) -> None:
    folder = kept_folder(tmp_path, "pas", {"method": {"name": "pas"}})
    assert folder.measurement() == []
    kept = [{"cost_repeats": repeats, "load_averages": [load]} for repeats, load in ((3, 0.5), (2, 1.5))]
    for conditions in kept:
        folder.add_measurement(conditions)
    assert folder.measurement() == kept


def test_unreadable_json_names_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    for content in (b"{", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(LedgerError, match=r"cannot read .*identity\.json: .* Delete it and run the same command"):
            read_json(path)


@pytest.mark.parametrize("content", ["[1]", "null", '"text"'])
def test_a_file_beside_the_cells_that_holds_something_else_is_named(tmp_path: Path, content: str) -> None:
    folder = kept_folder(tmp_path, "pas", {"method": {"name": "pas"}})
    for kept in (folder.identity, folder.provenance, folder.measurement, folder.shared):
        (folder.path / f"{kept.__name__}.json").write_text(content)
        with pytest.raises(LedgerError, match=rf"{kept.__name__}\.json is damaged: delete it"):
            kept()
