"""Inventories that are read from files: the Short Dark Triad, and a user's own questionnaire.

A user's own is a CSV file (UTF-8; commas, semicolons or tabs) with a header and a line per item::

    number,text,scale,subscale,sign,known
    1,Plan the day.,order,,+,yes
    2,Leave things lying about.,order,,-,no

``subscale``, ``sign`` (+ or -; +) and ``known`` (yes or no) may be left out; without ``known``, the first half of each
subscale's items (of each scale's, where there are no subscales) is known. A YAML file of the same name beside it may
say::

    title: Course questionnaire       # how it reads; the file's name
    options: [Yes, Rather yes, Rather no, No]   # 2 to 7, from the fullest agreement on; the five of the MPI template
    wording: phrase                   # phrase: what completes "You …" (the default); sentence: "I plan the day."
    question: 'True of you? "You {statement}."' # what is asked about a statement, before the options; by the wording
    scales: {order: orderliness}      # full names, in the order of the table; as in the CSV file
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from palign_bench.questionnaire.delimited import delimiter_of, read_text, rows_of
from palign_bench.questionnaire.inventory import MOST_OPTIONS, OPTIONS, Inventory, Item, options_of
from palign_bench.questionnaire.prompts import statement_as_worded
from palign_bench.questionnaire.scoring import COMPOSITE
from palign_bench.settings import UserError

WORDINGS = ("phrase", "sentence")
_FIRST_PERSON = re.compile(r"(I|I['’]\w+|My)\b")
_WORD = re.compile(r"\w+")
_BESIDE = (".yaml", ".yml")
_NEEDED, _OPTIONAL = ("number", "text", "scale"), ("subscale", "sign", "known")
_ABOUT = ("title", "options", "wording", "question", "scales")
_YES, _NO = ("yes", "true", "1", "x", "known"), ("no", "false", "0", "", "held out")

DARK_TRIAD_KEY, DARK_TRIAD_SPLIT = "dark_triad-ItemKey.xls", "dark_triad_split.json"
DARK_TRIAD_SCALES = {"M": "machiavellianism", "N": "narcissism", "P": "psychopathy"}
AGREEMENT = ("Strongly agree", "Agree", "Neither agree nor disagree", "Disagree", "Strongly disagree")


def read_dark_triad(place: Path) -> Inventory:
    """The Short Dark Triad (SD3; Jones & Paulhus 2014) from the released item key and split in the folder ``place``.

    Items are numbered 1…27 in the key's order (M1…M9, N1…N9, P1…P9); six of each scale are known. Answers are stored as
    picked. The paper says nothing of the options' wording: agreement is ours. A broken apostrophe of the key is mended.
    """
    import xlrd

    sheet = xlrd.open_workbook(str(place / DARK_TRIAD_KEY)).sheet_by_index(0)
    header, *rows = ([str(cell) for cell in sheet.row_values(row)] for row in range(sheet.nrows))
    key, text, sign = (header.index(name) for name in ("Key", "Item", "Sign"))
    items = tuple(
        Item(number, row[text].strip().replace("don抰", "don’t"), 1 if row[sign] == "+" else -1, row[key][0])
        for number, row in enumerate(rows, start=1)
    )
    split = json.loads((place / DARK_TRIAD_SPLIT).read_bytes())
    return Inventory(
        "dark_triad",
        items,
        tuple(index + 1 for index in split["train_index"]),
        DARK_TRIAD_SCALES,
        options=options_of(AGREEMENT),
        wording="sentence",
        title="Short Dark Triad",
    )


def read_inventory(path: Path) -> Inventory:
    """A user's own questionnaire; see the module. Its name is the file's with a hash of everything in it.

    Raises UserError naming the file, the line or key, and the remedy.
    """
    rows = _rows(path)
    items = _told_apart([_item(path, line, row) for line, row in rows])
    numbers = [item.number for item in items]
    if repeated := next((n for n in numbers if numbers.count(n) > 1), None):
        raise UserError(f"{path}: item number {repeated} is there twice; number each item once")
    _check_texts(path, items)
    found = tuple(dict.fromkeys(item.scale for item in items))
    about = _about(path, found)
    sentences = [item for item in items if _FIRST_PERSON.match(item.text)]
    if "wording" not in about and 2 * len(sentences) > len(items):
        asked = statement_as_worded(sentences[0])
        remedy = "say wording: sentence in the YAML file beside it, or wording: phrase to ask so all the same"
        raise UserError(f"{path}: most items are whole sentences, and would be asked as “You {asked}.”; {remedy}")
    scales = about.get("scales") or {scale: scale for scale in found}
    columns = [*scales.values(), COMPOSITE]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        remedy = "give each scale a full name of its own (scales: in the YAML file beside it)"
        raise UserError(f"{path}: two columns of the table would be called {twice}; {remedy}")
    subscales = [item for item in items if item.subscale is not None]
    if subscales and len(subscales) < len(items):
        without = next(item for item in items if item.subscale is None)
        raise UserError(f"{path}: item {without.number} has no subscale and others have; give all items one, or none")
    made = Inventory(
        path.stem,
        items,
        _known(path, rows, items),
        scales,
        options=options_of(about["options"]) if "options" in about else OPTIONS,
        wording=about.get("wording", "phrase"),
        asks=about.get("question"),
        title=about.get("title", path.stem),
    )
    for scale in made.scales:
        for part, chosen in made.parts.items():
            if not any(made[number].scale == scale for number in chosen):
                raise UserError(f"{path}: scale {scale} has no {part} item; each scale needs known and held-out items")
    content = json.dumps([*map(tuple, (vars(item).values() for item in items)), made.known, dict(made.scales),
                          made.options, made.wording, made.asks])  # fmt: skip
    return replace(made, name=f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}")


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Lines of the CSV file with their numbers."""
    text = _text(path)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; it must have a header like number,text,scale and a line an item")
    rows = rows_of(path, text, delimiter_of(text))
    _, header = next(rows, (1, []))
    for name in _NEEDED:
        if name not in header:
            raise UserError(f"{path}: column {name} is missing; the header is number,text,scale,subscale,sign,known")
    if unknown := [name for name in header if name not in (*_NEEDED, *_OPTIONAL)]:
        raise UserError(f"{path}: column {unknown[0]!r} is not known; remove it or call it as {', '.join(_OPTIONAL)}")
    if twice := [name for name in header if header.count(name) > 1]:
        raise UserError(f"{path}: column {twice[0]} is there twice; keep one of them")
    found = [(line, dict(zip(header, map(_on_one_line, cells), strict=True))) for line, cells in rows]
    if not found:
        raise UserError(f"{path}: no items in it; add a line for each")
    return found


