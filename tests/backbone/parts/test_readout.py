"""The readout applied to a model: weight 0 is the model, weight 1 the readout, and nothing stays behind."""

import pytest
import torch

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.parts.options import OptionScores, option_families
from palign_bench.backbone.parts.ordinal import medians
from palign_bench.backbone.parts.readout import ItemReadout
from palign_bench.backbone.parts.statements import FeatureRecipe, item_kernel
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.protocol import parse_released
from palign_bench.questionnaire.scoring import aligned_scores
from palign_bench.questionnaire.variant import Variant
from palign_bench.settings import read_option
from tests.baselines.readout.planted import case_of, prepared
from tests.protocols import AS_RELEASED, CORRECTED

RECIPE = FeatureRecipe(("people",), (1.0,))


def certain_of(option: str, weight: float = 1.0) -> ItemReadout:
    """Sure that every literal answer is this option."""
    value = 5 - "ABCDE".index(option)
    cuts = torch.tensor([9.0 if k >= value else -9.0 for k in range(1, 5)]).expand(300, 4).contiguous()
    return ItemReadout(torch.arange(1, 301, dtype=torch.int16), torch.tensor([weight, 0.5]), cuts)


@pytest.fixture(scope="module")
def embedded() -> LocalBackbone:
    """The embedded model in its own data type, in which 600 texts take ten seconds."""
    return LocalBackbone(load(resolve_model(read_option("model", "smollm2_135m"))), CORRECTED)


@pytest.mark.parametrize("engine", ["shared_prefix", "full_prompts"])
@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED])
def test_weight_zero_is_the_bare_model_and_nothing_stays_behind(tiny, inventory, engine, protocol):
    backbone = LocalBackbone(tiny, protocol, engine)
    items, audit = inventory.select(inventory.held_out[:6]), inventory.select(inventory.held_out[6:9])
    bare = backbone.answer(Alignment(), items, audit)
    zero = backbone.answer(Alignment(readout=certain_of("E", 0.0)), items, audit)
    assert (zero.answers, zero.log_probs, zero.texts, zero.audit) == (
        bare.answers,
        bare.log_probs,
        bare.texts,
        bare.audit,
    )
    backbone.answer(Alignment(readout=certain_of("E")), items, audit)
    again = backbone.answer(Alignment(), items, audit)
    assert (again.log_probs, again.texts, again.audit) == (bare.log_probs, bare.texts, bare.audit)


def test_log_probabilities_are_the_weighted_mean_of_both(tiny_backbone, inventory):
    items = inventory.select(inventory.held_out[:4])
    bare = tiny_backbone.answer(Alignment(), items).log_probs
    readout = certain_of("B", 0.25)
    pooled = tiny_backbone.answer(Alignment(readout=readout), items)
    scores = readout.option_scores(tiny_backbone, items).scores
    for row, item in zip(scores, items, strict=True):
        expected = (0.75 * torch.tensor(bare[item.number]) + 0.25 * row).log_softmax(-1)
        assert pooled.log_probs[item.number] == pytest.approx(expected.tolist(), abs=1e-5)
    alone = tiny_backbone.answer(Alignment(readout=certain_of("B")), items)
    assert set(alone.answers.values()) == {4}


def test_taken_over_log_probabilities_give_the_same_sheet(tiny_backbone, inventory):
    items, audit = inventory.select(inventory.held_out[:6]), inventory.select(inventory.held_out[6:9])
    alignment = Alignment(system_prompt="Be brief.", readout=certain_of("D", 0.5))
    bare = tiny_backbone.answer(Alignment(system_prompt="Be brief."), items, audit)
    reread = tiny_backbone.under_readout(alignment, bare, items, audit)
    direct = tiny_backbone.answer(alignment, items, audit)
    assert reread.answers == direct.answers
    assert reread.audit == direct.audit
    for item in items:
        assert reread.log_probs[item.number] == pytest.approx(direct.log_probs[item.number], abs=1e-6)


