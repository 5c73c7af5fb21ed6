"""What one report says, as a document: its tables, what their headings mean, and how to judge them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from palign_bench.costs.figures import FIGURES
from palign_bench.ledger.plan import UNNAMED, runs_option
from palign_bench.questionnaire.inventory import DOMAINS
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.report.document import Document, Picture, Table, Text, in_one_line, table_of, written_out
from palign_bench.report.findings import HEADING, findings, next_step
from palign_bench.report.names import BLOCKS, KNOWN_TRUTH, METHODS, PEOPLE_METHODS
from palign_bench.report.paper import PAPER_PEOPLE, TITLES, is_the_papers_model, nearest_setting
from palign_bench.report.statistics import FEWEST_FOR_A_BOOTSTRAP
from palign_bench.report.table import Report
from palign_bench.report.validity import PANEL

MARK = "†"
MARK_LEGEND = f"{MARK} does not beat the best constant option (one option for every item) on the same people."
LEFT_OUT_FIRST = ("un-\nparsed", "top\noption", "trait\nr", "n")
PANEL_HEADING = "Validity of the answers as measurements of persons"
COSTS_HEADING = "Costs (per person: median)"
GPU_HEADING = "On the GPU, above the bare model's memory (energy per person: median, the whole board's)"

Cells = dict[str, str]


def describe(report: Report, pictures: Sequence[str] = (), runs: Path = Path("runs")) -> Document:
    """The whole report; ``pictures``: the files' names of its pictures; ``runs``: the ledger's folder."""
    generates = PROTOCOLS[report.about["protocol"]].reading.generates
    marked = any(row["beats_best_constant"] is False for row in report.rows)
    blocks: list[Table | Text | Picture] = [
        score_table(report),
        Text([MARK_LEGEND] if marked else []),
        Text(legends(report), detail=True),
        *(Picture(name) for name in pictures),
        validity_table(report),
        Text([f"{in_one_line(each['heading'])}: {each['meaning']}." for each in PANEL], detail=True),
        cost_table(report),
        gpu_table(report),
        Text([note.replace(runs_option(UNNAMED), runs_option(runs)) for note in report.notes], "Notes", listed=True),
        *([paper_table(report)] if report.paper is None else []),
        Text(written_out("reading", generates=generates, fewest=FEWEST_FOR_A_BOOTSTRAP), "How to read it", detail=True),
    ]
    command = f"palign-bench report {report.about['experiment']}{runs_option(runs)}"
    return Document(report.title, blocks, f"`{command} --legend` explains every column, --wide shows those left out.")


def conclusions(report: Report, runs: Path = Path("runs")) -> list[Text]:
    """What the table shows in plain sentences, and what to type next: the last lines on a terminal.

    ``runs``: the ledger's folder.
    """
    found = findings(report)
    return [Text([*found, next_step(report, runs)], HEADING)] if found else []


def score_table(report: Report) -> Table:
    """The scores, with a heading before each group of rows."""
    narrow = [*LEFT_OUT_FIRST, tuple(map(_scale_heading, report.inventory.scales)), "paper"]
    rows = _in_blocks(report, [_score_cells(report, row) for row in report.rows])
    return table_of(rows, left_out_first=narrow, marks=[MARK])


def validity_table(report: Report) -> Table:
    """The validity panel, block after block as the scores."""
    cells = [
        {"method": _label(row)}
        | {each["heading"]: (_percent if "share" in each else _signed)(row[each["name"]]) for each in PANEL}
        for row in report.rows
    ]
    narrow = [column["heading"] for column in reversed(PANEL[3:])]
    return table_of(_in_blocks(report, cells), PANEL_HEADING, left_out_first=narrow, marks=[MARK])


def _in_blocks(report: Report, cells: Sequence[Cells]) -> list[Cells | str]:
    """The rows' cells block by block, each block under its heading."""
    rows: list[Cells | str] = []
    for block, heading in BLOCKS.items():
        members = [own for own, row in zip(cells, report.rows, strict=True) if row["block"] == block]
        rows += [heading, *members] if members else []
    return rows


