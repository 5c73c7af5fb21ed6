"""The Dark Triad part of PAPI: 18,192 people's answers to the Short Dark Triad (Jones & Paulhus 2014), and the 300
people whom the authors released as a test set.

The whole population is public here, so that the way of picking people can be examined, and others be picked. Like PAPI
the files are read from the user's folder or downloaded. Answers are literal; 0 is a missing one. The files have no ids:
people are called by their row. Country and source are not read.
"""

import json
from functools import cache

import numpy as np

from palign_bench.questionnaire.inventories import DARK_TRIAD_SCALES
from palign_bench.questionnaire.inventory import Inventory, Item
from palign_bench.respondents.formats.delimited import ROW_NUMBERS, read_delimited
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.released import Release, locate
from palign_bench.respondents.selection import RULES, eligible, select_people
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import counted

POPULATION, TEST_SET = "Dark-Triad.csv", "dark_triad_Test_set.json"
POPULATION_RELEASE, TEST_SET_RELEASE = Release.of("dark_triad_population"), Release.of("dark_triad_test_set")

_COLUMNS = tuple(f"{scale}{place}" for scale in "MNP" for place in range(1, 10))
_NEGATIVE = ("N2", "N6", "N8", "P2", "P7")


@cache
def dark_triad_layout() -> Inventory:
    """Scales, signs and split of the 27 items, without their wording, which has terms of its own.

    Enough to describe and pick people; nothing can be asked with it.
    """
    items = tuple(
        Item(number, name, -1 if name in _NEGATIVE else 1, name[0]) for number, name in enumerate(_COLUMNS, start=1)
    )
    known = tuple(number for number, name in enumerate(_COLUMNS, start=1) if name[1] <= "6")
    return Inventory("dark_triad", items, known, DARK_TRIAD_SCALES)


def load_dark_triad(
    folder: str | None = None,
    download: bool = True,
    rule: str = "released",
    count: int = 300,
    seed: int = 0,
    inventory: Inventory | None = None,
) -> RespondentSource:
    """People of the Dark Triad data: the released 300, everybody who can be judged, or others picked by ``rule``.

    ``rule``: released, all, or one of `selection.RULES` with ``count`` and ``seed``. Raises `RespondentsError` as
    `released.locate` and `selection.select_people` do, and for another inventory.
    """
    inventory = inventory or dark_triad_layout()
    if inventory.name != "dark_triad":
        raise RespondentsError(f"respondents=dark_triad answers inventory=dark_triad, not {inventory.name}; set either")
    if rule == "released":
        rows = json.loads((locate(TEST_SET_RELEASE, folder, download) / TEST_SET).read_bytes())
        answers = np.array([[row[name] for name in _COLUMNS] for row in rows], dtype=np.int8)
        people = AnswerMatrix(inventory, tuple(str(row + 1) for row in range(len(rows))), answers).respondents()
        return RespondentSource("dark_triad", f"{counted(len(people))} of the Dark Triad test set", people)
    if rule not in ("all", *RULES):
        raise RespondentsError(f"respondents.rule={rule}: choose one of released, all, {', '.join(RULES)}")
    everybody = load_population(folder, download, inventory)
    chosen = eligible(everybody) if rule == "all" else select_people(everybody, count, rule, seed).rows
    how = {"all": "", "nearest": ", nearest to clusters' centres", "random_member": ", one of each cluster",
           "random": ", picked at random"}[rule]  # fmt: skip
    described = f"{len(chosen)} of {len(everybody)} people of the Dark Triad data{how}"
    return RespondentSource(f"dark_triad_{rule}", described, everybody.take(chosen).respondents())


def load_population(
    folder: str | None = None, download: bool = True, inventory: Inventory | None = None
) -> AnswerMatrix:
    """All 18,192 people, also those who left everything out; an id is the row, from 1."""
    inventory = inventory or dark_triad_layout()
    place = locate(POPULATION_RELEASE, folder, download) / POPULATION
    numbers = dict(zip(_COLUMNS, (item.number for item in inventory.items), strict=True))
    stored = read_delimited(place, place.read_text(encoding="utf-8"), inventory, numbers, ROW_NUMBERS, missing=[0])
    return AnswerMatrix(inventory, tuple(stored.ids), stored.answers)
