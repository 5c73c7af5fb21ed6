"""The `palign-bench` command: Hydra composes a run or a sweep, the runner does it, the report shows it.

`palign-bench report NAME` prints a table again from the ledger alone, `palign-bench status NAME` what is left to do;
`palign-bench forecast NAME` what it would cost with many people; `palign-bench resume NAME` runs the experiment's last
command again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from palign_bench.command_line_errors import one_line
from palign_bench.files import LedgerError, read_json, write_json
from palign_bench.ledger.plan import Plan
from palign_bench.settings import UserError, conf_folder, options

_COMMAND = "PALIGN_COMMAND"  # the id that all jobs of one command share, also those in other processes
_MAIN_PROCESS = "PALIGN_MAIN_PROCESS"
_mistakes: list[str] = []  # of the jobs of this process
_to_show: list[tuple[Path, str, dict[Any, Any], Any]] = []  # ledger, experiment, tracking and shard of tables to come
_arguments: list[str] = []  # of this command, without what `experiment=` adds
_CHECKED_LATER = ("method.", "respondents.", "tracking.")
_HYDRA_QUERIES = ("--help", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")


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


def check_changes(arguments: Sequence[str]) -> None:
    """Raise UserError for `+key=…`, which Hydra would add and nothing would read, and for `~key`.

    Keys of a method may be added: its constructor refuses those that it does not know. So do the people's loaders.
    """
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        checked = key.startswith(("hydra.", "hydra/")) or (argument[0:1] == "+" and key.startswith(_CHECKED_LATER))
        if argument[0:1] in ("+", "~") and not checked:
            what = "removes" if argument.startswith("~") else "adds"
            raise UserError(f"{argument}: this {what} a setting; only values change, as in {key}=VALUE (see --help).")


def expand_experiment(arguments: Sequence[str]) -> list[str]:
    """`experiment=X` sweeps over what X lists, unless the command line says otherwise."""
    if any(a in _HYDRA_QUERIES or a.startswith(("--cfg", "--info")) for a in arguments):
        return list(arguments)
    check_changes(arguments)
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

    for plan in _plans(chosen.runs, chosen.name):
        print(make_report(plan).text)


def _plans(runs: Path, name: str) -> list[Plan]:
    """The tables of an experiment. Raises LedgerError when there is none."""
    folders = sorted(p.parent.parent for p in (runs / name).glob("*/plan/last.json"))
    if not folders:
        raise LedgerError(f"{runs / name} holds no table: run `palign-bench experiment={name}` first.")
    named = [folder.name.rpartition("-") for folder in folders]
    return [Plan(runs, name, model, protocol) for model, _, protocol in named]


def forecast(arguments: Sequence[str]) -> None:
    """`palign-bench forecast [NAME] [--people 300,300000]`: what a large sweep would cost, from measured costs."""
    from palign_bench.report.forecast import MODELS, PEOPLE, write_forecast

    parser = argparse.ArgumentParser("palign-bench forecast", description="What a sweep over many people would cost.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment that was measured (default: table1)")
    parser.add_argument("--people", type=_counts, default=PEOPLE, help="comma-separated (default: 300,300000)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"beside the measured (default: {','.join(MODELS)})")
    parser.add_argument("--shards", type=_count, default=1, help="machines that share the people (default: 1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    chosen = parser.parse_args(arguments)
    models = [name for name in chosen.models.split(",") if name]
    for plan in _plans(chosen.runs, chosen.name):
        print(write_forecast(plan, chosen.people, models, chosen.shards))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))


def efficiency(arguments: Sequence[str]) -> None:
    """`palign-bench efficiency …`: measure what each method costs, relative to PAS."""
    from palign_bench.efficiency import efficiency as measure_efficiency

    measure_efficiency(arguments)


def status(arguments: Sequence[str]) -> None:
    """`palign-bench status [NAME] [--runs FOLDER]`: what is finished, failed, missing, and the time left."""
    parser = argparse.ArgumentParser("palign-bench status", description="What is done and left, and for how long.")
    parser.add_argument("name", nargs="?", help="the experiment's name (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    chosen = parser.parse_args(arguments)
    from palign_bench.report.status import status_of

    print(status_of(chosen.runs, chosen.name))


def dashboard(arguments: Sequence[str]) -> None:
    """`palign-bench dashboard [NAME]`: the W&B workspace, online or as a file."""
    from palign_bench.tracking.dashboard import dashboard as make  # W&B takes its time to import

    make(arguments)


def resumed(arguments: Sequence[str]) -> list[str]:
    """`palign-bench resume [NAME] [--runs FOLDER] [KEY=VALUE …]` as the command that ran last, with these overrides."""
    parser = argparse.ArgumentParser("palign-bench resume", description="Run an experiment's last command again.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    parser.add_argument("overrides", nargs="*", help="settings to change, e.g. retry=failed or shard=2/4")
    chosen = parser.parse_intermixed_args(arguments)
    overrides = list(chosen.overrides)
    if "=" in chosen.name:
        chosen.name, overrides = "table1", [chosen.name, *overrides]
    path = chosen.runs / chosen.name / "command.json"
    if not path.exists():
        raise LedgerError(f"{path.parent} holds no command: run `palign-bench experiment={chosen.name}` first.")
    document = read_json(path)
    kept = document.get("arguments") if isinstance(document, dict) else None
    if not isinstance(kept, list) or not all(isinstance(each, str) for each in kept):
        raise LedgerError(f"{path} is damaged: type the command again.")
    overrides = [f"runs={chosen.runs}", *overrides]  # the ledger may have been moved since
    changed = {each.partition("=")[0] for each in overrides}
    command = [each for each in kept if each.partition("=")[0] not in changed] + overrides
    print(f"palign-bench {shlex.join(command)}", file=sys.stderr)
    return command


def command_id(arguments: Sequence[str]) -> str:
    """The same for the same work: two processes that share it, or are its shards, make one table."""
    places = ("-", "shard=", "retry=", "runs=", "tracking", "hydra")
    kept = sorted(argument for argument in arguments if not argument.startswith(places))
    kept += sorted({count for each in arguments if each.startswith("shard=") for count in re.findall("/[0-9]+", each)})
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:32]


SUBCOMMANDS = {
    "report": report,
    "forecast": forecast,
    "efficiency": efficiency,
    "status": status,
    "dashboard": dashboard,
}


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
    from palign_bench.run.job import show_tables

    missing = 0
    for runs, name, tracking, shard in _to_show:
        of_command = show_tables(runs, name, os.environ[_COMMAND], tracking, shard)
        missing += of_command or 0
        if of_command is None and not _mistakes:
            print(f"No table: another command has planned {name} since; see `palign-bench report`.", file=sys.stderr)
    return missing


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a cluster's preemption ends like Ctrl-C: the write under way is finished or not begun


__all__ = ["UserError", "main"]

if __name__ == "__main__":
    main()
