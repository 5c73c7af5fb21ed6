"""Where the cache lies: as the user says, at home, or in a folder of one's own where there is no home."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from palign_bench.backbone.loading.settings import package_path
from palign_bench.backbone.loading.sources import EMBEDDED, converted_package
from palign_bench.respondents import released
from palign_bench.settings import CACHE_VARIABLE, UserError, cache_folder, counted, is_number, is_whole


def test_a_tilde_is_the_home_directory_for_people_and_for_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    assert cache_folder() == tmp_path / ".cache" / "palign_bench"
    monkeypatch.setenv(CACHE_VARIABLE, "~/x")
    assert released.cache_folder() == tmp_path / "x" / "papi"
    monkeypatch.setattr("palign_bench.backbone.loading.sources.hash_of_weights", lambda _: "0" * 64)
    name = f"{package_path(*EMBEDDED).stem}-{'0' * 12}"
    folder = tmp_path / "x" / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    assert converted_package(*EMBEDDED) == folder


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a name or a home, as a container's number is."""

    def unknown(_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("nobody")
def test_without_a_home_the_cache_is_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache_folder()
    assert folder == tmp_path / f"palign_bench-{os.getuid()}" == cache_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv(CACHE_VARIABLE, "~/x")
    with pytest.raises(UserError, match="PALIGN_CACHE_DIR=~/x: no such home directory is known"):
        cache_folder()


@pytest.mark.usefixtures("nobody")
def test_somebody_elses_folder_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / f"palign_bench-{os.getuid()}").symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="belongs to somebody else; name a folder in PALIGN_CACHE_DIR"):
        cache_folder()


def test_one_is_singular() -> None:
    assert (counted(1), counted(0), counted(1200)) == ("1 person", "0 people", "1,200 people")
    assert (counted(1, "cell", "cells"), counted(2, "cell", "cells")) == ("1 cell", "2 cells")


def test_what_counts_as_a_number_and_as_a_whole_one() -> None:
    assert [is_number(each) for each in (0, -1.5, float("nan"), float("inf"), True, "1", None)] == [True] * 2 + [
        False
    ] * 5
    assert [is_whole(each) for each in (0, -3, 10**400, 1.0, True, "1", None)] == [True] * 3 + [False] * 4
    assert is_whole(1, 1) and not is_whole(0, 1)
