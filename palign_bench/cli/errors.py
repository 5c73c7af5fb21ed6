"""Hydra's and OmegaConf's many-line errors, as one line that names the key and the valid choices."""

import errno
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from palign_bench.cli.arguments import folders_of_settings
from palign_bench.settings import UserError, conf_folder, did_you_mean, options, read_option

_NO_KEY = re.compile(
    r"Key '[^']+' is not in struct\s+full_key: (\S+)|Could not override '([^']+)'.*No match in the defaults list",
    re.DOTALL,
)
# The ledger's own writes name their file (`WriteError`): without one it is standard output.
_OF_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF})
_SEVERAL = re.compile(r"Ambiguous value for argument '([^']+)'")
# A cluster's job hands its exception on as text (submitit's FailedJobError).
_TOLD_BY_A_JOB = re.compile(r"^palign_bench\.[\w.]*Error: (.*)$", re.MULTILINE)


def one_line(error: BaseException, arguments: Sequence[str]) -> str | None:
    """The error as one line for the user, or None when it is no mistake of the user's."""
    chain = _chain(error)
    if found := next((each for each in chain if isinstance(each, UserError)), None):
        return found.sentence
    if told := _TOLD_BY_A_JOB.search(str(error)):
        return told.group(1)
    if any('Could not detect "srun"' in str(each) for each in chain):
        return "hydra/launcher=submitit_slurm: this machine has no SLURM (no srun); use hydra/launcher=joblib or basic."
    if any(type(each).__name__ == "TerminatedWorkerError" for each in chain):
        return "a process of hydra/launcher=joblib was killed, mostly for memory. The same command does the rest."
    if missing := next((each for each in chain if isinstance(each, MissingConfigException)), None):
        return _missing_option(missing, folders_of_settings(arguments))
    if match := next(filter(None, (_SEVERAL.search(str(each)) for each in chain)), None):
        return f"{match[1]}: several values are a sweep; add -m, or quote one value with a comma."
    if broken := next((each for each in chain if isinstance(each, MarkedYAMLError) and each.problem_mark), None):
        mark: Any = broken.problem_mark
        return f"{mark.name}, line {mark.line + 1}: {broken.problem}; check the YAML there."
    if match := next(filter(None, (_NO_KEY.search(str(each)) for each in chain)), None):
        return _unknown_key(match[1] or match[2], arguments)
    if isinstance(error, OSError) and error.strerror:
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}. Check the place, or choose another with runs=PATH."
        if error.errno in _OF_WRITING:
            return f"writing failed, {error.strerror}: check where the output goes."
        return f"{error.strerror}."
    if unreadable := next((each for each in chain if isinstance(each, OverrideParseException)), None):
        return _unreadable(str(unreadable.override))
    if other := next((each for each in chain if isinstance(each, HydraException | OmegaConfBaseException)), None):
        return " ".join(str(other).split())
    return None


def _unreadable(override: str) -> str:
    """How to quote what Hydra cannot read: once for Hydra, once more for the shell."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: give a setting as KEY=VALUE (see palign-bench --help)."
    escaped = re.sub(r'(\\*)"', r"\1\1\"", value)  # a quote, and the backslashes before it
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    typed = shlex.quote(f'{key}="{escaped}"')
    return f"{override}: quote a value that has spaces or any of ,=:()[]{{}}'\"~ in it: {typed}"


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _missing_option(error: MissingConfigException, own: Sequence[Path]) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if group and (conf_folder() / group).is_dir():
        choices = options(group, *own)
        return f"{group}={name} does not exist{did_you_mean(name, choices)}; choose one of {', '.join(choices)}."
    groups = sorted(p.name for p in conf_folder().iterdir() if p.is_dir())
    return f"{error.missing_cfg_file} does not exist; the groups are {', '.join(groups)}."


def _unknown_key(key: str, arguments: Sequence[str]) -> str:
    parent, _, last = key.rpartition(".")
    swept = _swept_options(parent, arguments)
    having = [option for option in swept if last in _keys_at(parent, [f"{parent}={option}"])]
    if having:
        lacking = ", ".join(option for option in swept if option not in having)
        return f"{key} is no setting of {parent}={lacking}; sweep over those that have it: {parent}={','.join(having)}."
    valid = _keys_at(parent, arguments)
    where = f"of {parent} " if parent else ""
    return f"{key} is no setting{did_you_mean(last, valid)}; the keys {where}are {', '.join(valid)}."


def _swept_options(group: str, arguments: Sequence[str]) -> list[str]:
    """The options of a group that the arguments sweep over; none for one option alone."""
    chosen = dict(a.split("=", 1) for a in arguments if "=" in a).get(group, "")
    options_ = [each.strip() for each in chosen.split(",")]
    return options_ if len(options_) > 1 else []


def _keys_at(parent: str, arguments: Sequence[str]) -> list[str]:
    """The keys at a node of the configuration that the valid group choices among the arguments make."""
    group = parent.split(".")[0]
    top = OmegaConf.load(conf_folder() / "config.yaml")
    assert isinstance(top, DictConfig)
    defaults = {k: v for entry in top.pop("defaults") if isinstance(entry, DictConfig) for k, v in entry.items()}
    if not parent:
        return sorted({*map(str, top), *(str(k) for k in defaults if not str(k).startswith(("override", "optional")))})
    chosen = dict(a.split("=", 1) for a in arguments if "=" in a).get(group, str(defaults.get(group)))
    name, own = chosen.split(",")[0], folders_of_settings(arguments)
    try:
        node: Any = read_option(group, name, *own)
    except UserError:
        return options(group, *own)
    for part in parent.split(".")[1:]:
        node = node.get(part) if isinstance(node, Mapping) else None
    return sorted(str(k) for k in node if not str(k).startswith("_")) if isinstance(node, Mapping) else []
