"""Every sentence that a model reads.

The wording under `as_released` is that of the released code of *Personality Alignment of Large Language Models*
(zhu-minjun/PAlign at 18e1e34); the question is the MPI template (Jiang et al. 2024). A reproduction must match them to
the letter, so nothing here is polished.
"""

from collections.abc import Sequence

from palign_bench.questionnaire.inventory import OPTIONS, Answers, Inventory, Item, Option

NEUTRAL_SYSTEM_PROMPT = "You are a helpful, honest and concise assistant."

# What is asked about a statement that completes "You …" (the MPI template), and about a whole sentence.
ASKS: dict[str, str] = {
    "phrase": (
        'Given a statement of you: "You {statement}."\n'
        "Please choose from the following options to identify how accurately this statement describes you."
    ),
    "sentence": (
        'Given a statement of yours: "{statement}"\n'
        "Please choose from the following options to identify how far you agree with it."
    ),
}

# Other words for the same question, by wording (`questionnaire/variant.py`).
FRAMES: dict[str, tuple[str, str, str]] = {
    "phrase": (
        'Here is something that may be said of you: "You {statement}."\n'
        "Which of the following options tells best how accurate that is?",
        '"You {statement}."\nHow accurately does this sentence describe you? Pick one of the options below.',
        'Think of yourself as you usually are, and consider this: "You {statement}."\n'
        "Choose the option that says how accurate it is for you.",
    ),
    "sentence": (
        'Here is something that you may have said: "{statement}"\n'
        "Which of the following options tells best how far you agree?",
        '"{statement}"\nHow far do you agree with this sentence? Pick one of the options below.',
        'Think of yourself as you usually are, and consider this: "{statement}"\n'
        "Choose the option that says how far you agree.",
    ),
}

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
    return _PORTRAIT_REQUEST.format(pairs=answered_pairs(inventory, known))


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
    given = '"You {}."' if inventory.wording == "phrase" else '"{}"'
    of = "of you" if inventory.wording == "phrase" else "of yours"
    return f"Question: Given a statement {of}: {given.format(statement(inventory, item))}, Do you agree?"


def probe_question(inventory: Inventory, item: Item) -> str:
    """The probe question of the released code: the question about the statement as stored, its full stop kept."""
    stored = item.text if inventory.wording == "phrase" else whole_sentence(item)
    return question(stored, inventory.asks or ASKS[inventory.wording], inventory.options)


# Beginnings of a text about one statement, affirmed and denied; what differs between the two is what the statement
# says about a person, and no longer how it is worded (`palign_bench/backbone/parts/statements.py`).
CONTRASTS: dict[str, tuple[str, str]] = {
    "word": ("I would always say{that} In one word, I am", "I would never say{that} In one word, I am"),
    "kind": (
        "I would always say{that} I am the kind of person who is",
        "I would never say{that} I am the kind of person who is",
    ),
    "people": ("People who {do} tend to be", "People who never {do} tend to be"),
}


def contrast(name: str, inventory: Inventory, item: Item) -> tuple[str, str]:
    """Two texts about one statement, the one affirming and the other denying it."""
    said = statement(inventory, item)
    that, do = (f" that I {said}.", said) if inventory.wording == "phrase" else (f': "{said}"', f'say "{said}"')
    affirmed, denied = (text.format(that=that, do=do) for text in CONTRASTS[name])
    return affirmed, denied
