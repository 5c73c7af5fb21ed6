"""Result cards: one JSON file per row in the format of *Every Eval Ever*, by which two labs can compare their results.

A card holds a row's scores and what they depend on: model, method, people, protocol, versions. It names no respondent,
holds no answer and no path of this machine. The format is the project's schema 0.3 (https://evalevalai.com).
"""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from palign_bench.costs.machine import hardware
from palign_bench.files import canonical
from palign_bench.ledger.cells import fingerprint
from palign_bench.ledger.columns import Array
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.scoring import COMPOSITE
from palign_bench.report.data import read_data
from palign_bench.report.document import Written
from palign_bench.report.measures import farthest
from palign_bench.report.rows import RowNumbers
from palign_bench.report.statistics import FEWEST_FOR_A_BOOTSTRAP
from palign_bench.report.table import Report

SCHEMA_VERSION = "0.3.0"
FOLDER = "cards"
_NAMESPACE = "palign_bench"
_ON_HUB = re.compile(r"hub:(?P<id>\S+)@(?P<commit>\w+)")  # `backbone.loading.identify`'s weights_hash of a hub model
Bound = float | str


@dataclass(frozen=True)
class Metric:
    """What a column of the table measures. ``bounds``: lowest and highest possible value; texts where there is none."""

    column: str
    description: str
    kind: str = "pearson"
    unit: str = "correlation"
    bounds: Sequence[Bound] = (-1, 1)
    lower_is_better: bool = False


_METRICS: tuple[Metric, ...] = tuple(Metric(**entry) for entry in read_data("metrics"))
# Neither direction is better: these stand in the details of the composite.
_WITHOUT_DIRECTION = ("dispersion_ratio", "acquiescence", "extreme_share", "most_frequent_option_share")


def write_cards(report: Report, plan: Plan, written: Written) -> None:
    """Write ``cards/<row>.json`` for each of the table's rows that has a score; remove the cards of an earlier table.

    Rows of one name (a sweep over a setting) have their fingerprint in the file's name.
    """
    twins = Counter(row.name for row in report.read)
    cards = {}
    for row, columns in zip(report.read, report.rows, strict=True):
        if columns["composite"] is not None:
            name = quote(row.name, safe="") + (f"-{fingerprint(row.identity)}" if twins[row.name] > 1 else "")
            cards[f"{name}.json"] = card(report, row, columns, plan.command.started)
    folder = plan.folder / FOLDER
    for name, document in cards.items():
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        written.add(folder / name, text, told_as=f"{FOLDER}/")
    if written.refused is None:
        for path in folder.glob("*.json"):
            if path.name not in cards:
                path.unlink(missing_ok=True)


def card(report: Report, row: RowNumbers, columns: Mapping[str, Any], started: str) -> dict[str, Any]:
    """One row as a document of the schema. ``columns``: the row of the table; ``started``: when the command was typed.

    ``evaluation_id`` is the same for the same identity, number of people, and scale scores to six decimals.
    """
    identity, model = row.identity, _model_info(row)
    results = list(_results(report, row, columns))
    scores = [columns[name] for name in (*report.inventory.scales.values(), "composite")]
    content = canonical([len(row.respondents), *(None if score is None else f"{score:.6f}" for score in scores)])
    number = f"{fingerprint(row.identity)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    evaluation = f"palign-bench/{model['id'].replace('/', '_')}/{number}"
    for each in results:
        each["evaluation_result_id"] = f"{evaluation}#{each['metric_config']['metric_id']}"
    details = {
        "experiment": report.about["experiment"],
        "method": row.name,
        "method_title": row.title,
        "block": row.block,
        "protocol": report.about["protocol"],
        "protocol_version": identity.get("protocol", {}).get("version"),
        "inventory": report.inventory.name,
        "seed": identity.get("seed"),
        "budget": row.budget,
        "known_answers": identity.get("known_answers", "all"),
        "intervention": identity.get("intervention"),
        "variant": identity.get("variant"),
        "fingerprint": fingerprint(row.identity),
        "missing_cells": columns["missing_cells"],
        **{f"method.{key}": value for key, value in identity["method"].items() if isinstance(value, (int, float))},
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation,
        "evaluation_timestamp": started,
        "retrieved_timestamp": f"{time.time():.0f}",
        "source_metadata": {
            "source_name": "palign-bench",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": _texts(details),
        },
        "eval_library": _library(row),
        "model_info": model,
        "evaluation_results": results,
    }


