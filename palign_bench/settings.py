"""What a user may set, and the one kind of error that is the user's to mend: one line, without a traceback."""

import difflib
import math
import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeGuard

import yaml


class UserError(Exception):
    """A setting, file or machine that cannot serve as asked; the message names it and the remedy, in one line.

    What it quotes from a user's file cannot break the line or command the terminal: control characters are escaped.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

    @property
    def sentence(self) -> str:
        """The line as a terminal shows it, with its full stop: some messages are also parts of others."""
        text = str(self)
        return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def counted(number: int, one: str = "person", many: str = "people") -> str:
    """A number with its noun, for messages: ``1 person``, ``1,000 people``."""
    return f"{number:,} {one if number == 1 else many}"


def shortened(message: str, longest: int) -> str:
    """The message's first line; of a longer one the beginning, and an ellipsis that says so."""
    line = (message.splitlines() or [""])[0]
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(typed: str, choices: Iterable[str]) -> str:
    """A hint for messages, after a space: `` (did you mean report?)``; empty where nothing is like what was typed."""
    return "".join(f" (did you mean {each}?)" for each in difflib.get_close_matches(typed, list(choices), n=1))


Settings = dict[str, Any]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a setting is a finite number; ``true`` is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object, lowest: float = -math.inf) -> TypeGuard[int]:
    """Whether a setting is a whole number of at least ``lowest``, written as one: ``1.0`` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= lowest


def whole(key: str, value: object, lowest: int = 1) -> None:
    """Raise ValueError unless the setting is a whole number of at least ``lowest``."""
    if not is_number(value) or value != int(value) or value < lowest:
        raise ValueError(f"{key}={value}: choose a whole number, {lowest} or more")


def positive(key: str, value: object) -> None:
    """Raise ValueError unless the setting is a number above 0."""
    if not is_number(value) or value <= 0:
        raise ValueError(f"{key}={value}: choose a positive number")


def one_of(key: str, value: object, choices: Collection[str]) -> None:
    """Raise ValueError unless the setting is one of these."""
    if value not in choices:
        raise ValueError(f"{key}={value}: choose one of {', '.join(choices)}")


CACHE_VARIABLE = "PALIGN_CACHE_DIR"


def cache_folder() -> Path:
    """Where downloads and converted models are kept: ``PALIGN_CACHE_DIR``, else ``~/.cache/palign_bench``.

    A user without a home directory (a container's number without a name) gets one of their own in the temporary
    folder. Raises UserError for a ``~`` that leads nowhere, and where somebody else owns that folder.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError as error:
            raise UserError(
                f"{CACHE_VARIABLE}={named}: no such home directory is known; give the whole path."
            ) from error
    try:
        return Path.home() / ".cache" / "palign_bench"
    except RuntimeError:
        folder = Path(tempfile.gettempdir()) / f"palign_bench-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise UserError(f"{folder} belongs to somebody else; name a folder in {CACHE_VARIABLE}.") from None
        return folder


def conf_folder() -> Path:
    """`conf/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def options(group: str, *more: Path) -> list[str]:
    """The names to choose from in a group of `conf/`, and of ``more`` folders like it."""
    found = {path.stem for folder in (conf_folder(), *more) for path in (folder / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def read_option(group: str, name: str, *more: Path) -> Settings:
    """One option's YAML, for choices made by name (a portrait writer), of `conf/` or of ``more`` folders like it.

    Raises UserError with the choices.
    """
    paths = (folder / group / f"{name}.yaml" for folder in (conf_folder(), *more))
    path = next((each for each in paths if each.is_file()), None)
    if path is None:
        raise UserError(f"{group}={name} does not exist; choose one of {', '.join(options(group, *more))}.")
    settings: Settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    common: Settings = {}
    for each in settings.pop("defaults", []):
        if each != "_self_":
            common |= read_option(group, each, *more)
    return common | settings
