"""Result cards: what one says of a small table, figure by figure, and that the schema of Every Eval Ever takes it."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import DOMAINS, Inventory
from palign_bench.report import make_report
from tests.ledgers import kept_folder, plan_of, row_of

HUB = "hub:meta-llama/Meta-Llama-3-8B-Instruct@8afb486c1db24fe5011ec46dfbe5b5dccdb575c2"
PEOPLE = ("anna-lind", "berta-lund")


@pytest.fixture
def plan(tmp_path: Path, five_items: Inventory, make_record: Callable[..., dict[str, Any]]) -> Plan:
    """PAS one option off for one person and two for the other on every item, and a constant that is nearer."""
    truth = dict.fromkeys(five_items.held_out, 1)
    shared = {
        "respondents": {"source": "file", "data_hash": "5eed"},
        "protocol": {"name": "corrected", "version": 2},
        "seed": 3,
    }
    model = {"name": "llama3_8b", "weights": "hub", "weights_hash": HUB, "engine": "auto", "dtype": "bfloat16"}
    rows = []
    for name, of_model, offs in (("pas", model, (1, 2)), ("constant_d", None, (1, 1))):
        identity = {"method": {"name": name, "k": 6, "version": 1, "writer": "/home/me/writer"}, "model": of_model}
        folder = kept_folder(tmp_path, name, identity | shared)
        folder.write_provenance({"packages": {"palign-bench": "0.1.0", "torch": "2.13.0"}, "git_commit": "abc"})
        for person, off in zip(PEOPLE, offs, strict=True):
            answers = dict.fromkeys(five_items.held_out, 1 + off)
            scores = dict.fromkeys(DOMAINS.values(), float(off)) | {"composite": 5.0 * off}
            folder.record(person, make_record(answers, truth, 0.0, respondent=person, scores=scores))
        rows.append(row_of(name, folder, PEOPLE))
    about = {"experiment": "table1", "model": "llama3_8b", "model_title": "/home/me/llama", "respondents": "file",
             "inventory": five_items.outline()}  # fmt: skip
    return plan_of(tmp_path, rows, about)


def cards(plan: Plan) -> dict[str, Any]:
    make_report(plan)
    return {path.stem: json.loads(path.read_text()) for path in (plan.folder / "cards").iterdir()}


def test_a_card_says_what_the_table_says(plan: Plan) -> None:
    found = cards(plan)
    assert sorted(found) == ["constant_d", "pas"]
    card = found["pas"]
    assert card["schema_version"] == "0.3.0"
    assert card["eval_library"]["name"] == "palign-bench" and card["eval_library"]["version"] == "0.1.0"
    assert card["eval_library"]["additional_details"] == {"torch": "2.13.0", "git_commit": "abc"}
    assert card["model_info"]["id"] == "meta-llama/Meta-Llama-3-8B-Instruct"
    about_model = card["model_info"]["additional_details"]
    assert about_model["deployment_type"] == "self_deployed" and about_model["model_availability"] == "open_weights"
    details = card["source_metadata"]["additional_details"]
    assert details["seed"] == "3" and details["method.k"] == "6" and details["inventory"] == "five_items"
    assert details["fingerprint"] in card["evaluation_id"]
    results = {each["metric_config"]["metric_id"]: each for each in card["evaluation_results"]}
    composite = results["palign_bench.composite"]
    assert composite["metric_config"]["lower_is_better"] and composite["metric_config"]["max_score"] == 20
    assert composite["score_details"]["score"] == 7.5
    uncertainty = composite["score_details"]["uncertainty"]
    assert uncertainty["num_samples"] == 2 and uncertainty["standard_error"]["value"] == pytest.approx(2.5)
    # Student's t with one degree of freedom, 12.706 standard errors, leaves what a composite can be.
    interval = uncertainty["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == (0, 20)
    assert composite["score_details"]["details"]["mark"].startswith("does not beat the best constant option")
    scale = results["palign_bench.agreeableness"]
    assert scale["score_details"]["score"] == 1.5 and scale["metric_config"]["max_score"] == 4
    assert scale["source_data"]["additional_details"]["data_hash"] == "5eed"
    assert scale["source_data"]["additional_details"]["people"] == "2"
    assert results["palign_bench.exact_agreement"]["score_details"]["score"] == 0
    assert not results["palign_bench.exact_agreement"]["metric_config"]["lower_is_better"]
    assert "palign_bench.distinctive_profile_correlation" not in results  # not defined for two people


def test_a_row_without_a_model_names_none(plan: Plan) -> None:
    assert cards(plan)["constant_d"]["model_info"]["id"] == "none"


def test_nobody_and_no_place_is_named(plan: Plan, tmp_path: Path) -> None:
    text = json.dumps(cards(plan))
    assert not any(each in text for each in (*PEOPLE, "/home/me", str(tmp_path)))


def test_the_same_table_again_has_the_same_cards(plan: Plan) -> None:
    first = cards(plan)
    (plan.folder / "cards" / "of_an_earlier_table.json").write_text("{}")
    again = cards(plan)
    assert {name: card["evaluation_id"] for name, card in first.items()} == {
        name: card["evaluation_id"] for name, card in again.items()
    }


def test_the_schema_takes_every_card(plan: Plan) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("every_eval_ever")
    schema = json.loads((files("every_eval_ever") / "schemas" / "eval.schema.json").read_text())
    for card in cards(plan).values():
        jsonschema.Draft7Validator(schema).validate(card)
