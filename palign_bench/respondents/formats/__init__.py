"""File formats of people: delimited tables, Johnson's fixed-width files, JSON. Each is read into `Stored` answers."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.inventory import LOWEST, Inventory, ipip_neo_120, ipip_neo_300
from palign_bench.respondents.source import RespondentsError

_FEWEST_OF_A_BEGINNING = 20  # items 1, 2, 3, … from which a file may be the beginning of the short form
_NAMED_COLUMNS = 12  # ignored columns that a note lists before it counts the rest


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


def scale(inventory: Inventory) -> str:
    """What an answer to the inventory is, for messages."""
    return f"a whole number {LOWEST}…{inventory.highest}"


def answer(text: str, inventory: Inventory) -> int | None:
    """A cell's answer: ``4``, ``4.0`` or ``4,0`` in the inventory's range; None for anything else."""
    digit = _digit(text)
    return digit if digit is not None and LOWEST <= digit <= inventory.highest else None


def _digit(text: str) -> int | None:
    match = re.fullmatch(r"([0-9])(?:[.,]0+)?", text.strip(), re.ASCII)
    return int(match[1]) if match else None


def plain(text: str) -> str:
    """A cell without space, case and decimals of zero, to compare marks of missing: ``-9.0`` is ``-9``."""
    return re.sub(r"[.,]0+$", "", text.strip().lower())


def no_answer(where: str, text: str, inventory: Inventory, seen: Iterable[str]) -> RespondentsError:
    """The error for a text that is no answer. ``seen``: what else stands for answers in the file.

    A 0 where nobody has the highest answer may be a missing one, or the lowest of a scale that starts there: to drop
    it would shift everybody without a word.
    """
    digits = {_digit(each) for each in seen} - {None}
    starts_at_0 = _digit(text) == 0 and inventory.highest not in digits
    return RespondentsError(
        f"{where}: {text.strip()[:20]!r} is no answer; give {scale(inventory)}, nothing when it is missing, or name "
        "what stands for missing in respondents.missing"
        + (
            f"; if the scale starts at 0 (no {inventory.highest} is there), add 1 to every answer"
            if starts_at_0
            else ""
        )
    )


def numbering(inventory: Inventory) -> str:
    """How many items the inventory has and how they are numbered, for messages."""
    numbers = sorted(inventory.by_number)
    gaps = "" if numbers[-1] - numbers[0] < len(numbers) else " with gaps"
    return f"{inventory.name} has {len(numbers)} items, numbered {numbers[0]} … {numbers[-1]}{gaps}"


def renumbered(where: str, found: Collection[int], inventory: Inventory, otherwise: str) -> dict[int, int]:
    """The inventory's number of each item number in a file: the same, but where all are the short form's own, 1 … 120.

    Under the long form's numbers such a file can be read as well, and would be wrong: it is refused. So is one that
    has most of them or the first ones, since nothing tells which of the two it means. ``otherwise``: what helps there.
    """
    short_form = ipip_neo_300().known
    within = set(found) <= set(range(1, len(short_form) + 1))
    mostly = len(found) > len(short_form) / 2
    beginning = _FEWEST_OF_A_BEGINNING <= len(found) == max(found, default=0)  # IPIP-NEO-60, or who gave up
    if not (within and (mostly or beginning)) or inventory not in (ipip_neo_300(), ipip_neo_120()):
        return {number: number for number in found}
    whole = len(found) == len(short_form)
    if whole and inventory == ipip_neo_120():
        return dict(enumerate(short_form, start=1))
    share, remedy = "", f"set inventory={ipip_neo_120().name}, or "
    if not whole:
        share, remedy = f"{len(found)} of ", "they may be its or the long form's: "
    raise RespondentsError(
        f"{where}: its items are {share}1 to {len(short_form)}, as the short form numbers its own; {remedy}{otherwise}"
    )


def not_read(place: Path, columns: Sequence[str]) -> str:
    """A note on columns of a file that are no items."""
    more = f" … ({len(columns)} in all)" if len(columns) > _NAMED_COLUMNS else ""
    return f"{place.name}: not read, since they are no items: {', '.join(columns[:_NAMED_COLUMNS])}{more}"
