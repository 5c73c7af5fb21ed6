"""People in a table with a header: commas, tabs or semicolons between cells, a row for each person.

Item columns are called ``i1``, ``I1``, ``Q1``, ``item_1``, ``Item 1`` …, with the inventory's item numbers; or however
a file of two columns, ``column`` and ``item``, says (`read_mapping`). Whatever else the table holds is not read. The
short form of IPIP-NEO has the long one's numbers; a table of the items 1 … 120 has its own (`renumbered`).
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palign_bench.questionnaire.delimited import DELIMITERS, delimiter_of, read_text, rows_of
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents.formats import Stored, answer, no_answer, numbering, plain, renumbered
from palign_bench.respondents.matrix import MISSING
from palign_bench.respondents.source import RespondentsError

EMPTY = ("", "na", "n/a", "nan", "null", "none", ".", "#n/a")  # missing, whatever the file
ID_NAMES = (  # whatever their case, and with or without a space, underscore or hyphen: Participant ID
    *("id", "case", "caseid", "respondent", "respondentid", "participant", "participantid"),
    *("subject", "subjectid", "userid", "responseid", "pid"),
)
ROW_NUMBERS = "row_number"  # respondents.id_column: people are called by their row
_ITEM = re.compile(r"(?:i|q|item|question)[ _.-]?0*([1-9][0-9]{0,8}|0)", re.IGNORECASE | re.ASCII)


def read_delimited(
    place: Path,
    text: str,
    inventory: Inventory,
    mapping: Mapping[str, int] | None = None,
    id_column: str | None = None,
    missing: Sequence[object] = (),
) -> Stored:
    """The people of a table. ``mapping``: item numbers by column name; ``missing``: cells that are no answer.

    Raises UserError naming the line and column of what cannot be read.
    """
    delimiter = delimiter_of(text)
    rows = rows_of(place, text, delimiter)
    line, header = next(rows, (1, []))
    where = f"{place}, line {line}"
    numbers = _numbers(where, header, inventory, mapping, delimiter)
    name_column = find_ids(where, header, numbers, id_column)
    value = cell_reader(inventory, missing)
    ids: list[str] = []
    lines: list[int] = []
    stored: list[NDArray[np.int8]] = []
    for line, cells in rows:
        ids.append(str(len(ids) + 1) if name_column is None else cells[name_column])
        given = [value(cells[column]) for column in numbers]
        if None in given:
            column = list(numbers)[given.index(None)]
            where = f"{place}, line {line} (id {ids[-1]}), column {header[column]}"
            seen = set(np.unique(stored).astype(str))
            seen |= {others[each] for others in (cells, *(rest for _, rest in rows)) for each in numbers}
            raise no_answer(where, cells[column], inventory, seen)
        stored.append(np.array(given, dtype=np.int8))
        lines.append(line)
    answers = np.zeros((len(ids), len(inventory.items)), dtype=np.int8)
    if ids:
        answers[:, [inventory.column[number] for number in numbers.values()]] = np.stack(stored)
    ignored = [
        name or f"(column {column + 1})"
        for column, name in enumerate(header)
        if column not in numbers and column != name_column
    ]
    return Stored(
        ids=ids,
        answers=answers,
        places=[f"{place}, line {line}" for line in lines],
        layout=f"table with {DELIMITERS[delimiter]}",
        ignored=tuple(ignored),
        notes=() if name_column is not None else ("people are called by their row, as no column of ids was found",),
    )


def read_mapping(path: str, inventory: Inventory) -> dict[str, int]:
    """Item numbers by column name, from a table with the columns ``column`` and ``item``: ``EXT1,2``."""
    place = Path(path).expanduser()
    text, _ = read_text(place, "respondents.columns")
    rows = rows_of(place, text, delimiter_of(text))
    line, header = next(rows, (1, []))
    if sorted(header) != ["column", "item"]:
        raise RespondentsError(f"{place}, line {line}: the header must be column,item; mend it")
    found: dict[str, int] = {}
    for line, cells in rows:
        name, number = cells[header.index("column")], cells[header.index("item")]
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) not in inventory.by_number:
            raise RespondentsError(
                f"{place}, line {line}: {number[:20]!r} is no item number of {inventory.name}; mend it"
            )
        if name in found or int(number) in found.values():
            raise RespondentsError(f"{place}, line {line}: column {name} or item {number} is there twice; keep one")
        found[name] = int(number)
    return found


def cell_reader(inventory: Inventory, missing: Sequence[object] = ()) -> Callable[[str], int | None]:
    """Reads a cell: an answer, `MISSING`, or None for what is neither. ``missing``: more marks of a missing answer."""
    lacking = {plain(str(each)) for each in (*EMPTY, *missing)}

    @cache
    def value(cell: str) -> int | None:
        return MISSING if plain(cell) in lacking else answer(cell, inventory)

    return value


def item_number(name: str) -> int | None:
    """The number in an item column's name; None for a column of anything else."""
    match = _ITEM.fullmatch(name)
    return int(match[1]) if match else None


def _numbers(
    where: str, header: Sequence[str], inventory: Inventory, mapping: Mapping[str, int] | None, delimiter: str
) -> dict[int, int]:
    """Item number by column position."""
    if mapping is not None and (lacking := [name for name in mapping if name not in header]):
        raise RespondentsError(
            f"{where}: column {lacking[0]!r} of respondents.columns is not in the header; mend either"
        )
    if mapping is not None:
        found = {column: mapping[name] for column, name in enumerate(header) if name in mapping}
    else:
        named = {column: item_number(name) for column, name in enumerate(header)}
        found = {column: number for column, number in named.items() if number is not None}
        otherwise = "name a file with column,item in respondents.columns"
        own = renumbered(where, set(found.values()), inventory, otherwise)
        found = {column: own[number] for column, number in found.items()}
    numbers: dict[int, int] = {}
    for column, number in found.items():
        name = header[column]
        if number not in inventory.by_number:
            raise RespondentsError(
                f"{where}: column {name!r} is no item: {numbering(inventory)}; remove it, or choose another inventory"
            )
        if number in numbers.values():
            raise RespondentsError(f"{where}: column {name} is there twice as item {number}; keep one of them")
        numbers[column] = number
    if not numbers:
        raise RespondentsError(
            f"{where}: the header is {delimiter.join(header)[:40]!r}, with no item in it; call the columns i1, i2, … "
            "(or Q1, item_1), or name a file with column,item in respondents.columns"
        )
    return numbers


def find_ids(
    where: str,
    header: Sequence[str],
    numbers: Collection[int],
    wanted: str | None = None,
    otherwise: str = "name one in respondents.id_column",
) -> int | None:
    """The column of people's ids; None: they are called by their row. ``otherwise``: what to do about two of them.

    ``numbers``: the columns of items.
    """
    if wanted == ROW_NUMBERS:
        return None
    free = [(name, column) for column, name in enumerate(header) if column not in numbers]
    if wanted is not None:
        named = [column for name, column in free if name == wanted]
        if len(named) != 1:
            raise RespondentsError(f"{where}: respondents.id_column={wanted} must be in the header once; mend either")
        return named[0]
    names = [(re.sub("[ _-]", "", name.lower()), column) for name, column in free]
    found = [column for each in ID_NAMES for name, column in names if name == each]
    if len(found) > 1 and [name for name, _ in names].count("id") != 1:
        two = " and ".join(header[column] for column in found[:2])
        raise RespondentsError(f"{where}: {two} both may be ids; {otherwise}")
    return found[0] if found else None
