"""File formats of people: delimited tables, Johnson's fixed-width files, JSON. Each is read into `Stored` answers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import LOWEST, Inventory
from palign_bench.respondents.source import RespondentsError


@dataclass(frozen=True)
class Stored:
    """Answers as a file stores them: literal, or keyed.

    ``answers``: (people, items of the inventory in its order), int8, 0 where missing. ``places``: where each person
    stands in the file, for error messages. ``layout``: the format in words. ``ignored``: columns that are no items.
    ``orientation``: what the format's own documentation says, None where it leaves it open.
    """

    ids: Sequence[str]
    answers: NDArray[np.int8]
    places: Sequence[str]
    layout: str
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    orientation: str | None = None


def read_text(place: Path, key: str) -> tuple[str, str]:
    """A text file's content and its encoding: by its byte order mark, else UTF-8, else Windows' Latin-1 (cp1252).

    ``key``: the setting that names the file, for messages.
    """
    try:
        content = place.read_bytes()
    except FileNotFoundError as error:
        raise RespondentsError(f"{place}: no such file; check {key}") from error
    except OSError as error:
        raise RespondentsError(f"{place}: cannot be read ({error.strerror}); check {key}") from error
    marks = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    for encoding in [name for mark, name in marks if content.startswith(mark)] or ["utf-8", "cp1252"]:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError as error:
            problem = error
    raise RespondentsError(
        f"{place}: byte {problem.start + 1} is neither UTF-8 nor Latin-1; save the file as UTF-8"
    ) from problem


def scale(inventory: Inventory) -> str:
    """What an answer to the inventory is, for messages."""
    return f"a whole number {LOWEST}…{inventory.highest}"


def answer(text: str, inventory: Inventory) -> int | None:
    """A cell's answer: ``4``, ``4.0`` or ``4,0`` in the inventory's range; None for anything else."""
    match = re.fullmatch(r"([0-9])(?:[.,]0+)?", text.strip(), re.ASCII)
    return int(match[1]) if match and LOWEST <= int(match[1]) <= inventory.highest else None


def no_answer(where: str, text: str, inventory: Inventory) -> RespondentsError:
    return RespondentsError(
        f"{where}: {text.strip()[:20]!r} is no answer; give {scale(inventory)}, nothing when it is missing, or name "
        "what stands for missing in respondents.missing"
    )
