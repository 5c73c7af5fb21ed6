"""The `palign-bench` command: Hydra composes a run or a sweep, the runner does it, the report shows it.

`palign-bench report NAME` prints a table again from the ledger alone, `palign-bench status NAME` what is left to do;
`palign-bench forecast NAME` what it would cost with many people; `palign-bench resume NAME` runs the experiment's last
command again.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from palign_bench.cli.arguments import command_id, expand_experiment, resumed
from palign_bench.cli.commands import SUBCOMMANDS
from palign_bench.cli.errors import one_line
from palign_bench.files import LedgerError, write_json
from palign_bench.settings import UserError, conf_folder

_COMMAND = "PALIGN_COMMAND"  # the id that all jobs of one command share, also those in other processes
_MAIN_PROCESS = "PALIGN_MAIN_PROCESS"
_mistakes: list[str] = []  # of the jobs of this process
_to_show: list[tuple[Path, str, dict[Any, Any], Any]] = []  # ledger, experiment, tracking and shard of tables to come
_arguments: list[str] = []  # of this command, without what `experiment=` adds


def run_job(config: DictConfig) -> int:
    """One Hydra job: one method on the selected people. Returns how many cells failed."""
    from palign_bench.run.job import run  # torch and transformers take seconds; --help must not wait for them

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
    """Keeps the command for `palign-bench resume`; notes, after the last job, whose tables the command planned."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        self._keep(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self._keep(config)

    @staticmethod
    def _keep(config: DictConfig) -> None:
        # Hydra makes a warning of what a callback raises; a ledger that takes no files is told by the first job.
        kept = [argument for argument in _arguments if not argument.startswith("retry=")]
        with suppress(LedgerError):
            write_json(Path(str(config.runs)) / str(config.name) / "command.json", {"arguments": kept})

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        self._show(config)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        self._show(config)

    @staticmethod
    def _show(config: DictConfig) -> None:
        # Only noted: Hydra turns what a callback raises into a warning, and a table that fails must be told.
        _to_show.append((Path(str(config.runs)), str(config.name), dict(config.tracking), config.shard))


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> int:
    return run_job(config)


def main() -> None:
    """Entry point. Exit code 0: all cells finished; 1: some failed, or a user's mistake; 130: interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ[_MAIN_PROCESS] = str(os.getpid())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's many-line printer
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if len(sys.argv) > 1 and sys.argv[1] in SUBCOMMANDS:
            SUBCOMMANDS[sys.argv[1]](sys.argv[2:])
            return
        if sys.argv[1:2] == ["resume"]:
            sys.argv[1:] = resumed(sys.argv[2:])
        _arguments[:] = sys.argv[1:]
        sys.argv[1:] = expand_experiment(sys.argv[1:])
        os.environ[_COMMAND] = command_id(sys.argv[1:])
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

    from palign_bench.cli.tables import show_tables

    missing = 0
    for runs, name, tracking, shard in _to_show:
        of_command = show_tables(runs, name, os.environ[_COMMAND], tracking, shard)
        missing += of_command or 0
        if of_command is None and not _mistakes:
            print(f"No table: another command has planned {name} since; see `palign-bench report`.", file=sys.stderr)
    return missing


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a cluster's preemption ends like Ctrl-C: the write under way is finished or not begun
