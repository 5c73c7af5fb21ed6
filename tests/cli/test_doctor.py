"""`palign-bench doctor` looks and never fails, also where there is no home, no network and nothing to write to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from palign_bench.cli import doctor as checks
from palign_bench.cli.doctor import examined
from palign_bench.settings import options


def lines(text: str) -> dict[str, str]:
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}


def test_it_says_what_works_and_what_to_type(tmp_path: Path) -> None:
    told = lines(examined(tmp_path / "runs"))
    assert {f"model={name}" for name in options("model")} <= set(told)
    assert told["model=organism"] == "ready" and "model.name_or_path" in told["model=local"]
    assert "torch " in told["installed"] and "MISSING" not in told["installed"]
    assert told["next"].startswith("palign-bench experiment=table1") and "nothing run yet" in told["ledger"]
    assert "cannot be found out" not in "".join(told.values())
    assert not list(tmp_path.iterdir())


def test_what_breaks_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("no such driver\nand more")

    monkeypatch.setattr(checks, "_device", broken)
    assert lines(examined(tmp_path))["device"] == "cannot be found out (RuntimeError: no such driver)"


def test_a_ledger_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    assert "cannot be written to" in lines(examined(tmp_path / "taken" / "runs"))["ledger"]


def test_nobodys_home_and_an_unknown_user(tmp_path: Path) -> None:
    """As in a container that is started under any number: no HOME, no entry in the password file."""
    code = (
        "import pwd, sys\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown; sys.argv = ['palign-bench', 'doctor']\n"
        "from palign_bench.__main__ import main; main()"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and "Traceback" not in ran.stderr, ran.stderr
    assert "next" in lines(ran.stdout)
