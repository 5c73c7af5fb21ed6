"""Standard output that is closed, full or of a narrow encoding, and Ctrl-C where libraries would drop it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from palign_bench.cli import main as command_line
from tests.command import PROGRAM, environment, heed_interrupts, run, run_here

ROWS = ("method=floors", "method.rows=[constant_a]", "respondents=simulated", "respondents.limit=2", "tracking=none")
INTERRUPTED = "\nInterrupted. Finished people stay; the same command does the rest.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_our_signs_ends_no_sweep(encoding: str, tmp_path: Path) -> None:
    sweep = ("-m", *ROWS, "protocol=corrected,as_released", "name=swept")
    ran = run(*sweep, folder=tmp_path, variables={"PYTHONIOENCODING": encoding, "LANG": "C"})
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "runs" / "swept").glob("*/swept.csv"))) == 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert run_here(*ROWS, "name=done", folder=folder).returncode == 0
    return folder


@pytest.mark.parametrize(("into", "code", "told"), [
    (">&-", 0, ""),
    (">/dev/full", 1, "palign-bench: writing failed, No space left on device: check where the output goes.\n"),
])  # fmt: skip
def test_an_output_that_takes_nothing(into: str, code: int, told: str, finished: Path) -> None:
    """Closed by the shell it is asked for nothing; full it is told, and not as the ledger's."""
    typed = f"{PROGRAM} report done {into}"
    ended = subprocess.run(
        typed, shell=True, cwd=finished, env=environment(finished), stderr=subprocess.PIPE, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (code, told)


def test_ctrl_c_while_libraries_are_imported_is_one_line(tmp_path: Path) -> None:
    code = """
import sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "hydra":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from palign_bench.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_a_library_does_to_an_interruption_while_it_composes_does_not_matter(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OmegaConf does: a KeyboardInterrupt becomes nothing at all, or another error."""
    heed_interrupts()
    own = command_line.at_home

    def dropping(settings: Any) -> Any:
        try:
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        except KeyboardInterrupt:
            raise AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'") from None
        return own(settings)

    monkeypatch.setattr(command_line, "at_home", dropping)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    ended = run_here(*ROWS, folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (130, INTERRUPTED)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert not (tmp_path / "runs").exists()
