"""The Dark Triad part of PAPI: 18,192 people's answers to the Short Dark Triad (Jones & Paulhus 2014), and the 300
people whom the authors released as a test set.

The whole population is public here, so that the way of picking people can be examined, and others be picked. Like PAPI
the files are read from the user's folder or downloaded. Answers are literal; 0 is a missing one. The files have no ids:
people are called by their row. Country and source are not read.
"""

import json
from functools import cache, partial

import numpy as np

from palign_bench.questionnaire.inventories import DARK_TRIAD_KEY, DARK_TRIAD_SCALES, DARK_TRIAD_SPLIT
from palign_bench.questionnaire.inventory import Inventory, Item
from palign_bench.respondents.formats.delimited import ROW_NUMBERS, read_delimited
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.released import Release, locate
from palign_bench.respondents.selection import RULES, eligible, select_people
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import counted

# Copies of the authors' files in two public repositories, checked by SHA-256. The second is the only one known that
# holds the population; of its commit only this abbreviation is known, and the address has not been tried.
_URL = "https://raw.githubusercontent.com/tso2tso/personality-alignment/382b6d69dbfb46dfe50fa4dc14754fa146216a93/PAPI"
_POPULATION_URL = "https://raw.githubusercontent.com/CH-chuan/PAlign-self/48b0c7e/PAPI"
_DARK_TRIAD = partial(Release, name="Dark Triad", subfolder="dark_triad", instead="choose another respondents=")
POPULATION, TEST_SET = "Dark-Triad.csv", "dark_triad_Test_set.json"
POPULATION_RELEASE = _DARK_TRIAD(
    _POPULATION_URL, {POPULATION: ("e0330669936e84d5bb313db7e0a16119d50c5e2e31514f8b87de29a0771b5262", 1_091_615)}
)
TEST_SET_RELEASE = _DARK_TRIAD(
    _URL, {TEST_SET: ("ed904290ee7fd01346549eb07490cc9bc099dfcab04f05beece8182fd55dcfc8", 146_402)}
)
ITEMS_RELEASE = _DARK_TRIAD(  # the text of the Short Dark Triad has terms of its own, so it is not part of this project
    _URL,
    {
        DARK_TRIAD_KEY: ("fe9518b5a0b6cc8161e46f9c5b6a1732c1a0d031727c00e7a5091bb5621b3106", 9_728),
        DARK_TRIAD_SPLIT: ("215f5984d578d8c533d9d40299a8a4b830f17a8c5bdb48e9bcb741e3ca7e785c", 131),
    },
    instead="choose another inventory=",
)

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
