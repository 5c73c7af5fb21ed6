"""Do a method's answers stay when the same items are asked in another way? (arXiv 2309.08163.)

Every variant (`questionnaire/variant.py`) is compared with ``plain``, answer by answer, over the people that all the
method's variants have. A ranking of two methods counts as robust only if their paired difference of the composite
keeps its sign in every variant.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from palign_bench.ledger.columns import Array
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.variant import PLAIN, REPEAT, REVERSED, ROTATED, VARIANTS, Variant
from palign_bench.report.document import Written, table_of, write_page, written_out
from palign_bench.report.rows import (
    RowNumbers,
    by_method,
    label_without,
    ledger_notes,
    page_title,
    people_of_all,
    read_rows,
)
from palign_bench.report.statistics import mean_interval

_MOST_PAIRS = 12  # told in the page; all are in a file


@dataclass(frozen=True)
class Invariance:
    """One method under every variant that it was asked in, over the people whom it has in all of them.

    ``composites``: (people, variants), plain first, NaN where a person has none. ``changes``: a row for each variant
    but plain, see `changes_of`. ``chi_squared``, ``cramers_v``: see `position_test`. The last three are NaN where no
    variant moved the options.
    """

    title: str
    composites: pd.DataFrame
    changes: pd.DataFrame
    position_bias: float
    chi_squared: float
    cramers_v: float


def write_invariance(plan: Plan, inventory: Inventory, written: Written) -> str:
    """Write the page ``invariance.md``, ``.tex`` and ``.html``, with ``invariance_variants.csv`` and
    ``invariance_pairs.csv``, into the plan's folder; return the text for the terminal.

    ``written``: with the files of the report so far. Raises LedgerError for an empty plan.
    """
    rows, about = read_rows(plan)
    found = invariance(rows, inventory)
    compared = pairs(found)
    still = [each.title for each in found if not each.changes[["instability", "flips"]].any(axis=None)]
    unstable = [pair for pair in compared if pair["keeps its sign"] == "no"]
    notes = written_out("invariance", found=found, still=still, more_pairs=len(unstable) - _MOST_PAIRS)
    notes += [*about.get("notes", ()), *ledger_notes(rows, about)]
    narrow = ("chi-squared", "people", "V", "lowest", "highest")
    tables = [
        table_of([_summary(each, compared) for each in found], left_out_first=narrow),
        table_of(by_variant(found, "instability"), "Mean change of an answer against plain"),
        table_of(by_variant(found, "flips"), "Share of answers that flip"),
        table_of(
            [{name: pair[name] for name in pair if name not in VARIANTS} for pair in unstable[:_MOST_PAIRS]],
            "Pairs whose order depends on the way of asking",
        ),
    ]
    for name, lines in (("variants", [line for each in found for line in _lines(each)]), ("pairs", compared)):
        written.add(plan.folder / f"invariance_{name}.csv", pd.DataFrame(lines).to_csv(index=False))
    return write_page(page_title("invariance", about, rows), tables, notes, plan.folder / "invariance", written)


def have_invariance(rows: Iterable[RowNumbers]) -> bool:
    """Whether there is a method with people who were asked both plainly and in another way."""
    return any(_asked_both(asked)[1] for asked in _by_variant(rows))


def _by_variant(rows: Iterable[RowNumbers]) -> list[dict[Any, RowNumbers]]:
    return by_method([row for row in rows if row.variant is not None and row.respondents], "variant")


def _asked_both(asked: Mapping[str, RowNumbers]) -> tuple[list[str], list[str]]:
    """The ways in which one method was asked, plain first, and the people of all of them; nobody for one way alone."""
    names = [name for name in VARIANTS if name in asked]
    return names, people_of_all([asked[name] for name in names]) if PLAIN in asked and len(asked) > 1 else []


def invariance(rows: Sequence[RowNumbers], inventory: Inventory) -> list[Invariance]:
    """The invariance of every method that was asked both plainly and in another way."""
    return [found for asked in _by_variant(rows) if (found := _invariance(asked, inventory)) is not None]


def _invariance(asked: Mapping[str, RowNumbers], inventory: Inventory) -> Invariance | None:
    names, people = _asked_both(asked)
    if not people:
        return None
    items = np.array(inventory.held_out, dtype=np.int64)
    answers = {name: asked[name].answers_of(people, items) for name in names}
    orders = [name for name in (PLAIN, REVERSED, ROTATED) if name in names]
    kept = [letters_kept(answers[PLAIN], answers[name], Variant(name), inventory) for name in orders[1:]]
    changes = {name: changes_of(name, answers[PLAIN], answers[name], inventory) for name in names[1:]}
    return Invariance(
        label_without(asked[PLAIN].label, "variant"),
        pd.DataFrame({name: asked[name].composites for name in names}, dtype=float).reindex(people),
        pd.DataFrame.from_dict(changes, orient="index"),
        _mean(np.concatenate(kept)) if kept else float("nan"),
        *position_test([answers[name] for name in orders], inventory),
    )


def changes_of(name: str, plain: Array, changed: Array, inventory: Inventory) -> dict[str, float]:
    """What a variant changed.

    ``answers``: how many could be compared with plain; ``instability``: mean |Δ answer|; ``flips``: share of answers
    that are another option; NaN where no answer can be compared. ``letters_kept``: share of answers with the letter of
    the plain one where that letter has another label; NaN where the options did not move.
    """
    differences = np.abs(changed - plain)
    compared = ~np.isnan(differences)
    return {
        "answers": int(compared.sum()),
        "instability": _mean(differences[compared]),
        "flips": _mean((inventory.nearest(plain) != inventory.nearest(changed))[compared]),
        "letters_kept": _mean(letters_kept(plain, changed, Variant(name), inventory)),
    }


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


def pairs(found: Sequence[Invariance]) -> list[dict[str, Any]]:
    """Every two methods: the mean paired difference of the composite, first minus second, asked plainly, its interval,
    the least and the greatest over the variants that both have, and each of these, over the people in all of them.
    """
    made = []
    for first, second in combinations(found, 2):
        names = [name for name in map(str, first.composites) if name in second.composites]
        differences = first.composites[names] - second.composites[names].reindex(first.composites.index)
        differences = differences.dropna()
        if differences.empty or len(names) < 2:
            continue
        means = {name: float(differences[name].mean()) for name in names}
        low, high = mean_interval(differences[PLAIN]) or (None, None)
        made.append(
            {
                "method": first.title,
                "against": second.title,
                "difference": means[PLAIN],
                "low": low,
                "high": high,
                "least": min(means.values()),
                "most": max(means.values()),
                "keeps its sign": _keeps_its_sign(means.values()),
                **means,
            }
        )
    return made


def _keeps_its_sign(means: Iterable[float]) -> str:
    signs = {np.sign(round(each, 9)) for each in means}
    return "no" if len(signs) > 1 else "tie" if signs == {0} else "yes"


def _mean(values: Array) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _summary(found: Invariance, compared: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    own = [pair for pair in compared if found.title in (pair["method"], pair["against"])]
    composites = found.composites.mean()
    asked_otherwise = found.changes.drop(index=REPEAT, errors="ignore")  # a repetition changes nothing but noise
    changes = asked_otherwise if len(asked_otherwise) else found.changes
    return {
        "method": found.title,
        "people": len(found.composites),
        "changed": float(changes["instability"].mean(skipna=False)),
        "flipped": float(changes["flips"].mean(skipna=False)),
        "position bias": found.position_bias,
        "V": found.cramers_v,
        "chi-squared": found.chi_squared,
        "composite": float(composites[PLAIN]),
        "lowest": float(composites.min()),
        "highest": float(composites.max()),
        "robust": f"{sum(pair['keeps its sign'] == 'yes' for pair in own)} of {len(own)}",
    }


def by_variant(found: Sequence[Invariance], figure: str) -> list[dict[str, Any]]:
    """A row per method with a figure of its changes under every variant that any method has; None where it has not."""
    names = [name for name in VARIANTS if any(name in each.changes.index for each in found)]
    return [{"method": each.title} | {name: each.changes[figure].get(name) for name in names} for each in found]


def _lines(found: Invariance) -> list[dict[Any, Any]]:
    """What is told of each variant, plain first."""
    row = {"method": found.title, "variant": "", "people": len(found.composites)}
    changes = found.changes.to_dict("index")
    composites = found.composites.mean()
    return [
        row | {"variant": name, "composite": composites[name]} | changes.get(name, {})
        for name in map(str, found.composites)
    ]
