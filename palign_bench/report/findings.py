"""What a table shows and what it cannot, in plain sentences computed from its rows; and what to type next."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from palign_bench.ledger.plan import runs_option
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.report.document import written_out
from palign_bench.report.measures import Difference, best_floor, option_counts
from palign_bench.report.names import METHODS, OWN_FLOORS, PEOPLE_FLOORS, PEOPLE_METHODS, is_given
from palign_bench.report.rows import RowNumbers, people_of_all
from palign_bench.report.statistics import FEWEST_FOR_A_BOOTSTRAP, mean
from palign_bench.report.table import Report
from palign_bench.settings import counted

HEADING = "What this table shows"
ONE_OPTION = 0.9  # share of one option from which a row is said to give hardly any other
UNPARSED = 0.05  # share of audited answers without an option from which they are told
CLEAR_SPECIFICITY = 0.1  # composites by which answers must fit their own person better than others
_NEXT_PEOPLE = 5  # times as many people as now are proposed


@dataclass(frozen=True)
class Line:
    """A row of the table with what the ledger holds of it."""

    row: Mapping[str, Any]
    numbers: RowNumbers
    budgets: Set[str]  # of the table's trained rows

    @property
    def label(self) -> str:
        """How the table names it, less the budget where all trained rows of the table share it."""
        label = str(self.row["label"])
        return label.replace(f" ({self.row['budget']})", "") if len(self.budgets) == 1 else label

    @property
    def people(self) -> int:
        """Number of people with a composite."""
        return len(self.numbers.composites)

    @property
    def is_method(self) -> bool:
        """Whether it is a method, of whichever block, that has a result."""
        return self.row["block"] in (METHODS, PEOPLE_METHODS) and self.people > 0


def findings(report: Report) -> list[str]:
    """The sentences, the most important first; none for a table without a method's result.

    A table with random weights says only that its scores mean nothing. Rows that were told of people in different
    ways (learning curves) are not compared here, nor are costs that were measured for their own sake.
    """
    budgets = {row["budget"] for row in report.rows if row["budget"]}
    lines = [Line(row, numbers, budgets) for row, numbers in zip(report.rows, report.read, strict=True)]
    methods = [line for line in lines if line.is_method]
    if not methods or report.about.get("cost_repeats") or len({line.numbers.told for line in lines}) > 1:
        return []
    if any(line.numbers.has_random_weights for line in methods):
        return ["The weights are random: the scores mean nothing, the costs are those of the model's shape."]
    most = max(line.people for line in methods)
    on_scored = PROTOCOLS[report.about["protocol"]].chooses_on_held_out
    pas = _pas(lines, on_scored)
    return written_out(
        "findings",
        lowest=_lowest(lines),
        floors=_against_floors(lines, methods),
        constant=[line.label for line in methods if line.row["beats_best_constant"] is False],
        few_shot=_few_shot(lines),
        clear_specificity=CLEAR_SPECIFICITY,
        pas=pas,
        on_scored=[line.label for line, _, _, verdict, alpha in pas if on_scored and alpha["zero"]],
        one_option=_one_option(report, methods),
        unparsed=[
            f"{line.label} {100 * line.row['unparsed_rate']:.0f} %"
            for line in methods
            if (line.row["unparsed_rate"] or 0) > UNPARSED
        ],
        few={
            count: [line.label for line in methods if line.people == count]
            for count in {line.people for line in methods if line.people < FEWEST_FOR_A_BOOTSTRAP}
        },
        most=most,
        resolution=_resolution([line for line in methods if line.people == most]),
        caveat=report.about.get("model_caveat"),
    )


def next_step(report: Report, runs: Path) -> str:
    """What to type next: what is missing, else more people, with the time that they would take here.

    No more people than a table of given answers has: whom else their file covers no ledger knows.
    """
    name = report.about["experiment"] + runs_option(runs)
    failed = sum(len(row.failures) for row in report.read)
    waiting = sum(row["missing_cells"] for row in report.rows) - failed
    if failed:
        others = f", and computes {counted(waiting, 'other', 'others')}" if waiting else ""
        return (
            f"Next: {counted(failed, 'cell', 'cells')} failed, why and where the tracebacks lie is told above; "
            f"`palign-bench resume {name}` tries again{others}."
        )
    if waiting:
        return f"Next: `palign-bench resume {name}` computes the {counted(waiting, 'missing cell', 'missing cells')}."
    columns = f"`palign-bench report {name} --legend` for the columns."
    if any(is_given(row.name) for row in report.read):
        return f"Next: {columns}"
    everybody = report.about.get("source_people")
    more = min(report.people * _NEXT_PEOPLE, everybody or report.people * _NEXT_PEOPLE)
    if more <= report.people:
        return f"Next: `palign-bench forecast {name}` for what more people, and larger models, would cost."
    untrained = [row for row in report.rows if row["budget"] is None and row["respondents"] == report.people]
    each = sum((row["align_seconds"] or 0.0) + (row["answer_seconds"] or 0.0) for row in untrained)
    minutes = (more - report.people) * each / 60
    takes = f"about {minutes:.0f} min here" if minutes >= 1 else "less than a minute here"
    by_name = "respondents=simulated " if report.about["respondents"] == "simulated" else ""  # many want to be named
    return (
        f"Next: `palign-bench resume {name} {by_name}respondents.limit={more}` for {more} people ({takes}; rows with a "
        f"limit of their own stay), {columns}"
    )


def _lowest(lines: Sequence[Line]) -> dict[str, Any] | None:
    """The lowest composites, of all rows and of the methods among them, over the people whom these rows share.

    Rows on less than half of the people, a few trained ones as a rule, are left out, and those that left items out.
    """
    scored = [line for line in lines if line.people and line.row["block"] in _COMPETING and _has_answered(line)]
    most = max((line.people for line in scored), default=0)
    many = [line for line in scored if 2 * line.people >= most]
    shared = set.intersection(*(set(line.numbers.composites) for line in many)) if many else set()

    def composite(line: Line) -> float:
        return mean([line.numbers.composites[each] for each in shared]) or 0.0

    own = [line for line in many if line.row["block"] == METHODS]
    if not shared or not own:
        return None
    lowest, lowest_own = min(many, key=composite), min(own, key=composite)
    return {
        "label": lowest.label,
        "composite": composite(lowest),
        "is_method": lowest.is_method,
        "own_label": lowest_own.label,
        "own_composite": composite(lowest_own),
        "people": counted(len(shared)) if len(shared) == most else f"the {counted(len(shared))} whom these rows share",
    }


_COMPETING = (METHODS, PEOPLE_METHODS, OWN_FLOORS, PEOPLE_FLOORS)


def _has_answered(line: Line) -> bool:
    return line.numbers.answered_share >= 1 - UNPARSED


def _against_floors(lines: Sequence[Line], methods: Sequence[Line]) -> dict[str, dict[int | None, list[str]]]:
    """By the best own-answers floor, methods by the `_verdict` on them against it, with their differences.

    Rows on few people, beside others on more, are told apart elsewhere.
    """
    floors = {id(line.numbers): line for line in lines if line.row["block"] == OWN_FLOORS}
    grouped: dict[str, dict[int | None, list[str]]] = {}
    most = max(line.people for line in methods)
    for line in methods:
        if line.people < min(most, FEWEST_FOR_A_BOOTSTRAP):
            continue
        named = [each.numbers for each in floors.values() if each.row["method"] == line.row["best_own_floor"]]
        best = best_floor(line.numbers, named)  # of one name, as a rule one
        difference, floor = Difference(line.numbers, best), floors.get(id(best))
        if line.row["block"] == METHODS and floor and difference.interval:
            found = grouped.setdefault(floor.label, {-1: [], 0: [], 1: [], None: []})
            found[_verdict(difference)].append(f"{line.label} {difference.mean:+.2f}")
    return grouped


def _verdict(difference: Difference) -> int | None:
    """Whether the first row is clearly better (-1) or worse (1), or neither (0); None: with too few people to rank."""
    return difference.sign if len(difference.values) >= FEWEST_FOR_A_BOOTSTRAP else None


def _few_shot(lines: Sequence[Line]) -> list[tuple[Line, Line, Difference, int | None, bool]]:
    """Few-Shot, which is told the person's answers, against Vanilla, which is told nothing; whether they are alike."""
    return [
        (line, vanilla, difference, _verdict(difference), _same_answers(line.numbers, vanilla.numbers))
        for line in lines
        if line.row["method"] == "few_shot"
        and (vanilla := _partner(line, "vanilla", lines))
        and (difference := Difference(line.numbers, vanilla.numbers))
    ]


