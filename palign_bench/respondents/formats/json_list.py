"""People as a JSON list: ``[{"id": "anna", "answers": {"1": 4, "9": 2}}, …]``; a missing answer is absent or null."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from palign_bench.questionnaire.inventory import LOWEST, Inventory
from palign_bench.respondents.formats import Stored, scale
from palign_bench.respondents.source import RespondentsError

_SHAPE = '[{"id": …, "answers": {"1": 5, …}}, …]'


def read_json_list(place: Path, text: str, inventory: Inventory) -> Stored:
    """The people of a JSON file. Raises `RespondentsError` naming the entry and key of what cannot be read."""
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
    answers = np.zeros((len(document), len(inventory.items)), dtype=np.int8)
    column = {str(item.number): index for index, item in enumerate(inventory.items)}
    ids, ignored = [], set()
    for position, entry in enumerate(document, start=1):
        where = f"{place}, entry {position}"
        ids.append(_id(where, entry))
        ignored |= set(entry) - {"id", "answers"}
        for key, value in entry["answers"].items():
            at = f"{where} (id {entry['id']}), item {key!r}"
            if key not in column:
                raise RespondentsError(f'{at}: no such item; items are "1" … "{len(inventory.items)}"')
            if value is not None:
                answers[position - 1, column[key]] = _answer(at, value, inventory)
    places = [f"{place}, entry {position}" for position in range(1, len(ids) + 1)]
    return Stored(ids, answers, places, layout="JSON list", ignored=tuple(sorted(ignored)))


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


def _answer(where: str, value: object, inventory: Inventory) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        due = f"{_kind(value)} where {scale(inventory)} is due"
        raise RespondentsError(f"{where}: {due}, unquoted; null or absent when missing")
    if not LOWEST <= value <= inventory.highest:
        raise RespondentsError(
            f"{where}: '{str(value)[:20]}' is no answer; give {scale(inventory)}, or nothing when it is missing"
        )
    return value


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
