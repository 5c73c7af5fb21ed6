"""The status of a ledger as a terminal shows it."""

from collections.abc import Callable
from typing import Any

import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.report.status import status_of

LONG = "lora_people.csv holds only one person, and ridge needs three or more of them to be fitted on the others"


@pytest.mark.parametrize(
    ("seconds", "finished", "told"),
    [
        (30.0, True, "3 cells missing: 30.0 s on one machine like those that computed the others, and 1 row"),
        (0.0, True, "3 cells missing: 0.0 s on one machine like those that computed the others, and 1 row"),
        (30.0, False, "2 cells missing, of which nothing is measured yet."),
    ],
)
def test_what_is_left(
    make_plan: Callable[..., Plan], make_record: Callable[..., Any], seconds: float, finished: bool, told: str
) -> None:
    """A row that is finished says nothing of the time that another one takes."""
    record = make_record({6: 3}, {6: 3}, 1.0)
    record["cost"] |= {"align_seconds": seconds}
    whole = {"p1": record, "p2": record}
    rows = {"vanilla": whole, "few_shot": {"p1": record} if finished else whole, "ridge": {}}
    people = ("p1", "p2")
    plan = make_plan(rows, people)
    (*_, ridge), _ = plan.read()
    ridge.folder.fail("p2", ValueError(LONG))
    text = status_of(plan.runs, None)
    assert f"  {told}" in text
    (vanilla,) = [line for line in text.splitlines() if "Vanilla" in line]
    assert vanilla.endswith("  -")
    (failed,) = [line for line in text.splitlines() if "failed:" in line]
    assert failed.endswith("…") and LONG[:60] in failed
