"""One token for each statement, label and fixed phrase, in every form that the harness writes."""

import pytest
from transformers import PreTrainedTokenizerFast

from palign_bench.backbone.chat_format import ChatFormat
from palign_bench.backbone.tokenizing import encode
from palign_bench.organism.vocabulary import build_tokenizer, forms_of_one_statement
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import AsReleased, EvaluationProtocol
from palign_bench.respondents import RespondentSource
from tests.protocols import AS_RELEASED, CORRECTED


@pytest.fixture(scope="module")
def tokenizer(inventory: Inventory) -> PreTrainedTokenizerFast:
    return build_tokenizer(inventory)


@pytest.mark.parametrize("protocol", [CORRECTED, AS_RELEASED], ids=lambda protocol: protocol.name)
def test_a_whole_few_shot_dialogue_is_two_tokens_an_answer_and_comes_back(
    tokenizer: PreTrainedTokenizerFast, inventory: Inventory, source: RespondentSource, protocol: EvaluationProtocol
) -> None:
    known = protocol.known(source.people[0])
    chat = ChatFormat(tokenizer)
    for item in inventory.items:
        dialogue = (protocol.few_shot_prompt(known), protocol.question(item), "Option")
        text = chat.render(dialogue)
        ids = encode(tokenizer, text)
        assert tokenizer.decode(ids) == text
        # <|system|>, the opening, <|end|>; <|user|>, before, statement, (stop,) after, <|end|>; <|assistant|>, Option
        assert len(ids) == 3 + 2 * len(known) + 5 + isinstance(protocol, AsReleased) + 2


def test_portraits_and_probes_are_short_too(
    tokenizer: PreTrainedTokenizerFast, inventory: Inventory, source: RespondentSource
) -> None:
    known = CORRECTED.known(source.people[0])
    assert len(encode(tokenizer, CORRECTED.template_portrait(known))) == 2 * len(known)
    for item in inventory.items:
        assert len(encode(tokenizer, prompts.agree_question(inventory, item))) == 3
        assert len(encode(tokenizer, prompts.probe_question(inventory, item))) == 4  # the stop that the question adds


def test_options_differ_in_one_token_and_anything_else_falls_back_to_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    opening, options = ChatFormat(tokenizer).option_tokens("Option (", "ABCDE")
    assert opening == "Option (" and len(set(options)) == 5
    text = "Grüße, 世界! <|not a token|>"
    assert tokenizer.decode(encode(tokenizer, text)) == text
    assert len(encode(tokenizer, text)) == len(text.encode())


def test_forms_of_different_statements_never_meet(tokenizer: PreTrainedTokenizerFast, inventory: Inventory) -> None:
    forms = forms_of_one_statement(tokenizer, inventory)
    flat = [token for each in forms for token in each]
    assert len(flat) == len(set(flat)) and min(map(len, forms)) >= 6
    assert tokenizer.pad_token_id not in {tokenizer.eos_token_id, *flat}
