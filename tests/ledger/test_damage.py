"""Cells that are damaged, edited or in another's place are set aside and missing; nothing else is."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.index import VerifiedCells, verify
from tests.ledger.cells import a_record
from tests.ledgers import row_of


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _edit(path: Path) -> None:
    document = json.loads(path.read_text())
    document["record"]["scores"]["composite"] = 0.5
    path.write_text(json.dumps(document))


def _edit_the_sum_too(path: Path) -> None:
    path.write_text(json.dumps({"record": {"respondent": "1"}, "sha256": "0" * 64}))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(bytes(content))


def _other_json(path: Path) -> None:
    path.write_text("[1, 2]")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [_truncate, _edit, _edit_the_sum_too, _empty, _flip_a_bit, _other_json, _zeros])
def test_a_damaged_cell_is_set_aside_and_missing(
    folder: CellFolder, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.record("1", a_record("1"))
    folder.record("2", a_record("2"))
    path = folder.path / "respondents" / "1.json"
    damage(path)
    damaged = path.read_bytes()
    assert folder.read("1") is None
    planned = row_of("few_shot", folder, ("2", "1", "3"))
    assert planned.missing() == ["1", "3"]
    assert path.with_suffix(".damaged").read_bytes() == damaged and not path.exists()
    assert "1.json was damaged or edited" in capsys.readouterr().err
    folder.record("1", a_record("1"))
    assert planned.missing() == ["3"]


@pytest.mark.parametrize("another", ["2", "a/b"])
def test_a_cell_named_after_somebody_else_is_damaged(
    folder: CellFolder, another: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.record("1", a_record("1"))
    folder.record(another, a_record(another))
    copied = folder._file(another)
    shutil.copy(folder._file("1"), copied)
    assert folder.read(another) is None
    assert folder.finished() == {"1"}
    assert f"{copied.name} was damaged or edited: set aside" in capsys.readouterr().err


def test_a_folder_named_like_a_cell_is_set_aside_and_blocks_nothing(
    folder: CellFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.record("1", a_record("1"))
    folder._file("999").mkdir()
    assert folder.read("999") is None
    assert row_of("few_shot", folder, ("1", "999")).missing() == ["999"]
    assert "999.json was damaged or edited: set aside" in capsys.readouterr().err
    folder.record("999", a_record("999"))
    assert folder.finished() == {"1", "999"}


def test_what_may_not_be_read_is_told_and_not_called_damaged(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's cells, which may be whole: they are not set aside and computed again."""
    folder.record("1", a_record("1"))

    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", denied)
        with pytest.raises(PermissionError, match=r"1\.json"):
            folder.finished()
    assert folder.finished() == {"1"}


def test_a_damaged_cell_that_another_process_repairs_meanwhile_stays(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.record("1", a_record("1"))
    _truncate(folder.path / "respondents" / "1.json")

    def verify_then_repair(path: Path) -> VerifiedCells:
        seen = verify(path)
        folder.record("1", a_record("1"))
        return seen

    monkeypatch.setattr("palign_bench.ledger.cells.verify", verify_then_repair)
    assert folder.finished() == {"1"} and folder.read("1") == a_record("1")
    assert [path.name for path in (folder.path / "respondents").iterdir()] == ["1.json"]


def test_a_damaged_cell_of_a_ledger_that_can_only_be_read(
    folder: CellFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.record("1", a_record("1"))
    folder.record("2", a_record("2"))
    _truncate(folder.path / "respondents" / "1.json")

    def read_only(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    assert folder.finished() == {"2"}
    assert "1.json was damaged or edited: counts as missing" in capsys.readouterr().err


def test_reformatting_a_cell_is_no_damage(folder: CellFolder) -> None:
    folder.record("1", a_record("1"))
    path = folder.path / "respondents" / "1.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4, sort_keys=True))
    assert folder.finished() == {"1"}
