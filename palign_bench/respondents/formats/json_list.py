"""People as a JSON list: ``[{"id": "anna", "answers": {"1": 4, "9": 2}}, …]``; a missing answer is absent or null.

Numbers are those of the inventory, with the short form's own as in tables (`renumbered`).
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palign_bench.questionnaire.inventory import LOWEST, Inventory
from palign_bench.respondents.formats import Stored, no_answer, numbering, plain, renumbered, scale
from palign_bench.respondents.source import RespondentsError

_SHAPE = '[{"id": …, "answers": {"1": 5, …}}, …]'


def read_json_list(place: Path, text: str, inventory: Inventory, missing: Sequence[object] = ()) -> Stored:
    """The people of a JSON file. ``missing``: values that are no answer, beside null.

    Raises `RespondentsError` naming the entry and key of what cannot be read.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique_pairs)
    except json.JSONDecodeError as error:
        raise RespondentsError(f"{place}, line {error.lineno}: not JSON ({error.msg}); correct it there") from error
    except KeyError as error:  # of `_unique_pairs`
        raise RespondentsError(f"{place}: key {error} is there twice in one object; keep one of them") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise RespondentsError(f"{place}: not a list of people; it must have {_SHAPE}") from error
    if not isinstance(document, list):
        raise RespondentsError(f'{place}: must be a list [{{"id": …, "answers": {{…}}}}, …], not {_kind(document)}')
    places = [f"{place}, entry {position}" for position in range(1, len(document) + 1)]
    ids = [_id(where, entry) for where, entry in zip(places, document, strict=True)]
    given: list[dict[str, Any]] = [entry["answers"] for entry in document]
    column, lacking = _columns(place, given, inventory), {plain(str(each)) for each in missing}
    answers = np.zeros((len(document), len(inventory.items)), dtype=np.int8)
    for row, (where, of_person) in enumerate(zip(places, given, strict=True)):
        for key, value in of_person.items():
            at = f"{where} (id {ids[row]}), item {key!r}"
            if key not in column:
                raise RespondentsError(f"{at}: no such item; {numbering(inventory)}")
            if value is None or plain(str(value)) in lacking:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                due = f"{_kind(value)} where {scale(inventory)} is due"
                raise RespondentsError(f"{at}: {due}, unquoted; null or absent when missing")
            if not LOWEST <= value <= inventory.highest:
                raise no_answer(at, str(value), inventory, {str(each) for one in given for each in one.values()})
            answers[row, column[key]] = value
    ignored = set().union(*document) - {"id", "answers"}
    return Stored(ids, answers, places, layout="JSON list", ignored=tuple(sorted(ignored)))


def _columns(place: Path, given: Sequence[dict[str, Any]], inventory: Inventory) -> dict[str, int]:
    """Where the answers under each key belong; keys that are no item of the inventory are not in it."""
    keys = set().union(*given)
    numbers = {int(key) for key in keys if re.fullmatch("[1-9][0-9]{0,8}", key)}
    own = renumbered(str(place), numbers, inventory, "give every item of yours as a key, null where missing")
    return {str(key): inventory.column[number] for key, number in own.items() if number in inventory.column}


def _id(where: str, entry: Any) -> str:
    """The entry's id; whatever it holds has the right shape, but for single answers."""
    if not isinstance(entry, dict):
        raise RespondentsError(f'{where}: must be {{"id": …, "answers": {{…}}}}, not {_kind(entry)}')
    for key in ("id", "answers"):
        if key not in entry:
            raise RespondentsError(f"{where}: {key!r} is missing; add it")
    if isinstance(entry["id"], bool) or not isinstance(entry["id"], str | int):
        raise RespondentsError(f"{where}: 'id' must be a text, not {_kind(entry['id'])}")
    if not isinstance(entry["answers"], dict):
        raise RespondentsError(f"{where}: 'answers' must be {{\"1\": 5, …}}, not {_kind(entry['answers'])}")
    return str(entry["id"]).strip()


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key repeats: `json` alone would keep the last answer without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise KeyError(key)
        found[key] = value
    return found


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", float: "a number with a point"}
    return "null" if value is None else names.get(type(value), "a number")
