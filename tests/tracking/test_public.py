import os
from pathlib import Path

import pytest

from palign_bench.settings import UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.public import hashed_id, read_salt


def test_salt_is_made_once_and_kept_private(tmp_path: Path) -> None:
    salt = read_salt(tmp_path / "new" / ".salt")
    assert read_salt(tmp_path / "new" / ".salt") == salt and len(salt) == 64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".salt"]
    assert (tmp_path / "new" / ".salt").stat().st_mode & 0o077 == 0
    other = read_salt(tmp_path / "other" / ".salt")
    assert hashed_id(salt, "1") != hashed_id(other, "1") and hashed_id(salt, "1") != hashed_id(salt, "2")


@pytest.mark.parametrize("content", [b"", b"0123", b"\xff" * 64, b"g" * 64, b"0" * 64 + b"\n"])
def test_a_damaged_salt_is_refused_before_anything_is_computed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".salt").write_bytes(content)
    with pytest.raises(UserError, match=r"\.salt is damaged: .* Restore it or delete it"):
        make_tracker({"name": "wandb", "mode": "offline"}, tmp_path)
    assert (tmp_path / ".salt").read_bytes() == content
    make_tracker({"name": "none"}, tmp_path)


def test_a_salt_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves an empty file of that name."""
    steps: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("synced"), fsync(file))[1])
    monkeypatch.setattr(os, "link", lambda draft, path: (steps.append("named"), link(draft, path))[1])
    read_salt(tmp_path / ".salt")
    assert steps == ["synced", "named"]
