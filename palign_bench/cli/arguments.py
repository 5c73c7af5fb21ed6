"""What is typed, before Hydra reads it."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from palign_bench.files import LedgerError, read_json
from palign_bench.settings import UserError, conf_folder, options

_CHECKED_LATER = ("method.", "respondents.", "tracking.")


_HYDRA_QUERIES = ("--help", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc")


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
    return as_part_of_the_sweep(expanded)


def as_part_of_the_sweep(arguments: Sequence[str]) -> list[str]:
    """``method.steps=2`` beside ``method=lora,dpo`` as a sweep over one value, ``method.steps=choice(2)``.

    A plain value Hydra would first set on the group's default option (``method=vanilla``), which need not have the key.
    """
    chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
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
