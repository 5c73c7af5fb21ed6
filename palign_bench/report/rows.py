"""The ledger's cells as the rows of one table, and notes on what is wrong with them."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from palign_bench.costs.machine import TOLD_PACKAGES, hardware
from palign_bench.files import LedgerError, canonical
from palign_bench.ledger.columns import Array, Digest, Whole
from palign_bench.ledger.plan import UNNAMED, Plan, Row, runs_option
from palign_bench.ledger.record import Record
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.scoring import COMPOSITE
from palign_bench.report.document import written_out
from palign_bench.report.statistics import mean
from palign_bench.settings import options, read_option, shortened

MOST_FAILURE_NOTES = 5
FULLY = 0.995  # share of the items answered from which a row is not said to have answered a part
_LONGEST_MESSAGE = 90
_LONGEST_DIFFERENCE = 30
MOST_SUMMARIES = 300  # people whose records are read for what a page says of a row's alignments


@dataclass(frozen=True)
class RowNumbers(Row):
    """A planned row with what the ledger holds of it: the respondents whose cells are finished, in plan order.

    ``identity``: everything that can change one of its numbers. ``digest``: what a table needs of the finished cells,
    in the order of ``respondents``. ``scale_of``: the scale of every item. ``label``: a readable name, with a trained
    row's budget and, where rows of the table still read alike, what differs.
    """

    protocol: str
    model: str
    identity: Record
    respondents: tuple[str, ...]
    digest: Digest
    scale_of: Mapping[int, str]
    label: str = ""

    @property
    def has_random_weights(self) -> bool:
        """Whether its scores mean nothing, since the model's weights are random."""
        return (self.identity.get("model") or {}).get("weights") == "random"

    @property
    def budget(self) -> str | None:
        """A trained row's budget, and what departs from its method's file: "quick", "custom: steps=2"."""
        budget = self.identity["method"].get("budget")
        return budget if isinstance(budget, str) else None

    @property
    def is_as_shipped(self) -> bool:
        """Whether it is its method as `conf/` sets it, with the paper's budget if any, told and asked everything."""
        method = self.identity["method"]
        if any(each is not None for each in self.told) or self.budget not in (None, "paper"):
            return False
        if method["name"] not in options("method"):
            return False
        shipped = read_option("method", method["name"])
        return all(method.get(key, value) == value for key, value in shipped.items() if value != "auto")

    @property
    def known_answers(self) -> int | None:
        """How many of the known answers the method was told; None: all of them."""
        return self.identity.get("known_answers")

    @property
    def intervention(self) -> str | None:
        """How the known answers were changed before the method was told; None: not at all."""
        return self.identity.get("intervention")

    @property
    def variant(self) -> str | None:
        """How the held-out items were asked; None: as usual."""
        return self.identity.get("variant")

    @property
    def told(self) -> tuple[int | None, str | None, str | None]:
        """What the method was told and asked, as are the floors that it is compared with."""
        return self.known_answers, self.intervention, self.variant

    @cached_property
    def composites(self) -> dict[str, float]:
        """Composite by respondent, of those that have one."""
        scores = self.digest.figure(f"score/{COMPOSITE}").tolist()
        return {
            respondent: score
            for respondent, score in zip(self.respondents, scores, strict=True)
            if not math.isnan(score)
        }

    @property
    def composite(self) -> float | None:
        """Mean composite; None where nobody has one."""
        return mean(list(self.composites.values()))

    @property
    def unscored(self) -> int:
        """How many finished cells have no composite."""
        return len(self.respondents) - len(self.composites)

    @property
    def missing_cells(self) -> int:
        """How many planned cells are not finished."""
        return len(self.ids) - len(self.respondents)

    @cached_property
    def failures(self) -> dict[str, str]:
        """Why cells failed that are still not finished, by respondent."""
        unfinished = set(self.ids).difference(self.respondents)
        return {each: why for each, why in self.folder.failures().items() if each in unfinished}

    @cached_property
    def answered_share(self) -> float:
        """Share of the true answers, of all people, beside which the row has one; 1 where there is no truth."""
        asked = ~np.isnan(self.digest.truth_to(self.digest.items))
        return float((~np.isnan(self.digest.answers) & asked).sum() / asked.sum()) if asked.any() else 1.0

    def answers_of(self, people: Sequence[str], items: Whole) -> Array:
        """Answers ``(people, items)`` of some of its respondents; NaN where there is none."""
        return self._of(people).answers_to(items)

    def differences_of(self, people: Sequence[str], items: Whole) -> Array:
        """What these answers are away from the truth, ``(people, items)``; NaN where either is absent."""
        digest = self._of(people)
        return np.abs(digest.answers_to(items) - digest.truth_to(items))

    def _of(self, people: Sequence[str]) -> Digest:
        place = {respondent: index for index, respondent in enumerate(self.respondents)}
        return self.digest.take([place[each] for each in people])

    def summaries(self) -> list[Record]:
        """What its method says of each alignment, of the first `MOST_SUMMARIES` people."""
        cells = islice(self.folder.read_all(self.respondents), MOST_SUMMARIES)
        return [record["alignment"]["summary"] for _, record in cells]

    @property
    def of_first(self) -> str:
        """What is said before a number of people who have `summaries`, where others have none."""
        return "the first " if len(self.respondents) > MOST_SUMMARIES else ""

    def recorded(self, figure: str) -> Array:
        """One of the digest's figures, of the cells that have it."""
        values = self.digest.figure(figure)
        return values[~np.isnan(values)]