def _pas(
    lines: Sequence[Line], on_scored: bool
) -> list[tuple[Line, Line | None, Difference, int | None, dict[str, str]]]:
    """PAS against the prompt that it starts from; which alpha is fixed, else for whom it chose to add nothing, and for
    whom it could not choose.

    ``on_scored``: alpha was chosen on the very answers that are scored. No verdict then: random directions gain, too.
    """
    found = []
    for line in lines:
        if not line.row["method"].startswith("pas") or not line.people:
            continue
        aligned = [each for each in line.numbers.summaries() if each.get("alpha") is not None]
        if not aligned:
            continue
        method = line.numbers.identity["method"]
        base = _partner(line, "few_shot" if method.get("system_prompt") == "few_shot" else "vanilla", lines)
        difference = Difference(line.numbers, base.numbers if base else None)
        chosen = [each for each in aligned if each.get("search")]
        tried = {alpha for each in chosen for alpha in each["search"]}
        zero, without = sum(each["alpha"] == 0 for each in chosen), len(aligned) - len(chosen)
        alpha = {
            "fixed": "".join(tried) if len(tried) == 1 else "",
            "zero": _of(zero, len(aligned), line) if len(tried) > 1 else "",
            "without": _of(without, len(aligned), line) if without else "",
        }
        verdict = None if on_scored and alpha["zero"] else _verdict(difference)
        found.append((line, base, difference, verdict, alpha))
    return found


