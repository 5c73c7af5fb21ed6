"""What is trained on is what is asked and read; nothing is cut, padded wrongly or taken from missing answers."""

import copy

import pytest

from baselines.training.reward import named_option
from baselines.training.texts import TrainingTexts, answer_text, trainers_tokenizer
from palign_bench.backbone.loading.weights import LoadedModel
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.tokenizing import encode
from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Inventory
from palign_bench.questionnaire.protocol import PROTOCOLS, parse_released
from tests.protocols import CORRECTED


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.letter)
def test_the_answer_is_read_right_by_both_protocols_and_the_reward(option) -> None:
    text = answer_text(option.value)
    assert text.startswith(CORRECTED.reading.opening + option.letter)
    assert parse_released(text.removeprefix("Option")) == option.value
    assert named_option(text) == option.value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_the_training_text_is_the_question_as_asked(
    name: str, protocol: str, inventory: Inventory, request: pytest.FixtureRequest
) -> None:
    loaded: LoadedModel = request.getfixturevalue(name)
    backbone = LocalBackbone(loaded, PROTOCOLS[protocol](inventory))
    texts = TrainingTexts.of(backbone)
    assert set(texts.items) == set(inventory.known)
    for number in inventory.known[:5]:
        question = backbone.protocol.question(inventory[number])
        asked = encode(loaded.tokenizer, backbone.chat.render((prompts.NEUTRAL_SYSTEM_PROMPT, question, "Option (")))
        item = texts.items[number]
        for value, answer in item.answers.items():
            whole = item.turn + answer
            assert whole[: len(asked)] == asked  # the letter comes exactly where it will be read
            assert answer[-1] == loaded.tokenizer.eos_token_id
            assert loaded.tokenizer.decode(answer[:-1]) == answer_text(value)
        assert loaded.tokenizer.decode(item.rollout).endswith("Option")


def test_the_pad_token_is_never_one_of_the_texts(smollm2: LoadedModel, inventory: Inventory) -> None:
    # The embedded model pads with its end of turn, the trap; the loaded tokenizer itself must stay as it is.
    assert smollm2.tokenizer.pad_token_id == smollm2.tokenizer.eos_token_id
    before = (smollm2.tokenizer.pad_token, smollm2.tokenizer.padding_side)
    texts = TrainingTexts.of(LocalBackbone(smollm2, CORRECTED))
    used = {token for item in texts.items.values() for token in (*item.turn, *item.rollout)}
    used |= {token for item in texts.items.values() for answer in item.answers.values() for token in answer}
    assert texts.tokenizer.pad_token_id not in used | {smollm2.tokenizer.eos_token_id}
    assert texts.tokenizer.pad_token_id < smollm2.model.config.vocab_size
    assert texts.tokenizer.padding_side == "left"
    assert (smollm2.tokenizer.pad_token, smollm2.tokenizer.padding_side) == before


def test_a_pad_token_of_its_own_is_kept(tiny: LoadedModel) -> None:
    assert trainers_tokenizer(tiny.tokenizer, used=[]).pad_token == "<|pad|>"
    same = copy.deepcopy(tiny.tokenizer)
    same.pad_token = same.eos_token
    assert trainers_tokenizer(same, used=[]).pad_token_id != same.eos_token_id
