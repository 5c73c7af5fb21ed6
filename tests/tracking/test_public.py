from pathlib import Path

from palign_bench.tracking.public import hashed_id, read_salt


def test_salt_is_made_once_and_kept_private(tmp_path: Path) -> None:
    salt = read_salt(tmp_path / "new" / ".salt")
    assert read_salt(tmp_path / "new" / ".salt") == salt and len(salt) == 64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".salt"]
    assert (tmp_path / "new" / ".salt").stat().st_mode & 0o077 == 0
    other = read_salt(tmp_path / "other" / ".salt")
    assert hashed_id(salt, "1") != hashed_id(other, "1") and hashed_id(salt, "1") != hashed_id(salt, "2")
