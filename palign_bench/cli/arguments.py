"""What is typed, before Hydra reads it."""

import argparse
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from palign_bench.settings import UserError, conf_folder, options

_CHECKED_LATER = ("method.", "respondents.", "tracking.")
# The last words of keys whose values are texts: taken as typed, whatever characters they hold. Some say where data lie.
_PLACES = frozenset({"path", "folder", "columns", "name_or_path"})
_TEXTS = _PLACES | {"runs", "name", "file", "hub_name", "revision", "portraits"}
_PLAIN = re.compile(r"[A-Za-z0-9_./@%+$-]*")  # what Hydra reads as itself, unless it is a number
_FLAGS = frozenset({"-m", "--multirun", "-r", "--run", "--resolve", "-h", "--help", "--hydra-help", "--version", "-i",
                    "--info", "-sc", "--shell-completion"})  # fmt: skip
_FLAGS_WITH_VALUE = frozenset({"-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd",
                               "--config-dir", "--experimental-rerun"})  # fmt: skip
_FOLDER_OF_SETTINGS = ("-cd", "--config-dir")
_WORDS = ("true", "false", "inf", "nan")
_MEANT_FOR_HYDRA = re.compile(r"""'.*'|".*"|\[.*\]|\{.*\}|\$\{.*\}|[a-z_]+\(.*\)""", re.DOTALL)


def as_typed(arguments: Sequence[str], in_full: bool = False) -> list[str]:
    """The arguments with the values of texts quoted for Hydra's parser and ``~`` expanded, as in `runs=a (1)`.

    A value that is quoted already, a list, or a function of a sweep as in ``choice(a,b)`` stays as it is. In a sweep a
    comma separates values, unless there is a file of the whole name: never ledgers, of which a command has one.
    Applied again, it changes nothing. With ``in_full``, data and a folder of settings that are there are named by their
    whole path: in another folder the same words might name others.
    """
    sweeps = bool({"-m", "--multirun"} & set(arguments)) or any(each.startswith("experiment=") for each in arguments)
    typed = [_as_typed(each, sweeps, in_full) for each in arguments]
    return list(_with_whole_folders(typed)) if in_full else typed


def _with_whole_folders(arguments: Sequence[str]) -> Iterator[str]:
    for before, each in zip(["", *arguments], arguments, strict=False):
        name, equals, value = each.partition("=")
        if before in _FOLDER_OF_SETTINGS:
            yield _whole_place(each)
        elif name in _FOLDER_OF_SETTINGS and equals:
            yield f"{name}={_whole_place(value)}"
        else:
            yield each


def folders_of_settings(arguments: Sequence[str]) -> list[Path]:
    """The user's own folders like `conf/`."""
    pairs = [each.partition("=")[::2] for each in arguments] + list(pairwise(arguments))
    return [Path(value) for name, value in pairs if name in _FOLDER_OF_SETTINGS and value]


def _as_typed(argument: str, sweeps: bool, in_full: bool) -> str:
    key, equals, value = argument.partition("=")
    last = key.rpartition(".")[2].lstrip("+")
    lists_ids = last == "ids" and _is_there(value)
    if not equals or argument.startswith("-") or not (last in _TEXTS or lists_ids):
        return argument
    if _MEANT_FOR_HYDRA.fullmatch(value) and not _is_there(value):
        return argument
    whole = key == "runs" or "," not in value or _is_there(value)
    if not (whole or sweeps):
        return argument
    texts = [value] if whole else value.split(",")
    if in_full and (last in _PLACES or lists_ids):
        texts = [_whole_place(each) for each in texts]
    return f"{key}={','.join(map(_quoted, texts))}"


def _is_there(text: str) -> bool:
    with suppress(OSError, ValueError):  # a list of many ids is too long for a name
        return bool(text) and Path(expanded(text)).exists()
    return False


def _whole_place(text: str) -> str:
    return str(Path(expanded(text)).absolute()) if _is_there(text) else text


def at_home(settings: Any, key: str = "") -> Any:
    """The settings with ``~`` expanded in every text that may be a place, also where a YAML file gave it."""
    if isinstance(settings, Mapping):
        return {str(name): at_home(value, str(name)) for name, value in settings.items()}
    return expanded(settings) if isinstance(settings, str) and key in _TEXTS else settings


def expanded(text: str) -> str:
    """The text with a leading ``~`` or ``~name`` as the home that it stands for."""
    with suppress(RuntimeError):  # nobody's home is known: the error names what was typed
        return str(Path(text).expanduser()) if text.startswith("~") else text
    return text


def _quoted(text: str) -> str:
    text = expanded(text)
    if _PLAIN.fullmatch(text) and not _is_number(text) and text.lower() not in _WORDS:
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)  # a quote, and the backslashes before it
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def _is_number(text: str) -> bool:
    """Whether Hydra would make a number of it: the folder ``007`` is none."""
    with suppress(ValueError):
        float(text)
        return True
    return False