def read_rows(plan: Plan) -> tuple[list[RowNumbers], Record]:
    """The rows of the last command in order, and what the plan says about them. Only reads, never repairs.

    Raises LedgerError when nothing is planned.
    """
    planned, about = plan.read()
    if not planned:
        raise LedgerError(f"the plan in {plan.command.folder} has no rows: run the experiment again.")
    scale_of = {item.number: item.scale for item in Inventory.of_outline(about["inventory"]).items}
    rows = []
    for row in planned:
        respondents, digest = row.folder.digest(row.ids)
        told = {"protocol": about["protocol"], "model": about["model"], "identity": row.folder.identity()}
        told["scale_of"] = scale_of
        rows.append(RowNumbers(**vars(row), **told, respondents=tuple(respondents), digest=digest))
    return _labelled(rows), about


def by_method(rows: Iterable[RowNumbers], key: str) -> list[dict[Any, RowNumbers]]:
    """The rows that differ in one part of their identity alone, by that part; None where an identity lacks it.

    The version of what is told is no difference: it depends on how much is told and whether it is changed.
    """
    methods: dict[str, dict[Any, RowNumbers]] = {}
    for row in rows:
        rest = {name: value for name, value in row.identity.items() if name not in (key, "told_version")}
        methods.setdefault(canonical(rest), {})[row.identity.get(key)] = row
    return list(methods.values())


def label_without(label: str, setting: str) -> str:
    """A row's label less one of the settings that tell it apart: `` [k=2]`` of `` [k=2, variant=plain]``."""
    return re.sub(rf"(, )?{setting}=[^,\]]*", "", label).replace("[, ", "[").removesuffix(" []")


def people_of_all(rows: Sequence[RowNumbers]) -> list[str]:
    """The respondents whom every one of the rows has, in the order of the first."""
    shared = set.intersection(*(set(row.respondents) for row in rows)) if rows else set()
    return [respondent for respondent in rows[0].respondents if respondent in shared] if rows else []


def page_title(kind: str, about: Record, rows: Sequence[RowNumbers]) -> str:
    """The title of a page about a plan beside its table."""
    source = about["respondents_description"]
    return f"{kind}: {about['model_title']}, protocol {about['protocol']}{told_alike(rows)}, source: {source}"