def _text(place: Path) -> str:
    """What a file says. Of people's tables Latin-1 is read; a guess at words that a model reads might be wrong."""
    text, encoding = read_text(place, "inventory.path")
    if encoding == "cp1252":
        raise UserError(f"{place}: this is not UTF-8; save the file as UTF-8 (a spreadsheet calls it CSV UTF-8)")
    return text


def _on_one_line(cell: str) -> str:
    return " ".join(filter(None, map(str.strip, cell.splitlines())))


def _item(path: Path, line: int, row: Mapping[str, str]) -> Item:
    where = f"{path}, line {line}"
    if not row["number"].isascii() or not row["number"].isdigit() or int(row["number"]) < 1:
        raise UserError(f"{where}: number {row['number']!r}; give a whole number, 1 or more")
    for name in ("text", "scale"):
        if not row[name]:
            raise UserError(f"{where}: {name} is empty; fill it in")
    if not any(map(str.isalpha, row["text"])):
        raise UserError(f"{where}: text {row['text']!r} has no letter in it; give a statement")
    sign = row.get("sign") or "+"
    if sign not in ("+", "-", "−", "1", "-1", "+1"):
        raise UserError(f"{where}: sign {sign!r}; give + or -")
    negative = sign in ("-", "−", "-1")
    return Item(int(row["number"]), row["text"], -1 if negative else 1, row["scale"], row.get("subscale") or None)


