"""The one front door: `palign-bench SUBCOMMAND …`."""

import argparse
import difflib
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from palign_bench.costs.machine import version_of
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


# Each but `run` is a module of this folder, imported when it is typed. `add_arguments(parser)` declares its options;
# `do(chosen)` does it, and returns None or the arguments of the run that it stands for.
SUBCOMMANDS: dict[str, str] = {
    "run": "Run a method, a sweep or an experiment (the word may be left out).",
    "table1": "Make the first table, in minutes on a CPU.",
    "testbed": "Run every method, and learning curves, on the organism.",
    "resume": "Run the last command again: only what is missing is computed.",
    "report": "Print an experiment's tables again, from the ledger alone.",
    "status": "Show what is finished, failed and missing, and the time left.",
    "forecast": "Forecast what many people would cost, from measured costs.",
    "efficiency": "Measure what each method costs, relative to PAS.",
    "people": "Print what is understood of a file or source of people.",
    "select": "Pick people who stand for many.",
    "score": "Score answers that were made elsewhere, without a model.",
    "claims": "Check the paper's claims against what can be computed here.",
    "dashboard": "Make the W&B workspace of an experiment.",
    "doctor": "Show what works on this machine, and the next command to type.",
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
        print(f"{PROGRAM} {version_of(PROGRAM) or '(not installed)'}")
        return None
    if first == "run":
        return _with_ledger_as_setting(arguments[1:])
    if first in SUBCOMMANDS:
        typed = [f"--{each}" if each.startswith("runs=") else each for each in arguments[1:]]  # the same words as a run
        chosen = _parser(first).parse_intermixed(first, typed)
        chosen.typed = list(arguments)
        return _module(first).do(chosen)
    if "=" in first or first[0:1] in ("-", "+", "~"):
        return _with_ledger_as_setting(arguments)
    close = difflib.get_close_matches(first, SUBCOMMANDS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise UserError(f"{first} is no command{hint}; the commands are {', '.join(SUBCOMMANDS)}, settings are KEY=VALUE.")


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
            ["subcommands:", *(f"  {name:12}{summary}" for name, summary in SUBCOMMANDS.items()), _EPILOG]
        ),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=80),
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    subparsers = parser.add_subparsers(prog=PROGRAM, parser_class=_Parser, help=argparse.SUPPRESS)
    parser._of = {}
    for name, summary in SUBCOMMANDS.items():
        one = subparsers.add_parser(name, description=summary)
        parser._of[name] = one
        if name == chosen:
            one.add_argument("--runs", type=_folder, default=Path("runs"), help="the ledger's folder (default: runs)")
            _module(name).add_arguments(one)
    return parser


def _module(subcommand: str) -> ModuleType:
    return import_module(f"palign_bench.cli.{subcommand}")


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
