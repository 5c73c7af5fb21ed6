"""Commands of this program that run beside each other, as those of the small models that keep one core busy."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report

Arguments = Sequence[str]


def side_by_side(here: Sequence[Arguments], beside: Sequence[Arguments], log: Path) -> None:
    """Run commands one after the other and, at the same time, others whose words go to the file ``log``.

    Where one fails, those after it are left out, and the program exits with its code when the others have ended.
    """
    processes: list[subprocess.Popen[bytes]] = []

    def run_all(commands: Sequence[Arguments], output: IO[bytes] | None) -> int:
        for command in commands:
            typed = [sys.executable, "-m", "palign_bench", *command]
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(typed, stdout=output, stderr=output, env=one_thread))
            if code := processes[-1].wait():
                return code
        return 0

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output, ThreadPoolExecutor(1) as thread:
        others = thread.submit(run_all, beside, output)
        try:
            codes = run_all(here, None), others.result()
        except BaseException:  # Ctrl-C or a signal, which may have reached this process alone
            for process in processes:
                process.terminate()
            raise
    if codes[1]:
        print(
            f"{log}:", *log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:], sep="\n", file=sys.stderr
        )
    if any(codes):
        sys.exit(codes[0] or codes[1])


def show(runs: Path, *names: str) -> None:
    """Print the tables of these experiments."""
    for name in names:
        for plan in Plan.all(runs, name):
            print(make_report(plan).text)
