"""What is typed, before Hydra reads it."""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from palign_bench.ledger.plan import Command
from palign_bench.settings import UserError, conf_folder

_CHECKED_LATER = ("method.", "respondents.", "tracking.")


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


def swept_by_experiment(arguments: Sequence[str]) -> list[str]:
    """What `experiment=X` sweeps over, as one would type it, for messages about it."""
    swept: list[str] = []
    for name in (each.partition("=")[2] for each in arguments if each.startswith("experiment=")):
        path = conf_folder() / "experiment" / f"{name}.yaml"
        if path.is_file():
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            swept += [f"{key}={value}" for key, value in document["hydra"]["sweeper"]["params"].items()]
    return swept


def as_part_of_the_sweep(arguments: Sequence[str]) -> list[str]:
    """``method.steps=2`` beside ``method=lora,dpo`` as a sweep over one value, ``method.steps=choice(2)``.

    A plain value Hydra would first set on the group's default option (``method=vanilla``), which need not have the key.
    """
    typed = [*swept_by_experiment(arguments), *arguments]
    chosen = dict(argument.split("=", 1) for argument in typed if "=" in argument)
    swept = {group for group, value in chosen.items() if "." not in group and "," in value}
    found = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        within = equals and key.partition(".")[0] in swept and "." in key
        already = value.startswith(("choice(", "range(", "interval(", "glob(", "sort(", "shuffle(", "tag(")) or (
            "," in value and value[0] not in "[{'\""
        )
        found.append(f"{key}=choice({value})" if within and value and not already else argument)
    return found


def resumed(arguments: Sequence[str]) -> list[str]:
    """`palign-bench resume [NAME] [--runs FOLDER] [KEY=VALUE …]` as the command that was typed last, so changed.

    With ``--list`` it prints the experiment's commands instead and exits. Everybody is computed, whatever shards the
    command was run in; ``shard=2/4`` computes a part.
    """
    parser = argparse.ArgumentParser("palign-bench resume", description="Run an experiment's last command again.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    parser.add_argument("--list", action="store_true", help="show the experiment's commands, numbered, and stop")
    parser.add_argument("--command", type=int, metavar="N", help="repeat the N-th of the list (default: the last)")
    parser.add_argument("overrides", nargs="*", help="settings to change, e.g. retry=failed or shard=2/4")
    chosen = parser.parse_intermixed_args(arguments)
    overrides = list(chosen.overrides)
    if "=" in chosen.name:
        chosen.name, overrides = "table1", [chosen.name, *overrides]
    commands = Command.all(chosen.runs, chosen.name)
    if chosen.list:
        for number, each in enumerate(commands, 1):
            print(f"{number}  {each.started[:16].replace('T', ' ')}  palign-bench {shlex.join(each.arguments)}")
        raise SystemExit(0)
    if chosen.command is not None and not 1 <= chosen.command <= len(commands):
        raise UserError(
            f"--command {chosen.command}: {chosen.name} has the commands 1 to {len(commands)} (see --list)."
        )
    overrides = [f"runs={chosen.runs}", *overrides]  # the ledger may have been moved since
    changed = {each.partition("=")[0] for each in overrides}
    kept = commands[(chosen.command or 0) - 1].arguments
    command = [each for each in kept if each.partition("=")[0] not in changed] + overrides
    print(f"palign-bench {shlex.join(command)}", file=sys.stderr)
    return command


def command_id(arguments: Sequence[str]) -> str:
    """The same for the same work: two processes that share it, or are its shards, make one table."""
    places = ("-", "shard=", "retry=", "runs=", "tracking", "hydra")
    kept = sorted(argument for argument in arguments if not argument.startswith(places))
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:12]
