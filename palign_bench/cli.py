"""The `palign-bench` command: Hydra composes a run or a sweep, the runner does it, the report shows it.

`palign-bench report NAME` prints a table again from the ledger alone.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from palign_bench.command_line_errors import one_line
from palign_bench.configuration import conf_folder, options
from palign_bench.errors import UserError
from palign_bench.ledger import LedgerError, Plan

_COMMAND = "PALIGN_COMMAND"  # the id that all jobs of one command share, also those in other processes
_MAIN_PROCESS = "PALIGN_MAIN_PROCESS"
_mistakes: list[str] = []  # of the jobs of this process
_to_show: list[tuple[Path, str, dict[Any, Any]]] = []  # ledger, experiment and tracking of the tables to come
_HYDRA_QUERIES = ("--help", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")


def run_job(config: DictConfig) -> int:
    """One Hydra job: one method on the selected people. Returns how many cells failed."""
    from palign_bench.job import run  # torch and transformers take seconds; --help must not wait for them

    settings = OmegaConf.to_container(config, resolve=True)
    assert isinstance(settings, dict)
    try:
        return run({str(k): v for k, v in settings.items()}, os.environ[_COMMAND])
    except UserError as error:
        if os.environ[_MAIN_PROCESS] != str(os.getpid()):
            raise  # a launcher's worker: only what is raised reaches the command's own process
        # Told once and counted, not raised: Hydra would keep the other jobs' table from being shown.
        if str(error) not in _mistakes:
            print(f"palign-bench: {error}", file=sys.stderr)
        _mistakes.append(str(error))
        return 0


class TableCallback(Callback):
    """Notes, after the last job, whose tables the command planned."""

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        self._show(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self._show(config)

    @staticmethod
    def _show(config: DictConfig) -> None:
        # Only noted: Hydra turns what a callback raises into a warning, and a table that fails must be told.
        _to_show.append((Path(str(config.runs)), str(config.name), dict(config.tracking)))


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> int:
    return run_job(config)


def expand_experiment(arguments: Sequence[str]) -> list[str]:
    """`experiment=X` sweeps over what X lists, unless the command line says otherwise."""
    if any(a in _HYDRA_QUERIES or a.startswith(("--cfg", "--info")) for a in arguments):
        return list(arguments)
    expanded = list(arguments)
    for argument in arguments:
        key, _, name = argument.partition("=")
        path = conf_folder() / "experiment" / f"{name}.yaml"
        if key != "experiment":
            continue
        if not path.is_file():  # Hydra, for which it is optional, would run without it
            raise UserError(f"experiment={name} does not exist; choose one of {', '.join(options('experiment'))}.")
        for swept, values in (yaml.safe_load(path.read_text()).get("sweep") or {}).items():
            if not any(a.split("=")[0] == swept for a in arguments):
                expanded.append(f"{swept}={','.join(map(str, values))}")
        if not {"-m", "--multirun"} & set(arguments):
            expanded.append("--multirun")
    return expanded


def report(arguments: Sequence[str]) -> None:
    """`palign-bench report [NAME] [--runs FOLDER]`: rebuild and print tables without a model."""
    parser = argparse.ArgumentParser("palign-bench report", description="Rebuild and print tables from the ledger.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    chosen = parser.parse_args(arguments)
    from palign_bench.report import make_report

    folders = sorted(p.parent.parent for p in (chosen.runs / chosen.name).glob("*/plan/last.json"))
    if not folders:
        raise LedgerError(
            f"{chosen.runs / chosen.name} holds no table: run `palign-bench experiment={chosen.name}` first."
        )
    for folder in folders:
        model, _, protocol = folder.name.rpartition("-")
        print(make_report(Plan(chosen.runs, chosen.name, model, protocol)).text)


def efficiency(arguments: Sequence[str]) -> None:
    """`palign-bench efficiency …`: measure what each method costs, relative to PAS."""
    from palign_bench.efficiency import efficiency as measure_efficiency

    measure_efficiency(arguments)


SUBCOMMANDS = {"report": report, "efficiency": efficiency}


def main() -> None:
    """Entry point. Exit code 0: all cells finished; 1: some failed, or a user's mistake; 130: interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ[_COMMAND] = uuid.uuid4().hex
    os.environ[_MAIN_PROCESS] = str(os.getpid())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's many-line printer
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if len(sys.argv) > 1 and sys.argv[1] in SUBCOMMANDS:
            SUBCOMMANDS[sys.argv[1]](sys.argv[2:])
            return
        sys.argv[1:] = expand_experiment(sys.argv[1:])
        _hydra_main()
        missing = _show_tables()
    except KeyboardInterrupt:
        print("\nInterrupted. Finished people stay; the same command does the rest.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line = one_line(error, sys.argv[1:])
        if line is None:
            raise
        sys.exit(f"palign-bench: {line}")
    if _mistakes:
        sys.exit(1)
    if missing:
        sys.exit(
            f"palign-bench: {missing} cells are missing; the tracebacks of failed ones lie beside the finished "
            "ones. Run again to retry."
        )


def _show_tables() -> int:
    """Build and print what the command planned. Returns how many of its cells are missing, in whichever process."""
    if not _to_show:  # --help, --cfg
        return 0
    from palign_bench.job import show_tables

    return sum(show_tables(runs, name, os.environ[_COMMAND], tracking) for runs, name, tracking in _to_show)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a cluster's preemption ends like Ctrl-C: the write under way is finished or not begun


__all__ = ["UserError", "main"]

if __name__ == "__main__":
    main()