def _check_texts(path: Path, items: Sequence[Item]) -> None:
    """Refuse items that read alike: of a known and a held-out one, the answer to the first gives the second's away."""
    seen: dict[str, Item] = {}
    for item in items:
        first = seen.setdefault(" ".join(_WORD.findall(item.text.casefold())), item)
        if first is not item:
            both = f"items {first.number} and {item.number} read alike"
            raise UserError(f"{path}: {both} ({item.text!r}); keep one of them")


def _told_apart(items: Sequence[Item]) -> tuple[Item, ...]:
    """The items, a subscale's name that stands under several scales made one for each: ``work: general``.

    Whatever groups items goes by the subscale's name alone, and would take two of one name for one.
    """
    scales: dict[str | None, set[str]] = {}
    for item in items:
        scales.setdefault(item.subscale, set()).add(item.scale)
    return tuple(
        replace(item, subscale=f"{item.scale}: {item.subscale}") if item.subscale and len(scales[item.subscale]) > 1
        else item
        for item in items
    )  # fmt: skip


def _known(path: Path, rows: Sequence[tuple[int, Mapping[str, str]]], items: Sequence[Item]) -> tuple[int, ...]:
    if "known" in rows[0][1]:
        for line, row in rows:
            if row["known"].lower() not in (*_YES, *_NO):
                raise UserError(f"{path}, line {line}: known {row['known']!r}; give yes or no")
        return tuple(item.number for item, (_, row) in zip(items, rows, strict=True) if row["known"].lower() in _YES)
    groups: dict[tuple[str, str | None], list[int]] = {}
    for item in items:
        groups.setdefault((item.scale, item.subscale), []).append(item.number)
    first = {number for numbers in groups.values() for number in numbers[: len(numbers) // 2]}
    return tuple(item.number for item in items if item.number in first)


class _AsWritten(yaml.BaseLoader):
    """Takes everything as text: ``No`` and ``1`` are labels and names, not false and a number. A key is there once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _about(path: Path, scales: Sequence[str]) -> dict[str, Any]:
    """What the YAML file beside the items says; nothing where there is none. ``scales``: those of the items."""
    places = [place for place in map(path.with_suffix, _BESIDE) if place.exists()]
    if not places:
        return {}
    if len(places) > 1:
        raise UserError(f"{places[0]}: {places[1].name} is there as well; keep one of the two")
    place = places[0]
    try:
        about = yaml.load(_text(place), _AsWritten) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{place}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(about, dict):
        raise UserError(f"{place}: must be lines of KEY: VALUE; it may say {', '.join(_ABOUT)}")
    if unknown := sorted(set(map(str, about)) - set(_ABOUT)):
        raise UserError(f"{place}: has {unknown[0]!r}, which is not known; it may say {', '.join(_ABOUT)}")
    if not isinstance(about.get("title", ""), str):
        raise UserError(f"{place}: title: give a text")
    options = about.get("options", ["yes", "no"])
    if not _are_texts(options) or not 2 <= len(options) <= MOST_OPTIONS:
        raise UserError(f"{place}: options: give a list of 2 to {MOST_OPTIONS} labels, the fullest agreement first")
    if len({label.lower() for label in options}) < len(options):
        raise UserError(f"{place}: options: two labels are alike; give each its own")
    if about.get("wording", "phrase") not in WORDINGS:
        raise UserError(f"{place}: wording={about['wording']}: choose one of {', '.join(WORDINGS)}")
    question = about.get("question", "{statement}")
    if not isinstance(question, str) or "{statement}" not in question:
        raise UserError(f"{place}: question: write {{statement}} where the statement stands")
    names = about.get("scales") or dict.fromkeys(scales, "as in the CSV file")
    if not isinstance(names, dict) or not _are_texts([*names.values()]):
        raise UserError(f"{place}: scales: give full names by the names in the CSV file, as in {{order: orderliness}}")
    if set(names) != set(scales):
        raise UserError(f"{place}: scales name {', '.join(names)}; the items have {', '.join(scales)}")
    return about


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(each, str) and each.strip() for each in values)
