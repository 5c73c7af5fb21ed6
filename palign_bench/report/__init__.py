"""Tables and pictures from the ledger; no model is ever loaded here."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from palign_bench.ledger.plan import UNNAMED, Plan

if TYPE_CHECKING:
    from palign_bench.report.document import Written
    from palign_bench.report.table import Report


class MadeReport(NamedTuple):
    """A table on disk: the report, the paths of its pictures (PNG, PDF) and the text for the terminal."""

    report: "Report"
    pictures: list[Path]
    text: str


def make_report(plan: Plan, legend: bool = False, wide: bool = False) -> MadeReport:
    """Write a plan's table (CSV, JSON, Markdown, LaTeX, HTML), result cards and pictures into its folder.

    The text says what was written, also where the folder cannot be written to. ``legend``, ``wide``: see
    `document.terminal`. Raises LedgerError when nothing is planned there.
    """
    from palign_bench.report.cards import write_cards
    from palign_bench.report.document import Document, Written, terminal
    from palign_bench.report.table import as_json, build_report  # pandas takes a second to import
    from palign_bench.report.words import conclusions, describe

    report = build_report(plan)
    base, written = plan.folder / report.about["experiment"], Written()
    written.add(base.with_name(f"{base.name}.csv"), report.frame.to_csv(index=False))
    written.add(base.with_name(f"{base.name}.json"), as_json(report))
    write_cards(report, plan, written)
    from palign_bench.report.effects import have_effects, write_effects
    from palign_bench.report.invariance import have_invariance, write_invariance

    if have_invariance(report.read):
        return MadeReport(report, [], write_invariance(plan, report.inventory, written))
    if have_effects(report.read, report.inventory.scales):
        return MadeReport(report, [], write_effects(plan, report.inventory.scales, written))
    pictures = _draw(report, base, written)
    drawn = [path.name for path in pictures if path.suffix == ".png"]
    told = plan.runs if plan.runs == Path("runs") else UNNAMED
    document = describe(report, drawn, told)
    replace(document, blocks=[*document.blocks, *conclusions(report, told)]).write(base, written)
    shown = terminal(describe(report, drawn, plan.runs), legend=legend, wide=wide)
    text = f"{shown}\n{written.told(plan.folder)}\n"
    said = conclusions(report, plan.runs)
    text += f"\n{terminal(Document('', said))}" if said else ""
    if report.about.get("cost_repeats"):
        from palign_bench.report.efficiency import write_efficiency

        text += f"\n{write_efficiency(plan)}"
    return MadeReport(report, pictures, text)


def draw_unnamed(report: "Report", folder: Path) -> list[Path]:
    """The pictures of a table once more, with the kind of source (file) in place of the name of the people's file."""
    from palign_bench.report.document import Written

    unnamed = replace(report, about={**report.about, "respondents_description": None})
    return _draw(unnamed, folder / report.about["experiment"], Written())


def _draw(report: "Report", base: Path, written: "Written") -> list[Path]:
    """Draw a table's pictures into its folder; return their paths."""
    from palign_bench.report.pictures.learning_curve import learning_curve_figure
    from palign_bench.report.pictures.table import compose_figure  # matplotlib takes seconds to import

    pictures = written.draw(compose_figure(report), base)
    if report.frame["known_answers"].nunique(dropna=False) > 1:
        pictures += written.draw(learning_curve_figure(report), base.with_name(f"{base.name}_curve"))
    return pictures