def cost_table(report: Report) -> Table:
    """Display cells of the costs: of the methods; of the floors only where there is no method."""
    methods = [row for row in report.rows if row["block"] in (METHODS, PEOPLE_METHODS)] or report.rows
    cells = [
        {
            "method": str(row["label"]),
            "shared\nseconds": significant(row["shared_seconds"]),
            **_cost_cells(row, "costs"),
            "1 person\nseconds": significant(row["seconds_for_one"]),
            "300 people\nseconds": significant(row["seconds_for_300"]),
        }
        for row in methods
    ]
    gives_way = [figure.heading for figure in reversed(FIGURES) if figure.heading and figure.table == "costs"]
    return table_of(cells, COSTS_HEADING, left_out_first=gives_way)


def gpu_table(report: Report) -> Table:
    """Display cells of what only a GPU tells, of the rows that ran on one."""
    cells = [
        {
            "method": str(row["label"]),
            "allocated\nMiB": significant(row["peak_memory_mib"]),
            **_cost_cells(row, "gpu"),
        }
        for row in report.rows
        if row["reserved_memory_mib"]
    ]
    return table_of(cells, GPU_HEADING)


def _cost_cells(row: Mapping[str, Any], table: str) -> Cells:
    shown = [figure for figure in FIGURES if figure.heading and figure.table == table]
    return {each.heading: _shown(row[each.name], ",") if each.whole else significant(row[each.name]) for each in shown}


def paper_table(report: Report) -> Table:
    """The paper's figures as printed, for orientation."""
    figures = nearest_setting(report.about).figures.items()
    rows = [[TITLES[row], *(f"{figure:.2f}" for figure in printed)] for row, printed in figures]
    return Table(["method", *DOMAINS, "composite"], rows, _paper_heading(report), detail=True)


def legends(report: Report) -> list[str]:
    """What the marks and short headers of the score table mean."""
    titles = {row["method"]: row["title"] for row in report.rows}
    floors = []
    for kind, column in (("own-answers", "best_own_floor"), ("other-people", "best_people_floor")):
        names = {titles[row[column]] for row in report.rows if row[column]}
        floors += [f"{kind}: {', '.join(sorted(names))}"] if names else []
    return written_out(
        "legends",
        scales=report.inventory.scales,
        floors=floors,
        known_truth=any(row["block"] == KNOWN_TRUTH for row in report.rows),
        paper=report.paper,
        paper_people=PAPER_PEOPLE,
        people=report.people,
    )


def _paper_heading(report: Report) -> str:
    setting = nearest_setting(report.about)
    why = "another protocol or other people" if is_the_papers_model(report.about) else "another model"
    return (
        f"For orientation only, not comparable ({why}): the paper's figures "
        f"({setting.title}, PAPI, {PAPER_PEOPLE} people, its own protocol)"
    )


def _score_cells(report: Report, row: Mapping[str, Any]) -> Cells:
    planned = row["respondents"] + row["missing_cells"]
    cells = {
        "method": _label(row),
        "n": str(planned) if not row["missing_cells"] else f"{row['respondents']}/{planned}",
        **{_scale_heading(short): _shown(row[name], ".2f") for short, name in report.inventory.scales.items()},
        "compo-\nsite": _shown(row["composite"], ".2f"),
        "95 %\ninterval": interval_text(row["composite_low"], row["composite_high"]),
    }
    if report.paper is not None:
        cells["paper"] = _shown(row["paper_composite"], ".2f")
    return {
        **cells,
        "distinc-\ntive r": _signed(row["distinctive_profile_correlation"]),
        "Δ own\nfloor": _signed(row["difference_to_best_own_floor"]),
        "Δ people\nfloor": _signed(row["difference_to_best_people_floor"]),
        "speci-\nficity": _signed(row["specificity"]),
        "trait\nr": _signed(row["trait_correlation"]),
        "top\noption": _percent(row["most_frequent_option_share"]),
        "un-\nparsed": _percent(row["unparsed_rate"]),
    }


def _scale_heading(short: str) -> str:
    """A scale's short name, told apart where another column of the table has it."""
    return f"scale\n{short}" if short in ("n", "paper") else short


def _label(row: Mapping[str, Any]) -> str:
    return f"{row['label']} {MARK}" if row["beats_best_constant"] is False else str(row["label"])


def _shown(value: float | None, how: str) -> str:
    """The value in a format of Python's; nothing where there is none."""
    return "" if value is None else format(value, how)


def _signed(value: float | None) -> str:
    return "0.00" if value is not None and round(value, 2) == 0 else _shown(value, "+.2f")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def interval_text(low: float | None, high: float | None) -> str:
    """Both ends, to two decimals."""
    return "" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def significant(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 0.001 else "<0.001"
