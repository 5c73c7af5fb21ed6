"""Answers are taken over where a prompt alone makes them, and by the model that gave them."""

import weakref
from dataclasses import replace

import pytest
import torch

from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.costs.clock import Cost
from palign_bench.run import answers
from palign_bench.run.answers import Answered, AnswerMemo
from tests.protocols import AS_RELEASED, CORRECTED


@pytest.fixture
def memo() -> AnswerMemo:
    return AnswerMemo()


ANSWERED = Answered(AnswerSheet(asked=(9,), answers={9: 4}), Cost())


def test_only_prompts_are_taken_over(memo: AnswerMemo, tiny_backbone: LocalBackbone) -> None:
    memo.put(tiny_backbone, Alignment(system_prompt="x"), ANSWERED)
    assert memo.get(tiny_backbone, Alignment(system_prompt="x")) == replace(ANSWERED, reused=True)
    assert memo.get(tiny_backbone, Alignment(system_prompt="y")) is None
    assert memo.get(tiny_backbone, Alignment()) is None
    tiny_backbone.protocol = AS_RELEASED
    assert memo.get(tiny_backbone, Alignment(system_prompt="x")) is None
    for alignment in (
        Alignment(system_prompt="x", head_shifts=torch.zeros(2, 64)),
        Alignment(system_prompt="x", adapter={}, adapter_kind="peft"),
    ):
        memo.put(tiny_backbone, alignment, ANSWERED)
        assert memo.key(tiny_backbone, alignment) is None and memo.get(tiny_backbone, alignment) is None


def test_what_was_of_use_last_is_kept_of_very_many(
    memo: AnswerMemo, tiny_backbone: LocalBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else 300,000 people's answers would take 18 GiB."""
    monkeypatch.setattr(answers, "MOST_SHEETS", 2)
    vanilla, first, second = (Alignment(system_prompt=prompt) for prompt in (None, "p1", "p2"))
    for alignment in (vanilla, first, second):
        memo.put(tiny_backbone, alignment, ANSWERED)
        assert memo.get(tiny_backbone, vanilla) is not None
    assert memo.get(tiny_backbone, first) is None and memo.get(tiny_backbone, second) is not None


def test_a_later_model_takes_nothing_over_from_an_unloaded_one(memo: AnswerMemo, tiny: LoadedModel) -> None:
    """Python gives a new object the address of a deleted one, so an address is no identity."""
    for _ in range(20):
        backbone = LocalBackbone(tiny, CORRECTED)
        assert memo.get(backbone, Alignment()) is None
        memo.put(backbone, Alignment(), ANSWERED)
        unloaded = weakref.ref(backbone)
        del backbone
        assert unloaded() is None, "what the memo keeps must not keep a model in memory"
