"""Do a method's answers stay when the same items are asked in another way? (arXiv 2309.08163.)

Every variant (`questionnaire/variant.py`) is compared with ``plain``, answer by answer, over the people that all the
method's variants have. A ranking of two methods counts as robust only if their paired difference of the composite
keeps its sign in every variant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from palign_bench.files import canonical
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.variant import PLAIN, REVERSED, ROTATED, VARIANTS, Variant
from palign_bench.report.document import Table, Text, Written, table_of, write_page
from palign_bench.report.rows import RowNumbers, ledger_notes, page_title, read_rows
from palign_bench.report.statistics import mean, mean_interval, paired_differences

Array = NDArray[np.floating[Any]]
_MOST_PAIRS = 12  # told in the page; all are in a file

NOTES = (
    "Changed: mean absolute change of an answer against the plain way of asking, over all variants. Flipped: share of "
    "answers that are another option.",
    "Composite: asked plainly, and the lowest and highest over all ways of asking.",
    "Position bias, where options stand in another order: share of answers that keep their letter and so change their "
    "label (0: labels are followed; 1: letters are). V: Cramér's V of the chi-squared test that as many answers go to "
    "each label whatever the order; its p-value would be wrong, since the same people and items come again.",
    "Robust: of how many other rows the row is better, or worse, in every variant alike.",
)


@dataclass(frozen=True)
class Change:
    """What one variant changed. ``instability``: mean |Δ answer|; ``flips``: share of answers that are another option;
    both against plain, NaN where no answer can be compared. ``answers``: how many could. ``letters_kept``: share of
    answers with the letter of the plain one where that letter has another label; NaN where the options did not move.
    """

    answers: int
    instability: float
    flips: float
    letters_kept: float
    composite: float | None


@dataclass(frozen=True)
class Invariance:
    """One method under every variant that it was asked in.

    ``chi_squared``, ``cramers_v``: see `position_test`; NaN where no variant moved the options. ``composites``: by
    variant and respondent.
    """

    title: str
    people: int
    plain: float | None
    changes: Mapping[str, Change]
    position_bias: float
    chi_squared: float
    cramers_v: float
    composites: Mapping[str, Mapping[str, float]]

    @property
    def instability(self) -> float:
        """Mean over the variants, ``repeat`` included."""
        return _mean([change.instability for change in self.changes.values()])

    @property
    def flips(self) -> float:
        return _mean([change.flips for change in self.changes.values()])


@dataclass(frozen=True)
class Pair:
    """Two methods: the mean paired difference of the composite, first minus second, by variant; plain has one."""

    first: str
    second: str
    differences: Mapping[str, float]
    interval: tuple[float, float] | None  # of the plain one

    @property
    def keeps_sign(self) -> bool:
        return len({float(np.sign(round(each, 9))) for each in self.differences.values()}) == 1


def write_invariance(plan: Plan, inventory: Inventory, written: Written) -> str:
    """Write the page ``invariance.md``, ``.tex`` and ``.html``, with ``invariance_variants.csv`` and
    ``invariance_pairs.csv``, into the plan's folder; return the text for the terminal.

    ``written``: with the files of the report so far. Raises LedgerError for an empty plan.
    """
    rows, about = read_rows(plan)
    found = invariance(rows, inventory)
    compared = pairs(found)
    notes = list(NOTES)
    if still := [each.title for each in found if each.flips == each.instability == 0]:
        notes.append(f"Every answer is the same in every variant: {', '.join(still)}.")
    unstable = [pair for pair in compared if not pair.keeps_sign]
    if len(unstable) > _MOST_PAIRS:
        notes.append(f"{len(unstable) - _MOST_PAIRS} more pairs change their order: see invariance_pairs.csv.")
    if not found:
        notes.append("No method has finished people both asked plainly and in another way yet.")
    notes += [*about.get("notes", ()), *ledger_notes(rows)]
    narrow = ("chi-squared", "people", "V", "lowest", "highest")
    tables = [
        table_of([_summary(each, compared) for each in found], left_out_first=narrow),
        table_of(by_variant(found, "instability"), "Mean change of an answer against plain"),
        table_of(by_variant(found, "flips"), "Share of answers that flip"),
        table_of([_pair(pair) for pair in unstable[:_MOST_PAIRS]], "Pairs whose order depends on the way of asking"),
    ]
    files = {
        "variants": [line for each in found for line in _lines(each)],
        "pairs": [_pair(pair) | dict(pair.differences) for pair in compared],
    }
    for name, lines in files.items():
        written.add(plan.folder / f"invariance_{name}.csv", pd.DataFrame(lines).to_csv(index=False))
    blocks: list[Table | Text] = [*(table for table in tables if table.rows), Text(notes, listed=True)]
    return write_page(page_title("invariance", about), blocks, plan.folder / "invariance", written)


def invariance(rows: Sequence[RowNumbers], inventory: Inventory) -> list[Invariance]:
    """The invariance of every method that was asked both plainly and in another way."""
    methods: dict[str, dict[str, RowNumbers]] = {}
    for row in rows:
        name = row.variant
        if name is not None and row.respondents:
            told = {key: value for key, value in row.identity.items() if key != "variant"}
            methods.setdefault(canonical(told), {})[name] = row
    return [found for asked in methods.values() if (found := _invariance(asked, inventory)) is not None]


def _invariance(asked: Mapping[str, RowNumbers], inventory: Inventory) -> Invariance | None:
    if PLAIN not in asked or len(asked) < 2:
        return None
    names = [name for name in VARIANTS if name in asked]
    shared = set.intersection(*(set(row.respondents) for row in asked.values()))
    people = [respondent for respondent in asked[PLAIN].respondents if respondent in shared]
    if not people:
        return None
    answers = {name: _answers(asked[name], people, inventory) for name in names}
    composites = {
        name: {each: score for each, score in asked[name].composites.items() if each in shared} for name in names
    }
    orders = [name for name in (PLAIN, REVERSED, ROTATED) if name in names]
    chi_squared, cramers_v = position_test([answers[name] for name in orders], inventory)
    changes = {name: _change(name, answers[PLAIN], answers[name], composites[name], inventory) for name in names[1:]}
    kept = [letters_kept(answers[PLAIN], answers[name], Variant(name), inventory) for name in orders[1:]]
    return Invariance(
        title=asked[PLAIN].title,
        people=len(people),
        plain=mean(list(composites[PLAIN].values())),
        changes=changes,
        position_bias=_mean(list(np.concatenate(kept))) if kept else float("nan"),
        chi_squared=chi_squared,
        cramers_v=cramers_v,
        composites=composites,
    )


def _answers(row: RowNumbers, people: Sequence[str], inventory: Inventory) -> Array:
    """Answers ``(people, held-out items)``; NaN where there is none."""
    at = {respondent: index for index, respondent in enumerate(row.respondents)}
    return row.digest.take([at[each] for each in people]).answers_to(np.array(inventory.held_out, dtype=np.int64))


def _change(name: str, plain: Array, changed: Array, composites: Mapping[str, float], inventory: Inventory) -> Change:
    differences = np.abs(changed - plain)
    compared = ~np.isnan(differences)
    flips = (inventory.nearest(plain) != inventory.nearest(changed))[compared]
    return Change(
        answers=int(compared.sum()),
        instability=_mean(list(differences[compared])),
        flips=_mean(list(flips)),
        letters_kept=_mean(list(letters_kept(plain, changed, Variant(name), inventory))),
        composite=mean(list(composites.values())),
    )


def letters_kept(plain: Array, changed: Array, asked: Variant, inventory: Inventory) -> Array:
    """For every answer whose plain letter has another label in the variant: 1.0 where the letter stayed, else 0.0."""
    usual = {option.value: option.letter for option in inventory.options}
    now = {option.letter: option.value for option in asked.options(inventory)}
    before, after = inventory.nearest(plain), inventory.nearest(changed)
    there = ~np.isnan(before) & ~np.isnan(after)
    pairs_ = ((value, now[usual[int(value)]], other) for value, other in zip(before[there], after[there], strict=True))
    return np.array([float(other == of_letter) for value, of_letter, other in pairs_ if of_letter != value])


def position_test(orders: Sequence[Array], inventory: Inventory) -> tuple[float, float]:
    """Chi-squared and Cramér's V of answers counted by the options' order and by label.

    ``orders``: answers to the same items of the same people under each order. An answer that one of them lacks is left
    out of all. Both NaN with fewer than two orders, and 0 where every answer has the same label.
    """
    if len(orders) < 2:
        return float("nan"), float("nan")
    values = np.stack([inventory.nearest(each) for each in orders])
    values = values[:, ~np.isnan(values).any(axis=0)]  # (orders, answers)
    counts = np.array([(values == option.value).sum(axis=1) for option in inventory.options]).T
    counts = counts[:, counts.any(axis=0)]  # (orders, labels that were chosen)
    if not counts.size:
        return float("nan"), float("nan")
    if counts.shape[1] < 2:
        return 0.0, 0.0
    statistic = float(chi2_contingency(counts, correction=False).statistic)
    return statistic, float(np.sqrt(statistic / (counts.sum() * (min(counts.shape) - 1))))


def pairs(found: Sequence[Invariance]) -> list[Pair]:
    """Every two methods with the paired differences in the variants that both have, over the people in all of these."""
    made = []
    for first, second in combinations(found, 2):
        names = [name for name in first.composites if name in second.composites]
        people = set.intersection(*(set(each.composites[name]) for each in (first, second) for name in names))
        if not people or len(names) < 2:
            continue
        of_people = {}
        for name in names:
            own = {each: score for each, score in first.composites[name].items() if each in people}
            of_people[name] = list(paired_differences(own, second.composites[name]).values())
        differences = {name: float(np.mean(values)) for name, values in of_people.items()}
        made.append(Pair(first.title, second.title, differences, mean_interval(of_people[PLAIN])))
    return made


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _summary(found: Invariance, compared: Sequence[Pair]) -> dict[str, Any]:
    own = [pair for pair in compared if found.title in (pair.first, pair.second)]
    composites = [each for each in (found.plain, *(c.composite for c in found.changes.values())) if each is not None]
    return {
        "method": found.title,
        "people": found.people,
        "changed": found.instability,
        "flipped": found.flips,
        "position bias": found.position_bias,
        "V": found.cramers_v,
        "chi-squared": found.chi_squared,
        "composite": found.plain,
        "lowest": min(composites, default=None),
        "highest": max(composites, default=None),
        "robust": f"{sum(pair.keeps_sign for pair in own)} of {len(own)}",
    }


def by_variant(found: Sequence[Invariance], figure: str) -> list[dict[str, Any]]:
    """A row per method with a figure of its `Change` under every variant that any method has; None where it has not."""
    names = [name for name in VARIANTS if any(name in each.changes for each in found)]
    return [
        {"method": each.title} | {name: getattr(each.changes.get(name), figure, None) for name in names}
        for each in found
    ]


def _lines(found: Invariance) -> list[dict[str, Any]]:
    row = {"method": found.title, "variant": PLAIN, "people": found.people, "composite": found.plain}
    return [row, *(row | {"variant": name} | vars(change) for name, change in found.changes.items())]


def _pair(pair: Pair) -> dict[str, Any]:
    low, high = pair.interval or (None, None)
    return {
        "method": pair.first,
        "against": pair.second,
        "difference": pair.differences[PLAIN],
        "low": low,
        "high": high,
        "least": min(pair.differences.values()),
        "most": max(pair.differences.values()),
        "keeps its sign": "yes" if pair.keeps_sign else "no",
    }
