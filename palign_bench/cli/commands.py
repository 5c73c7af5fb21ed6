"""The one front door: `palign-bench SUBCOMMAND …`, and what the subcommands beside a run read and print."""

import argparse
import difflib
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

from palign_bench.cli.arguments import resumed
from palign_bench.ledger.plan import Command, Plan
from palign_bench.settings import UserError

PROGRAM = "palign-bench"
_EPILOG = """
settings are KEY=VALUE; these are chosen by name (run --help lists the names):
  method, model, respondents, protocol, training, tracking, experiment

examples:
  palign-bench method=pas respondents.limit=3       one method on three people
  palign-bench -m method=few_shot,pas seed=0,1      a sweep
  palign-bench experiment=table1                    every method and the floors
  palign-bench resume table1                        what is missing
  palign-bench report table1                        the table again
"""


class Subcommand(ABC):
    """One word after `palign-bench`. The docstring's first line is its help.

    What takes long to import is imported in the methods, so that the others start at once.
    """

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return (self.__doc__ or "").splitlines()[0]

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options beside the ledger's folder (``--runs``), which all subcommands have."""

    @abstractmethod
    def do(self, chosen: argparse.Namespace) -> list[str] | None:
        """Do it. Returns None, or the arguments of the run that it stands for. Raises UserError."""


class Run(Subcommand):
    """Run a method, a sweep or an experiment (the word may be left out)."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("settings", nargs="*", default=[], metavar="KEY=VALUE", help="see palign-bench run --help")

    def do(self, chosen: argparse.Namespace) -> list[str] | None:
        raise AssertionError("a run's arguments are Hydra's: see `dispatch`")


class Resume(Subcommand):
    """Run the last command again: only what is missing is computed."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("--list", action="store_true", help="show the experiment's commands, numbered, and stop")
        parser.add_argument("--command", type=int, metavar="N", help="repeat the N-th of the list (default: the last)")
        parser.add_argument(
            "overrides", nargs="*", default=[], help="settings to change, e.g. retry=failed or shard=2/4"
        )

    def do(self, chosen: argparse.Namespace) -> list[str] | None:
        if "=" in chosen.name:
            chosen.name, chosen.overrides = "table1", [chosen.name, *chosen.overrides]
        if not chosen.list:
            return resumed(chosen.runs, chosen.name, chosen.overrides, chosen.command)
        for number, each in enumerate(Command.all(chosen.runs, chosen.name), 1):
            print(f"{number}  {each.started[:16].replace('T', ' ')}  palign-bench {shlex.join(each.arguments)}")
        return None


class Report(Subcommand):
    """Print an experiment's tables again, from the ledger alone."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("--legend", action="store_true", help="with the columns' meaning, and the paper's figures")
        parser.add_argument("--wide", action="store_true", help="all columns, also those that have no room here")

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.report import make_report

        for plan in Plan.all(chosen.runs, chosen.name):
            print(make_report(plan, chosen.legend, chosen.wide).text)


class Status(Subcommand):
    """Show what is finished, failed and missing, and the time left."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", nargs="?", help="the experiment's name (default: all)")

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.report.status import status_of

        print(status_of(chosen.runs, chosen.name))


class Forecast(Subcommand):
    """Forecast what many people would cost, from measured costs."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.report.forecast import MODELS, PEOPLE

        _add_name(parser)
        parser.add_argument("--people", type=_counts, default=PEOPLE, help="comma-separated (default: 300,300000)")
        models = ",".join(MODELS)
        parser.add_argument("--models", default=models, help=f"beside the measured (default: {models})")
        parser.add_argument("--shards", type=_count, default=1, help="machines that share the people (default: 1)")

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.report.forecast import write_forecast

        models = [name for name in chosen.models.split(",") if name]
        for plan in Plan.all(chosen.runs, chosen.name):
            print(write_forecast(plan, chosen.people, models, chosen.shards))


class Efficiency(Subcommand):
    """Measure what each method costs, relative to PAS."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.cli.efficiency import add_arguments

        add_arguments(parser)

    def do(self, chosen: argparse.Namespace) -> list[str]:
        from palign_bench.cli.efficiency import efficiency_arguments

        return efficiency_arguments(chosen)


class People(Subcommand):
    """Print what is understood of a file or source of people."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.cli.people import add_source

        add_source(parser)

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.cli.people import people

        people(chosen)


class Select(Subcommand):
    """Pick people who stand for many."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.cli.select import add_arguments

        add_arguments(parser)

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.cli.select import select

        select(chosen)


class Score(Subcommand):
    """Score answers that were made elsewhere, without a model."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.cli.score import add_arguments

        add_arguments(parser)

    def do(self, chosen: argparse.Namespace) -> list[str]:
        from palign_bench.cli.score import score

        return score(chosen)


class Claims(Subcommand):
    """Check the paper's claims against what can be computed here."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        from palign_bench.cli.claims import add_arguments

        add_arguments(parser)

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.cli.claims import claims

        claims(chosen)