def told_alike(rows: Sequence[RowNumbers]) -> str:
    """What all rows were told and asked otherwise than usual, which no label tells: ``, known_answers=5``."""
    names, values = ("known_answers", "intervention", "variant"), zip(*(row.told for row in rows), strict=True)
    alike = {name: set(each) for name, each in zip(names, values, strict=True)}
    return "".join(f", {name}={value}" for name, (value, *more) in alike.items() if not more and value is not None)


def _labelled(rows: Sequence[RowNumbers]) -> list[RowNumbers]:
    names = [row.title + (f" ({row.budget})" if row.budget else "") for row in rows]
    labelled = []
    for row, name in zip(rows, names, strict=True):
        alike = [other for other, of_other in zip(rows, names, strict=True) if of_other == name]
        labelled.append(replace(row, label=name + (_difference(row, alike) if len(alike) > 1 else "")))
    return labelled


def _difference(row: RowNumbers, rows: Sequence[RowNumbers]) -> str:
    """What tells the row from the others of its name: `` [k=6]``; else the fingerprint."""
    twins = [_settings(other) for other in rows]
    mine = _settings(row)
    told = [f"{key}={mine[key]}" for key in mine if any(other.get(key) != mine[key] for other in twins)]
    text = ", ".join(told)
    if not told or len(text) > _LONGEST_DIFFERENCE or twins.count(mine) > 1:
        text = row.folder.path.name.rsplit("-", 1)[-1][:6]
    return f" [{text}]"


def _settings(row: RowNumbers) -> dict[str, Any]:
    """The method's settings, the seed, and what it was told and asked: what one command may sweep over."""
    told = {
        "seed": row.identity.get("seed"),
        "known": row.known_answers or "all",
        "intervention": row.intervention or "none",
        "variant": row.variant or "none",
    }
    return {**row.identity["method"], **told}


def ledger_notes(rows: Sequence[RowNumbers], about: Record) -> list[str]:
    """What a reader must know about the cells: missing ones, failures, unequal people, mixed code and machines.

    ``about``: what the plan says of the table.
    """
    measured = [(row.label, found) for row in rows if (found := row.folder.measurement())]
    entries = [entry for folder in {row.folder for row in rows} for entry in folder.provenance()]
    versions = {name: {str(each.get("packages", {}).get(name)) for each in entries} for name in TOLD_PACKAGES}
    return written_out(
        "ledger",
        experiment=about.get("experiment", ""),
        at=runs_option(UNNAMED) if any(row.folder.path.parents[1] != Path("runs") for row in rows) else "",
        missing=[f"{row.label} {row.missing_cells}" for row in rows if row.missing_cells],
        failures=_failures(rows).most_common(),
        most_failures=MOST_FAILURE_NOTES,
        unequal=len({frozenset(row.respondents) for row in rows}) > 1,
        unscored=[f"{row.label} {row.unscored}" for row in rows if row.unscored],
        partly=[f"{row.label} {row.answered_share:.0%}" for row in rows if row.answered_share < FULLY],
        measured=[label for label, _ in measured],
        all_measured=len(measured) == len(rows),
        repeats=sorted({state["cost_repeats"] for _, states in measured for state in states}),
        loads=[state["load_averages"][0] for _, states in measured for state in states],
        commits=sorted({str(each["git_commit"])[:10] for each in entries if each.get("git_commit")}),
        changed=any(each.get("git_dirty") for each in entries),
        machines=sorted({hardware(each) for each in entries if each.get("processor")}),
        versions=[f"{name} {' and '.join(sorted(found))}" for name, found in versions.items() if len(found) > 1],
    )


def _failures(rows: Sequence[RowNumbers]) -> Counter[tuple[str, str, str]]:
    """How often each row failed with each message, and its folder; no respondents' ids: notes may leave the machine."""
    failures: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for message in row.failures.values():
            failures[row.label, shortened(message, _LONGEST_MESSAGE), row.folder.path.name] += 1
    return failures
