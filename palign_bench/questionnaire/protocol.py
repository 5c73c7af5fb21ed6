"""What is asked, how an answer is read, what counts as truth, and on which answers hyperparameters are chosen.

`corrected` is the default. `as_released` does what the authors' released code does, its known faults included, so that
its numbers can be reproduced and the difference be seen. Every number carries its protocol; the two are never mixed.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from palign_bench.questionnaire import prompts
from palign_bench.questionnaire.inventory import LETTERS, OPTIONS, Answers, Inventory, Item, Respondent
from palign_bench.settings import UserError

_RELEASED_PREFIX = "\n\nOption"
_RELEASED_WINDOW = 12  # characters of prefix + generation that the released code looks at
AUDIT_ITEMS = 20


@dataclass(frozen=True)
class Reading:
    """How an answer is read: the text that opens the assistant's turn, and whether the model then generates."""

    opening: str
    generates: bool
    max_new_tokens: int = 0


def parse_released(generated: str, options: int = len(OPTIONS)) -> int | None:
    """The released code's parse: first match of an option's letter (any case) before a non-letter in 12 characters.

    ``generated`` is the text after the opening ``Option``, special tokens included; ``options``: how many there are
    (the released code has five). Returns the option's value, ``options`` for A … 1, or None: unparsed.
    """
    letters = LETTERS[:options]
    window = (_RELEASED_PREFIX + generated)[:_RELEASED_WINDOW]
    match = re.search(f"[{letters}{letters.lower()}][^a-zA-Z]", window)
    return options - letters.index(match.group()[0].upper()) if match else None


def parse_is_decided(generated: str, options: int = len(OPTIONS)) -> bool:
    """Whether more text cannot change `parse_released`: it matched, or its window is full."""
    full = len(generated) >= _RELEASED_WINDOW - len(_RELEASED_PREFIX)
    return full or parse_released(generated, options) is not None


FREE_GENERATION = Reading(opening="Option", generates=True, max_new_tokens=15)


class EvaluationProtocol:
    """One way of asking and scoring the items of an inventory. Raise ``version`` when a change here changes numbers.

    What a subclass does not say otherwise is as under `corrected`.

    Respondents, cases and aligners hold **literal** answers, whatever the protocol. Its own orientation enters at two
    edges alone: the wording of a prompt (`orient`, `few_shot_prompt`, …) and scoring (`truth`, `keyed`).

    ``options`` and ``asks``: as a question lists and words them; ``listing``: the inventory in whose order prompts list
    known answers. All three are the inventory's own, but for a `Variant`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reading: ClassVar[Reading]
    few_shot_separator: ClassVar[str]  # between the opening of the Few-Shot prompt and its first pair
    probes_split_by_item: ClassVar[bool]  # PAS: both samples of an item train or both validate; else drawn one by one
    chooses_on_held_out: ClassVar[bool]  # hyperparameters on the held-out answers; else on a part of the known ones
    heads_ranked_on_training: ClassVar[bool]  # PAS: by the mean of training and validation accuracy; else by validation
    is_the_papers: ClassVar[bool]  # whether the paper's printed figures were taken this way
    of_inventories: ClassVar[frozenset[str] | None] = None  # the only ones that it is defined for; None: any

    def __init__(self, inventory: Inventory):
        self.inventory = inventory
        self.options = inventory.options
        self.asks = inventory.asks or prompts.ASKS[inventory.wording]
        self.listing = inventory

    @property
    def letters(self) -> str:
        """The letters under which a question lists the options, by their values, the highest first."""
        return "".join(option.letter for option in sorted(self.options, key=lambda option: -option.value))

    def known(self, respondent: Respondent) -> Answers:
        """The known answers, literal, in the inventory's order."""
        return {n: respondent.answers[n] for n in self.inventory.known if n in respondent.answers}

    def held_out(self, respondent: Respondent) -> Answers:
        """The held-out answers, literal."""
        return {n: respondent.answers[n] for n in self.inventory.held_out if n in respondent.answers}

    def selection(self, respondent: Respondent, seed: int, told: Collection[int] | None = None) -> Answers:
        """The literal answers that hyperparameters may be chosen on: of those ``told``, `Inventory.selection`."""
        return {n: respondent.answers[n] for n in self.inventory.selection(seed, told) if n in respondent.answers}

    def reverses(self, item: Item) -> bool:
        """Whether this protocol takes the literal answer to ``item`` reversed."""
        return False

    def statement(self, item: Item) -> str:
        """The statement as it stands in the question."""
        return prompts.statement(self.inventory, item)

    def question(self, item: Item) -> str:
        """The user's turn for one item."""
        return prompts.question(self.statement(item), self.asks, self.options)

    def parse(self, generated: str) -> int | None:
        """The value of the option that a generated text names; None: unparsed."""
        place = parse_released(generated, len(self.options))  # counted from the last letter
        return None if place is None else self.options[-place].value

    def is_decided(self, generated: str) -> bool:
        """Whether more text cannot change `parse`."""
        return parse_is_decided(generated, len(self.inventory.options))

    def few_shot_prompt(self, known: Answers, missing: Collection[int] = (), separator: str | None = None) -> str:
        """The system prompt that lists literal answers as the protocol labels them.

        ``missing``: known items that the person left unanswered. ``separator``: None for `few_shot_separator`.
        """
        opened_by = self.few_shot_separator if separator is None else separator
        return prompts.few_shot_system_prompt(self.listing, self.listed(known, missing), opened_by)

    def portrait_request(self, known: Answers, missing: Collection[int] = ()) -> str:
        """What P² asks its writer, with literal answers as the protocol labels them; see `few_shot_prompt`."""
        return prompts.portrait_request(self.listing, self.listed(known, missing))

    def template_portrait(self, known: Answers) -> str:
        """Literal answers as sentences in the second person, as the protocol labels them."""
        return prompts.template_portrait(self.listing, self.orient(known))

    def listed(self, known: Answers, missing: Collection[int] = ()) -> Answers:
        """Literal answers as a prompt labels them, with 0 for a missing one where the protocol writes `Unknown`."""
        return self.orient(known)

    def truth(self, literal: Answers) -> Answers:
        """What answers are scored against: literal ones in this protocol's orientation."""
        return self.orient(literal)

    def orient(self, literal: Answers) -> dict[int, float]:
        """Literal answers in this protocol's orientation, or back."""
        inventory = self.inventory
        return {n: inventory.reverse(value) if self.reverses(inventory[n]) else value for n, value in literal.items()}

    def keyed(self, number: int, value: float) -> float:
        """An answer in this protocol's orientation turned into a keyed one, or back."""
        item = self.inventory[number]
        return value if self.reverses(item) == (item.sign < 0) else self.inventory.reverse(value)


