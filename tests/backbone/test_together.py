"""Several alignments in one batch: the answers that each gets alone."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from baselines.pas.aligner import PersonalityActivationSearch
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.anatomy import Anatomy
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone, only_prompts_and_shifts
from palign_bench.backbone.parts.adapters import VIRTUAL
from palign_bench.backbone.parts.heads import shifted_heads
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Inventory
from tests.baselines.pas.fake_backbone import case_of, person
from tests.protocols import AS_RELEASED, CORRECTED

PROMPT = "You worry about many things and like large parties; you rarely finish what you begin."
PROMPTS = [PROMPT, None, "You like parties.", 3 * PROMPT]
# A chat format in which nothing of a prompt comes before the item: no two rows share a beginning.
ITEM_FIRST = "{% for m in messages[::-1] %}{{ m['content'] }}<|stop|>{% endfor %}<|start|>assistant<|end|>"


def alphas(tiny: LoadedModel, prompt: str | None = PROMPT) -> list[Alignment]:
    """One prompt, unshifted and under three shifts."""
    anatomy = Anatomy(tiny.model)
    layers, width = len(anatomy.layers), anatomy.heads * anatomy.head_width
    shift = torch.randn(layers, width, generator=torch.Generator().manual_seed(3))
    return [Alignment(system_prompt=prompt), *(Alignment(prompt, scale * shift) for scale in (0.2, 0.7, -1.5))]


def people(tiny: LoadedModel, shifted: bool) -> list[Alignment]:
    """Prompts of different lengths, all but one with a shift of its own."""
    anatomy = Anatomy(tiny.model)
    layers, width = len(anatomy.layers), anatomy.heads * anatomy.head_width
    generator = torch.Generator().manual_seed(4)
    shifts = [torch.randn(layers, width, generator=generator) for _ in PROMPTS[1:]]
    return [Alignment(prompt, s if shifted else None) for prompt, s in zip(PROMPTS, [None, *shifts], strict=True)]


def assert_as_alone(
    tiny: LoadedModel, engine: SharedPrefixEngine, alignments: list[Alignment], inventory: Inventory
) -> None:
    """Against whole prompts, one by one, through the model's own attention and `generate`."""
    items, audit = inventory.select(inventory.held_out[:11]), inventory.select(inventory.held_out[5:12])
    together, alone = (
        LocalBackbone(tiny, CORRECTED, engine, cohort=4),
        LocalBackbone(tiny, CORRECTED, "full_prompts"),
    )
    rows, texts = [], []
    for sheet, alignment in zip(together.answer_many(alignments, items, audit), alignments, strict=True):
        own = alone.answer(alignment, items, audit)
        assert sheet.log_probs is not None and own.log_probs is not None
        assert sheet.answers == own.answers and sheet.asked == own.asked
        assert sheet.audit == own.audit
        for number, row in own.log_probs.items():
            assert sheet.log_probs[number] == pytest.approx(list(row), abs=1e-4)
        rows.append(torch.tensor(list(own.log_probs.values())))
        texts.append(own.audit)
    assert min(float((a - b).abs().max()) for a, b in pairwise(rows)) > 1e-2
    assert len({str(each) for each in texts}) > 1


@pytest.mark.parametrize("positions", [1, 700, 100_000])
@pytest.mark.parametrize("prompt", [PROMPT, None])
def test_each_shift_answers_as_it_does_alone(
    tiny: LoadedModel, inventory: Inventory, positions: int, prompt: str | None
) -> None:
    assert_as_alone(tiny, SharedPrefixEngine(tiny.model, tiny.tokenizer, positions), alphas(tiny, prompt), inventory)


@pytest.mark.parametrize("positions", [1, 3000, 100_000])
@pytest.mark.parametrize("shifted", [False, True])
def test_each_person_answers_as_alone(tiny: LoadedModel, inventory: Inventory, positions: int, shifted: bool) -> None:
    assert_as_alone(tiny, SharedPrefixEngine(tiny.model, tiny.tokenizer, positions), people(tiny, shifted), inventory)


