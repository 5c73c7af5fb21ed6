"""A row and its people as a tracker is told of them, with things planted that must not get out."""

from typing import Any

import pandas as pd

from palign_bench.tracking.tracker import Tracker

DOMAINS = ("agreeableness", "conscientiousness", "extraversion", "neuroticism", "openness")

# What a row's fingerprint covers, with things planted that must not get out.
RAW_IDS = ["case-8871-raw", "case-8872-raw"]
FORBIDDEN = [*RAW_IDS, "/secret/place", "ledger-of-somebody", "people-of-somebody", "Worry about rain"]
IDENTITY: dict[str, Any] = {
    "method": {"name": "few_shot", "k": 24, "alphas": [0, 1, 2.5], "folder": "/secret/place"},
    "model": {"name": "smollm2_135m", "weights": "package"},
    "respondents": {"source": "file", "data_hash": "0123"},
    "protocol": {"name": "corrected", "version": 3},
    "seed": 3,
}
ITEMS = {str(number): DOMAINS[number % 5] for number in range(1, 31)}
SCALE_OF = ITEMS  # six held-out items of each scale


def a_record(index: int) -> dict[str, Any]:
    """A finished cell as the ledger stores it, forbidden parts included."""
    scores = {domain: 0.5 + index + 0.1 * place for place, domain in enumerate(DOMAINS)}
    return {
        "respondent": RAW_IDS[index],
        "answers": dict.fromkeys(ITEMS, 4),
        "texts": {"9": "Worry about rain"},
        "audit": {"9": "Worry about rain"},
        "truth": dict.fromkeys(ITEMS, 5),
        "scores": {**scores, "composite": sum(scores.values()), **({"openness": None} if index else {})},
        "traits": dict.fromkeys(DOMAINS, 3.25 + index),
        "person_traits": dict.fromkeys(DOMAINS, 2.75 + index),
        "alignment": {"summary": {"system_prompt": "Worry about rain"}},
        "cost": {"align_seconds": 0.25, "answer_seconds": 1.5 + index, "peak_memory_mib": 12.0, "tokens_read": 7},
    }


def row_and_table(tracker: Tracker, records: list[dict[str, Any]]) -> None:
    tracker.start_row(IDENTITY, "row", "table1", ["row"], key="row-0123", scale_of=SCALE_OF)
    for record in records:
        tracker.log_person(record)
    tracker.finish_row({"missing_cells": 0})
    tracker.log_table(pd.DataFrame({"method": ["row"], "composite": [6.5]}), [], "table1", "model-corrected", SCALE_OF)