class Corrected(EvaluationProtocol):
    """Literal truth, missing answers left out, log-probabilities read after ``Option (``."""

    name = "corrected"
    version = 2  # 2: option logits in float32
    reading = Reading(opening="Option (", generates=False)
    few_shot_separator = ";"
    probes_split_by_item = True
    heads_ranked_on_training = False
    chooses_on_held_out = False
    is_the_papers = False


class AsReleased(EvaluationProtocol):
    """The released code: stored truth, zeros counted, greedy generation, choices on the held-out answers."""

    name = "as_released"
    version = 2  # 2: a model's own generation settings have no say
    reading = FREE_GENERATION
    few_shot_separator = ""
    probes_split_by_item = False
    heads_ranked_on_training = True
    chooses_on_held_out = True
    is_the_papers = True
    of_inventories = frozenset({"ipip_neo_300"})

    def selection(self, respondent: Respondent, seed: int, told: Collection[int] | None = None) -> Answers:
        """The held-out answers themselves: a leak of the released code, kept only to reproduce it."""
        return self.held_out(respondent)

    def reverses(self, item: Item) -> bool:
        """The released code takes answers as stored, and those to negatively keyed items are stored reversed."""
        return self.inventory.stores_keyed and item.sign < 0

    def statement(self, item: Item) -> str:
        return prompts.statement_as_released(item)

    def listed(self, known: Answers, missing: Collection[int] = ()) -> Answers:
        return self.orient(known) | dict.fromkeys(missing, 0)

    def truth(self, literal: Answers) -> Answers:
        """As stored; a missing held-out answer counts as 0."""
        unanswered: dict[int, float] = dict.fromkeys(self.inventory.held_out, 0)
        return unanswered | self.orient(literal)


PROTOCOLS: dict[str, type[EvaluationProtocol]] = {"corrected": Corrected, "as_released": AsReleased}


def protocol_of(name: str, inventory: Inventory) -> EvaluationProtocol:
    """The protocol of this name over this inventory. Raises UserError."""
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name} does not exist; choose one of {', '.join(PROTOCOLS)}.")
    only = PROTOCOLS[name].of_inventories
    if only is not None and inventory.name not in only:
        raise UserError(f"protocol={name} is defined for inventory={', '.join(sorted(only))} alone, not for "
                        f"{inventory.name}; use protocol=corrected.")  # fmt: skip
    return PROTOCOLS[name](inventory)


def audit_items(inventory: Inventory) -> list[Item]:
    """The 20 held-out items of the free-generation audit: the same for everyone, spread over the inventory."""

    def rank(number: int) -> str:
        return hashlib.sha256(f"audit-{inventory.name}-{number}".encode()).hexdigest()

    return inventory.select(sorted(sorted(inventory.held_out, key=rank)[:AUDIT_ITEMS]))
