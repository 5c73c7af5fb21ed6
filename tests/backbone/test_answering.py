"""Answering: exact against reading every prompt whole, whatever the batch, on the real model."""

import copy
from dataclasses import replace

import pytest
import torch

from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.engines.base import Request
from palign_bench.backbone.engines.full_prompts import FullPromptEngine
from palign_bench.backbone.engines.shared_prefix import SharedPrefixEngine
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.tokenizing import SplitPrompts, encode
from palign_bench.costs.clock import measure
from palign_bench.questionnaire.inventory import Inventory, Item
from palign_bench.questionnaire.protocol import parse_is_decided, parse_released
from palign_bench.respondents import RespondentSource
from palign_bench.settings import UserError
from tests.protocols import AS_RELEASED, CORRECTED


def largest_difference(first: LocalBackbone, second: LocalBackbone, alignment: Alignment, items: list) -> float:
    one, two = (b.answer(alignment, items).log_probs for b in (first, second))
    return max(abs(a - b) for item in items for a, b in zip(one[item.number], two[item.number], strict=True))


@pytest.fixture(scope="module")
def few_shot(inventory: Inventory, source: RespondentSource) -> Alignment:
    protocol = CORRECTED
    return Alignment(system_prompt=protocol.few_shot_prompt(protocol.known(source.people[0])))


def test_a_questionnaire_does_not_change_with_the_batch_size(smollm2, inventory, few_shot):
    items = inventory.select(inventory.held_out[::3])
    short = Alignment(system_prompt=few_shot.system_prompt[:600])  # one by one with all 120 would take minutes
    batched = LocalBackbone(smollm2, CORRECTED, SharedPrefixEngine(smollm2.model, smollm2.tokenizer))
    single = LocalBackbone(smollm2, CORRECTED, SharedPrefixEngine(smollm2.model, smollm2.tokenizer, positions=1))
    sheets = [b.answer(short, items) for b in (batched, single)]
    assert sheets[0].answers == sheets[1].answers
    differences = [
        abs(a - b) for n in inventory.held_out[::3] for a, b in zip(*(s.log_probs[n] for s in sheets), strict=True)
    ]
    assert max(differences) < 1e-4


def test_shared_prefix_equals_full_prompts_on_the_real_model(smollm2, inventory, few_shot):
    items = inventory.select(inventory.held_out[:6])
    shared = LocalBackbone(smollm2, CORRECTED, "shared_prefix")
    whole = LocalBackbone(smollm2, CORRECTED, "full_prompts")
    assert largest_difference(shared, whole, few_shot, items) < 1e-4


def test_log_probabilities_equal_a_bare_forward_pass(smollm2, inventory, few_shot):
    item = inventory[inventory.held_out[3]]
    backbone = LocalBackbone(smollm2, CORRECTED)
    text = backbone.chat.render(backbone.dialogue(few_shot, item, "Option ("))
    ids = torch.tensor([encode(smollm2.tokenizer, text)])
    with torch.no_grad():
        logits = smollm2.model(ids).logits[0, -1]
    letters = [smollm2.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ABCDE"]
    expected = logits[letters].log_softmax(-1).tolist()
    assert backbone.answer(few_shot, [item]).log_probs[item.number] == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def generated(smollm2: LoadedModel, inventory: Inventory, few_shot: Alignment) -> dict[int, str]:
    """What transformers' own ``generate`` writes after each whole prompt, greedily."""
    backbone, texts = LocalBackbone(smollm2, AS_RELEASED), {}
    for item in inventory.select(inventory.held_out[:5]):
        text = backbone.chat.render(backbone.dialogue(few_shot, item, "Option"))
        ids = torch.tensor([encode(smollm2.tokenizer, text)])
        with torch.no_grad():
            output = smollm2.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=15, do_sample=False, pad_token_id=0
            )
        texts[item.number] = smollm2.tokenizer.decode(output[0, ids.shape[1] :])
    return texts


@pytest.mark.parametrize("positions", [1, 700, 100_000])
def test_greedy_text_equals_transformers_generate(smollm2, inventory, few_shot, generated, positions):
    backbone = LocalBackbone(smollm2, AS_RELEASED, SharedPrefixEngine(smollm2.model, smollm2.tokenizer, positions))
    texts = backbone.answer(few_shot, inventory.select(generated)).texts
    assert len(texts) == 5
    for number, whole in generated.items():
        assert whole.startswith(texts[number])
        assert parse_released(whole) == parse_released(texts[number])


