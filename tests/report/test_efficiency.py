"""The page of costs, from a ledger."""

import random
from pathlib import Path

import pandas as pd

from bench.ledger_scale import a_record
from palign_bench.report.efficiency import write_efficiency
from tests.ledgers import kept_folder, plan_of, row_of


def test_of_several_rows_of_pas_the_page_says_which_is_the_unit(tmp_path: Path) -> None:
    generator, rows = random.Random(0), []
    for k in (5, 24):
        folder = kept_folder(tmp_path, f"pas{k}", {"method": {"name": "pas", "k": k}, "model": {"name": "tiny"}})
        folder.record("p1", a_record("p1", generator))
        folder.write_shared({"load_seconds": 1.0, "prepare_seconds": float(k)})
        rows.append(row_of("pas", folder, ["p1"]))
    about = {"experiment": "efficiency", "model": "tiny", "model_title": "Tiny", "protocol": "corrected",
             "respondents": "simulated", "respondents_description": "made-up people", "notes": []}  # fmt: skip
    plan = plan_of(tmp_path, rows, about)
    assert "Ratios are to PAS [k=5]. Memory" in " ".join(write_efficiency(plan).split())
    costs = pd.read_csv(plan.folder / "costs.csv")
    assert costs["label"].tolist() == ["PAS [k=5]", "PAS [k=24]"]
    assert costs["relative_one"].tolist() == [1.0, (1 + 24 + 3) / (1 + 5 + 3)]
