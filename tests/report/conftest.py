"""Small ledgers with hand-made records, written with the real `CellFolder` and `Plan`."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory, Item, ipip_neo_300
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from tests.ledgers import kept_folder, plan_of, row_of
from tests.report.tables import CONSTANTS, PEOPLE

Records = Mapping[str, Mapping[str, Any]]


@pytest.fixture
def five_items() -> Inventory:
    """Items 1-5 known, 6-10 held out: one of each domain."""
    items = [Item(5 * held_out + k + 1, f"Say {d}.", 1, d) for held_out in (0, 1) for k, d in enumerate(DOMAINS)]
    return Inventory("five_items", tuple(items), (1, 2, 3, 4, 5), DOMAINS)


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    """A whole record around answers, truth and composite; keyword arguments replace parts of it."""

    def make(answers: Answers, truth: Answers, composite: float | None, **parts: Any) -> dict[str, Any]:
        record: dict[str, Any] = {
            "respondent": "",
            "seed": 0,
            "answers": {str(n): v for n, v in answers.items()},
            "asked": list(answers),
            "log_probs": None,
            "texts": None,
            "audit": None,
            "truth": {str(n): v for n, v in truth.items()},
            "scores": dict.fromkeys(DOMAINS.values(), None if composite is None else composite / 5)
            | {"composite": composite},
            "traits": dict.fromkeys(DOMAINS.values(), 3.0),
            "person_traits": dict.fromkeys(DOMAINS.values(), 3.0),
            "alignment": {"summary": {}},
            "cost": {
                "align_seconds": 0.0,
                "answer_seconds": 0.0,
                "peak_memory_mib": 0.0,
                "stored_bytes": 0,
                "trained_parameters": 0,
                "tokens_read": 0,
                "tokens_generated": 0,
                "optimizer_steps": 0,
                "reused_answers": False,
            },
        }
        return record | parts

    return make


@pytest.fixture
def make_plan(tmp_path: Path) -> Callable[..., Plan]:
    """A ledger with one folder per row and a plan that shows them; ``people`` is what every row was asked for."""

    def make(
        rows: Mapping[str, Records],
        people: tuple[str, ...],
        protocol: str = "corrected",
        model: str = "smollm2_135m",
        weights: str = "package",
        **about: Any,
    ) -> Plan:
        cells = []
        for key, records in rows.items():
            name = f"{key}-{model}-papi-{protocol}"
            identity = {"method": {"name": key}, "model": {"name": model, "weights": weights}}
            folder = kept_folder(tmp_path, name, identity)
            for respondent, record in records.items():
                folder.record(respondent, {**record, "respondent": respondent})
            cells.append(row_of(key, folder, people))
        told = {
            "experiment": "table1",
            "model": model,
            "model_title": model,
            "protocol": protocol,
            "respondents": "papi",
            "respondents_description": "300 people of PAPI",
            "notes": [],
        }
        return plan_of(tmp_path, cells, told | about)

    return make


@pytest.fixture
def twelve_people(make_record: Callable[..., dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A good method, a bad one and the five constants on 12 random people, scored by the project's own scoring."""
    inventory, generator = ipip_neo_300(), random.Random(12)
    truth = {p: {n: generator.randint(1, 5) for n in inventory.held_out} for p in PEOPLE}

    def record(answers: dict[int, int], person: str) -> dict[str, Any]:
        traits = trait_scores(inventory, answers, inventory.keyed)
        own = trait_scores(inventory, truth[person], inventory.keyed)
        score = aligned_scores(inventory, answers, truth[person])
        return make_record(answers, truth[person], 0.0, scores=score, traits=traits, person_traits=own)

    good = {p: record({n: v if generator.random() < 0.8 else 3 for n, v in truth[p].items()}, p) for p in PEOPLE}
    bad = {p: record({n: 6 - v for n, v in truth[p].items()}, p) for p in PEOPLE}
    rows = {"pas": good, "my_own_method": bad}
    for key in CONSTANTS:
        answers = dict.fromkeys(inventory.held_out, 5 - "abcde".index(key[-1]))
        rows[key] = {p: record(answers, p) for p in PEOPLE}
    return rows
