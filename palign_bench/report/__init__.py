"""Tables and pictures from the ledger; no model is ever loaded here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palign_bench.ledger.plan import Plan

if TYPE_CHECKING:
    from palign_bench.report.table import Report


class MadeReport(NamedTuple):
    """A table on disk: the report, the paths of its pictures (PNG, PDF) and the text for the terminal."""

    report: Report
    pictures: list[Path]
    text: str


def make_report(plan: Plan) -> MadeReport:
    """Write a plan's table (CSV, JSON, Markdown, LaTeX) and picture into its folder, and say so in the text.

    Raises LedgerError when nothing is planned there.
    """
    from palign_bench.report.pictures.learning_curve import draw_learning_curve
    from palign_bench.report.pictures.table import draw_figure  # pandas and matplotlib take seconds to import
    from palign_bench.report.table import write_table

    report = write_table(plan)
    experiment = report.about["experiment"]
    pictures = draw_figure(report, plan.folder / experiment)
    if len(set(report.frame["known_answers"].dropna())) > 1:
        pictures += draw_learning_curve(report, plan.folder / f"{experiment}_curve")
    files = ", ".join([*(f"{experiment}.{kind}" for kind in ("csv", "json", "md", "tex")), *(p.name for p in pictures)])
    text = f"{report.text}\nWritten to {plan.folder}: {files}\n"
    if report.about.get("cost_repeats"):
        from palign_bench.report.efficiency import write_efficiency

        text += f"\n{write_efficiency(plan)}"
    return MadeReport(report, pictures, text)
