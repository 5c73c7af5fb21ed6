"""`make gpu-reference`: in 25 minutes on one GPU, a dated folder under runs/reference/ with what a GPU can show.

Every stage is an ordinary command with a time of its own, on a ledger of its own: the same command again does what is
left. Nothing is fetched from a network. ``--rehearsal`` runs every stage on a CPU, with the organism and tiny shapes,
so that the first run on a GPU is not the first run.
"""

import argparse
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from bench.gpu_reference.reference import Outcome, Reference
from bench.gpu_reference.stages import ON_A_GPU, REHEARSAL, settings_of_people, stages
from palign_bench.settings import UserError

MINUTES = 25.0


def _gib() -> float | None:
    """Memory of the first GPU; None without one. What is free is not asked: that would take a part of it for itself."""
    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else None


def _gpu_name() -> str:
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages that are not done and write the folder. Raises UserError on a machine without a GPU."""
    parser = argparse.ArgumentParser("python -m bench.gpu_reference", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rehearsal", action="store_true", help="every stage on a CPU, with the organism and tiny shapes"
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all stages (default: {MINUTES:.0f})")
    parser.add_argument("--stages", help="comma-separated (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of ledgers (default: runs)")
    chosen = parser.parse_args(arguments)
    if not chosen.rehearsal and not torch.cuda.is_available():
        raise UserError(
            "make gpu-reference measures a CUDA GPU and finds none here (see `palign-bench doctor`); "
            "`make gpu-reference REHEARSAL=1` runs every stage on the CPU with tiny shapes."
        )
    ledger = chosen.runs / ("gpu_rehearsal" if chosen.rehearsal else "gpu_reference")
    dated = f"{datetime.now(UTC):%Y-%m-%d}-gpu-{_gpu_name()}"
    folder = ledger / "reference" / dated if chosen.rehearsal else chosen.runs / "reference" / dated
    found = stages(ledger, settings_of_people(), REHEARSAL if chosen.rehearsal else ON_A_GPU)
    names = chosen.stages.split(",") if chosen.stages else [stage.name for stage in found]
    unknown = set(names) - {stage.name for stage in found}
    if unknown:
        raise UserError(f"--stages: {sorted(unknown)[0]} is none of {', '.join(stage.name for stage in found)}.")
    reference = Reference(ledger, folder, chosen.minutes * 60, lambda line: print(line, flush=True))
    signal.signal(
        signal.SIGTERM, _interrupt
    )  # whoever lends the machine ends the command so: the page is still written
    try:
        reference.do_all([stage for stage in found if stage.name in names], _gib())
    finally:
        print(f"Written: {reference.write(found, chosen.rehearsal)}", flush=True)
    left = _left(reference.outcomes, names)
    if left:
        print(f"Not done: {', '.join(left)}. The same command does the rest.", flush=True)
    failed = [name for name in left if reference.outcomes[name].state == "failed"]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; the logs are in {ledger / 'logs'}.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _left(outcomes: Mapping[str, Outcome], names: Sequence[str]) -> list[str]:
    return [name for name in names if outcomes[name].state != "done"]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"palign-bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
