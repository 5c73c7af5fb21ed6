"""What follows a run as it happens (`Tracker`), and what it is told of each person."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
from palign_bench.costs.figures import BY_NAME, FIGURES
from palign_bench.tracking.public import _plain

_COSTS = tuple(figure.name for figure in FIGURES if figure.followed)


class Tracker(ABC):
    """Follows a sweep: a row is opened, its people come one by one, the row is closed; at the end comes the table."""

    follows_people = True  # False: the records of people who were finished before need not be read

    @abstractmethod
    def start_row(self, config: Mapping[str, Any], name: str, group: str, tags: Sequence[str] = ()) -> None:
        """Open one row: method × model × protocol × seed. ``group``: the experiment."""

    @abstractmethod
    def log_person(self, record: Mapping[str, Any]) -> None:
        """Follow one finished cell, given as the ledger's record; only scores, trait scores and costs are read."""

    @abstractmethod
    def finish_row(self, summary: Mapping[str, Any]) -> None:
        """Close the row with what the means over its people do not tell: numbers by name."""

    @abstractmethod
    def log_table(self, table: pd.DataFrame, figures: Sequence[Path], title: str) -> None:
        """Keep the finished table and its pictures (PNG or JPEG; other formats stay in the ledger's folder)."""


class NoTracker(Tracker):
    """Follows nothing: ``tracking=none``."""

    follows_people = False

    def start_row(self, config: Mapping[str, Any], name: str, group: str, tags: Sequence[str] = ()) -> None:
        pass

    def log_person(self, record: Mapping[str, Any]) -> None:
        pass

    def finish_row(self, summary: Mapping[str, Any]) -> None:
        pass

    def log_table(self, table: pd.DataFrame, figures: Sequence[Path], title: str) -> None:
        pass


def figures_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of one person: scores, the model's trait scores beside the person's own, and costs."""
    figures = {name: _plain(value) for name, value in record["scores"].items()}
    for prefix, part in (("trait", "traits"), ("person_trait", "person_traits")):
        figures.update({f"{prefix}/{name}": _plain(value) for name, value in record.get(part, {}).items()})
    return {**figures, **{name: _plain(record["cost"].get(name)) for name in _COSTS}}


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


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
