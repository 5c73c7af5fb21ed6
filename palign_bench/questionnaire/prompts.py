"""Every sentence that a model reads, put together: the words themselves stand in ``data/prompts.yaml``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from palign_bench.questionnaire.inventory import OPTIONS, Answers, Inventory, Item, Option

_WORDS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data" / "prompts.yaml").read_text(encoding="utf-8"))

NEUTRAL_SYSTEM_PROMPT: str = _WORDS["neutral_system_prompt"]
ASKS: dict[str, str] = _WORDS["asks"]  # by the inventory's wording
FRAMES: dict[str, list[str]] = _WORDS["frames"]  # by the inventory's wording
FEW_SHOT_OPENING: str = _WORDS["few_shot_opening"]
PORTRAIT_WRITER_SYSTEM_PROMPT: str = _WORDS["portrait_writer_system_prompt"]
PORTRAIT_OPENING: str = _WORDS["portrait_opening"]
PORTRAIT_ENDINGS: dict[int, str] = _WORDS["portrait_endings"]  # by the answer's value
CONTRASTS: dict[str, tuple[str, str]] = {name: (yes, no) for name, (yes, no) in _WORDS["contrasts"].items()}


def question_parts() -> tuple[str, str]:
    """What stands before and after the statement in `question`."""
    before, after = question("{statement}").split("{statement}.")
    return before, after


def question(statement: str, asks: str = ASKS["phrase"], options: Sequence[Option] = OPTIONS) -> str:
    """The question about one statement, which fills ``{statement}`` of ``asks``, with its options."""
    listed = "".join(f"({option.letter}). {option.label}\n" for option in options)
    return f"{asks.replace('{statement}', statement)}\nOptions:\n{listed}"


def statement(inventory: Inventory, item: Item) -> str:
    """The statement as it stands in a question, a portrait or a contrast of this inventory's wording."""
    return statement_as_worded(item) if inventory.wording == "phrase" else whole_sentence(item)


def whole_sentence(item: Item) -> str:
    """The item as worded, with a full stop where it ends without a mark."""
    text = item.text.strip()
    return text if text.endswith((".", "!", "?", '"')) else f"{text}."


def statement_as_worded(item: Item) -> str:
    """`corrected`: as worded, first letter lower-cased, no full stop of its own (the question adds one)."""
    text = item.text.removesuffix(".").removesuffix('."')
    if item.text.endswith('."'):
        text += '"'
    return text[0].lower() + text[1:]


def statement_as_released(item: Item) -> str:
    """`as_released`: wholly lower-cased, its full stop kept, so that two meet in the question."""
    return item.text.lower()


def answered_pairs(inventory: Inventory, known: Answers) -> str:
    """The known answers as ``statement:label`` joined by ``;``, in the inventory's order; 0 reads ``Unknown``."""
    return ";".join(
        f"{inventory[number].text}:{inventory.labels.get(int(known[number]), 'Unknown')}"
        for number in inventory.known
        if number in known
    )


def few_shot_system_prompt(inventory: Inventory, known: Answers, separator: str = ";") -> str:
    """The Few-Shot system prompt. The released Few-Shot omits the separator after "them"; PAS writes one ``;``."""
    return f"{FEW_SHOT_OPENING}{separator}{answered_pairs(inventory, known)}"


def portrait_request(inventory: Inventory, known: Answers) -> str:
    """What P² asks its writer: to turn the known answers into a natural description in the second person."""
    request: str = _WORDS["portrait_request"]
    return request.format(pairs=answered_pairs(inventory, known))


def template_portrait(inventory: Inventory, known: Answers) -> str:
    """The known answers as plain sentences in the second person, in the inventory's order; missing ones left out."""
    endings = PORTRAIT_ENDINGS
    if inventory.options != OPTIONS:
        endings = {each.value: f" ({each.label[0].lower()}{each.label[1:]})." for each in inventory.options}
    said = PORTRAIT_OPENING + "{}" if inventory.wording == "phrase" else f'{PORTRAIT_OPENING}say "{{}}"'
    return " ".join(
        said.format(statement(inventory, inventory[number])) + endings[int(known[number])]
        for number in inventory.known
        if number in known
    )


def agree_question(inventory: Inventory, item: Item) -> str:
    """The probe question of the paper's section 4.2, answered Yes and No."""
    asked: str = _WORDS["agree_question"][inventory.wording]
    return asked.format(statement=statement(inventory, item))


def probe_question(inventory: Inventory, item: Item) -> str:
    """The probe question of the released code: the question about the statement as stored, its full stop kept."""
    stored = item.text if inventory.wording == "phrase" else whole_sentence(item)
    return question(stored, inventory.asks or ASKS[inventory.wording], inventory.options)


def contrast(name: str, inventory: Inventory, item: Item) -> tuple[str, str]:
    """Two texts about one statement, the one affirming and the other denying it."""
    said = statement(inventory, item)
    that, do = (f" that I {said}.", said) if inventory.wording == "phrase" else (f': "{said}"', f'say "{said}"')
    affirmed, denied = (text.format(that=that, do=do) for text in CONTRASTS[name])
    return affirmed, denied