def test_prompts_without_a_common_beginning(tiny: LoadedModel, inventory: Inventory) -> None:
    tiny.tokenizer.chat_template = ITEM_FIRST
    assert_as_alone(tiny, SharedPrefixEngine(tiny.model, tiny.tokenizer), people(tiny, True), inventory)


@pytest.mark.parametrize("make", [alphas, lambda tiny: people(tiny, True)])
def test_together_reads_and_generates_as_many_tokens(tiny: LoadedModel, inventory: Inventory, make: Any) -> None:
    items, audit = inventory.select(inventory.held_out[:5]), inventory.select(inventory.held_out[:2])
    charged = []
    for cohort in (4, 1):
        backbone = LocalBackbone(tiny, CORRECTED, "shared_prefix", cohort)
        with measure() as cost:
            backbone.answer_many(make(tiny), items, audit)
        charged.append(cost.amounts)
    assert charged[0] == charged[1] and min(charged[0].values()) > 0


def test_as_many_people_as_asked_for_share_a_forward_pass(tiny: LoadedModel, inventory: Inventory) -> None:
    items = inventory.select(inventory.held_out[:3])
    assert LocalBackbone(tiny, CORRECTED).cohort == 1
    assert LocalBackbone(tiny, CORRECTED, cohort=3).cohort == 3
    assert LocalBackbone(tiny, CORRECTED, "full_prompts", cohort=3).cohort == 1
    assert LocalBackbone(tiny, AS_RELEASED, cohort=3).cohort == 1
    sizes = []
    backbone = LocalBackbone(tiny, CORRECTED, cohort=3)
    plain = backbone.engine.option_log_probs_of
    backbone.engine.option_log_probs_of = lambda requests, options: (  # type: ignore[attr-defined]
        sizes.append(len(requests)) or plain(requests, options)
    )
    backbone.answer_many(people(tiny, True), items)
    assert sizes == [3, 1]


def test_what_is_more_than_prompt_and_shift_is_answered_one_by_one(tiny: LoadedModel, inventory: Inventory) -> None:
    bare, shifted, *_ = alphas(tiny)
    assert only_prompts_and_shifts(bare) and only_prompts_and_shifts(shifted)
    virtual = torch.randn(3, tiny.model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    trained = Alignment(
        PROMPT, adapter={VIRTUAL: virtual}, adapter_kind="peft", adapter_settings={"peft_type": "PROMPT_TUNING"}
    )
    assert not only_prompts_and_shifts(trained) and not only_prompts_and_shifts(Alignment(answers={1: 3}))
    items = inventory.select(inventory.held_out[:3])
    mixed = LocalBackbone(tiny, CORRECTED, cohort=2).answer_many([bare, trained], items)
    alone = LocalBackbone(tiny, CORRECTED, "shared_prefix")
    assert [sheet.log_probs for sheet in mixed] == [alone.answer(each, items).log_probs for each in (bare, trained)]
    generated = LocalBackbone(tiny, AS_RELEASED, cohort=2).answer_many([bare, shifted], items)
    assert [sheet.texts for sheet in generated] == [
        LocalBackbone(tiny, AS_RELEASED, "full_prompts").answer(each, items).texts for each in (bare, shifted)
    ]


@pytest.mark.parametrize("search", ["grid", "golden"])
def test_pas_finds_the_same_alpha_by_the_same_scores(tiny: LoadedModel, inventory: Inventory, search: str) -> None:
    case = case_of(CORRECTED, person(5))
    summaries = []
    for cohort in (10, 1):
        aligner = PersonalityActivationSearch(k=4, search=search)
        aligner.prepare(LocalBackbone(tiny, CORRECTED, cohort=cohort), CORRECTED)
        summaries.append(aligner.align(case).summary)
    assert summaries[0] == summaries[1] and len(set(summaries[0]["search"].values())) > 1


def test_shifts_of_the_wrong_shape_are_refused(tiny: LoadedModel) -> None:
    for shape in ((2, 3, 64), (1, 1, 2, 64)):
        with pytest.raises(ValueError, match="do not fit"), shifted_heads(Anatomy(tiny.model), torch.zeros(shape)):
            pass