def _of(count: int, people: int, line: Line) -> str:
    """So many of a row's people: "3 of 10 people"; "nobody" or "the one person" of a single one."""
    if people == 1:
        return "the one person" if count else "nobody"
    return f"{count} of {line.numbers.of_first}{counted(people)}"


def _one_option(report: Report, methods: Sequence[Line]) -> dict[str, dict[str, float]]:
    """Methods that give one option to nearly every item, and its share, by option."""
    by_option: dict[str, dict[str, float]] = {}
    for line in methods:
        counts = option_counts(line.numbers, report.inventory.highest)
        if counts.any() and counts.max() / counts.sum() >= ONE_OPTION:
            letter = report.inventory.letters[report.inventory.highest - int(counts.argmax())]
            by_option.setdefault(letter, {})[line.label] = counts.max() / counts.sum()
    return by_option


def _resolution(lines: Sequence[Line]) -> float | None:
    """How large a difference between two methods must be to be seen with so many people."""
    found = [Difference(first.numbers, second.numbers).interval for first, second in combinations(lines, 2)]
    widths = [(each[1] - each[0]) / 2 for each in found if each]
    return median(widths) if widths and lines[0].people >= FEWEST_FOR_A_BOOTSTRAP else None


def _partner(line: Line, method: str, lines: Sequence[Line]) -> Line | None:
    """The row of that method with the same seed."""
    seed = line.numbers.identity.get("seed")
    found = [each for each in lines if each.row["method"] == method and each.people]
    return next((each for each in found if each.numbers.identity.get("seed") == seed), None)


def _same_answers(first: RowNumbers, second: RowNumbers) -> bool:
    """Whether the people that both rows have are answered alike, item by item."""
    shared = people_of_all([first, second])
    items = np.union1d(first.digest.items, second.digest.items)
    return np.array_equal(first.answers_of(shared, items), second.answers_of(shared, items), equal_nan=True)
