"""TRL's trainers on token trees: what they train is what TRL trains on padded texts."""

from typing import Any

import pytest
import torch

from tests.baselines.training.conftest import LORA, Bench
from tests.baselines.training.stock import stock_aligner
from tests.baselines.training.test_cohort import SETTINGS, largest_difference

CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"learning_rate": 1e-4},
    "dpo": {},
    "lora in micro-batches": {"batch_size": 12, "micro_batch": 4},
    "dpo in micro-batches": {"batch_size": 12, "micro_batch": 4},
    "lora of a variant": {"peft": LORA | {"use_dora": True}},
}


@pytest.mark.parametrize("name", CASES)
def test_trees_are_trained_as_trl_trains_padded_texts(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 steps pass an epoch's end, whose batch is short, and so is its last micro-batch."""
    method, settings = name.split()[0], SETTINGS | CASES[name]
    ours = bench.aligner(method, **settings).align(bench.case(seed=5))
    theirs = stock_aligner(bench, method, monkeypatch, **settings).align(bench.case(seed=5))
    assert largest_difference(ours, theirs) < 1e-4
    assert ours.summary.keys() == theirs.summary.keys()
    # Before the first step two answers are equally likely, to rounding; TRL's other values are means of unequal passes.
    curves = {key for key in theirs.summary if key.endswith("_curve")} - {"pair_accuracy_curve"}
    for key in curves if "micro" not in name else ["loss_curve"]:
        assert torch.tensor(ours.summary[key]).sub(torch.tensor(theirs.summary[key])).abs().max() < 2e-3, key


def test_dropout_is_drawn_from_the_seed(bench: Bench) -> None:
    settings = {"steps": 2, "peft": LORA | {"lora_dropout": 0.2}}
    first, again = (bench.aligner("lora", **settings).align(bench.case(seed=5)) for _ in range(2))
    assert largest_difference(first, again) == 0
    assert largest_difference(first, bench.aligner("lora", steps=2).align(bench.case(seed=5))) > 1e-4