def test_generation_goes_on_past_undecided_tokens_and_drops_decided_rows(tiny, inventory):
    """The tiny model writes byte-sized tokens, so rows end at different steps and the cache must follow them."""
    items = inventory.select(inventory.held_out[:12])
    engines = [SharedPrefixEngine(tiny.model, tiny.tokenizer, p) for p in (1, 100_000)]
    engines.append(FullPromptEngine(tiny.model, tiny.tokenizer, 100_000))
    texts = [LocalBackbone(tiny, AS_RELEASED, e).answer(Alignment(), items).texts for e in engines]
    assert texts[0] == texts[1] == texts[2]
    assert len({len(t) for t in texts[0].values()}) > 1 or len(set(texts[0].values())) > 3
    for text in texts[0].values():
        assert parse_is_decided(text) or len(tiny.tokenizer(text)["input_ids"]) >= 15 or "<|stop|>" in text


def test_soft_prompt_stands_before_the_whole_prompt_in_both_engines(tiny, inventory):
    items = inventory.select(inventory.held_out[:7])
    virtual = torch.randn(5, tiny.model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    results = []
    for engine in (SharedPrefixEngine(tiny.model, tiny.tokenizer), FullPromptEngine(tiny.model, tiny.tokenizer)):
        backbone = LocalBackbone(tiny, CORRECTED, engine)
        opening, options = backbone.chat.option_tokens("Option (", "ABCDE")
        split = backbone.split(Alignment(), items, opening)
        results.append(engine.option_log_probs(Request(split, virtual), options))
        without = engine.option_log_probs(Request(split), options)
        assert (results[-1] - without).abs().max() > 1e-3
    assert torch.allclose(results[0], results[1], atol=1e-4)


def whole_prompts(backbone: LocalBackbone, alignment: Alignment, items: list[Item]) -> list[list[int]]:
    dialogues = [backbone.dialogue(alignment, item, "Option (") for item in items]
    return [encode(backbone.tokenizer, backbone.chat.render(dialogue)) for dialogue in dialogues]


def test_split_prompts_are_the_whole_prompts_tokens(smollm2, inventory, few_shot):
    """For the first system prompt, and for those that take its endings over."""
    backbone = LocalBackbone(smollm2, CORRECTED)
    items = inventory.select(inventory.held_out)
    for alignment in (few_shot, Alignment(), Alignment("You worry.<|im_start|>"), Alignment(""), few_shot):
        split = backbone.split(alignment, items, "Option (")
        assert split.whole == whole_prompts(backbone, alignment, items)
        assert sum(map(len, split.suffixes)) < 1.1 * 180 * 92
    assert len(backbone.splitter._kept) == 1


def test_endings_are_rendered_and_tokenized_once(smollm2, inventory, monkeypatch):
    backbone = LocalBackbone(smollm2, CORRECTED)
    items = inventory.select(inventory.held_out)
    backbone.split(Alignment("You worry."), items, "Option (")
    rendered: list[tuple[str, str, str]] = []
    render = backbone.chat.render
    monkeypatch.setattr(backbone.chat, "render", lambda dialogue: [rendered.append(dialogue), render(dialogue)][1])
    backbone.split(Alignment("You like parties."), items, "Option (")
    assert len(rendered) == 2
    backbone.split(Alignment("You like parties."), items, "Option")  # another opening
    assert len(rendered) == 2 + len(items)


@pytest.mark.parametrize(
    "template",
    [
        # the system prompt after the question, inside the user's turn, and before it where it is long
        "{{ messages[1]['content'] }}<|im_end|>{{ messages[0]['content'] }}<|im_start|>",
        "<|im_start|>{{ messages[0]['content'] + '\n\n' + messages[1]['content'] }}<|im_end|>",
        "{% if messages[0]['content'] | length > 20 %}{{ messages[0]['content'] }}<|im_end|>"
        "{{ messages[1]['content'] }}{% else %}"
        "{{ messages[1]['content'] }}<|im_end|>{{ messages[0]['content'] }}{% endif %}",
    ],
)
def test_endings_of_another_template_are_never_taken_over_wrongly(smollm2, inventory, template):
    tokenizer = copy.deepcopy(smollm2.tokenizer)
    tokenizer.chat_template = template
    backbone = LocalBackbone(replace(smollm2, tokenizer=tokenizer), CORRECTED)
    items = inventory.select(inventory.held_out[:12])
    for text in ("You worry.", "You like parties.", "You worry about many things.", "You worry about everything."):
        split = backbone.split(Alignment(text), items, "Option (")
        assert split.whole == whole_prompts(backbone, Alignment(text), items)


def test_free_text_too_is_written_in_the_fastest_arithmetic(tiny, monkeypatch):
    """A portrait's request is as long as a person's answers; the layers are their own again afterwards."""
    monkeypatch.setattr("palign_bench.backbone.engines.products.float32_speedup", lambda dtype: 7.0)
    tiny.model.bfloat16()
    layer, used = tiny.model.model.layers[0].mlp.up_proj, []
    layer.register_forward_hook(lambda module, *_: used.append("forward" in vars(module)))
    backbone = LocalBackbone(tiny, CORRECTED, "full_prompts")
    used.clear()
    backbone.generate(Alignment(), "You are kind.", "Who are you?", 3, 0.7)
    assert used and all(used) and "forward" not in vars(layer)


def test_logits_that_are_not_finite_are_an_error_and_never_an_answer(tiny, inventory):
    backbone = LocalBackbone(tiny, CORRECTED)
    with torch.no_grad():
        tiny.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        backbone.answer(Alignment(), inventory.select(inventory.held_out[:2]))


def test_shared_prefix_is_refused_for_an_unknown_architecture(tiny: LoadedModel):
    tiny.model.config.model_type = "gemma2"
    with pytest.raises(UserError, match="engine=shared_prefix: the attention of model_type gemma2"):
        LocalBackbone(tiny, CORRECTED, "shared_prefix")
    assert isinstance(LocalBackbone(tiny, CORRECTED, "auto").engine, FullPromptEngine)


def test_answers_and_audit_share_one_computed_beginning(tiny: LoadedModel, inventory: Inventory) -> None:
    """And what is computed for one alignment serves no other: each gives what a fresh engine gives."""
    items, audit = inventory.select(inventory.held_out[:9]), inventory.select(inventory.held_out[4:7])
    engine = SharedPrefixEngine(tiny.model, tiny.tokenizer)
    backbone = LocalBackbone(tiny, CORRECTED, engine)
    shift = torch.randn(2, 64, generator=torch.Generator().manual_seed(3))
    alignments = [Alignment("You worry."), Alignment("You worry.", shift), Alignment("You like parties."), Alignment()]
    for alignment in alignments:
        with measure() as cost:
            sheet = backbone.answer(alignment, items, audit)
        fresh = LocalBackbone(tiny, CORRECTED, "full_prompts").answer(alignment, items, audit)
        assert sheet.audit == fresh.audit and sheet.log_probs is not None and fresh.log_probs is not None
        for number, row in fresh.log_probs.items():
            assert sheet.log_probs[number] == pytest.approx(list(row), abs=1e-4)
        reading, writing = (
            backbone.split(alignment, asked, opening) for asked, opening in ((items, "Option ("), (audit, "Option"))
        )
        own = sum(len(row) for split in (reading, writing) for row in split.whole)
        beginning = len(reading.prefix)
        rows = len(items) + len(audit)
        assert cost.amounts["tokens_read"] == own - (rows - 1) * beginning and beginning > 5
        assert engine._kept is None


def test_a_beginning_is_kept_only_while_one_alignment_answers(tiny: LoadedModel) -> None:
    engine = SharedPrefixEngine(tiny.model, tiny.tokenizer)
    prompts = SplitPrompts([7, 8, 9, 10], [[11], [12, 13]])
    longer = SplitPrompts([7, 8, 9, 10, 11], [[12], [13]])
    other = SplitPrompts([7, 8, 9, 14], [[11], [12, 13]])
    plain = [engine.option_log_probs(Request(each), [20, 30]) for each in (prompts, longer, other)]
    with pytest.raises(KeyError), engine.one_alignment():
        for each, expected, read in zip((prompts, longer, other), plain, (7, 4, 7), strict=True):
            with measure() as cost:
                torch.testing.assert_close(engine.option_log_probs(Request(each), [20, 30]), expected)
            assert cost.amounts["tokens_read"] == read
        raise KeyError
    with measure() as cost:
        engine.option_log_probs(Request(other), [20, 30])
    assert cost.amounts["tokens_read"] == 7
