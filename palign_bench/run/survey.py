"""Who is asked what: the part of a job that no model has to do with, so that its mistakes are told before PyTorch is
imported, which takes seconds."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory, Respondent
from palign_bench.questionnaire.protocol import EvaluationProtocol, protocol_of
from palign_bench.questionnaire.variant import Variant
from palign_bench.report.table import COLUMNS_BESIDE_SCALES
from palign_bench.respondents import RespondentSource
from palign_bench.run.claims import RETRIES
from palign_bench.run.isolated import cost_repeats
from palign_bench.run.session import Session
from palign_bench.settings import Settings, UserError, is_number, is_whole

Each = TypeVar("Each")
_MOST_PARTS = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of the ``count`` that the people of a run are cut into."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: Any) -> Self | None:
        """``shard=2/4``; None for null. Raises UserError for anything but a part of a whole."""
        if text is None:
            return None
        match = re.fullmatch("([0-9]{1,7})/([0-9]{1,7})", str(text))
        if match and 1 <= int(match[1]) <= int(match[2]) <= _MOST_PARTS:
            return cls(int(match[1]), int(match[2]))
        raise UserError(f"shard={text}: give i/n with 1 ≤ i ≤ n, as in shard=2/4, or null for everyone.")

    def cut(self, people: Sequence[Each]) -> Sequence[Each]:
        """This part's people: neighbours, so that the parts in order are all the people in order; sizes differ by 1."""
        total = len(people)
        return people[total * (self.index - 1) // self.count : total * self.index // self.count]

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """People and what they are asked. ``people``: those that the command asked for, of whom ``shard`` computes a part.

    ``known_answers``: how many of them a method is told; None: all. ``repeats``: under cost=isolated every cell is
    computed so often, after a warm-up, and none taken over. ``retry``: which missing cells are computed; see
    `claims.RETRIES`. ``row_seconds``: after which a row begins nobody else. ``intervention``: how known answers are
    changed before a method is told. ``variant``: how some of the held-out items are asked; None: all of them, as usual.
    """

    protocol: EvaluationProtocol
    source: RespondentSource
    people: tuple[Respondent, ...]
    seed: int
    known_answers: int | None = None
    intervention: Intervention | None = None
    variant: Variant | None = None
    repeats: int | None = None
    retry: str = RETRIES[0]
    row_seconds: float | None = None
    shard: Shard | None = None

    @classmethod
    def of(cls, settings: Settings, session: Session) -> "Survey":
        """Resolve the settings; the people are read once in a session. Raises UserError."""
        inventory, seed = session.inventory(settings["inventory"]), settings["seed"]
        check_numbers(settings, inventory)
        check_scales(inventory)
        asked = protocol_of(settings["protocol"]["name"], inventory)
        variant, told = Variant.parse(settings["variant"], asked), settings["known_answers"]
        source = session.source(settings["respondents"], inventory)
        return Survey(
            protocol=variant.told(asked, seed) if variant else asked,
            source=source,
            people=source.select(settings["respondents"].get("limit"), settings["respondents"].get("ids")),
            seed=seed,
            known_answers=None if told == len(inventory.known) else told,
            intervention=Intervention.parse(settings["intervention"], inventory),
            variant=variant,
            repeats=cost_repeats(settings),
            retry=settings["retry"],
            row_seconds=settings["row_seconds"],
            shard=Shard.parse(settings["shard"]),
        )

    @property
    def inventory(self) -> Inventory:
        return self.protocol.inventory

    @cached_property
    def asked(self) -> tuple[int, ...]:
        """Numbers of the held-out items that are asked and scored."""
        return self.inventory.held_out if self.variant is None else self.variant.items(self.inventory, self.seed)

    @property
    def part(self) -> tuple[int, int]:
        """Which part of the people is computed here, and of how many."""
        return (self.shard.index, self.shard.count) if self.shard else (1, 1)


def any_sound(settings: Iterable[Settings], session: Session) -> bool:
    """Whether any job of a command is without a mistake. Mistakes are noted in the session, each once."""
    sound = False
    for each in settings:
        try:
            Survey.of(each, session)
            sound = True
        except UserError as error:
            session.note(error)
    return sound


def check_scales(inventory: Inventory) -> None:
    """Raise UserError for a scale that is called as another column of a table, which would take its place."""
    if taken := [name for name in inventory.scales if name in ("method", "changed")]:
        raise UserError(
            f"inventory={inventory.name}: tables have a column {taken[0]} of their own; give that scale another name."
        )
    if taken := [name for name in inventory.scales.values() if name in COLUMNS_BESIDE_SCALES]:
        raise UserError(
            f"inventory={inventory.name}: the table has a column {taken[0]} of its own; give that scale another full "
            "name (scales: in the YAML file beside the items)."
        )


def check_numbers(settings: Settings, inventory: Inventory) -> None:
    """Raise UserError for a seed, a number of known answers, a limit of seconds or a choice of cells that cannot be."""
    seed, count, seconds, retry = (settings[key] for key in ("seed", "known_answers", "row_seconds", "retry"))
    known = len(inventory.known)
    if not is_whole(seed):
        raise UserError(f"seed={seed}: give a whole number.")
    if count is not None and (not is_whole(count, 1) or count > known):
        raise UserError(f"known_answers={count}: choose a whole number from 1 to {known}, or null for all.")
    if seconds is not None and not (is_number(seconds) and seconds > 0):
        raise UserError(f"row_seconds={seconds}: give a number of seconds above 0, or null for no limit.")
    if retry not in RETRIES:
        raise UserError(f"retry={retry}: choose one of {', '.join(RETRIES)}.")
