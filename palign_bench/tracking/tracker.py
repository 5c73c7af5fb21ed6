"""What follows a run as it happens (`Tracker`): nothing, or a mirror of the ledger.

What leaves the ledger for a mirror is listed here, and nothing else does: of a row what its fingerprint covers, of a
person scores, trait scores and costs, of a table its numbers. People stand under salted hashes, in an order that the
salt decides. A score over fewer than `FEWEST_ITEMS` answers of a person is withheld: the mean of one answer is that
answer.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from palign_bench.costs.figures import BY_NAME, FIGURES
from palign_bench.settings import counted
from palign_bench.tracking.public import hashed_id, plain, read_salt

log = logging.getLogger(__name__)

FEWEST_ITEMS = 3  # held-out answers of a person to a scale, below which its score stays here
FEWEST_PEOPLE = 3  # in a table, below which its means of such scales stay here
LONGEST_TAG = 64  # characters; W&B refuses longer ones
_COSTS = tuple(figure.name for figure in FIGURES if figure.followed)
_TEXTS = ("method", "label", "protocol", "model")  # the columns of a table whose texts may leave
_COUNTS = ("respondents", "missing_cells", "unscored", "known_answers")


class Tracker:
    """Follows nothing (``tracking=none``); a mirror of the ledger keeps what the methods with an underscore are given.

    A row is opened, its people come one by one, the row is closed; at the end come the tables. A mirror must never cost
    the sweep: what it cannot keep it says once and leaves out. ``salt_file``: see `read_salt`.
    """

    follows_people = False  # whether anything is kept, and so records of people finished before need to be read
    follows_finished_rows = False  # whether a row is told of although all its people were finished before
    service = ""  # its name in messages

    def __init__(self, salt_file: Path = Path(".salt")):
        self.salt_file = salt_file
        self._people: dict[str, dict[str, Any]] = {}
        self._scale_of: Mapping[str, str] = {}
        self._is_open = False
        self._told = False

    def _open(self, id_: str, name: str, group: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        """Open a run. ``id_``: the same whenever the same row or table is followed. ``kind``: row or table."""

    def _keep_progress(self, finished: int) -> None:
        """Keep how many people are finished."""

    def _keep_people(self, names: list[str], people: list[list[Any]]) -> None:
        """Keep the figures of these names of a row's people; the first is ``respondent``, None what somebody lacks."""

    def _keep_table(self, table: pd.DataFrame, pictures: Sequence[Path], title: str) -> None:
        """Keep a table and its pictures."""

    def _close(self, summary: Mapping[str, Any]) -> None:
        """Close the run with these figures."""

    def start_row(
        self,
        identity: Mapping[str, Any],
        name: str,
        group: str,
        tags: Sequence[str] = (),
        *,
        key: str = "",
        scale_of: Mapping[str, str] | None = None,
    ) -> None:
        """Open one row: method × model × protocol × seed.

        ``identity``: what the row's fingerprint covers. ``group``: the experiment. ``key``: what distinguishes the row
        from all others of the ledger (its cell folder). ``scale_of``: the scale of each held-out item, by number.
        """
        if not self.follows_people:
            return
        if self._is_open:  # a row that broke off before its summary
            with self._safely():
                self._close({})
        self._people, self._scale_of, self._is_open = {}, scale_of or {}, False
        with self._safely():
            short = list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag))
            self._open(self._id(group, key or name), name, group, "row", without_places(identity), short)
            self._is_open = True

    def log_person(self, record: Mapping[str, Any]) -> None:
        """Follow one finished cell, given as the ledger's record; only scores, trait scores and costs are read."""
        if not self._is_open:
            return
        with self._safely():
            thin = thin_scales(record.get("truth", {}), self._scale_of)
            respondent = hashed_id(read_salt(self.salt_file), str(record["respondent"]))
            self._people[respondent] = figures_of(record, thin)
            self._keep_progress(len(self._people))

    def finish_row(self, summary: Mapping[str, Any]) -> None:
        """Close the row with what the means over its people do not tell: numbers by name."""
        if not self._is_open:
            return
        self._is_open = False
        people = [{"respondent": each, **figures} for each, figures in sorted(self._people.items())]
        names = list(dict.fromkeys(name for person in people for name in person))
        if people:
            with self._safely():
                self._keep_people(names, [[person.get(name) for name in names] for person in people])
        numbers = {name: plain(value) for name, value in summary.items()}
        with self._safely():
            self._close({**means_of(list(self._people.values())), **numbers})

    def log_table(
        self,
        table: pd.DataFrame,
        pictures: Sequence[Path],
        group: str,
        name: str,
        scale_of: Mapping[str, str] | None = None,
    ) -> None:
        """Keep a finished table and its pictures (PNG or JPEG; other formats stay in the ledger's folder).

        ``group``, ``name``: the experiment and which of its tables.
        """
        if not self.follows_people:
            return
        with self._safely():
            shown, drawn = public_table(table, scale_of or {}), list(pictures)
            if len(shown.columns) < len(table.columns) and "composite" not in shown.columns:
                drawn = []  # they would show what the table does not
            title = f"{group}: {counted(len(shown), 'row', 'rows')}"
            self._open(self._id(group, f"table/{name}"), "table", group, "table", {}, [])
            self._keep_table(shown, drawn, title)
            self._close({"rows": len(shown)})

    def _id(self, group: str, key: str) -> str:
        """Stays the same over restarts, differs between ledgers, and tells nothing."""
        return hashed_id(read_salt(self.salt_file), f"{group}/{key}")

    @contextmanager
    def _safely(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            level = logging.DEBUG if self._told else logging.WARNING
            self._told = True
            message = "%s could not keep everything (%s): the sweep goes on, its results are in the ledger"
            log.log(level, message, self.service, one_line(error))
            log.debug("what %s could not keep", self.service, exc_info=True)


def figures_of(record: Mapping[str, Any], thin: Sequence[str] = ()) -> dict[str, Any]:
    """What is told of one person: scores, the model's trait scores beside the person's own, and costs.

    ``thin``: scales that are withheld, and with them the composite, from which they could be found.
    """
    withheld = {*thin, "composite"} if thin else set()
    scores = {name: value for name, value in record["scores"].items() if name not in withheld}
    figures = {name: _number(value) for name, value in scores.items()}
    for prefix, part in (("trait", "traits"), ("person_trait", "person_traits")):
        traits = {name: value for name, value in record.get(part, {}).items() if name not in withheld}
        figures.update({f"{prefix}/{name}": _number(value) for name, value in traits.items()})
    return {**figures, **{name: _number(record["cost"].get(name)) for name in _COSTS}}


def thin_scales(truth: Mapping[str, Any], scale_of: Mapping[str, str]) -> list[str]:
    """Scales to which the person gave fewer than `FEWEST_ITEMS` held-out answers."""
    counts = Counter(scale_of[item] for item, answer in truth.items() if item in scale_of and answer)
    return sorted({scale for scale in scale_of.values() if counts[scale] < FEWEST_ITEMS})


def means_of(people: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the people, costs as the table sums them up, the composite as the sum of the mean domains (Eq. 2)."""
    values: dict[str, list[float]] = {}
    for person in people:
        for name, value in person.items():
            if value is not None and name != "respondent":
                values.setdefault(name, []).append(value)
    means = {
        name: BY_NAME[name].over(known) if name in BY_NAME else sum(known) / len(known)
        for name, known in values.items()
    }
    if "composite" in means:
        means["composite"] = sum(
            means[name] for name in means if "/" not in name and name not in (*_COSTS, "composite")
        )
    return means


def public_table(table: pd.DataFrame, scale_of: Mapping[str, str]) -> pd.DataFrame:
    """The columns of a table that may leave: numbers, and texts that name methods, models and protocols.

    Of fewer than `FEWEST_PEOPLE` people nothing leaves that hangs on a scale with fewer than `FEWEST_ITEMS` items: the
    means of the other scales do, counts and costs, and no figure over all scales.
    """
    counts = Counter(scale_of.values())
    thin = [scale for scale, count in counts.items() if count < FEWEST_ITEMS]
    few = "respondents" in table.columns and bool((table["respondents"] < FEWEST_PEOPLE).any())
    harmless = {*scale_of.values(), *_TEXTS, *_COUNTS, *BY_NAME}.difference(thin)
    kept: dict[str, Any] = {}
    for name in map(str, table.columns):
        if thin and few and name not in harmless and "seconds" not in name:
            continue
        if pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().all():
            kept[name] = table[name]
        elif name in _TEXTS:
            kept[name] = table[name].map(lambda text: re.split(r"[/\\]", str(text))[-1] if _is_place(text) else text)
    return pd.DataFrame(kept)


def without_places(value: Any) -> Any:
    """The value without texts that are paths or addresses, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): without_places(each) for key, each in value.items() if not _is_place(each)}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value if not _is_place(each)]
    return plain(value)


def _is_place(text: Any) -> bool:
    """Whether a text is a path or an address, rather than a name like ``owner/model``."""
    return isinstance(text, str) and bool(re.match(r"[/~.\\]|[A-Za-z]:[/\\]|\w+://", text) or text.count("/") > 1)


def _number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    value = plain(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