def _results(report: Report, row: RowNumbers, columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One result for each score that is defined: the scales, the composite, then `_METRICS`."""
    scales = report.inventory.scales.values()
    most = farthest(row.protocol, report.inventory)
    own = "mean absolute difference to the person's own held-out answers"
    for name in scales:
        if columns[name] is not None:
            distance = Metric(name, own, "mae", "points", (0, most), lower_is_better=True)
            yield _result(report, row, distance, columns[name], {}, _scatter(row.digest.figure(f"score/{name}")))
    total = Metric("composite", f"sum over scales of the {own}", "sum_of_mae", "points", (0, most * len(scales)),
                   lower_is_better=True)  # fmt: skip
    details = {name: columns[name] for name in (*_WITHOUT_DIRECTION, "unscored", "best_own_floor", "best_people_floor")}
    uncertainty = _scatter(row.digest.figure(f"score/{COMPOSITE}")) | _interval(columns, "composite")
    yield _result(report, row, total, columns["composite"], details | _marks(row, columns), uncertainty)
    for metric in _METRICS:
        score = columns[metric.column]
        if score is not None:
            people = {"people": len(row.respondents)}
            yield _result(report, row, metric, score, people, _interval(columns, metric.column))


def _result(
    report: Report,
    row: RowNumbers,
    metric: Metric,
    score: float,
    details: Mapping[str, Any],
    uncertainty: Mapping[str, Any],
) -> dict[str, Any]:
    inventory = report.inventory
    title = inventory.title or inventory.name
    people = {
        "data_hash": row.identity.get("respondents", {}).get("data_hash"),
        "inventory": inventory.name,
        "people": len(row.respondents),
        "known_items": len(inventory.known),
        "held_out_items": len(row.digest.items) if row.variant else len(inventory.held_out),
    }
    return {
        "evaluation_name": f"{title} ({row.protocol}): {metric.column}",
        "source_data": {
            "dataset_name": f"{title}, people: {report.about['respondents']}",
            "source_type": "other",
            "additional_details": _texts(people),
        },
        "metric_config": {
            "evaluation_description": metric.description,
            "metric_id": f"{_NAMESPACE}.{metric.column}",
            "metric_name": metric.column.replace("_", " "),
            "metric_kind": metric.kind,
            "metric_unit": metric.unit,
            "lower_is_better": metric.lower_is_better,
            "score_type": "continuous",
            "min_score": metric.bounds[0],
            "max_score": metric.bounds[1],
        },
        "score_details": {"score": score, "details": _texts(details)}
        | ({"uncertainty": dict(uncertainty)} if uncertainty else {}),
    }


def _marks(row: RowNumbers, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader must know before the number."""
    marks = {"beats_best_constant": columns["beats_best_constant"]}
    if columns["beats_best_constant"] is False:
        marks["mark"] = "does not beat the best constant option (one option for every item) on the same people"
    if row.has_random_weights:
        marks["warning"] = "random weights: costs only, the scores mean nothing"
    return marks


def _scatter(values: Array) -> dict[str, Any]:
    """Standard deviation over people and error of their mean; empty below two people."""
    scored = values[~np.isnan(values)]
    if len(scored) < 2:
        return {}
    deviation = float(scored.std(ddof=1))
    return {
        "standard_error": {"value": deviation / len(scored) ** 0.5, "method": "analytic"},
        "standard_deviation": deviation,
        "num_samples": len(scored),
    }


def _interval(columns: Mapping[str, Any], column: str) -> dict[str, Any]:
    """The table's own interval over people, where it has one."""
    low, high = columns.get(f"{column}_low"), columns.get(f"{column}_high")
    if low is None or high is None:
        return {}
    method = f"percentile bootstrap over people, below {FEWEST_FOR_A_BOOTSTRAP} of them Student's t"
    return {"confidence_interval": {"lower": low, "upper": high, "confidence_level": 0.95, "method": method}}


def _library(row: RowNumbers) -> dict[str, Any]:
    """This program and the packages that computed the row's cells; all versions, where there were several."""
    entries = row.folder.provenance()
    packages = {name for entry in entries for name in entry.get("packages", {})}
    versions = {name: _told(each.get("packages", {}).get(name) for each in entries) for name in sorted(packages)}
    version = versions.pop("palign-bench", None) or "unknown"
    code = {key: _told(each.get(key) for each in entries) for key in ("git_commit", "git_dirty", "python")}
    code["hardware"] = _told(hardware(each) for each in entries if each.get("processor"))
    return {"name": "palign-bench", "version": version, "additional_details": _texts(versions | code)}


def _told(values: Iterable[Any]) -> str | None:
    return " and ".join(sorted({str(each) for each in values if each is not None})) or None


def _model_info(row: RowNumbers) -> dict[str, Any]:
    """The model by its hub name where the weights came from there, else by its name here and the weights' hash."""
    model = row.identity.get("model")
    if model is None:
        unknown = {"deployment_type": "unknown", "model_availability": "unknown"}
        return {"name": "no language model", "id": "none", "additional_details": unknown}
    weights = str(model.get("weights_hash", ""))
    whole = _ON_HUB.fullmatch(weights)
    open_ = whole or model.get("weights") == "package"
    details = {
        "deployment_type": "self_deployed",
        "model_availability": "open_weights" if open_ else "unknown",
        "weights_hash": re.sub(r"hub:\S+@", "", weights) if whole else weights,
        **{key: value for key, value in model.items() if key not in ("name", "weights_hash")},
    }
    return {
        "name": model["name"],
        "id": whole["id"] if whole else model["name"],
        "inference_engine": {"name": "vLLM" if model.get("engine") == "vllm" else "transformers"},
        "additional_details": _texts(details),
    }


def _texts(details: Mapping[str, Any]) -> dict[str, str]:
    """The schema takes details as texts; what is None is left out."""
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in details.items() if value is not None}  # fmt: skip