class Doctor(Subcommand):
    """Show what works on this machine, and the next command to type."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        pass

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.cli.doctor import doctor

        print(doctor(chosen.runs))


class Dashboard(Subcommand):
    """Make the W&B workspace of an experiment."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_name(parser)
        parser.add_argument("--project", default="palign-bench", help="the W&B project (default: palign-bench)")
        parser.add_argument("--entity", help="your W&B team; without it your own account")

    def do(self, chosen: argparse.Namespace) -> None:
        from palign_bench.tracking.dashboard import save_workspace  # W&B takes its time to import

        plans = Plan.all(chosen.runs, chosen.name)
        rows = dict.fromkeys(row.name for plan in plans for row in plan.read()[0])
        path = chosen.runs / chosen.name / "dashboard.json"
        print(save_workspace(path, chosen.project, chosen.entity, chosen.name, list(rows)))


SUBCOMMANDS: dict[str, Subcommand] = {
    "run": Run(),
    "resume": Resume(),
    "report": Report(),
    "status": Status(),
    "forecast": Forecast(),
    "efficiency": Efficiency(),
    "people": People(),
    "select": Select(),
    "score": Score(),
    "claims": Claims(),
    "dashboard": Dashboard(),
    "doctor": Doctor(),
}


def dispatch(arguments: Sequence[str]) -> list[str] | None:
    """Do the subcommand that was typed. Returns the arguments of the run that it stands for, None where it is done.

    A run is the default where settings or Hydra's options are typed. Raises UserError for what cannot be understood.
    """
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(_parser().format_help(), end="")
        return None
    if "--version" in arguments:
        print(f"{PROGRAM} {own_version()}")
        return None
    if first == "run":
        return _with_ledger_as_setting(arguments[1:])
    if first in SUBCOMMANDS:
        subcommand = SUBCOMMANDS[first]
        chosen = _parser(first).parse_intermixed(first, _with_ledger_as_option(arguments[1:]))
        chosen.typed = list(arguments)
        return subcommand.do(chosen)
    if "=" in first or first[0:1] in ("-", "+", "~"):
        return _with_ledger_as_setting(arguments)
    close = difflib.get_close_matches(first, SUBCOMMANDS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(f"{first} is no command{hint}; the commands are {', '.join(SUBCOMMANDS)}, settings are KEY=VALUE.")


def own_version() -> str:
    """The version of the installed package."""
    try:
        return version(PROGRAM)
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "(not installed)"


class _Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, as the rest of the program does."""

    _of: dict[str, argparse.ArgumentParser]

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_intermixed(self, name: str, arguments: Sequence[str]) -> argparse.Namespace:
        return self._of[name].parse_intermixed_args(arguments)


def _parser(chosen: str | None = None) -> _Parser:
    """The whole front door; only the chosen subcommand's options are declared, since some take seconds to import."""
    parser = _Parser(
        PROGRAM,
        usage=f"{PROGRAM} [SUBCOMMAND] [KEY=VALUE …]",
        description="Does aligning a language model to one person work, and what does it cost?",
        epilog="\n".join(
            ["subcommands:", *(f"  {name:12}{each.summary}" for name, each in SUBCOMMANDS.items()), _EPILOG]
        ),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=80),
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(prog=PROGRAM, parser_class=_Parser, help=argparse.SUPPRESS)
    parser._of = {}
    for name, subcommand in SUBCOMMANDS.items():
        one = subparsers.add_parser(name, description=subcommand.summary)
        parser._of[name] = one
        if name == chosen:
            one.add_argument("--runs", type=_folder, default=Path("runs"), help="the ledger's folder (default: runs)")
            subcommand.add_arguments(one)
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")


def _with_ledger_as_option(arguments: Sequence[str]) -> list[str]:
    """``runs=FOLDER`` as ``--runs=FOLDER``: the same words serve a run and a subcommand."""
    return [f"--{each}" if each.startswith("runs=") else each for each in arguments]


def _with_ledger_as_setting(arguments: Sequence[str]) -> list[str]:
    """``--runs FOLDER`` and ``--runs=FOLDER`` as ``runs=FOLDER``."""
    found: list[str] = []
    for each in arguments:
        if found[-1:] == ["--runs"]:
            found[-1] = f"runs={each}"
        else:
            found.append(each.removeprefix("--") if each.startswith("--runs=") else each)
    if found[-1:] == ["--runs"]:
        raise UserError("--runs: give the ledger's folder, as in --runs FOLDER or runs=FOLDER.")
    return found


def _folder(text: str) -> Path:
    return Path(text).expanduser()


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))
