"""The 300 real people of PAPI: the test set of *Personality Alignment of Large Language Models* (Zhu et al. 2025).

The files have no licence of their own, so they are not part of this project: they are read from a folder that the user
names, or downloaded from the authors' public repository, pinned by commit and by SHA-256. The stored answers of
negatively keyed items are reverse-scored (Johnson's DAT300 documentation; README, "known deviations"); loading turns
them back into what the person picked. A stored 0 is a missing answer. Of age, sex and country only counts of people are
ever told (`papi_demographics`); the timestamp is not read.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents.matrix import AnswerMatrix, reverse_negative
from palign_bench.respondents.released import Release, locate
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import counted

ANSWERS, SPLIT, PORTRAITS = "Test-set.json", "mpi_300_split.json", "personality_prompt.json"
RELEASE = Release.of("papi")

FEWEST = 5  # people in a group that is told apart
_SEXES = {1: "men", 2: "women"}


def load_papi(folder: str | None = None, download: bool = True, release: Release = RELEASE) -> RespondentSource:
    """The 300 people of PAPI with their portraits, in the released order; an id is the released case number.

    Raises `RespondentsError` as `released.locate` does.
    """
    place, inventory = locate(release, folder, download), ipip_neo_300()
    rows, split, portraits = (json.loads((place / name).read_bytes()) for name in (ANSWERS, SPLIT, PORTRAITS))
    if tuple(split["train_index"]) != inventory.known or tuple(split["test_index"]) != inventory.held_out:
        raise RespondentsError(f"{place / SPLIT} splits the items otherwise than {inventory.name} does")
    stored = np.array([[int(row[f"i{item.number}"]) for item in inventory.items] for row in rows], dtype=np.int8)
    answers = AnswerMatrix(inventory, tuple(str(row["case"]) for row in rows), reverse_negative(stored, inventory))
    people = [
        replace(person, portrait=portrait["output"][0])
        for person, portrait in zip(answers.respondents(), portraits, strict=True)
    ]
    return RespondentSource("papi", f"{counted(len(people))} of PAPI", tuple(people))


def papi_demographics(folder: str | None = None, download: bool = True) -> dict[str, dict[str, int]]:
    """How many of the 300 there are by sex, age and country: counts alone, `counts_of`.

    Raises `RespondentsError` as `released.locate` does.
    """
    rows = json.loads((locate(RELEASE, folder, download) / ANSWERS).read_bytes())
    decades = [-(-int(row["age"]) // 10) * 10 for row in rows]  # 11 to 20, 21 to 30, as in the paper's figure 18
    return {
        "sex": counts_of(_SEXES.get(int(row["sex"]), "not given") for row in rows),
        "age": counts_of(f"{decade - 9}–{decade}" for decade in decades),
        "country": counts_of(str(row["country"]).strip() for row in rows),
    }


def counts_of(values: Iterable[str]) -> dict[str, int]:
    """The number of people by group, largest first; groups of fewer than `FEWEST` are counted together at the end.

    Where these are fewer than that too, the next smallest group joins them, so that nobody is found by subtraction.
    """
    counts = dict(sorted(Counter(values).items(), key=lambda each: (-each[1], each[0])))
    kept = {group: count for group, count in counts.items() if count >= FEWEST}
    others = sum(counts.values()) - sum(kept.values())
    while kept and 0 < others < FEWEST:
        others += kept.popitem()[1]
    return kept | ({"others": others} if others else {})
