"""Chat formats: both texts reach the model whole, thinking is off, and neither the day nor a template changes silently.

The templates beside this file imitate what well-known models' own do; what each must become is written out by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from palign_bench.backbone.chat_format import ChatFormat, ChatFormatError
from palign_bench.backbone.tokenizing import encode
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import RespondentSource
from tests.protocols import CORRECTED
from tests.tiny import tiny_tokenizer

TEMPLATES = Path(__file__).parent / "chat_templates"
DIALOGUE = ("S one\nS two", "U", "Option (")
AS_WRITTEN = {
    "llama3": "<|begin|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nS one\nS two<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nOption (",
    "qwen3": "<|im_start|>system\nS one\nS two<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    "<think>\n\n</think>\n\nOption (",
    "gemma3": "<|begin|><start_of_turn>user\nS one\nS two\n\nU<end_of_turn>\n<start_of_turn>model\nOption (",
    "gemma2": "<|begin|><start_of_turn>user\nS one\nS two\n\nU<end_of_turn>\n<start_of_turn>model\nOption (",
    "mistral": "<|begin|>[INST] S one\nS two\n\nU[/INST] Option (",
    "phi4": "<|im_start|>system<|im_sep|>S one\nS two<|im_end|><|im_start|>user<|im_sep|>U<|im_end|>"
    "<|im_start|>assistant<|im_sep|>Option (",
    "smollm3": "<|im_start|>system\nToday Date: 26 July 2024\nReasoning Mode: /no_think\n\nS one\nS two<|im_end|>\n"
    "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\nOption (",
    "always_thinks": "<|begin|>S one\nS two<|User|>U<|Assistant|><think>\n\n</think>\n\nOption (",
    "deepseek_v31": "<|begin|>S one\nS two<|User|>U<|Assistant|></think>Option (",
    "glm47": "[gMASK]<sop><|system|>S one\nS two<|user|>U<|assistant|></think>Option (",
    "gemma4": "<|begin|><|turn>system\nS one\nS two<turn|>\n<|turn>user\nU<turn|>\n<|turn>model\n"
    "<|channel>thought\n<channel|>Option (",
    "drops_system": "<|user|>S one\nS two\n\nU<|end|><|assistant|>Option (",
    "content_parts": "<|system|>S one\nS two<|end|><|user|>U<|end|><|assistant|>Option (",
    "parts_and_drops_system": "<|user|>S one\nS two\n\nU<|end|><|assistant|>Option (",
    "ignores_the_request": "<|system|>S one\nS two<|end|><|user|>U<|end|><|assistant|>Option (",
    "channels": "<|start|>system<|message|>S one\nS two<|end|><|start|>user<|message|>U<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Option (",
}


def tokenizer_with(template: str | None, adds_beginning: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template and (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")
    if adds_beginning:
        token = (str(tokenizer.bos_token), tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{token[0]} $A", special_tokens=[token]
        )
    return tokenizer


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_each_template_writes_both_texts_whole_and_opens_the_answer(name: str) -> None:
    chat = ChatFormat(tokenizer_with(name))
    assert chat.render(DIALOGUE) == AS_WRITTEN[name]
    free = chat.render((*DIALOGUE[:2], ""))  # no white space before a first word that the model is to choose
    assert free == AS_WRITTEN[name].removesuffix("Option (").removesuffix(" ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("escapes", "cannot hold a system prompt and a question: it drops the system prompt or the question"),
        ("unknown_thinking", "seems to open a thinking block that cannot be closed"),
    ],
)
def test_what_cannot_be_written_exactly_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ChatFormatError, match=message) as caught:
        ChatFormat(tokenizer_with(name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ["</think><|reasoning|>", "<|begin_of_thought|></think>", "<channel|>thought"])
def test_a_closing_mark_excuses_no_mark_that_is_unknown(end: str) -> None:
    tokenizer = tokenizer_with("deepseek_v31")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("</think>", end)
    with pytest.raises(ChatFormatError, match="seems to open a thinking block that cannot be closed"):
        ChatFormat(tokenizer)


def test_a_template_that_shortens_long_texts_is_found_when_it_does() -> None:
    chat = ChatFormat(tokenizer_with("shortens"))
    with pytest.raises(ChatFormatError, match="changes the system prompt 'many words many words"):
        chat.render(("many words " * 30, "U", ""))


def test_templates_by_name_need_a_default(tiny_folder: Path) -> None:
    tokenizer = tokenizer_with(None)
    tokenizer.chat_template = {"tool_use": "{{ messages }}"}
    with pytest.raises(ChatFormatError, match="the model's chat template: "):
        ChatFormat(tokenizer)
    tokenizer.chat_template["default"] = (TEMPLATES / "phi4.jinja").read_text()
    assert ChatFormat(tokenizer).render(DIALOGUE) == AS_WRITTEN["phi4"]


def test_a_base_model_reads_paragraphs() -> None:
    chat = ChatFormat(tokenizer_with(None, adds_beginning=True))
    assert chat.render(DIALOGUE) == "<|begin|>S one\nS two\n\nU\n\nOption ("
    assert chat.render(("S", "U\n", "")) == "<|begin|>S\n\nU\n\n"


@pytest.mark.parametrize("adds_beginning", [False, True])
@pytest.mark.parametrize("name", ["llama3", "phi4", "twice", None])
def test_a_text_begins_once(name: str | None, adds_beginning: bool) -> None:
    """The beginning-of-text token is there once where the tokenizer adds it or the template writes it, else not."""
    tokenizer = tokenizer_with("llama3" if name == "twice" else name, adds_beginning)
    if name == "twice":
        tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    ids = encode(tokenizer, ChatFormat(tokenizer).render(DIALOGUE))
    written = adds_beginning or name in ("llama3", "twice")
    assert (ids.count(tokenizer.bos_token_id), ids[0] == tokenizer.bos_token_id) == (int(written), written)


@pytest.mark.parametrize("name", ["llama3", "smollm3"])
def test_another_day_writes_the_same_prompt(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class LaterDay(chat_template_utils.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: object = None) -> LaterDay:
            return cls(2031, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", LaterDay)
    tokenizer = tokenizer_with(name)
    unpinned = tokenizer.apply_chat_template([{"role": "user", "content": "U"}], tokenize=False)
    assert "2031" in unpinned  # the day does reach the template
    assert ChatFormat(tokenizer).render(DIALOGUE) == AS_WRITTEN[name]


def test_the_identity_is_that_of_what_is_written() -> None:
    hashes = {name: ChatFormat(tokenizer_with(name)).hash for name in AS_WRITTEN}
    assert len(set(hashes.values())) == len(hashes)
    assert hashes["llama3"] == ChatFormat(tokenizer_with("llama3")).hash
    assert ChatFormat(tokenizer_with("phi4")).hash != ChatFormat(tokenizer_with("phi4", adds_beginning=True)).hash


@pytest.mark.parametrize("name", AS_WRITTEN)
def test_the_option_tokens_are_those_of_the_whole_prompt(name: str, inventory: Inventory) -> None:
    tokenizer = tokenizer_with(name)
    chat, question = ChatFormat(tokenizer), CORRECTED.question(inventory[7])
    opening, tokens = chat.option_tokens("Option (", "ABCDE")
    for letter, token in zip("ABCDE", tokens, strict=True):
        whole = encode(tokenizer, chat.render(("You like maps.", question, f"Option ({letter}")))
        assert whole == [*encode(tokenizer, chat.render(("You like maps.", question, opening))), token]
    with pytest.raises(ChatFormatError, match="do not differ in one token"):
        chat.option_tokens("Option (", ["A", "xqzj"])


def test_real_prompts_pass(inventory: Inventory, source: RespondentSource) -> None:
    protocol = CORRECTED
    system = protocol.few_shot_prompt(protocol.known(source.people[0]))
    for name in ("llama3", "gemma2", "content_parts"):
        text = ChatFormat(tokenizer_with(name)).render((system, protocol.question(inventory[1]), "Option ("))
        assert system in text and protocol.question(inventory[1]).strip() in text
