"""Several shifts in one batch: the answers that each gets alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from palign_bench.alignment import Alignment
from palign_bench.backbone.loading import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.steering import head_shape, shifted_heads
from palign_bench.backbone.together import ShiftsTogetherEngine, differ_in_shifts_alone
from palign_bench.inventory import Inventory
from palign_bench.pas.aligner import PersonalityActivationSearch
from palign_bench.protocol import AsReleased, Corrected
from tests.pas.fake_backbone import case_of, person

PROMPT = "You worry about many things and like large parties; you rarely finish what you begin."


def alignments(tiny: LoadedModel, prompt: str | None = PROMPT) -> list[Alignment]:
    layers, heads, width = head_shape(tiny.model)
    shift = torch.randn(layers, heads * width, generator=torch.Generator().manual_seed(3))
    return [Alignment(system_prompt=prompt), *(Alignment(prompt, scale * shift) for scale in (0.2, 0.7, -1.5))]


@pytest.mark.parametrize("positions", [1, 700, 100_000])
@pytest.mark.parametrize("prompt", [PROMPT, None])
def test_each_shift_answers_as_it_does_alone(
    tiny: LoadedModel, inventory: Inventory, positions: int, prompt: str | None
) -> None:
    items = inventory.select(inventory.held_out[:11])
    engine = ShiftsTogetherEngine(tiny.model, tiny.tokenizer, positions)
    together, alone = LocalBackbone(tiny, Corrected(), engine), LocalBackbone(tiny, Corrected(), "full_prompts")
    sheets = together.answer_many(alignments(tiny, prompt), items)
    rows = []
    for sheet, alignment in zip(sheets, alignments(tiny, prompt), strict=True):
        own = alone.answer(alignment, items)
        assert sheet.log_probs is not None and own.log_probs is not None
        assert sheet.answers == own.answers and sheet.asked == own.asked
        for number, row in own.log_probs.items():
            assert sheet.log_probs[number] == pytest.approx(list(row), abs=1e-4)
        rows.append(torch.tensor(list(own.log_probs.values())))
    assert min(float((a - b).abs().max()) for a, b in pairwise(rows)) > 1e-2


def test_tokens_are_shared_out(tiny: LoadedModel, inventory: Inventory) -> None:
    items = inventory.select(inventory.held_out[:5])
    backbones = [LocalBackbone(tiny, Corrected(), engine) for engine in ("together", "shared_prefix")]
    told = [[sheet.tokens_read for sheet in each.answer_many(alignments(tiny), items)] for each in backbones]
    assert told[0] == told[1]


def test_what_is_more_than_a_shift_is_answered_one_by_one(tiny: LoadedModel, inventory: Inventory) -> None:
    bare, shifted, *_ = alignments(tiny)
    assert differ_in_shifts_alone([bare, shifted])
    assert not differ_in_shifts_alone([shifted]) and not differ_in_shifts_alone([bare, bare])
    assert not differ_in_shifts_alone([shifted, Alignment("another prompt")])
    assert not differ_in_shifts_alone([shifted, Alignment(PROMPT, adapter={}, adapter_kind="lora")])
    items = inventory.select(inventory.held_out[:3])
    generated = LocalBackbone(tiny, AsReleased(), "together").answer_many([bare, shifted], items)
    assert [sheet.texts for sheet in generated] == [
        LocalBackbone(tiny, AsReleased(), "full_prompts").answer(each, items).texts for each in (bare, shifted)
    ]


@pytest.mark.parametrize("search", ["grid", "golden"])
def test_pas_finds_the_same_alpha_by_the_same_scores(tiny: LoadedModel, inventory: Inventory, search: str) -> None:
    case = case_of(Corrected(), person(5))
    summaries = []
    for engine in ("together", "shared_prefix"):
        aligner = PersonalityActivationSearch(k=4, search=search)
        aligner.prepare(LocalBackbone(tiny, Corrected(), engine), inventory)
        summaries.append(aligner.align(case).summary)
    assert summaries[0] == summaries[1] and len(set(summaries[0]["search"].values())) > 1


def test_shifts_of_the_wrong_shape_are_refused(tiny: LoadedModel) -> None:
    for shape in ((2, 3, 64), (1, 1, 2, 64)):
        with pytest.raises(ValueError, match="do not fit"), shifted_heads(tiny.model, torch.zeros(shape)):
            pass
