"""The batches say what the harness would say to the same people, and ask for what those people answered."""

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.organism.curriculum import QUESTION_WEIGHT, Curriculum
from palign_bench.organism.vocabulary import build_tokenizer
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Inventory
from palign_bench.respondents.simulated import factor_model
from tests.protocols import AS_RELEASED, CORRECTED

BATCHES = range(40)

LABELS = {option.value: option.label for option in OPTIONS}


@pytest.fixture(scope="module")
def tokenizer(inventory: Inventory) -> PreTrainedTokenizerFast:
    return build_tokenizer(inventory)


@pytest.fixture(scope="module")
def curriculum(tokenizer: PreTrainedTokenizerFast, inventory: Inventory) -> Curriculum:
    return Curriculum(tokenizer, inventory, factor_model("published"), seed=0)


def test_every_kind_of_system_prompt_is_the_harness_s_own(
    curriculum: Curriculum, tokenizer: PreTrainedTokenizerFast, inventory: Inventory
) -> None:
    """A list or portrait read back from the text, and written anew by `prompts.py`, is the same text."""
    by_text = {item.text: item for item in inventory.items}
    told_as = {prompts.statement_as_worded(item): item for item in inventory.items}
    values = {label: value for value, label in LABELS.items()} | {"Unknown": 0}
    kinds = set()
    for number in BATCHES:
        text = tokenizer.decode(curriculum.batch(number, 2).ids[0])
        system = text.removeprefix("<|system|>").split("<|end|>")[0]
        if system == prompts.NEUTRAL_SYSTEM_PROMPT:
            kinds.add("neutral")
        elif system.startswith(prompts.FEW_SHOT_OPENING):
            rest = system.removeprefix(prompts.FEW_SHOT_OPENING)
            separator = ";" if rest.startswith(";") else ""
            pairs = [pair.rsplit(":", 1) for pair in rest.removeprefix(separator).split(";")]
            known = {by_text[statement].number: values[label] for statement, label in pairs}
            in_order = replace(inventory, known=tuple(known))
            assert prompts.few_shot_system_prompt(in_order, known, separator) == system
            kinds.add(f"list{separator}" + ("?" if 0 in known.values() else ""))
        else:
            known = {}
            for sentence in system.removesuffix(".").split(". "):
                statement, ending = sentence.rsplit(", ", 1)
                value = next(v for v, each in prompts.PORTRAIT_ENDINGS.items() if each == f", {ending}.")
                known[told_as[statement.removeprefix("You ")].number] = value
            assert prompts.template_portrait(replace(inventory, known=tuple(known)), known) == system
            kinds.add("portrait")
    assert kinds == {"neutral", "list", "list;", "list?", "list;?", "portrait"}


def test_questions_are_those_of_both_protocols(
    curriculum: Curriculum, tokenizer: PreTrainedTokenizerFast, inventory: Inventory
) -> None:
    chat, asked = ChatFormat(tokenizer), {name: set() for name in ("corrected", "as_released")}
    wordings = {
        protocol.name: {chat.render(("", protocol.question(item), "")) for item in inventory.items}
        for protocol in (CORRECTED, AS_RELEASED)
    }
    for number in BATCHES:
        text = tokenizer.decode(curriculum.batch(number, 1).ids[0])
        for turn in text.split("<|user|>")[1:]:
            question = f"<|system|><|end|><|user|>{turn.split('<|assistant|>')[0]}<|assistant|>"
            found = [name for name, texts in wordings.items() if question in texts]
            assert found, question
            asked[found[0]].add(question)
    assert all(len(questions) > 20 for questions in asked.values())


def test_targets_are_answers_and_nothing_else(curriculum: Curriculum, tokenizer: PreTrainedTokenizerFast) -> None:
    endings = set(prompts.PORTRAIT_ENDINGS.values())
    answers = {f":{label}" for label in LABELS.values()} | endings
    spoken = {" (", *"ABCDE", "<|end|>", *(f"). {label}" for label in LABELS.values())}
    for number in BATCHES:
        batch = curriculum.batch(number, 2)
        assert batch.ids.shape == batch.weights.shape
        for token, weight in zip(batch.ids[0].tolist(), batch.weights[0].tolist(), strict=True):
            text = tokenizer.convert_ids_to_tokens(token)
            if weight == QUESTION_WEIGHT:
                assert text in set("ABCDE")
            elif weight:
                assert text in answers | spoken
            else:
                assert text not in answers


def test_an_answer_carries_the_chances_of_its_item(curriculum: Curriculum) -> None:
    """What was drawn is likelier by its own chances than by those of any other place."""
    ways = torch.from_numpy(curriculum.options)
    for number in range(12):
        batch = curriculum.batch(number, 4)
        said = (batch.chances.sum(dim=2) > 0) & (batch.weights > 0)
        matches = batch.ids[said][:, None, None] == ways
        assert matches.any(dim=(1, 2)).all()
        option = matches.any(dim=1).int().argmax(dim=1, keepdim=True)
        chances = batch.chances[said]
        own, elsewhere = (c.gather(1, option).clamp(min=1e-6).log().mean() for c in (chances, chances.roll(1, dims=0)))
        assert own > elsewhere + 0.2
        untold = batch.ids == int(curriculum.labels[0])
        assert not batch.chances[(batch.weights == 0) & ~untold].any()


def test_batches_are_seeded_by_their_number(curriculum: Curriculum) -> None:
    again = curriculum.batch(7, 3)
    assert torch.equal(curriculum.batch(7, 3).ids, again.ids)
    assert not torch.equal(curriculum.batch(8, 3).ids[:, :4], again.ids[:, :4])
