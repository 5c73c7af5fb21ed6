"""The table of one plan, computed from the ledger alone."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from palign_bench.costs.figures import BY_NAME, FIGURES
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.report import measures
from palign_bench.report.names import OWN_FLOORS, PEOPLE_FLOORS
from palign_bench.report.paper import PaperSetting, matching_setting
from palign_bench.report.rows import (
    RowNumbers,
    budget_of,
    known_answers,
    ledger_notes,
    read_rows,
    row_labels,
    told,
)
from palign_bench.report.specificity import Truths, specificity
from palign_bench.report.statistics import mean, mean_interval
from palign_bench.report.training import training_notes
from palign_bench.report.validity import PANEL, validity

_FIRST_COLUMNS: tuple[str, ...] = ("method", "protocol", "model", "respondents")
_LATER_COLUMNS: tuple[str, ...] = (
    "composite",
    "composite_low",
    "composite_high",
    "difference_to_best_own_floor",
    "difference_to_best_people_floor",
    "specificity",
    "trait_correlation",
    "most_frequent_option_share",
    "unparsed_rate",
    *(column.name for column in PANEL if column.name != "trait_correlation"),
    "missing_cells",
    "shared_seconds",
    "seconds_for_one",
    "seconds_for_300",
    *BY_NAME,
    "label",
    "title",
    "block",
    "budget",
    "known_answers",
    "unscored",
    "audit_agreement",
    "beats_best_constant",
    "best_own_floor",
    "difference_to_best_own_floor_low",
    "difference_to_best_own_floor_high",
    "best_people_floor",
    "difference_to_best_people_floor_low",
    "difference_to_best_people_floor_high",
    "paper_composite",
    "cells",
)
_WHOLE_COLUMNS: tuple[str, ...] = (
    "respondents",
    "missing_cells",
    "unscored",
    "known_answers",
    *(figure.name for figure in FIGURES if figure.whole),
)


def columns_of(inventory: Inventory) -> tuple[str, ...]:
    """The names of a table's columns, in order."""
    return (*_FIRST_COLUMNS, *inventory.scales.values(), *_LATER_COLUMNS)


@dataclass(frozen=True)
class Report:
    """One table with what is said about it.

    ``rows``: one dict per planned row, ``columns``, None where a measure is not defined.
    ``read``: what the ledger holds of each row. ``composites``: per row, composite by respondent id (for pictures; ids
    stay on this machine).
    ``paper``: the paper's setting when the table is in it.
    """

    about: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    read: tuple[RowNumbers, ...]
    composites: tuple[Mapping[str, float], ...]
    notes: tuple[str, ...]
    paper: PaperSetting | None
    inventory: Inventory

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: a column per scale of the inventory between what a row is and its composite."""
        return columns_of(self.inventory)

    @property
    def people(self) -> int:
        """Number of people that the command asked for, over all rows."""
        return int(self.about["people"])

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a data frame; missing values are NaN, whole numbers stay whole."""
        frame = pd.DataFrame(list(self.rows), columns=list(self.columns))
        return frame.astype(dict.fromkeys(_WHOLE_COLUMNS, "Int64")).astype({"beats_best_constant": "boolean"})

    @property
    def headline(self) -> str:
        """Experiment and model."""
        return f"{self.about['experiment']}: {self.about.get('model_title') or self.about['model']}"

    @property
    def setting(self) -> str:
        """Protocol, number of people, their source, and training budgets."""
        source = self.about.get("respondents_description") or self.about["respondents"]
        people = "1 person" if self.people == 1 else f"{self.people} people"
        budgets = sorted({re.split("[:,]", row["budget"])[0] for row in self.rows if row["budget"]})
        trained = f", budget: {' and '.join(budgets)}" if budgets else ""
        return f"protocol {self.about['protocol']}, {people} in this table (source: {source}){trained}"

    @property
    def title(self) -> str:
        """`headline` and `setting` in one line."""
        return f"{self.headline}, {self.setting}"


def build_report(plan: Plan, inventory: Inventory | None = None) -> Report:
    """Compute the table of a plan. Raises LedgerError when nothing is planned."""
    rows, about = read_rows(plan)
    if inventory is None:  # plans from before inventories could be chosen are of IPIP-NEO-300
        inventory = Inventory.of_outline(about["inventory"]) if "inventory" in about else ipip_neo_300()
    paper = matching_setting(about, random_weights=any(_random_weights(row) for row in rows))
    truths = Truths.of(rows)
    labels = row_labels(rows)
    columns = []
    for row, label in zip(rows, labels, strict=True):
        columns.append(
            {
                "method": row.key,
                "protocol": about["protocol"],
                "model": about["model"],
                "label": label,
                "title": row.title,
                "block": row.block,
                "budget": budget_of(row),
                "known_answers": known_answers(row),
                "cells": row.folder.path.name,
                "paper_composite": paper.composite(row.key) if paper else None,
                "specificity": specificity(inventory, row, truths),
                **validity(inventory, row, truths),
                **_score_columns(inventory, row),
                **_comparison_columns(row, [other for other in rows if told(other) == told(row)]),
                **measures.costs(row),
            }
        )
    ordered = tuple({name: row[name] for name in columns_of(inventory)} for row in columns)
    people = len({respondent for row in rows for respondent in row.planned})
    notes = (*about.get("notes", ()), *training_notes(rows), *ledger_notes(rows))
    composites = tuple(row.composites for row in rows)
    return Report({**about, "people": people}, ordered, tuple(rows), composites, notes, paper, inventory)


def as_json(report: Report) -> str:
    """The report as JSON: title, what it is about, rows with null where undefined, notes."""
    document = {
        "title": report.title,
        "about": dict(report.about),
        "columns": list(report.columns),
        "rows": [dict(row) for row in report.rows],
        "notes": list(report.notes),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _score_columns(inventory: Inventory, row: RowNumbers) -> dict[str, Any]:
    composites = list(row.composites.values())
    low, high = mean_interval(composites) or (None, None)
    unparsed, agreement = measures.reading_rates(row)
    return {
        "respondents": len(row.respondents),
        "missing_cells": row.missing,
        "unscored": len(row.respondents) - len(composites),
        **measures.scale_means(inventory, row),
        "composite": mean(composites),
        "composite_low": low,
        "composite_high": high,
        "most_frequent_option_share": measures.most_frequent_option_share(row),
        "unparsed_rate": unparsed,
        "audit_agreement": agreement,
    }


def _comparison_columns(row: RowNumbers, rows: list[RowNumbers]) -> dict[str, Any]:
    columns: dict[str, Any] = {"beats_best_constant": measures.beats_best_constant(row, rows)}
    for name, block in (("own_floor", OWN_FLOORS), ("people_floor", PEOPLE_FLOORS)):
        best = measures.best_floor(row, [other for other in rows if other.block == block])
        differences = measures.differences(row, best)
        low, high = mean_interval(differences) or (None, None)
        columns[f"best_{name}"] = best.key if best else None
        columns[f"difference_to_best_{name}"] = mean(differences)
        columns[f"difference_to_best_{name}_low"] = low
        columns[f"difference_to_best_{name}_high"] = high
    return columns


def _random_weights(row: RowNumbers) -> bool:
    model = row.folder.identity()["model"]
    return model is not None and model.get("weights") == "random"
