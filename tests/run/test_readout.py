"""Answers under a readout cost one person the same, whether the prompt's log-probabilities are taken over or not."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.few_shot import Vanilla
from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.readout import ItemReadout
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import audit_items
from palign_bench.respondents import simulate
from palign_bench.run.session import Session
from tests.run.jobs import a_job, run_alone

AUDIT_SECONDS = 0.5


class Certain(Aligner):
    """Sure that everyone answers in the middle."""

    def align(self, case: Case) -> Alignment:
        cuts = torch.tensor([-9.0, -9.0, 9.0, 9.0]).expand(300, 4).contiguous()
        readout = ItemReadout(torch.arange(1, 301, dtype=torch.int16), torch.tensor([1.0, 0.5]), cuts)
        return Alignment(readout=readout)


@pytest.fixture
def backbone(tiny_backbone: LocalBackbone, monkeypatch: pytest.MonkeyPatch) -> LocalBackbone:
    """Every audit takes half a second more."""
    written = tiny_backbone.engine.greedy

    def slow(*arguments: Any) -> list[str]:
        time.sleep(AUDIT_SECONDS)
        return written(*arguments)

    monkeypatch.setattr(tiny_backbone.engine, "greedy", slow)
    return tiny_backbone


@pytest.mark.parametrize("after_vanilla", [False, True])
def test_one_audit_is_charged(
    after_vanilla: bool, tmp_path: Path, backbone: LocalBackbone, inventory: Inventory
) -> None:
    source, session = simulate(count=2, seed=3), Session()
    session.load_backbone = lambda *_: (backbone, 1.5)  # type: ignore[method-assign]
    job = a_job(tmp_path / "runs", source, source.people)
    items, audit = inventory.select(inventory.held_out), audit_items(inventory)
    backbone.answer(Alignment(), items[:8])  # warm-up
    with measure() as direct:
        sheet = backbone.answer(Certain().align(None), items, audit)  # type: ignore[arg-type]
    if after_vanilla:
        run_alone(job, "vanilla", Vanilla(), session)
    failed, folder = run_alone(job, "readout", Certain(), session)
    assert failed == 0
    for person in source.people:
        record = folder.read(person.id)
        assert record is not None and record["audit"] == {str(n): text for n, text in (sheet.audit or {}).items()}
        cost = record["cost"]
        told = {name: cost[name] for name in ("tokens_read", "tokens_generated")}
        assert told == {name: direct.amounts[name] for name in told}
        assert AUDIT_SECONDS < cost["answer_seconds"] < direct.seconds + 0.9 * AUDIT_SECONDS
