"""The figures of what a method costs, each declared once.

A cell's record, the ledger's columns, the table, the efficiency page and the trackers take names, units, headings and
summaries from `FIGURES`: a new figure is one line here and one `palign_bench.costs.clock.charge` where it arises.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from palign_bench.costs.clock import Cost

_COUNTED = frozenset({"tokens", "steps", "numbers", "bytes", "times"})
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
        found = getattr(cost, self.quantity, cost.amounts.get(self.quantity, self.absent))
        return None if found is None else self._rounded(found)

    def over(self, people: Sequence[float]) -> float:
        """The figure of a row, from those of at least one of its people."""
        return self._rounded(_SUMMARIES[self.over_people](people))

    def _rounded(self, value: float) -> float:
        return round(value) if self.whole else float(value)


FIGURES: tuple[CostFigure, ...] = (
    CostFigure("align_seconds", "seconds", "align", "seconds", "align\nseconds", varies=True, followed=True),
    CostFigure("search_seconds", "seconds", "align", "search_seconds", "of it\nsearch", varies=True),
    CostFigure("seconds_per_step", "seconds", "align", "seconds_per_step", varies=True, absent=None),
    CostFigure("tokens_per_step", "tokens", "align", "tokens_per_step", absent=None),
    CostFigure("joules_per_step", "joules", "align", "joules_per_step", absent=None),
    CostFigure("answer_seconds", "seconds", "answer", "seconds", "answer\nseconds", varies=True, followed=True),
    CostFigure(  # above the bare model's; what the whole process takes is the efficiency page's ``total_memory_mib``
        "peak_memory_mib",
        "MiB",
        "both",
        "peak_memory_mib",
        "MiB over\nthe model",
        over_people="highest",
        varies=True,
        followed=True,
    ),
    CostFigure("trained_parameters", "numbers", "cell", heading="trained\nparameters"),
    CostFigure("stored_bytes", "bytes", "cell", heading="bytes\nstored"),
    CostFigure("tokens_read", "tokens", "answer", "tokens_read", "tokens\nread"),
    CostFigure("tokens_generated", "tokens", "answer", "tokens_generated", "tokens\ngenerated"),
    CostFigure("align_tokens_read", "tokens", "align", "tokens_read"),
    CostFigure("align_tokens_generated", "tokens", "align", "tokens_generated"),
    CostFigure("training_tokens", "tokens", "align", "training_tokens"),
    CostFigure("optimizer_steps", "steps", "align", "optimizer_steps", "steps"),
    CostFigure(
        "reserved_memory_mib", "MiB", "both", "reserved_memory_mib", "reserved\nMiB", "gpu", over_people="highest"
    ),
    CostFigure("joules", "joules", "both", "joules", "joules", "gpu", varies=True),
    CostFigure("cost_repeats", "times", "cell", over_people="lowest"),
)
BY_NAME = {figure.name: figure for figure in FIGURES}


def cell_costs(align: Cost, answer: Cost, **of_cell: int) -> dict[str, Any]:
    """The figures of one cell by name: those of its phases, and ``of_cell``."""
    phases = {"align": align, "answer": answer, "both": align.followed_by(answer)}
    return {each.name: each.of(phases[each.phase]) for each in FIGURES if each.phase != "cell"} | of_cell
