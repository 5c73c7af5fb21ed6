"""``cost=isolated``: every method in a process of its own, so that no earlier one's memory or caches are in its costs.

The process runs the very job that the command would have run, with a warm-up and repeats (see `palign_bench.run.cell`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.ledger.plan import PlannedCells
from palign_bench.settings import UserError

COSTS = ("in_passing", "isolated")
_MEASURING = "PALIGN_MEASURING"  # set in the process that measures


class IsolationError(RuntimeError):
    """The process that measured died without saying why: killed, or out of memory."""


def cost_repeats(settings: Mapping[str, Any]) -> int | None:
    """How often each cell is computed under ``cost=isolated``; None under ``in_passing``. Raises UserError."""
    cost, repeats = settings.get("cost", COSTS[0]), settings.get("cost_repeats", 1)
    if cost not in COSTS:
        raise UserError(f"cost={cost}: choose one of {', '.join(COSTS)}.")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise UserError(f"cost_repeats={repeats}: choose a whole number, 1 or more.")
    return repeats if cost == "isolated" else None


def is_measuring() -> bool:
    """Whether this is the process that measures."""
    return _MEASURING in os.environ


def refuse_finished(planned: Sequence[PlannedCells]) -> None:
    """Raise UserError for a row with a finished cell: what it cost then would pass for a measurement."""
    for cells in planned:
        if len(cells.missing()) < len(cells.respondent_ids):
            raise UserError(
                f"cost=isolated: {cells.row} has finished cells in {cells.folder.path}, and a finished cell is not "
                "measured again; choose another ledger with runs=FOLDER."
            )


def check_cohort(aligners: Mapping[str, Aligner], repeats: int | None) -> None:
    """Raise UserError for a method that takes several people at once: repeats are of one person's cell."""
    for name, aligner in aligners.items():
        if repeats and aligner.cohort > 1:
            raise UserError(f"cost=isolated measures people one by one; method={name} needs training.cohort=1 for it.")


def run_isolated(settings: Mapping[str, Any], command: str, order: int) -> int:
    """Run one job in a new process. Returns how many cells failed.

    Raises UserError for the user's mistake that the process met, IsolationError where it died without a word.
    """
    with tempfile.TemporaryDirectory(prefix="palign-measuring-") as folder:
        outcome = Path(folder) / "outcome.json"
        job = {"settings": dict(settings), "command": command, "order": order, "outcome": str(outcome)}
        program = [sys.executable, "-m", "palign_bench.run.isolated"]
        environment = os.environ | {_MEASURING: "1"}
        finished = subprocess.run(program, input=json.dumps(job), text=True, env=environment, check=False)
        if not outcome.exists():
            raise IsolationError(
                f"the process that measured {settings['method']['name']} ended with {finished.returncode}"
            )
        document = json.loads(outcome.read_text(encoding="utf-8"))
    if "mistake" in document:
        raise UserError(document["mistake"])
    return int(document["failed"])


def main() -> None:
    """Run the job that comes on standard input; say how it ended in the file that it names."""
    from palign_bench.run.job import run

    job = json.loads(sys.stdin.read())
    try:
        document: dict[str, Any] = {"failed": run(job["settings"], job["command"], job["order"])}
    except UserError as error:
        document = {"mistake": str(error)}
    except KeyboardInterrupt:
        sys.exit(130)
    Path(job["outcome"]).write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main()
