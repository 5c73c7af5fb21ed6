"""The same optimizer steps, whatever fits into memory: micro-batches, checkpointing, and both by themselves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from baselines.training.aligner import DoesNotFitError
from baselines.training.settings import TrainingSettings
from palign_bench.backbone.alignment import Alignment
from tests.baselines.training.conftest import METHODS, Bench
from tests.baselines.training.test_cohort import largest_difference

COMMON = {"learning_rate": 1e-3, "batch_size": 8, "steps": 3}


def closest(first: Alignment, second: Alignment, least: float) -> None:
    """Equal up to rounding; AdamW's first steps are signs, so a gradient of about 0 may go either way."""
    assert first.adapter is not None and second.adapter is not None
    flat = [torch.cat([each.flatten() for each in a.adapter.values()]) for a in (first, second)]  # type: ignore[union-attr]
    near = ((flat[0] - flat[1]).abs() < 1e-5).float().mean()
    assert float(near) > least


@pytest.mark.parametrize("name", ["lora", "full", "prompt", "dpo", "rloo"])
def test_micro_batches_take_the_same_steps(bench: Bench, name: str) -> None:
    """9 pairs or answers of batches of 8: the last of an epoch is short, and so is its last micro-batch."""
    known = dict.fromkeys(bench.inventory.known[:9], 5) | dict.fromkeys(bench.inventory.known[:4], 1)
    case = bench.case(known=known)
    whole = bench.aligner(name, **COMMON).align(case)
    parts = bench.aligner(name, micro_batch=4 if name == "rloo" else 2, **COMMON).align(case)
    assert parts.summary["micro_batch"] == (4 if name == "rloo" else 2) and whole.summary["micro_batch"] == 8
    closest(whole, parts, 0.98)
    if name != "rloo":
        assert parts.summary["last_loss"] == pytest.approx(whole.summary["last_loss"], abs=1e-3)


@pytest.mark.parametrize("name", ["lora", "dpo"])
def test_micro_batches_of_a_cohort_take_the_same_steps(bench: Bench, name: str) -> None:
    cases = [bench.case(index) for index in range(2)]
    whole, parts = (bench.aligner(name, cohort=2, micro_batch=size, **COMMON).align_many(cases) for size in (None, 2))
    for one, other in zip(whole, parts, strict=True):
        closest(one, other, 0.98)
        assert one.summary["last_loss"] == pytest.approx(other.summary["last_loss"], abs=1e-4)


def test_ppo_takes_micro_batches(bench: Bench) -> None:
    """Its loss is a mean over a micro-batch's tokens, so the steps are alike, not equal."""
    alignment = bench.aligner("ppo", micro_batch=2, **COMMON).align(bench.case())
    assert alignment.summary["micro_batch"] == 2 and alignment.summary["rewarded_texts"] == 24


@pytest.mark.parametrize("name", [*METHODS, "cohort"])
def test_checkpointing_computes_activations_again_and_changes_nothing(
    bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = {False: 0, True: 0}
    current = False
    original = GradientCheckpointingLayer.__call__

    def counted(self: Any, *inputs: Any, **options: Any) -> Any:
        computed[current] += bool(self.gradient_checkpointing and self.training)
        return original(self, *inputs, **options)

    monkeypatch.setattr(GradientCheckpointingLayer, "__call__", counted)
    found = []
    for current in (False, True):
        settings = {**COMMON, "gradient_checkpointing": current}
        if name == "cohort":
            lora = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.2, "target_modules": "all-linear"}
            aligner = bench.aligner("lora", cohort=2, peft=lora, **settings)
            found.append(aligner.align_many([bench.case(0), bench.case(1)])[1])
        else:
            found.append(bench.aligner(name, **settings).align(bench.case()))
    assert computed[False] == 0 < computed[True]
    assert largest_difference(*found) < 1e-4


def run_out() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def run_out_without_a_word() -> None:
    raise MemoryError


@pytest.mark.parametrize("out_of_memory", [run_out, run_out_without_a_word])
def test_memory_that_runs_out_in_training_makes_smaller_passes_of_the_same_steps(
    out_of_memory: Callable[[], None],
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = bench.aligner("lora", **COMMON).align(bench.case())
    decoder, room = type(bench.backbone.model.model), 2 * bench.aligner("lora")._longest()  # positions of two texts
    forward = decoder.forward

    def limited(self: Any, *inputs: Any, **options: Any) -> Any:
        ids = inputs[0] if inputs else options["input_ids"]
        if torch.is_grad_enabled() and ids.numel() > room:
            out_of_memory()
        return forward(self, *inputs, **options)

    monkeypatch.setattr(decoder, "forward", limited)
    aligner = bench.aligner("lora", **COMMON)
    alignment = aligner.align(bench.case())
    assert alignment.summary["micro_batch"] == 2 and aligner.training.micro_batch is None
    closest(usual, alignment, 0.98)
    assert "method.micro_batch=2" in capsys.readouterr().err
    room = 0
    with pytest.raises(DoesNotFitError, match="gradient_checkpointing=true"):
        aligner.align(bench.case())


def test_a_single_step_is_no_warm_up_step() -> None:
    """The rate of the first warm-up step is 0: one step of warm-up alone would train nothing and report a step."""
    assert TrainingSettings(learning_rate=1e-3, batch_size=4, steps=1, warmup=1.0).warmup_steps == 0
    assert TrainingSettings(learning_rate=1e-3, batch_size=4, steps=4, warmup=1.0).warmup_steps == 3


@pytest.mark.parametrize("name", ["lora", "full", "dpo"])
def test_one_step_with_warm_up_trains(bench: Bench, name: str) -> None:
    assert bench.aligner(name, steps=1, warmup=1.0).align(bench.case()).summary["moved_share"] > 0.3
