"""The table of one plan, computed from the ledger alone."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from palign_bench.costs.figures import FIGURES
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report import measures
from palign_bench.report.names import OWN_FLOORS, PEOPLE_FLOORS
from palign_bench.report.paper import PaperSetting, matching_setting
from palign_bench.report.rows import RowNumbers, ledger_notes, read_rows, told_alike
from palign_bench.report.specificity import Truths, specificity
from palign_bench.report.statistics import mean, mean_interval
from palign_bench.report.training import training_notes
from palign_bench.report.validity import PANEL, validity
from palign_bench.settings import counted

_WHOLE_COLUMNS: tuple[str, ...] = (
    "respondents",
    "missing_cells",
    "unscored",
    "known_answers",
    *(figure.name for figure in FIGURES if figure.whole),
)
# What a row is and how it did: no scale of an inventory can be called so, for it would be overwritten.
COLUMNS_BESIDE_SCALES: frozenset[str] = frozenset({
    "method", "protocol", "model", "respondents", "composite", "composite_low", "composite_high", "specificity",
    "difference_to_best_own_floor", "difference_to_best_own_floor_low", "difference_to_best_own_floor_high",
    "difference_to_best_people_floor", "difference_to_best_people_floor_low", "difference_to_best_people_floor_high",
    "best_own_floor", "best_people_floor", "beats_best_constant", "most_frequent_option_share", "unparsed_rate",
    "audit_agreement", "missing_cells", "unscored", "shared_seconds", "seconds_for_one", "seconds_for_300", "label",
    "title", "block", "budget", "known_answers", "paper_composite", "cells",
    *(entry["name"] for entry in PANEL), *(figure.name for figure in FIGURES),
})  # fmt: skip


@dataclass(frozen=True)
class Report:
    """One table with what is said about it.

    ``rows``: one dict per planned row, None where a measure is not defined; a column per scale of the inventory stands
    between what a row is and its composite.
    ``read``: what the ledger holds of each row. ``paper``: the paper's setting when the table is in it.
    """

    about: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    read: tuple[RowNumbers, ...]
    notes: tuple[str, ...]
    paper: PaperSetting | None
    inventory: Inventory

    @property
    def people(self) -> int:
        """Number of people that the command asked for, over all rows."""
        return int(self.about["people"])

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a data frame; missing values are NaN, whole numbers stay whole."""
        frame = pd.DataFrame(list(self.rows))
        return frame.astype(dict.fromkeys(_WHOLE_COLUMNS, "Int64")).astype({"beats_best_constant": "boolean"})

    @property
    def headline(self) -> str:
        """Experiment and model; no model where no row used one."""
        if not any(row.identity.get("model") for row in self.read):
            return f"{self.about['experiment']}: no language model"
        return f"{self.about['experiment']}: {self.about.get('model_title') or self.about['model']}"

    @property
    def setting(self) -> str:
        """Protocol, what every row was told and asked otherwise, number of people, their source, training budgets."""
        source = self.about.get("respondents_description") or self.about["respondents"]
        budgets = sorted({re.split("[:,]", row["budget"])[0] for row in self.rows if row["budget"]})
        trained = f", budget: {' and '.join(budgets)}" if budgets else ""
        people = f"{counted(self.people)} in this table (source: {source})"
        return f"protocol {self.about['protocol']}{told_alike(self.read)}, {people}{trained}"

    @property
    def title(self) -> str:
        """`headline` and `setting` in one line."""
        return f"{self.headline}, {self.setting}"


def build_report(plan: Plan, inventory: Inventory | None = None) -> Report:
    """Compute the table of a plan. Raises LedgerError when nothing is planned.

    ``inventory``: with the wording of its items; None takes what the plan keeps of it.
    """
    rows, about = read_rows(plan)
    inventory = inventory or Inventory.of_outline(about["inventory"])
    people = len({respondent for row in rows for respondent in row.ids})
    paper = matching_setting(about, random_weights=any(row.has_random_weights for row in rows))
    truths = Truths.of(rows)
    columns = [
        _columns(row, [other for other in rows if other.told == row.told], inventory, truths, paper) for row in rows
    ]
    notes = (*about.get("notes", ()), *training_notes(rows), *ledger_notes(rows, about))
    return Report({**about, "people": people}, tuple(columns), tuple(rows), notes, paper, inventory)


def as_json(report: Report) -> str:
    """The report as JSON: title, what it is about, rows with null where undefined, notes."""
    document = {
        "title": report.title,
        "about": dict(report.about),
        "columns": list(report.rows[0]),
        "rows": [dict(row) for row in report.rows],
        "notes": list(report.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _columns(
    row: RowNumbers,
    peers: Sequence[RowNumbers],
    inventory: Inventory,
    truths: Truths,
    paper: PaperSetting | None,
) -> dict[str, Any]:
    """A row of the table, column by column in the order of its files.

    ``peers``: the rows whose methods were told the same answers, this one among them.
    """
    most = float(measures.farthest(row.protocol, inventory) * len(inventory.scales))
    low, high = mean_interval(list(row.composites.values()), bounds=(0.0, most)) or (None, None)
    unparsed, agreement = measures.reading_rates(row)
    panel = validity(inventory, row, truths)
    best_own, best_people = (
        measures.best_floor(row, [each for each in peers if each.block == block])
        for block in (OWN_FLOORS, PEOPLE_FLOORS)
    )
    own, people = measures.Difference(row, best_own), measures.Difference(row, best_people)
    own_low, own_high = own.interval or (None, None)
    people_low, people_high = people.interval or (None, None)
    return {
        "method": row.name,
        "protocol": row.protocol,
        "model": row.model,
        "respondents": len(row.respondents),
        **{name: mean(row.recorded(f"score/{name}")) for name in inventory.scales.values()},
        "composite": row.composite,
        "composite_low": low,
        "composite_high": high,
        "difference_to_best_own_floor": own.mean,
        "difference_to_best_people_floor": people.mean,
        "specificity": specificity(inventory, row, truths),
        "trait_correlation": panel["trait_correlation"],
        "most_frequent_option_share": measures.most_frequent_option_share(row),
        "unparsed_rate": unparsed,
        **panel,
        "missing_cells": row.missing_cells,
        **measures.costs(row),
        "label": row.label,
        "title": row.title,
        "block": row.block,
        "budget": row.budget,
        "known_answers": row.known_answers,
        "unscored": row.unscored,
        "audit_agreement": agreement,
        "beats_best_constant": measures.beats_best_constant(row, peers),
        "best_own_floor": best_own.name if best_own else None,
        "difference_to_best_own_floor_low": own_low,
        "difference_to_best_own_floor_high": own_high,
        "best_people_floor": best_people.name if best_people else None,
        "difference_to_best_people_floor_low": people_low,
        "difference_to_best_people_floor_high": people_high,
        "paper_composite": paper.composite(row.name) if paper and row.is_as_shipped else None,
        "cells": row.folder.path.name,
    }
