"""The digest kept beside verified cells: the same table with and without it, and never a wrong one."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.ledger_scale import a_record, make_ledger
from palign_bench.files import LedgerError, WriteError
from palign_bench.ledger import index as verification
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.columns import Digest
from palign_bench.ledger.record import content_of, intact_record
from palign_bench.report import make_report
from palign_bench.report.table import build_report
from tests.ledgers import plan_of, row_of

PEOPLE, ROWS = 12, 3
TABLES = [f"scale.{kind}" for kind in ("csv", "json", "md", "tex", "png", "pdf")]


@pytest.fixture(autouse=True)
def keep_small_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_WORTH_KEEPING", 5)
    monkeypatch.setattr(verification, "_BATCH", 7)


def digests(runs: Path) -> list[Path]:
    return sorted(runs.glob("cells/*/digest.npz"))


@pytest.fixture
def records_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cell files that are read from here on."""
    read: list[str] = []

    def counted(path: Path) -> Any:
        read.append(path.name)
        return intact_record(path)

    monkeypatch.setattr(verification, "intact_record", counted)
    return read


def test_a_table_from_digests_is_the_table_from_records(
    tmp_path: Path, records_read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_ledger(tmp_path, PEOPLE * ROWS, ROWS)
    with monkeypatch.context() as patched:
        patched.setattr(verification, "_WORTH_KEEPING", 1000)
        make_report(plan)
    assert not digests(tmp_path) and len(records_read) == PEOPLE * ROWS
    from_records = {name: (plan.folder / name).read_bytes() for name in TABLES}
    make_report(plan)  # makes and keeps them
    assert len(digests(tmp_path)) == ROWS
    records_read.clear()
    make_report(plan)
    assert records_read == []
    assert from_records == {name: (plan.folder / name).read_bytes() for name in TABLES}


def test_listing_makes_the_digest_and_more_cells_are_added(tmp_path: Path, records_read: list[str]) -> None:
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    assert planned.missing() == [] and len(digests(tmp_path)) == 1
    records_read.clear()
    generator = random.Random(5)
    for n in range(6):
        planned.folder.record(f"new{n}", a_record(f"new{n}", generator))
    assert len(planned.folder.finished()) == PEOPLE + 6 and sorted(records_read) == [f"new{n}.json" for n in range(6)]
    records_read.clear()
    ids, digest = planned.folder.digest(["new5", "nobody", "p000003"])
    assert ids == ["new5", "p000003"] and records_read == []
    records = [record for _, record in planned.folder.read_all(ids)]
    check_digest(digest, records)


def check_digest(digest: Digest, records: list[dict[str, Any]]) -> None:
    """Every number that a table takes from a digest is the record's."""
    assert len(digest) == len(records)
    for row, record in enumerate(records):
        for part, matrix in (("answers", digest.answers), ("truth", digest.truth_to(digest.items))):
            present = {
                str(n): v for n, v in zip(digest.items.tolist(), matrix[row].tolist(), strict=True) if not np.isnan(v)
            }
            assert present == record[part]
        for name in digest.columns:
            part, slash, key = name.partition("/")
            if slash:
                of = {"score": "scores", "trait": "traits", "person_trait": "person_traits", "cost": "cost"}[part]
                value = digest.figure(name)[row]
                assert value == record[of][key] if record[of].get(key) is not None else np.isnan(value), name


def test_answers_that_are_no_options_and_unequal_items(tmp_path: Path) -> None:
    generator = random.Random(1)
    records = [a_record(f"p{n}", generator) for n in range(4)]
    for record in records:
        record["log_probs"] = None
    records[1]["answers"] = {"9": 2.5, "10": 0, "299": -1}
    records[2]["truth"] = {}
    records[3]["scores"]["composite"] = None
    check_digest(Digest.of(records), records)
    check_digest(Digest.joined([Digest.of(records[:2]), Digest.of([]), Digest.of(records[2:])]), records)
    check_digest(Digest.of(records).take([3, 1]), [records[3], records[1]])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _nonsense(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 and nothing more")


def _a_pickle(path: Path) -> None:
    with np.load(path) as kept:
        parts = dict(kept)
    np.savez(path, **parts | {"figures": np.array([object()])})


def _changed(**parts: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with np.load(path) as kept:
            before = dict(kept)
        np.savez(path, **before | {name: work(before[name]) for name, work in parts.items()})

    return change


DAMAGES = [
    _truncate,
    _flip_a_bit,
    _empty,
    _nonsense,
    _a_pickle,
    _changed(version=lambda version: version + 1, figures=np.zeros_like),
    _changed(columns=lambda columns: columns[::-1], figures=np.zeros_like),
    _changed(figures=lambda figures: np.zeros_like(figures)[:-1]),
    _changed(answers=lambda answers: answers[:, :-1]),
    _changed(marks=lambda marks: marks[:-1]),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_digest_is_made_anew(tmp_path: Path, damage: Callable[[Path], None], records_read: list[str]) -> None:
    plan = make_ledger(tmp_path, PEOPLE, 1)
    expected = build_report(plan).rows
    (path,) = digests(tmp_path)
    records_read.clear()
    damage(path)
    assert build_report(plan).rows == expected and len(records_read) == PEOPLE
    assert build_report(plan).rows == expected and len(records_read) == PEOPLE


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    """Wherever the disk fails, the report is that of the records."""
    plan = make_ledger(tmp_path, 6, 1)
    expected = build_report(plan).rows
    (path,) = digests(tmp_path)
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(60):
        content = bytearray(whole)
        content[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(bytes(content))
        assert build_report(plan).rows == expected


def test_an_edited_cell_is_found_behind_the_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when size and modification time are put back."""
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    assert planned.missing() == []
    path = planned.folder.path / "respondents" / "p000003.json"
    before, content = path.stat(), path.read_text()
    edited = content.replace('"optimizer_steps":0', '"optimizer_steps":9')
    assert edited != content
    path.write_text(edited)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert build_report(plan).rows[0]["missing_cells"] == 1 and path.read_text() == edited
    assert planned.missing() == ["p000003"] and path.with_suffix(".damaged").exists()
    assert "p000003.json was damaged or edited" in capsys.readouterr().err


def test_a_cell_written_anew_replaces_the_digest_s(tmp_path: Path) -> None:
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    assert planned.missing() == []
    record = a_record("p000003", random.Random(99))
    record["scores"]["composite"] = 17.25
    planned.folder.record("p000003", record)
    assert planned.folder.digest(["p000003"])[1].figure("score/composite").tolist() == [17.25]
    (planned.folder.path / "respondents" / "p000004.json").unlink()
    assert planned.folder.digest(["p000004"])[0] == [] and planned.missing() == ["p000004"]


def test_a_file_may_have_any_name(tmp_path: Path, records_read: list[str]) -> None:
    """As the ledger would not write it."""
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    for name in ("Frau p3", "é"):
        record = planned.folder.read("p000003") or {}
        (planned.folder.path / "respondents" / f"{name}.json").write_bytes(content_of(record | {"respondent": name}))
    everyone = planned.folder.finished()
    assert len(everyone) == PEOPLE + 2 and {"Frau p3", "é"} < everyone
    records_read.clear()
    assert planned.folder.finished() == everyone and records_read == []


def test_a_cell_that_was_copied_under_another_name_is_nobodys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One person's answers would stand in the table for another's."""
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    assert planned.missing() == [] and digests(tmp_path)
    respondents = planned.folder.path / "respondents"
    for name in ("p000004", "p3 (copy)"):
        shutil.copy(respondents / "p000003.json", respondents / f"{name}.json")
    assert planned.folder.digest(["p000003", "p000004"])[0] == ["p000003"]
    assert build_report(plan).rows[0]["missing_cells"] == 1
    assert planned.missing() == ["p000004"]
    assert "p000004.json was damaged or edited" in capsys.readouterr().err
    assert not (respondents / "p3 (copy).json").exists()


def test_a_ledger_that_can_only_be_read_still_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_ledger(tmp_path, PEOPLE, 1)

    def refused(*_: Any) -> None:
        raise WriteError("read-only")

    with monkeypatch.context() as patched:
        patched.setattr(verification, "write_atomically", refused)
        report = build_report(plan)
    assert not digests(tmp_path) and report.rows == build_report(plan).rows and digests(tmp_path)


def test_two_writers_of_one_digest(tmp_path: Path) -> None:
    """The later one's stays; what it does not know is verified again."""
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), _ = plan.read()
    expected = build_report(plan).rows
    (path,) = digests(tmp_path)
    later = path.read_bytes()
    for n in range(6):
        planned.folder.record(f"new{n}", a_record(f"new{n}", random.Random(n)))
    assert len(planned.folder.finished()) == PEOPLE + 6 and path.read_bytes() != later
    path.write_bytes(later)  # of a process that had listed the folder before
    assert build_report(plan).rows == expected and len(planned.folder.finished()) == PEOPLE + 6


def test_a_whole_record_of_another_shape_is_finished_and_told_in_a_report(tmp_path: Path) -> None:
    plan = make_ledger(tmp_path, PEOPLE, 1)
    (planned,), about = plan.read()
    planned.folder.record("strange", {"answers": {"9": 1}})
    assert "strange" in planned.folder.finished() and build_report(plan).rows[0]["respondents"] == PEOPLE
    plan = plan_of(tmp_path, [row_of("pas", planned.folder, ("p000001", "strange"))], about, "other")
    with pytest.raises(LedgerError, match=r"strange\.json is no record of a cell: delete it"):
        build_report(plan)


@pytest.mark.parametrize(
    "text",
    ["plain", 'a "quoted" one', "a, b: c", "back\\slash", 'both \\" of them', "ümlaut 你好", "new\nline", " , ", ""],
)
def test_the_quick_checksum_is_the_slow_one(tmp_path: Path, text: str) -> None:
    folder = CellFolder(tmp_path)
    body = {"texts": {"9": text, "10": f"{text} {text}"}, "n": [1, 2.5, None], "empty": {}, text: text}
    folder.record("p", body)
    path = tmp_path / "respondents" / "p.json"
    assert folder.read("p") == body
    content = path.read_bytes()
    for position in range(len(content) - 1):  # no byte can be left out but white space between tokens
        path.write_bytes(content[:position] + content[position + 1 :])
        assert folder.read("p") in (None, body)
        path.write_bytes(content[:position] + b" " + content[position:])
        assert folder.read("p") in (None, body)
    path.write_text(json.dumps(json.loads(content), indent=2))
    assert folder.read("p") == body
