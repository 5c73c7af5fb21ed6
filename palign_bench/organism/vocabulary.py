"""The organism's tokenizer: a statement, a label or a fixed phrase of the templates is one token; the rest is bytes.

So a short context does for 120 answers, and a small model is spared from having to learn to read.
"""

from typing import cast

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import OPTIONS, Inventory, Item
from palign_bench.questionnaire.protocol import FREE_GENERATION

PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
UNKNOWN = ":Unknown"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def statement_forms(item: Item) -> dict[str, str]:
    """One statement as each template writes it; every form is a token of its own."""
    worded = prompts.statement_as_worded(item)
    told = prompts.PORTRAIT_OPENING + worded
    return {
        "listed": ";" + item.text,  # in a Few-Shot list, after the separator
        "opening": item.text,  # at a list's head, and in the released probe's question
        "asked": worded + ".",  # in the question, with the full stop that the question or the statement brings
        "asked_as_released": prompts.statement_as_released(item),
        "told_first": told,  # at a portrait's head
        "told": " " + told,
        "worded": worded,
    }


def answer_pieces(value: int) -> tuple[str, str, str]:
    """What the assistant says after ``Option``, piece by piece, one token each."""
    option = next(option for option in OPTIONS if option.value == value)
    return " (", option.letter, f"). {option.label}"


def phrases() -> list[str]:
    """The templates' fixed phrases."""
    before, after = prompts.question_parts()
    labels = [option.label for option in OPTIONS]
    agree_before, agree_after = 'Question: Given a statement of you: "You ', '", Do you agree?'
    return [
        prompts.NEUTRAL_SYSTEM_PROMPT,
        prompts.PORTRAIT_WRITER_SYSTEM_PROMPT,
        prompts.FEW_SHOT_OPENING,
        before,
        after,
        agree_before,
        agree_after,
        FREE_GENERATION.opening,
        " (",
        *(f":{label}" for label in labels),
        UNKNOWN,
        *(answer_pieces(option.value)[2] for option in OPTIONS),
        *labels,
        *prompts.PORTRAIT_ENDINGS.values(),
        "Yes",
        "No",
    ]


def build_tokenizer(inventory: Inventory) -> PreTrainedTokenizerFast:
    """An ordinary fast tokenizer over bytes, with every statement's forms and every phrase added as one token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, SYSTEM, USER, ASSISTANT, END]
    tokenizer.add_special_tokens(special)
    single = [*phrases(), *(form for item in inventory.items for form in statement_forms(item).values())]
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in dict.fromkeys(single)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def forms_of_one_statement(tokenizer: PreTrainedTokenizerFast, inventory: Inventory) -> list[list[int]]:
    """Per item, the token ids of all its forms: they start training with one embedding, since they mean one thing."""
    return [
        sorted(set(cast(list[int], tokenizer.convert_tokens_to_ids(list(statement_forms(item).values())))))
        for item in inventory.items
    ]
