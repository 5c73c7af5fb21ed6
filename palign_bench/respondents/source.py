"""Where people come from: a `RespondentSource`, whatever it was loaded from.

A source keeps all its people, whatever the limit or shard, because some aligners learn from the other people. Only ids,
literal answers and portraits are in it: age, sex, country and timestamps never leave a loader.
"""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from palign_bench.questionnaire.inventory import Respondent
from palign_bench.settings import UserError, is_whole

_NAMED = 5  # ids that an error message lists before it counts the rest


class RespondentsError(UserError):
    """People cannot be loaded or selected; the message is one line for the user and names the remedy."""


@dataclass(frozen=True)
class RespondentSource:
    """People from one place.

    ``name``: "papi", "simulated", "file", "dark_triad" or "dark_triad_<rule>". ``description``: for a table's title,
    e.g. "300 people of PAPI". ``people``: all of them, in the source's own order. ``notes``: what a reader should know
    of how they were read.
    """

    name: str
    description: str
    people: tuple[Respondent, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 (hex) of everything about the people that can change a number: ids, literal answers, portraits."""
        digest = hashlib.sha256()
        for person in self.people:
            answers = [[number, person.answers[number]] for number in sorted(person.answers)]
            digest.update(json.dumps([person.id, answers, person.portrait]).encode() + b"\n")
        return digest.hexdigest()

    def select(self, limit: int | None = None, ids: Sequence[str] | None = None) -> tuple[Respondent, ...]:
        """The people with these ids (all when None), in the order given, and of these the first ``limit``.

        ``ids`` may name a file, as `palign-bench select` writes it: the first column is taken, less a header ``id``.

        A limit above the number of people selects them all. Raises `RespondentsError` for an unknown or repeated id,
        an empty list of ids, and a limit that is no positive whole number.
        """
        chosen = self.people if ids is None else self._by_ids(ids)
        if limit is not None and not is_whole(limit, 1):
            raise RespondentsError(f"respondents.limit={limit}: give a whole number of at least 1, or null for all")
        return chosen[:limit]

    def _by_ids(self, ids: Sequence[str]) -> tuple[Respondent, ...]:
        if isinstance(ids, str) and Path(ids).expanduser().is_file():
            ids = _listed(Path(ids).expanduser())
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise RespondentsError(
                f"respondents.ids={ids}: give a list, as in respondents.ids=[{ids}], or a file of ids"
            )
        wanted = [str(each) for each in ids]  # a number on the command line arrives as a number
        if not wanted:
            raise RespondentsError("respondents.ids is an empty list: name at least one id, or null for all")
        repeated = [each for each, count in Counter(wanted).items() if count > 1]
        if repeated:
            raise RespondentsError(f"respondents.ids names {_listing(repeated)} more than once: name each id once")
        by_id = {person.id: person for person in self.people}
        unknown = [each for each in wanted if each not in by_id]
        if unknown:
            known = _listing([person.id for person in self.people])
            raise RespondentsError(f"respondents.ids: unknown {_listing(unknown)}; ids of {self.name} are {known}")
        return tuple(by_id[each] for each in wanted)


def _listed(place: Path) -> list[str]:
    try:
        rows = [row for row in csv.reader(place.read_text(encoding="utf-8-sig").splitlines()) if row and row[0].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RespondentsError(f"respondents.ids={place}: not a list of ids ({error})") from error
    return [row[0].strip() for row in rows if row[0].strip() != "id"]


def _listing(ids: Sequence[str]) -> str:
    more = f" … ({len(ids)} in all)" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
