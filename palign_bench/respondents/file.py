"""A user's own people from a CSV or JSON file: **literal** answers to IPIP-NEO-300, never reverse-scored ones.

An answer is what the person picked for the sentence as worded: 5 (Very Accurate), 4 (Moderately Accurate), 3 (Neither
Accurate Nor Inaccurate), 2 (Moderately Inaccurate) or 1 (Very Inaccurate). Item numbers are those of the inventory
(``palign_bench/questionnaire/data/ipip_neo_300.csv``). Items may be left out; each person needs at least one known
answer, for methods to use, and one held-out answer, to be judged on. The file is UTF-8. Ids are short texts,
unique in the file.

CSV, comma-separated, an empty cell is a missing answer::

    id,i1,i2,i9
    anna,4,,2
    ben,5,1,3

JSON, a missing answer is absent or null::

    [{"id": "anna", "answers": {"1": 4, "9": 2}}, {"id": "ben", "answers": {"1": 5, "2": 1, "9": 3}}]

Anything else in the file (age, sex, country, …) is an error: nothing else about a person enters the program.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from palign_bench.questionnaire.inventory import HIGHEST, LOWEST, Inventory, Respondent, ipip_neo_300
from palign_bench.respondents.source import RespondentsError, RespondentSource, make_source

_LONGEST_ID = 200  # percent-encoded: the ledger names a file after it
_FORMATS = 'id,i1,i2,… (CSV) or [{"id": …, "answers": {"1": 5, …}}, …] (JSON)'
_SCALE = f"a whole number {LOWEST}…{HIGHEST}"


def load_file(path: str | None = None) -> RespondentSource:
    """The people of a CSV or JSON file, in its order.

    Raises `RespondentsError` for a file that is missing, unreadable or not as the module describes; the line names the
    file, the row or id, the column and the remedy.
    """
    if not path:
        raise RespondentsError("respondents.path is not set: give the CSV or JSON file with your people")
    place = Path(path).expanduser()
    readers = {".csv": _read_csv, ".json": _read_json}
    if place.suffix.lower() not in readers:
        raise RespondentsError(f"{place}: name the file .csv or .json, whichever it is")
    people = readers[place.suffix.lower()](place, _text(place), ipip_neo_300())
    if not people:
        raise RespondentsError(f"{place}: no people in it; add at least one")
    noun = "person" if len(people) == 1 else "people"
    return make_source("file", f"{len(people)} {noun} of {place.name}", people)


def _text(place: Path) -> str:
    try:
        content = place.read_bytes()
    except FileNotFoundError as error:
        raise RespondentsError(f"{place}: no such file; check respondents.path") from error
    except OSError as error:
        raise RespondentsError(f"{place}: cannot be read ({error.strerror}); check respondents.path") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RespondentsError(f"{place}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    if not text.strip():
        raise RespondentsError(f"{place}: the file is empty; it must have {_FORMATS}")
    return text


def _read_csv(place: Path, text: str, inventory: Inventory) -> list[Respondent]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    people: dict[str, Respondent] = {}
    numbers: list[int] | None = None
    try:
        for row in reader:
            where = f"{place}, line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if numbers is None:
                numbers = _header(where, row, inventory)
                continue
            if len(row) != len(numbers) + 1:
                raise RespondentsError(
                    f"{where}: {len(row)} cells under {len(numbers) + 1} columns; add or remove cells"
                )
            answers = {}
            for number, cell in zip(numbers, row[1:], strict=True):
                if cell.strip():
                    answers[number] = _answer(f"{where} (id {row[0].strip()}), column i{number}", cell.strip())
            _add(people, where, row[0], answers, inventory)
    except csv.Error as error:
        raise RespondentsError(
            f"{place}, line {reader.line_num}: not CSV ({error}); save it as CSV with commas"
        ) from error
    return list(people.values())


def _header(where: str, row: Sequence[str], inventory: Inventory) -> list[int]:
    first, *columns = (cell.strip() for cell in row)
    if first != "id" or not columns:
        raise RespondentsError(f"{where}: the header is {','.join(row)[:40]!r}; it must be id,i1,i2,… with commas")
    numbers = []
    for column in columns:
        match = re.fullmatch(r"i([1-9][0-9]{0,8})", column, re.ASCII)
        if match is None or int(match[1]) not in inventory.by_number:
            last = len(inventory.items)
            raise RespondentsError(
                f"{where}: column {column!r} is no item; only id and i1…i{last} may be there, remove it"
            )
        if int(match[1]) in numbers:
            raise RespondentsError(f"{where}: column {column} is there twice; keep one of them")
        numbers.append(int(match[1]))
    return numbers


def _read_json(place: Path, text: str, inventory: Inventory) -> list[Respondent]:
    try:
        document = json.loads(text, object_pairs_hook=_unique_pairs)
    except json.JSONDecodeError as error:
        raise RespondentsError(f"{place}, line {error.lineno}: not JSON ({error.msg}); correct it there") from error
    except _RepeatedKeyError as error:
        raise RespondentsError(f"{place}: key {error} is there twice in one object; keep one of them") from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of thousands of digits
        raise RespondentsError(f"{place}: not a list of people; it must have {_FORMATS}") from error
    if not isinstance(document, list):
        raise RespondentsError(f'{place}: must be a list [{{"id": …, "answers": {{…}}}}, …], not {_kind(document)}')
    people: dict[str, Respondent] = {}
    for position, entry in enumerate(document, start=1):
        where = f"{place}, entry {position}"
        if not isinstance(entry, dict):
            raise RespondentsError(f'{where}: must be {{"id": …, "answers": {{…}}}}, not {_kind(entry)}')
        for key in ("id", "answers"):
            if key not in entry:
                raise RespondentsError(f"{where}: {key!r} is missing; add it")
        if extra := sorted(set(entry) - {"id", "answers"}):
            raise RespondentsError(f"{where}: {extra[0]!r} is no part of the format (id, answers); remove it")
        if isinstance(entry["id"], bool) or not isinstance(entry["id"], str | int):
            raise RespondentsError(f"{where}: 'id' must be a text, not {_kind(entry['id'])}")
        _add(people, where, str(entry["id"]), _json_answers(where, entry, inventory), inventory)
    return list(people.values())


def _json_answers(where: str, entry: dict[str, Any], inventory: Inventory) -> dict[int, int]:
    if not isinstance(entry["answers"], dict):
        raise RespondentsError(f"{where}: 'answers' must be {{\"1\": 5, …}}, not {_kind(entry['answers'])}")
    known_keys = {str(item.number): item.number for item in inventory.items}
    answers = {}
    for key, value in entry["answers"].items():
        at = f"{where} (id {entry['id']}), item {key!r}"
        if key not in known_keys:
            raise RespondentsError(f'{at}: no such item; items are "1" … "{len(inventory.items)}"')
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise RespondentsError(f"{at}: {_kind(value)} where {_SCALE} is due, unquoted; null or absent when missing")
        answers[known_keys[key]] = _answer(at, str(value))
    return answers


def _answer(where: str, text: str) -> int:
    if not re.fullmatch(f"[{LOWEST}-{HIGHEST}]", text):
        raise RespondentsError(f"{where}: {text[:20]!r} is no answer; give {_SCALE}, or nothing when it is missing")
    return int(text)


def _add(people: dict[str, Respondent], where: str, name: str, answers: dict[int, int], inventory: Inventory) -> None:
    """Check one person as a whole and add them."""
    name = name.strip()
    if not name:
        raise RespondentsError(f"{where}: the id is empty; give each person one")
    if not name.isprintable() or len(quote(name, safe="")) > _LONGEST_ID:
        raise RespondentsError(f"{where}: the id is too long or has unprintable characters; give a short one")
    if name in people:
        raise RespondentsError(f"{where}: id {name} is there twice; give each person their own")
    for part, numbers in (("known", inventory.known), ("held-out", inventory.held_out)):
        if not any(number in answers for number in numbers):
            raise RespondentsError(
                f"{where}: id {name} answers none of the {len(numbers)} {part} items; add answers or remove the person"
            )
    people[name] = Respondent(name, answers)


class _RepeatedKeyError(Exception):
    pass


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key repeats: `json` alone would keep the last answer without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(repr(key))
        found[key] = value
    return found


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", float: "a number with a point"}
    return "null" if value is None else names.get(type(value), "a number")
