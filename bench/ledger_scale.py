"""How long a ledger of many cells takes to write, list, resume and report.

``python -m bench.ledger_scale --cells 100000``

The cells are those of a model under `corrected`, made up but of the real shape and size; nothing is computed.
"""

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Command, Plan, PlannedJob, Row
from palign_bench.ledger.record import content_of
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from palign_bench.report import make_report
from palign_bench.report.status import status_of

METHODS = (
    "constant_a",
    "constant_c",
    "constant_e",
    "facet_mean",
    "ridge",
    "vanilla",
    "few_shot",
    "pas",
    "readout",
    "readout_people",
)
UNANSWERED = 0.001  # of the truth, as among the real people: the specificity of these cannot count options alone


def a_record(respondent_id: str, generator: random.Random) -> dict[str, Any]:
    """A finished cell with random answers; a person's truth is the same in every row."""
    inventory = ipip_neo_300()
    person = random.Random(respondent_id)
    truth = {n: person.randint(1, 5) for n in inventory.held_out if person.random() >= UNANSWERED}
    answers = {n: generator.randint(1, 5) for n in inventory.held_out}
    traits = trait_scores(inventory, answers)
    return {
        "respondent": respondent_id,
        "seed": 0,
        "asked": list(inventory.held_out),
        "answers": {str(n): value for n, value in answers.items()},
        "log_probs": {str(n): [-generator.random() * 9 for _ in range(5)] for n in inventory.held_out},
        "texts": None,
        "audit": {str(n): " (A) Very Accurate" for n in list(inventory.held_out)[:20]},
        "truth": {str(n): value for n, value in truth.items()},
        "scores": aligned_scores(inventory, answers, truth),
        "traits": traits,
        "person_traits": trait_scores(inventory, truth),
        "alignment": {"summary": {"alpha": 2.0}},
        "cost": {
            "align_seconds": 1.0,
            "answer_seconds": 2.0,
            "peak_memory_mib": 50.0,
            "stored_bytes": 9000,
            "trained_parameters": 0,
            "tokens_read": 9000,
            "tokens_generated": 60,
            "optimizer_steps": 0,
            "reused_answers": False,
            "batch_divisor": 1,
        },
    }


def make_ledger(runs: Path, cells: int, rows: int, processes: int = 1) -> Plan:
    """A ledger whose plan has ``cells`` cells in ``rows`` rows, written without a sync for each."""
    people = tuple(f"p{n:06d}" for n in range(cells // rows))
    planned = []
    for row in range(rows):
        method = METHODS[row % len(METHODS)]
        identity = {"method": {"name": method, "k": row}, "model": {"name": "tiny", "weights": "hub"}, "seed": 0}
        folder = CellFolder.at(runs, method, identity)
        folder.keep({}, identity)
        (folder.path / "respondents").mkdir()
        planned.append(Row(method, method, "methods", folder, people))
    if processes > 1:
        with ProcessPoolExecutor(processes) as executor:
            list(executor.map(make_cells, planned, range(rows)))
    else:
        list(map(make_cells, planned, range(rows)))
    about = {"experiment": "scale", "model": "tiny", "model_title": "tiny", "protocol": "corrected",
             "inventory": ipip_neo_300().outline(), "notes": [],
             "respondents": "simulated", "respondents_description": "made-up people"}  # fmt: skip
    command = Command(runs, "scale", "command")
    command.write([], [PlannedJob(0, tuple(planned), about)])
    return command.tables()[0]


def make_cells(planned: Row, row: int) -> None:
    """The cells of one row."""
    generator = random.Random(row)
    for person in planned.ids:
        content = content_of(a_record(person, generator))
        (planned.folder.path / "respondents" / f"{person}.json").write_bytes(content)


def measure_ledger(runs: Path, cells: int, rows: int) -> None:
    """Print the seconds of everything that is done with a ledger."""

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        print(f"{name:28} {time.perf_counter() - started:8.2f} s", flush=True)
        return result

    def missing() -> int:
        return sum(len(planned.missing()) for planned in plan.read()[0])

    if not (runs / "scale").exists():
        timed("making it", lambda: make_ledger(runs, cells, rows, os.cpu_count() or 1))
    (plan,) = Plan.all(runs, "scale")
    size = sum(path.stat().st_size for path in runs.glob("cells/*/respondents/*"))
    print(f"{cells} cells in {rows} rows, {size / 2**30:.2f} GiB")
    assert timed("first listing (verifies)", missing) == 0
    assert timed("resuming: what is missing", missing) == 0
    assert "Everything is finished" in timed("status", lambda: status_of(runs, "scale"))
    timed("report, with its imports", lambda: make_report(plan))
    report = timed("report again", lambda: make_report(plan))
    for path in runs.glob("cells/*/digest.npz"):
        print(f"digest of {cells // rows} cells: {path.stat().st_size / 2**20:.1f} MiB")
        break
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    assert set(report.report.frame["respondents"]) == {cells // rows}


def main() -> None:
    """Measure in a temporary folder, or in one that is kept."""
    parser = argparse.ArgumentParser("python -m bench.ledger_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where the ledger is made for the time (default: the system's)")
    parser.add_argument("--keep", type=Path, help="a ledger to make here and keep, or to use again")
    chosen = parser.parse_args()
    if chosen.keep:
        measure_ledger(chosen.keep, chosen.cells, chosen.rows)
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        measure_ledger(Path(folder), chosen.cells, chosen.rows)


if __name__ == "__main__":
    main()