def test_next_tokens_move_among_the_options_only(tiny):
    families = option_families(tiny.tokenizer, "ABCDE")
    assert families
    options = sorted({token for family in families for token in family})
    logits = torch.randn(3, len(tiny.tokenizer), generator=torch.Generator().manual_seed(0))
    scores = torch.tensor([[0.1, 0.2, 0.3, 0.1, 0.3], [0.6, 0.1, 0.1, 0.1, 0.1], [0.05, 0.05, 0.1, 0.1, 0.7]]).log()
    pooled = OptionScores(scores, 1.0).on_logits(logits, families, [2, 0, 1])
    rest = [token for token in range(logits.shape[1]) if token not in options]
    assert torch.equal(pooled[:, rest], logits[:, rest])
    for family in families:
        torch.testing.assert_close(pooled[:, family].logsumexp(-1), logits[:, family].logsumexp(-1))
        torch.testing.assert_close(pooled[:, family].log_softmax(-1), scores[[2, 0, 1]])


def test_both_engines_generate_alike_under_a_readout(tiny, inventory):
    items = inventory.select(inventory.held_out[:6])
    alignment = Alignment(readout=certain_of("A", 0.5))
    one, two = (LocalBackbone(tiny, AS_RELEASED, e).answer(alignment, items) for e in ("shared_prefix", "full_prompts"))
    assert one.texts == two.texts


def test_what_the_real_model_writes_follows_the_readout(embedded, inventory):
    items = inventory.select(inventory.held_out[:3])
    for option in "AE":
        sheet = embedded.answer(Alignment(readout=certain_of(option)), items, audit=items)
        value = 5 - "ABCDE".index(option)
        assert set(sheet.answers.values()) == {value}
        assert {parse_released(text) for text in sheet.audit.values()} == {value}


def test_hidden_states_are_those_that_transformers_reports(tiny_backbone):
    texts = ["worry about things", "worry", "am the life of the party, always"]
    read = tiny_backbone.hidden_states(texts, [1, 2])
    for text, row in zip(texts, read, strict=True):
        ids = torch.tensor([tiny_backbone.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = tiny_backbone.model(ids, output_hidden_states=True).hidden_states
        torch.testing.assert_close(row, torch.stack([expected[1][0, -1], expected[2][0, -1]]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="layers 1…2"):
        tiny_backbone.hidden_states(texts, [3])


def test_hidden_states_are_read_from_the_bare_model_once(tiny_backbone, inventory):
    kernel = item_kernel(tiny_backbone, inventory, RECIPE)
    assert torch.allclose(kernel.values.diagonal(), torch.ones(300).double())
    assert torch.linalg.eigvalsh(kernel.values)[0] > -1e-9
    with measure() as cost:
        assert item_kernel(tiny_backbone, inventory, RECIPE) is kernel
        asked_otherwise = tiny_backbone.asking(Variant("reversed").asked(tiny_backbone.protocol))
        assert item_kernel(asked_otherwise, inventory, RECIPE) is kernel
    assert "tokens_read" not in cost.amounts


def test_real_people_are_predicted_better_than_by_any_constant(papi, inventory, embedded):
    settings = {"contrasts": ["kind"], "depths": [0.75, 0.9, 1.0], "noises": [0.1, 0.2, 0.3], "weights": [1]}
    bounds = {"none": 2.9, "people": 1.915}  # measured 2.80 and 1.88; always C has 3.79, the floor ridge 1.92
    everyone = [person.answers for person in papi.people]
    for prior, bound in bounds.items():
        aligner = prepared(embedded, inventory, **settings, prior=prior)
        cases = [
            case_of(CORRECTED, inventory, answers, others=everyone[:i] + everyone[i + 1 :])
            for i, answers in enumerate(everyone)
        ]
        composites = []
        for answers, alignment in zip(everyone, aligner.align_many(cases), strict=True):
            values = medians(alignment.readout.cuts(embedded, inventory.held_out)).tolist()
            truth = {number: answers[number] for number in inventory.held_out if number in answers}
            composites.append(
                aligned_scores(inventory, dict(zip(inventory.held_out, values, strict=True)), truth)["composite"]
            )
        assert sum(composites) / len(composites) < bound
