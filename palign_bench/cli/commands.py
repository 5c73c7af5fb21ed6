"""The one front door: `palign-bench SUBCOMMAND …`."""

import argparse
import textwrap
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from palign_bench.costs.machine import version_of
from palign_bench.settings import UserError, conf_folder, did_you_mean

PROGRAM = "palign-bench"
_EPILOG = """
settings are KEY=VALUE; these are chosen by name (run --help lists the names):
{groups}

examples:
  palign-bench method=pas respondents.limit=3       one method on three people
  palign-bench -m method=few_shot,pas seed=0,1      a sweep
  palign-bench experiment=table1                    every method and the floors
  palign-bench resume table1                        what is missing
  palign-bench report table1                        the table again
"""


# The module of this folder, imported when the subcommand is typed, and what help says. `<name>_arguments(parser)` there
# declares its options, where it has any; `<name>(chosen)` does it, and returns None or the arguments of its run.
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "run": ("main", "Run a method, a sweep or an experiment (the word may be left out)."),
    "table1": ("as_run", "Make the first table, in minutes on a CPU."),
    "testbed": ("as_run", "Run every method, and learning curves, on the organism."),
    "resume": ("as_run", "Run the last command again: only what is missing is computed."),
    "report": ("from_ledger", "Print an experiment's tables again, from the ledger alone."),
    "status": ("from_ledger", "Show what is finished, failed and missing, and the time left."),
    "forecast": ("from_ledger", "Forecast what many people would cost, from measured costs."),
    "efficiency": ("as_run", "Measure what each method costs, relative to PAS."),
    "people": ("people", "Print what is understood of a file or source of people."),
    "select": ("people", "Pick people who stand for many."),
    "score": ("as_run", "Score answers that were made elsewhere, without a model."),
    "claims": ("from_ledger", "Check the paper's claims against what can be computed here."),
    "dashboard": ("from_ledger", "Make the W&B workspace of an experiment."),
    "doctor": ("doctor", "Show what works on this machine, and the next command to type."),
}


def dispatch(arguments: Sequence[str]) -> list[str] | None:
    """Do the subcommand that was typed. Returns the arguments of the run that it stands for, None where it is done.

    A run is the default where settings or Hydra's options are typed. Raises UserError for what cannot be understood.
    """
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        print(_help(), end="")
        return None
    if "--version" in arguments:
        print(f"{PROGRAM} {version_of(PROGRAM) or '(not installed)'}")
        return None
    if first == "run":
        return _with_ledger_as_setting(arguments[1:])
    if first in SUBCOMMANDS:
        typed = [f"--{each}" if each.startswith("runs=") else each for each in arguments[1:]]  # the same words as a run
        chosen = parser_of(first).parse_intermixed_args(typed)
        chosen.typed = list(arguments)
        asked: list[str] | None = getattr(_module(first), first)(chosen)
        return asked
    if "=" in first or first[0:1] in ("-", "+", "~"):
        return _with_ledger_as_setting(arguments)
    known = ", ".join(SUBCOMMANDS)
    hint = did_you_mean(first, SUBCOMMANDS)
    raise UserError(f"{first} is no command{hint}; the commands are {known}. Settings are KEY=VALUE.")


class _Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, as the rest of the program does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def parser_of(name: str) -> argparse.ArgumentParser:
    """Reads what is typed after a subcommand's name."""
    parser = _Parser(f"{PROGRAM} {name}", description=SUBCOMMANDS[name][1])
    parser.add_argument("--runs", type=_folder, default=Path("runs"), help="the ledger's folder (default: runs)")
    getattr(_module(name), f"{name}_arguments", lambda _: None)(parser)
    return parser


def _help() -> str:
    summaries = (f"  {name:12}{summary}" for name, (_, summary) in SUBCOMMANDS.items())
    groups = sorted({path.parent.name for path in conf_folder().glob("*/*.yaml")})
    listed = textwrap.fill(", ".join(groups), 80, initial_indent="  ", subsequent_indent="  ")
    parser = argparse.ArgumentParser(
        PROGRAM,
        usage=f"{PROGRAM} [SUBCOMMAND] [KEY=VALUE …]",
        description="Does aligning a language model to one person work, and what does it cost?",
        epilog="\n".join(["subcommands:", *summaries, _EPILOG.format(groups=listed)]),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=80),
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser.format_help()


def _module(subcommand: str) -> ModuleType:
    return import_module(f"palign_bench.cli.{SUBCOMMANDS[subcommand][0]}")


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
