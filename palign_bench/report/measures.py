"""From finished cells to the columns of a table. Every measure is None where it is not defined."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from palign_bench.inventory import DOMAINS, Answers, Inventory
from palign_bench.report.names import CONSTANTS
from palign_bench.report.paper import PAPER_PEOPLE
from palign_bench.report.rows import Cell, Row, as_option
from palign_bench.scoring import as_matrix, cross_composites
from palign_bench.statistics import FEWEST_FOR_A_CORRELATION, bootstrap_interval, mean, paired_differences, pearson

FEWEST_FOR_SPECIFICITY = 2


def known_truths(rows: Iterable[Row]) -> dict[str, Answers]:
    """The held-out truth of every person with a finished cell in any row."""
    return {respondent: cell.truth for row in rows for respondent, cell in row.cells.items()}


def domain_means(row: Row) -> dict[str, float | None]:
    """Mean aligned score per domain over people (the outer mean of Eq. 2); people without one are left out."""
    scores = {name: [cell.scores[name] for cell in row.cells.values()] for name in DOMAINS.values()}
    return {name: mean([score for score in of_domain if score is not None]) for name, of_domain in scores.items()}


def best_floor(row: Row, floors: Sequence[Row]) -> Row | None:
    """The floor with the lowest mean composite on the people that it shares with ``row``.

    Floors that share fewer people than another are left out, so that an unfinished floor never wins on an easy few.
    """
    own = row.composites
    shared = [(floor, [s for r, s in floor.composites.items() if r in own]) for floor in floors]
    most = max((len(scores) for _, scores in shared), default=0)
    if most == 0:
        return None
    return min(((floor, scores) for floor, scores in shared if len(scores) == most), key=lambda pair: np.mean(pair[1]))[
        0
    ]


def difference_to(row: Row, floor: Row | None) -> tuple[float | None, tuple[float, float] | None]:
    """Mean paired difference row minus floor over the people that both have, and its bootstrap interval."""
    differences = [] if floor is None else list(paired_differences(row.composites, floor.composites).values())
    return mean(differences), bootstrap_interval(differences)


def beats_best_constant(row: Row, rows: Sequence[Row]) -> bool | None:
    """Whether the mean composite is below that of the best of "always A" … "always E" on the same people.

    None for the constants themselves and where the table has none of them.
    """
    if row.key in CONSTANTS:
        return None
    difference, _ = difference_to(row, best_floor(row, [other for other in rows if other.key in CONSTANTS]))
    return None if difference is None else difference < 0


def specificity(inventory: Inventory, row: Row, truths: Mapping[str, Answers]) -> float | None:
    """How much better a person's answers fit that person than the table's others; 0: the method ignored the person.

    Mean over people i of (mean composite of i's answers against the truth of every other person j, minus i's own
    composite). None where no person has both.
    """
    people = list(row.composites)
    pool = list(truths)
    if len(people) == 0 or len(pool) < FEWEST_FOR_SPECIFICITY:
        return None
    numbers = sorted({number for truth in truths.values() for number in truth})
    composites = cross_composites(
        inventory,
        numbers,
        as_matrix(numbers, [row.cells[respondent].answers for respondent in people]),
        as_matrix(numbers, [truths[respondent] for respondent in pool]),
    )
    position = {respondent: index for index, respondent in enumerate(pool)}
    own = [position[respondent] for respondent in people]
    own_scores = composites[range(len(people)), own]
    composites[range(len(people)), own] = np.nan
    present = ~np.isnan(composites)
    counted = present.any(axis=1) & ~np.isnan(own_scores)
    if not counted.any():
        return None
    others = np.where(present, composites, 0.0).sum(axis=1)[counted] / present.sum(axis=1)[counted]
    return float(np.mean(others - own_scores[counted]))


def trait_correlation(row: Row) -> float | None:
    """Pearson's r across people between the answers' and the person's trait scores, mean over the five domains.

    A domain without variance among the answers earns 0; where no domain has any (a constant option), or below three
    people, there is no correlation: None.
    """
    correlations = []
    for name in DOMAINS.values():
        pairs = [
            (cell.traits[name], cell.person_traits[name])
            for cell in row.cells.values()
            if name in cell.traits and name in cell.person_traits
        ]
        enough = len(pairs) >= FEWEST_FOR_A_CORRELATION
        correlations.append(pearson(*zip(*pairs, strict=True)) if enough else None)
    if all(r is None for r in correlations):
        return None
    return mean([0.0 if r is None else r for r in correlations])


def most_frequent_option_share(row: Row) -> float | None:
    """Share of the most frequent option among all answers of all people; real numbers count as the nearest option."""
    counts = Counter(as_option(value) for cell in row.cells.values() for value in cell.answers.values())
    return max(counts.values()) / sum(counts.values()) if counts else None


def reading_rates(row: Row) -> tuple[float | None, float | None]:
    """Pooled share of generated answers without an option, and of audited ones that agree with the recorded answer."""
    readings = [cell.reading for cell in row.cells.values() if cell.reading is not None]
    asked = sum(reading.asked for reading in readings)
    compared = sum(reading.compared for reading in readings)
    unparsed = sum(reading.unparsed for reading in readings) / asked if asked else None
    return unparsed, (sum(reading.agreed for reading in readings) / compared if compared else None)


def costs(row: Row) -> dict[str, Any]:
    """Shared seconds; medians per person of seconds, tokens, steps, parameters and bytes; highest peak of memory.

    Cells from before a cost was recorded leave it None.
    """
    cells = list(row.cells.values())
    kept = row.folder.shared()
    shared = kept["load_seconds"] + kept["prepare_seconds"] if kept else None
    align, answer = (_median(_recorded(cells, f"{phase}_seconds")) for phase in ("align", "answer"))
    return {
        "shared_seconds": shared,
        "align_seconds": align,
        "search_seconds": _median(_recorded(cells, "search_seconds")),
        "answer_seconds": answer,
        "seconds_for_one": seconds_for(1, shared, align, answer),
        "seconds_for_300": seconds_for(PAPER_PEOPLE, shared, align, answer),
        "peak_memory_mib": max(_recorded(cells, "peak_memory_mib"), default=None),
        "reserved_memory_mib": max(_recorded(cells, "reserved_memory_mib"), default=None),
        "joules": _median(_recorded(cells, "joules")),
        "trained_parameters": _whole(_median([cell.trained_parameters for cell in cells])),
        "alignment_bytes": _whole(_median([cell.stored_bytes for cell in cells])),
        "tokens_read": _whole(_median(_recorded(cells, "tokens_read"))),
        "tokens_generated": _whole(_median(_recorded(cells, "tokens_generated"))),
        "align_tokens_read": _whole(_median(_recorded(cells, "align_tokens_read"))),
        "align_tokens_generated": _whole(_median(_recorded(cells, "align_tokens_generated"))),
        "training_tokens": _whole(_median(_recorded(cells, "training_tokens"))),
        "optimizer_steps": _whole(_median(_recorded(cells, "optimizer_steps"))),
        "cost_repeats": min(_recorded(cells, "repeats"), default=None),
    }


def seconds_for(people: int, shared: float | None, align: float | None, answer: float | None) -> float | None:
    """What so many people cost: shared + people × (align + answer); None where a part is not known."""
    return None if shared is None or align is None or answer is None else shared + people * (align + answer)


def _recorded(cells: Sequence[Cell], name: str) -> list[float]:
    return [cell.cost[name] for cell in cells if cell.cost.get(name) is not None]


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
