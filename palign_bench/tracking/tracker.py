"""What follows a run as it happens (`Tracker`): nothing, or a mirror of the ledger.

What leaves the ledger for a mirror is listed here, and nothing else does: of a row what its fingerprint covers, of a
person scores, trait scores and costs, of a table its numbers. People stand under salted hashes, in an order that the
salt decides. A score over fewer than `FEWEST_ITEMS` answers of a person is withheld, for the mean of one answer is that
answer, and with it every figure over several people that would tell it.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from palign_bench.files import write_atomically
from palign_bench.settings import counted
from palign_bench.tracking.public import (
    figures_of,
    hashed_id,
    means_of,
    plain,
    public_identity,
    public_table,
    read_salt,
    thin_scales_of,
    withheld,
)

log = logging.getLogger(__name__)

LONGEST_TAG = 64  # characters; W&B refuses longer ones


class Tracker:
    """Follows nothing (``tracking=none``); a mirror of the ledger keeps what the methods with an underscore are given.

    A row is opened, its people come one by one, the row is closed; at the end come the tables. A mirror must never cost
    the sweep: what it cannot keep it says once and leaves out. ``salt_file``: see `read_salt`.
    """

    follows_people = False  # whether anything is kept, and so records of people finished before need to be read
    service = ""  # its name in messages
    project = ""  # where it keeps runs

    def __init__(self, salt_file: Path = Path(".salt")):
        self.salt_file = salt_file
        self._row = ""  # the id of the run that was opened last
        self._people: dict[str, dict[str, Any]] = {}
        self._withheld: set[str] = set()
        self._scale_of: Mapping[str, str] = {}
        self._is_open = False
        self._told = False

    def _is_kept(self, id_: str) -> bool:
        """Whether there is a run of this id."""
        return True

    def _open(
        self, id_: str, name: str, experiment: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]
    ) -> None:
        """Open a run. ``id_``: the same whenever the same row or table is followed. ``kind``: row or table."""

    def _keep_progress(self, finished: int) -> None:
        """Keep how many people are finished."""

    def _keep_people(self, names: list[str], people: list[list[Any]]) -> None:
        """Keep the figures of these names of a row's people; the first is ``respondent``, None what somebody lacks."""

    def _keep_table(self, table: pd.DataFrame, pictures: Sequence[Path], title: str) -> None:
        """Keep a table and its pictures."""

    def _close(self, summary: Mapping[str, Any]) -> None:
        """Close the run with these figures."""

    def check_rows(self, names: Sequence[str]) -> None:
        """Raise UserError where a command of these rows cannot be followed; asked before anything is computed."""

    def wants_finished_row(self, experiment: str, key: str, people: Collection[str]) -> bool:
        """Whether a row is to be told of although nothing of it is computed: there is no run of it over these people.

        Another experiment, or the same without a tracker or for more people, computed it. ``key``: see `start_row`.
        ``people``: the ids of those who are finished.
        """
        if self.follows_people:
            with self._safely():
                id_, salt = self._id(experiment, key), read_salt(self.salt_file)
                told, mark = self._told_of(hashed_id(salt, each) for each in people), self._mark(id_)
                return not self._is_kept(id_) or not mark.exists() or mark.read_text(encoding="ascii") != told
        return False

    def start_row(
        self,
        identity: Mapping[str, Any],
        name: str,
        experiment: str,
        tags: Sequence[str] = (),
        *,
        key: str = "",
        scale_of: Mapping[str, str] | None = None,
    ) -> None:
        """Open one row: method × model × protocol × seed.

        ``identity``: what the row's fingerprint covers. ``key``: what distinguishes the row from all others of the
        ledger (its cell folder). ``scale_of``: the scale of each held-out item, by number.
        """
        if not self.follows_people:
            return
        if self._is_open:  # a row that broke off before its summary
            with self._safely():
                self._close({})
        self._people, self._withheld, self._scale_of, self._is_open = {}, set(), scale_of or {}, False
        with self._safely():
            short = list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags if tag))
            self._row = self._id(experiment, key or name)
            self._mark(self._row).unlink(missing_ok=True)
            self._open(self._row, name, experiment, "row", public_identity(identity), short)
            self._is_open = True

    def log_person(self, record: Mapping[str, Any]) -> None:
        """Follow one finished cell, given as the ledger's record; only scores, trait scores and costs are read."""
        if not self._is_open:
            return
        with self._safely():
            thin = thin_scales_of(record, self._scale_of)
            self._withheld |= withheld(thin)
            respondent = hashed_id(read_salt(self.salt_file), str(record["respondent"]))
            self._people[respondent] = figures_of(record, thin)
            self._keep_progress(len(self._people))

    def finish_row(self, summary: Mapping[str, Any]) -> None:
        """Close the row with what the means over its people do not tell: numbers by name.

        A mean for which somebody's figure is withheld is left out: over the others it would not be the table's, and
        beside the table's it would tell that figure.
        """
        if not self._is_open:
            return
        self._is_open = False
        people = [{"respondent": each, **figures} for each, figures in sorted(self._people.items())]
        names = list(dict.fromkeys(name for person in people for name in person))
        if people:
            with self._safely():
                self._keep_people(names, [[person.get(name) for name in names] for person in people])
        means = means_of(list(self._people.values()))
        shown = {name: mean for name, mean in means.items() if name not in self._withheld}
        numbers = {name: plain(value) for name, value in summary.items()}
        with self._safely():
            self._close({**shown, **numbers})
            write_atomically(self._mark(self._row), self._told_of(self._people))

    def log_table(
        self,
        table: pd.DataFrame,
        pictures: Sequence[Path],
        experiment: str,
        name: str,
        scale_of: Mapping[str, str] | None = None,
        thin: Collection[str] = (),
    ) -> None:
        """Keep a finished table and its pictures (PNG or JPEG; other formats stay in the ledger's folder).

        ``name``: which of the experiment's tables. ``thin``: the `thin_scales` of its people; with any there are no
        pictures, which show everybody's composite.
        """
        if not self.follows_people:
            return
        with self._safely():
            shown = public_table(table, scale_of or {}, thin)
            title = f"{experiment}: {counted(len(shown), 'row', 'rows')}"
            self._open(self._id(experiment, f"table/{name}"), "table", experiment, "table", {}, [])
            self._keep_table(shown, [] if thin else pictures, title)
            self._close({"rows": len(shown)})

    def _id(self, within: str, key: str) -> str:
        """Stays the same over restarts, differs between ledgers, and tells nothing."""
        return hashed_id(read_salt(self.salt_file), f"{within}/{key}")

    def _mark(self, id_: str) -> Path:
        """The file beside the salt that tells over whom a row's run is, since services cannot be asked offline."""
        return self.salt_file.with_name(".mirrored") / self._id(f"{self.service}/{self.project}", id_)

    def _told_of(self, hashed_ids: Iterable[str]) -> str:
        return self._id("people", " ".join(sorted(hashed_ids)))

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


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
