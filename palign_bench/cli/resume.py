"""`palign-bench resume`: an experiment's command again, of which only what is missing is computed."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from palign_bench.cli.arguments import add_experiment, add_overrides, without
from palign_bench.ledger.plan import Command
from palign_bench.settings import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_experiment(parser)
    parser.add_argument("--list", action="store_true", help="show the experiment's commands, numbered, and stop")
    parser.add_argument("--command", type=int, metavar="N", help="repeat the N-th of the list (default: the last)")
    add_overrides(parser, "settings to change, e.g. retry=failed or shard=2/4")


def do(chosen: argparse.Namespace) -> list[str] | None:
    """The arguments of the command that is repeated; None after listing the commands."""
    if "=" in chosen.name:
        chosen.name, chosen.overrides = "table1", [chosen.name, *chosen.overrides]
    if not chosen.list:
        return resumed(chosen.runs, chosen.name, chosen.overrides, chosen.command)
    for number, each in enumerate(Command.all(chosen.runs, chosen.name), 1):
        print(f"{number}  {each.started[:16].replace('T', ' ')}  palign-bench {shlex.join(each.arguments)}")
    return None


def resumed(runs: Path, name: str, overrides: Sequence[str], number: int | None = None) -> list[str]:
    """The arguments of the experiment's command of this number (the last without one), with these overrides.

    Everybody is computed, whatever shards the command was run in; ``shard=2/4`` computes a part.
    """
    commands = Command.all(runs, name)
    if number is not None and not 1 <= number <= len(commands):
        raise UserError(f"--command {number}: {name} has the commands 1 to {len(commands)} (see --list).")
    overrides = [f"runs={runs}", *overrides]  # the ledger may have been moved since
    kept = without(commands[(number or 0) - 1].arguments, *(each.partition("=")[0] for each in overrides))
    command = [*kept, *overrides]
    print(f"palign-bench {shlex.join(command)}", file=sys.stderr)
    return command