def options_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's own options before the settings: its parser gives up where they stand among them.

    Raises UserError for an option that Hydra does not have, which it would answer with all of its own.
    """
    options_, settings = [], []
    left = iter(arguments)
    for each in left:
        name, equals, _ = each.partition("=")
        if not each.startswith("-"):
            settings.append(each)
        elif name not in _FLAGS and name not in _FLAGS_WITH_VALUE:
            raise UserError(f"{each} is no option of a run (see palign-bench run --help); settings are KEY=VALUE.")
        else:
            options_.append(each)
            if name in _FLAGS_WITH_VALUE and not equals:
                options_ += [value for value in [next(left, None)] if value is not None]
    return [*options_, *settings]


def check_changes(arguments: Sequence[str]) -> None:
    """Raise UserError for `+key=…`, which Hydra would add and nothing would read, for `~key`, and for `model=_base`.

    And for what Hydra's own sweeper is to sweep over, of which all else that reads the arguments would not know.

    Keys of a method may be added: its constructor refuses those that it does not know. So do the people's loaders.
    """
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        if key.startswith("hydra.sweeper.params") and not chooses(arguments, "hydra/sweeper"):
            raise UserError(f"{argument}: type what is swept over as settings, as in -m seed=1,2 instead.")
        shared = [each for each in value.split(",") if each.startswith("_")]  # files that options start from
        if shared and (conf_folder() / key).is_dir():
            raise UserError(f"{key}={shared[0]} does not exist; choose one of {', '.join(options(key))}.")
        checked = key.startswith(("hydra.", "hydra/")) or (argument[0:1] == "+" and key.startswith(_CHECKED_LATER))
        if argument[0:1] in ("+", "~") and not checked:
            what = "removes" if argument.startswith("~") else "adds"
            raise UserError(f"{argument}: this {what} a setting; only values change, as in {key}=VALUE (see --help).")


def chooses(arguments: Sequence[str], group: str) -> bool:
    """Whether the arguments choose an option of this Hydra group other than ``basic``."""
    return any(each.startswith(f"{group}=") and each != f"{group}=basic" for each in arguments)


def swept_by_experiment(arguments: Sequence[str]) -> list[str]:
    """What `experiment=X` sweeps over, as one would type it, for messages about it."""
    swept: list[str] = []
    for name in (each.partition("=")[2] for each in arguments if each.startswith("experiment=")):
        places = (folder / "experiment" / f"{name}.yaml" for folder in (conf_folder(), *folders_of_settings(arguments)))
        if path := next((each for each in places if each.is_file()), None):
            with suppress(OSError, ValueError, yaml.YAMLError):  # Hydra reads it too, and tells what is wrong
                swept += [f"{key}={value}" for key, value in _swept_in(path).items()]
    return swept


def _swept_in(path: Path) -> Mapping[str, Any]:
    node: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in ("hydra", "sweeper", "params"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


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


def new_place(text: str) -> Path:
    """An argparse type: a path to write. Raises ArgumentTypeError where its folder does not exist."""
    place = Path(text).expanduser()
    if not place.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{place.parent} is no folder; make it, or name another place")
    return place


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """The argument that names an experiment of the ledger."""
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")


def add_overrides(
    parser: argparse.ArgumentParser, told: str = "as for a run: model=… respondents=… protocol=…"
) -> None:
    """The arguments that are a run's settings."""
    parser.add_argument("overrides", nargs="*", default=[], help=told)


def with_defaults(overrides: Sequence[str], defaults: Mapping[str, object]) -> list[str]:
    """The settings that were typed, and the defaults of the others."""
    typed = {each.partition("=")[0] for each in overrides}
    return [*(f"{key}={value}" for key, value in defaults.items() if key not in typed), *overrides]


def without(overrides: Sequence[str], *keys: str) -> list[str]:
    """The settings less those of these keys."""
    return [each for each in overrides if each.partition("=")[0] not in keys]


def add_twice_reversed(parser: argparse.ArgumentParser) -> None:
    """The switch that draws what the paper drew."""
    told = "densities of what the paper's figures 21-25 show, which is no trait score (labelled so)"
    parser.add_argument("--twice-reversed", action="store_true", help=told)


def command_id(arguments: Sequence[str]) -> str:
    """The same for the same work: two processes that share it, or are its shards, make one table."""
    places = ("-", "shard=", "retry=", "runs=", "tracking", "hydra")
    last = {each.partition("=")[0]: each for each in arguments if not each.startswith(places)}  # as Hydra takes them
    return hashlib.sha256("\n".join(sorted(last.values())).encode()).hexdigest()[:12]
