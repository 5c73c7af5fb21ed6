"""Every sentence that a model reads.

The wording under `as_released` is that of the released code of *Personality Alignment of Large Language Models*
(zhu-minjun/PAlign at 18e1e34); the question is the MPI template (Jiang et al. 2024). A reproduction must match them to
the letter, so nothing here is polished.
"""

from __future__ import annotations

from palign_bench.questionnaire.inventory import LABELS, OPTIONS, Answers, Inventory, Item

NEUTRAL_SYSTEM_PROMPT = "You are a helpful, honest and concise assistant."

_QUESTION = (
    'Given a statement of you: "You {statement}."\n'
    "Please choose from the following options to identify how accurately this statement describes you.\n"
    "Options:\n" + "".join(f"({option.letter}). {option.label}\n" for option in OPTIONS)
)

FEW_SHOT_OPENING = "Here are some of your behaviors and your level of recognition towards them"

PORTRAIT_WRITER_SYSTEM_PROMPT = "You are a helpful assistant."
_PORTRAIT_REQUEST = (
    'Please use "You" to organize and rewrite the following fragment into a smooth object description, without '
    'including any "accurate" and "inaccurate" elements, but rather a natural description:\n'
    "{pairs}\n\n"
    "Here is a rewritten version of the text, organized into a smooth object description:"
)

# A portrait without a writer: one sentence per statement, for models that cannot write (P² with writer=template).
PORTRAIT_OPENING = "You "
PORTRAIT_ENDINGS: dict[int, str] = {
    5: ", most certainly.",
    4: ", more often than not.",
    3: ", now and then.",
    2: ", but seldom.",
    1: ", hardly ever.",
}


def question_parts() -> tuple[str, str]:
    """What stands before and after the statement in `question`."""
    before, after = _QUESTION.split("{statement}.")
    return before, after


def question(statement: str) -> str:
    """The five-way question about one statement, which fills ``"You {statement}."``."""
    return _QUESTION.format(statement=statement)


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
        f"{inventory[number].text}:{LABELS.get(int(known[number]), 'Unknown')}"
        for number in inventory.known
        if number in known
    )


def few_shot_system_prompt(inventory: Inventory, known: Answers, separator: str = ";") -> str:
    """The Few-Shot system prompt. The released Few-Shot omits the separator after "them"; PAS writes one ``;``."""
    return f"{FEW_SHOT_OPENING}{separator}{answered_pairs(inventory, known)}"


def portrait_request(inventory: Inventory, known: Answers) -> str:
    """What P² asks its writer: to turn the known answers into a natural description in the second person."""
    return _PORTRAIT_REQUEST.format(pairs=answered_pairs(inventory, known))


def template_portrait(inventory: Inventory, known: Answers) -> str:
    """The known answers as plain sentences in the second person, in the inventory's order; missing ones left out."""
    return " ".join(
        f"{PORTRAIT_OPENING}{statement_as_worded(inventory[number])}{PORTRAIT_ENDINGS[int(known[number])]}"
        for number in inventory.known
        if number in known
    )


def agree_question(item: Item) -> str:
    """The probe question of the paper's section 4.2, answered Yes and No."""
    return f'Question: Given a statement of you: "You {statement_as_worded(item)}.", Do you agree?'


def probe_question(item: Item) -> str:
    """The probe question of the released code: the five-way question about the statement as stored, stop kept."""
    return question(item.text)


# Beginnings of a text about one statement, affirmed and denied; what differs between the two is what the statement
# says about a person, and no longer how it is worded (`palign_bench/backbone/parts/statements.py`).
CONTRASTS: dict[str, tuple[str, str]] = {
    "word": (
        "I would always say that I {statement}. In one word, I am",
        "I would never say that I {statement}. In one word, I am",
    ),
    "kind": (
        "I would always say that I {statement}. I am the kind of person who is",
        "I would never say that I {statement}. I am the kind of person who is",
    ),
    "people": ("People who {statement} tend to be", "People who never {statement} tend to be"),
}


def contrast(name: str, item: Item) -> tuple[str, str]:
    """Two texts about one statement, the one affirming and the other denying it."""
    affirmed, denied = CONTRASTS[name]
    statement = statement_as_worded(item)
    return affirmed.format(statement=statement), denied.format(statement=statement)
