"""The figures of what a method costs, each declared once.

A cell's record, the ledger's columns, the table, the efficiency page and the trackers take names, units, headings and
summaries from `FIGURES`: a new figure is one line of ``figures.yaml`` and one call of `charge` where it arises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from statistics import median
from typing import Any, Literal

import yaml

from palign_bench.costs.clock import Cost

_COUNTED = frozenset({"tokens", "steps", "numbers", "bytes", "times"})
_MEASURED = frozenset(each.name for each in fields(Cost))  # what else a figure names is an amount that is charged
_SUMMARIES: Mapping[str, Callable[[Sequence[float]], float]] = {"median": median, "highest": max, "lowest": min}


@dataclass(frozen=True)
class CostFigure:
    """One figure of a cell's cost.

    ``phase``: "align", "answer", "both" (seconds, energy and amounts are added, of peaks the higher counts), or "cell"
    for what no phase takes. ``quantity``: a field of `Cost`, or an amount that is charged. ``heading``: over its column
    in ``table``, with a line break where it may wrap; "" where no table shows it. ``over_people``: how a row sums up
    its people. ``varies``: whether repeats of one cell differ. ``followed``: whether trackers are told. ``absent``: the
    value where nothing was charged.
    """

    name: str
    unit: str
    phase: Literal["align", "answer", "both", "cell"]
    quantity: str = ""
    heading: str = ""
    table: Literal["costs", "gpu"] = "costs"
    over_people: Literal["median", "highest", "lowest"] = "median"
    varies: bool = False
    followed: bool = False
    absent: float | None = 0

    @property
    def whole(self) -> bool:
        """Whether it is a whole number."""
        return self.unit in _COUNTED

    def of(self, cost: Cost) -> float | None:
        """The figure of one phase's cost."""
        measured = self.quantity in _MEASURED
        found = getattr(cost, self.quantity) if measured else cost.amounts.get(self.quantity, self.absent)
        return None if found is None else self._rounded(found)

    def over(self, people: Sequence[float]) -> float:
        """The figure of a row, from those of at least one of its people."""
        return self._rounded(_SUMMARIES[self.over_people](people))

    def _rounded(self, value: float) -> float:
        return round(value) if self.whole else float(value)


_CATALOGUE = resources.files(__package__).joinpath("figures.yaml").read_text(encoding="utf-8")
FIGURES: tuple[CostFigure, ...] = tuple(CostFigure(**entry) for entry in yaml.safe_load(_CATALOGUE))
BY_NAME = {figure.name: figure for figure in FIGURES}


def cell_costs(align: Cost, answer: Cost, **of_cell: int) -> dict[str, Any]:
    """The figures of one cell by name: those of its phases, and ``of_cell``."""
    phases = {"align": align, "answer": answer, "both": align.followed_by(answer)}
    return {each.name: each.of(phases[each.phase]) for each in FIGURES if each.phase != "cell"} | of_cell
