"""A row's identity and a record that tests of its cells share."""

from typing import Any

IDENTITY: dict[str, Any] = {
    "method": {"name": "few_shot", "version": 1, "alphas": [0, 1.5]},
    "model": {"dtype": "float32", "revision": None},
    "seed": 0,
}


def a_record(respondent_id: str) -> dict[str, Any]:
    return {"respondent": respondent_id, "answers": {"9": 4, "10": 2}, "scores": {"composite": 4.25, "openness": None}}
