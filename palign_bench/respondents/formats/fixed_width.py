"""Johnson's fixed-width files of IPIP-NEO-300 and IPIP-NEO-120 (https://osf.io/tbmh5): one person a line.

Six characters of case number, then sex, age, time and country, which are not read, then one digit per item; 0 is a
missing answer. A line has 333 characters in the file of the 300 items and 151 in that of the 120. Negatively keyed
items are stored reverse-scored, says the documentation of the files.
"""

from pathlib import Path

import numpy as np

from palign_bench.questionnaire.inventory import HIGHEST, Inventory, ipip_neo_300
from palign_bench.respondents.formats import Stored
from palign_bench.respondents.matrix import MISSING
from palign_bench.respondents.source import RespondentsError

_ITEMS_OF_LENGTH = {333: 300, 151: 120}
_CASE = 6


def read_fixed_width(place: Path, text: str, inventory: Inventory) -> Stored:
    """The people of one of Johnson's files. Raises `RespondentsError` for any other layout."""
    lines = [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise RespondentsError(f"{place}: no people in it; add at least one")
    length = len(lines[0][1])
    items = _ITEMS_OF_LENGTH.get(length)
    if items is None:
        raise RespondentsError(
            f"{place}: its first line has {length} characters; a line of Johnson's files has 333 (IPIP-NEO-300) or 151 "
            "(IPIP-NEO-120); save other files as .csv"
        )
    odd = next(((number, line) for number, line in lines if len(line) != length), None)
    if odd:
        raise RespondentsError(
            f"{place}, line {odd[0]}: {len(odd[1])} characters where {length} are due; mend the line"
        )
    columns = _columns(place, inventory, items)
    digits = "".join(line[-items:] for _, line in lines).encode("ascii", "replace")
    stored = np.frombuffer(digits, dtype=np.uint8).astype(np.int8).reshape(len(lines), items) - ord("0")
    wrong = (stored < MISSING) | (stored > HIGHEST)
    if wrong.any():
        row, item = map(int, np.argwhere(wrong)[0])
        raise RespondentsError(
            f"{place}, line {lines[row][0]}, item {item + 1}: {lines[row][1][length - items + item]!r} is no answer; "
            f"give a digit 0 (missing) … {HIGHEST}"
        )
    answers = np.zeros((len(lines), len(inventory.items)), dtype=np.int8)
    answers[:, columns] = stored
    return Stored(
        ids=[line[:_CASE].strip() for _, line in lines],
        answers=answers,
        places=[f"{place}, line {number}" for number, _ in lines],
        layout=f"fixed-width file of IPIP-NEO-{items} (Johnson), 0 is missing",
        orientation="keyed",
    )


def _columns(place: Path, inventory: Inventory, items: int) -> list[int]:
    """Where each of the file's items stands in the inventory; the 120 are in the short form's order, not ascending."""
    if items == 300 and inventory.name == "ipip_neo_300":
        return list(range(items))
    if items == 120 and inventory.name in ("ipip_neo_300", "ipip_neo_120"):
        return [inventory.column[number] for number in ipip_neo_300().known]
    raise RespondentsError(
        f"{place}: the file holds IPIP-NEO-{items}, not {inventory.name}; set inventory=ipip_neo_{items}"
    )
