"""The W&B workspace as a file, and the W&B sweep: what they name exists."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from palign_bench.cli.commands import dispatch
from palign_bench.questionnaire.inventory import Inventory, Item, ipip_neo_300
from palign_bench.report.rows import read_rows
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError
from palign_bench.tracking.dashboard import save_workspace
from palign_bench.tracking.tracker import figures_of
from palign_bench.tracking.wandb import _panels
from tests.cli.test_configuration import composed
from tests.ledgers import kept_folder, plan_of, row_of
from tests.tracking.rows import a_record

SWEEP = Path(__file__).parent.parent.parent / "docs" / "examples" / "wandb_sweep.yaml"


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_a_questionnaire_of_ones_own_has_panels_of_its_own_scales(tmp_path: Path, no_account: None) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is optional")
    items = tuple(Item(n, f"Statement {n}.", 1, "K" if n % 2 else "C") for n in range(1, 9))
    own = Inventory("own", items, (1, 2, 3, 4), {"K": "kindness", "C": "curiosity"})
    plan_of(tmp_path, [row_of("pas", kept_folder(tmp_path, "pas", {"method": {"name": "pas"}}), ("1",))],
            {"inventory": own.outline()})  # fmt: skip
    dispatch(["dashboard", "table1", "--runs", str(tmp_path)])
    written = (tmp_path / "table1" / "dashboard.json").read_text()
    assert '"kindness"' in written and '"curiosity"' in written and "neuroticism" not in written


def test_panels_show_what_is_tracked(tmp_path: Path, no_account: None, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is optional")
    cells = [row_of(row, kept_folder(tmp_path, row, {"method": {"name": row}}), ("1",)) for row in ("few_shot", "pas")]
    plan_of(tmp_path, cells, {})
    dispatch(["dashboard", "table1", "--runs", str(tmp_path)])
    assert "Written to" in capsys.readouterr().out
    document = json.loads((tmp_path / "table1" / "dashboard.json").read_text())
    spec = document["spec"]["section"]
    sections = spec["panelBankConfig"]["sections"]
    assert [section["name"].split()[0] for section in sections] == ["Score", "Specificity", "Cost", "Pareto:"]
    panels = [panel for section in sections for panel in section["panels"]]
    drawn = {metric for panel in panels for metric in panel["config"].get("metrics", [])}
    tracked = set(figures_of(a_record(0)))
    assert set(ipip_neo_300().scales.values()) < drawn
    assert {"specificity/pas", "composite/few_shot"} < drawn
    assert {metric for metric in drawn if "/" not in metric} <= tracked
    axes = {panel["config"][axis] for panel in panels for axis in ("xAxis", "yAxis") if axis in panel["config"]}
    assert axes and {axis.removeprefix("summary:") for axis in axes} <= tracked
    assert spec["runSets"][0]["filters"]["filters"][0]["value"] == "table1"


def test_rows_of_one_method_have_panels_of_the_names_that_their_table_logs(tmp_path: Path, no_account: None) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is optional")
    cells = []
    for k in (4, 12):
        folder = kept_folder(tmp_path, f"pas{k}", {"method": {"name": "pas", "k": k}})
        cells.append(row_of("pas", folder, ("1",)))
    plan = plan_of(tmp_path, cells, {})
    dispatch(["dashboard", "table1", "--runs", str(tmp_path)])
    rows, _ = read_rows(plan)
    logged = _panels(pd.DataFrame({"method": row.name, "label": row.label, "composite": 2.5} for row in rows))
    assert len(logged) == 2
    text = (tmp_path / "table1" / "dashboard.json").read_text()
    assert all(json.dumps(name, ensure_ascii=False) in text for name in logged)


def test_without_the_package_it_is_told_in_one_line(
    tmp_path: Path, no_account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    plan_of(tmp_path, [row_of("pas", kept_folder(tmp_path, "pas", {"method": {"name": "pas"}}), ("1",))], {})
    with pytest.raises(UserError, match="needs the package wandb-workspaces"):
        dispatch(["dashboard", "table1", "--runs", str(tmp_path)])


def test_an_account_that_cannot_be_reached_is_told_in_one_line(
    tmp_path: Path, no_account: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is optional")
    import wandb

    def unreachable(*_: Any, **__: Any) -> None:
        raise wandb.errors.CommError("no answer from the server\nand a long explanation")

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb, "Api", unreachable)
    with pytest.raises(UserError, match=r"cannot be reached \(no answer from the server\); WANDB_MODE=offline"):
        save_workspace(tmp_path / "dashboard.json", "p", None, "table1", ["pas"], ["openness"])


def test_every_trial_of_the_wandb_sweep_is_a_command_that_composes() -> None:
    document = yaml.safe_load(SWEEP.read_text())
    assert document["metric"]["name"] in figures_of(a_record(0)) and document["command"][-1] == "${args_no_hyphens}"
    values = [[f"{key}={value}" for value in entry["values"]] for key, entry in document["parameters"].items()]
    trials = list(itertools.product(*values))
    assert len(trials) == 24
    for trial in trials:
        settings = composed(*document["command"][1:-1], *trial)
        aligner: Any = make_aligners(settings["method"])["pas"]
        assert f"method.k={aligner.k}" in trial and f"method.alphas=[{aligner.alphas[0]:.0f}]" in trial
