"""One report as text: for a terminal, Markdown and LaTeX. The same cells everywhere, laid out three ways."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from palign_bench.costs.figures import FIGURES
from palign_bench.questionnaire.inventory import DOMAINS
from palign_bench.questionnaire.protocol import PROTOCOLS
from palign_bench.report.names import BLOCKS, KNOWN_TRUTH, METHODS, PEOPLE_METHODS
from palign_bench.report.paper import PAPER_PEOPLE, TITLES, is_the_papers_model, nearest_setting
from palign_bench.report.statistics import FEWEST_FOR_AN_INTERVAL

if TYPE_CHECKING:
    from palign_bench.report.table import Report

TERMINAL_WIDTH = 140
MARK = "†"
COSTS_HEADING = "Costs (per person: median)"
GPU_HEADING = "On the GPU, above the bare model's memory (energy per person: median, the whole board's)"

Cells = dict[str, str]


def title(report: Report) -> str:
    """Experiment, model, protocol, number of people and their source, in one line."""
    return f"{headline(report)}, {setting_line(report)}"


def headline(report: Report) -> str:
    """Experiment and model."""
    about = report.about
    return f"{about['experiment']}: {about.get('model_title') or about['model']}"


def setting_line(report: Report) -> str:
    """Protocol, number of people and their source."""
    about = report.about
    source = about.get("respondents_description") or about["respondents"]
    people = "1 person" if report.people == 1 else f"{report.people} people"
    budgets = sorted({re.split("[:,]", row["budget"])[0] for row in report.rows if row["budget"]})
    trained = f", budget: {' and '.join(budgets)}" if budgets else ""
    return f"protocol {about['protocol']}, {people} in this table (source: {source}){trained}"


def terminal(report: Report) -> str:
    """The whole report for a terminal, at most `TERMINAL_WIDTH` columns wide."""
    blocks = [*_wrapped(title(report)), "", _plain(score_table(report)), ""]
    blocks += [line for legend in legends(report) for line in _wrapped(legend)]
    blocks += ["", COSTS_HEADING, "", _plain(cost_table(report)), ""]
    if gpu_table(report):
        blocks += [GPU_HEADING, "", _plain(gpu_table(report)), ""]
    if report.paper is None:
        blocks += [*_wrapped(_paper_heading(report)), "", _plain(paper_table(report)), ""]
    blocks += [line for note in report.notes for line in _wrapped(f"Note: {note}")]
    blocks += [""] if report.notes else []
    blocks += _wrapped(reading_guide(report))
    return "\n".join(blocks) + "\n"


def markdown(report: Report) -> str:
    """The whole report as Markdown."""
    blocks = [f"# {title(report)}", _pipes(score_table(report)), *legends(report)]
    blocks += [f"## {COSTS_HEADING}", _pipes(cost_table(report))]
    if gpu_table(report):
        blocks += [f"## {GPU_HEADING}", _pipes(gpu_table(report))]
    if report.paper is None:
        blocks += [f"## {_paper_heading(report)}", _pipes(paper_table(report))]
    if report.notes:
        blocks += ["## Notes", "\n".join(f"- {note}" for note in report.notes)]
    blocks += ["## How to read it", reading_guide(report)]
    return "\n\n".join(blocks) + "\n"


def latex(report: Report) -> str:
    """The scores as a booktabs ``tabular`` (needs ``\\usepackage{booktabs}``), title and notes as comments."""
    table = score_table(report)
    frame = pd.DataFrame([{_one_line(k): escape_latex(v) for k, v in row.items()} for row in table])
    frame.columns = pd.Index([escape_latex(str(name)) for name in frame.columns])
    width = len(frame.columns)
    text = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (width - 1))
    groups = {escape_latex(heading) for heading in BLOCKS.values()}
    lines: list[str] = []
    for line in text.splitlines():
        name = line.split(" & ")[0].strip()
        if name in groups:
            first = lines[-1] == r"\midrule"
            lines += ([] if first else [r"\midrule"]) + [rf"\multicolumn{{{width}}}{{l}}{{\textit{{{name}}}}} \\"]
        else:
            lines.append(line)
    comments = [f"% {line}" for line in [title(report), *legends(report), *report.notes]]
    return "\n".join([*comments, *lines]) + "\n"


def escape_latex(text: str) -> str:
    """Plain text for LaTeX: its special characters escaped, our few non-ASCII ones as commands."""
    replacements = {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "²": "$^2$",
        "Δ": r"$\Delta$",
        "†": r"$^\dagger$",
        "–": "--",
        "−": "$-$",
        "…": r"\ldots{}",
    }
    if re.fullmatch(r"-[0-9.,]+", text):
        text = text.replace("-", "−")
    return "".join(replacements.get(character, character) for character in text)


def score_table(report: Report) -> list[Cells]:
    """Display cells of the scores, with a heading row before each group of rows."""
    return _grouped(report, [_score_cells(report, row) for row in report.rows])


def cost_table(report: Report) -> list[Cells]:
    """Display cells of the costs: of the methods; of the floors only where there is no method."""
    methods = [row for row in report.rows if row["block"] in (METHODS, PEOPLE_METHODS)] or report.rows
    return [
        {
            "method": _label(row, mark=False),
            "shared\nseconds": significant(row["shared_seconds"]),
            **_cost_cells(row, "costs"),
            "1 person\nseconds": significant(row["seconds_for_one"]),
            "300 people\nseconds": significant(row["seconds_for_300"]),
        }
        for row in methods
    ]


def gpu_table(report: Report) -> list[Cells]:
    """Display cells of what only a GPU tells, of the rows that ran on one."""
    return [
        {
            "method": _label(row, mark=False),
            "allocated\nMiB": significant(row["peak_memory_mib"]),
            **_cost_cells(row, "gpu"),
        }
        for row in report.rows
        if row["reserved_memory_mib"] is not None
    ]


def _cost_cells(row: Mapping[str, Any], table: str) -> Cells:
    shown = [figure for figure in FIGURES if figure.heading and figure.table == table]
    return {each.heading: (_whole if each.whole else significant)(row[each.name]) for each in shown}


def paper_table(report: Report) -> list[Cells]:
    """The paper's figures as printed, for orientation."""
    headers = ["method", *DOMAINS, "composite"]
    return [
        dict(zip(headers, [TITLES[row], *(f"{figure:.2f}" for figure in figures)], strict=True))
        for row, figures in nearest_setting(report.about).figures.items()
    ]


def legends(report: Report) -> list[str]:
    """What the marks and short headers of the score table mean."""
    letters = ", ".join(f"{letter} {name}" for letter, name in DOMAINS.items())
    lines = [f"{letters}: mean absolute difference on the held-out items, composite: their sum; lower is better."]
    if any(row["beats_best_constant"] is False for row in report.rows):
        lines.append(f"{MARK} does not beat the best constant option (one option for every item) on the same people.")
    titles = {row["method"]: row["title"] for row in report.rows}
    best = {titles[row["best_own_floor"]] for row in report.rows if row["best_own_floor"]}
    people = {titles[row["best_people_floor"]] for row in report.rows if row["best_people_floor"]}
    if best or people:
        named = [
            f"{kind}: {', '.join(sorted(names))}"
            for kind, names in (("own-answers", best), ("other-people", people))
            if names
        ]
        lines.append(f"Δ: paired difference, row minus best floor ({'; '.join(named)}); below 0 is better.")
    if any(row["block"] == KNOWN_TRUTH for row in report.rows):
        lines.append(
            "Known truth: what the factor model that draws simulated people predicts from the known answers; on people "
            "drawn from it no method can expect a lower composite, on others it is one more predictor."
        )
    if report.paper is not None:
        lines.append(
            f"paper: its tables 1 and 6, {report.paper.title}, {PAPER_PEOPLE} people; this table has {report.people}."
        )
    return lines


def reading_guide(report: Report) -> str:
    """One paragraph on how to judge the numbers."""
    generates = PROTOCOLS[report.about["protocol"]].reading.generates
    asked = "all items" if generates else "a free-generation audit of 20 items"
    return (
        "How to read it: a method has learned something about a person only if it beats the floors, which read no "
        "sentence with a language model. The composite alone rewards hedging toward the middle option, so look beside "
        "it: specificity is how much worse a person's answers fit the table's other people than that person (0: the "
        "method ignored whom it was aligned to); trait r is the correlation across people of the five trait scores (a "
        "constant option earns none); top option is the share of the most frequent option; unparsed comes from "
        f"{asked}. The interval is a 95 % bootstrap over people, blank below {FEWEST_FOR_AN_INTERVAL} of them. Shared "
        "seconds are paid once (load, prepare), align (with its search for hyperparameters) and answer per person: so "
        "many people cost shared + people × (align + answer). Memory is what comes on top of the bare model."
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
        **{letter: _fixed(row[name]) for letter, name in DOMAINS.items()},
        "compo-\nsite": _fixed(row["composite"]),
        "95 %\ninterval": _interval(row["composite_low"], row["composite_high"]),
    }
    if report.paper is not None:
        cells["paper"] = _fixed(row["paper_composite"])
    return {
        **cells,
        "Δ own\nfloor": _signed(row["difference_to_best_own_floor"]),
        "Δ people\nfloor": _signed(row["difference_to_best_people_floor"]),
        "speci-\nficity": _signed(row["specificity"]),
        "trait\nr": _signed(row["trait_correlation"]),
        "top\noption": _percent(row["most_frequent_option_share"]),
        "un-\nparsed": _percent(row["unparsed_rate"]),
    }


def _grouped(report: Report, cells: list[Cells]) -> list[Cells]:
    table = []
    for block, heading in BLOCKS.items():
        members = [c for c, row in zip(cells, report.rows, strict=True) if row["block"] == block]
        if members:
            table += [dict.fromkeys(members[0], "") | {"method": heading}, *members]
    return table


def _label(row: Mapping[str, Any], mark: bool = True) -> str:
    label = str(row["label"])
    return f"{label} {MARK}" if mark and row["beats_best_constant"] is False else label


def _plain(table: list[Cells]) -> str:
    """Columns two spaces apart; method names give way so that the table fits the terminal."""
    columns = [[name.split("\n"), *([row[name]] for row in table)] for name in table[0]]
    widths = [max(len(line) for cell in column for line in cell) for column in columns]
    widths[0] = min(widths[0], TERMINAL_WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    height = max(len(column[0]) for column in columns)
    heads = [[""] * (height - len(column[0])) + column[0] for column in columns]
    lines = [[head[level] for head in heads] for level in range(height)]
    lines.append(["-" * width for width in widths])
    lines += [[_shorten(row["method"], widths[0]), *list(row.values())[1:]] for row in table]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        ).rstrip()
        for line in lines
    )


def _shorten(label: str, width: int) -> str:
    if len(label) <= width:
        return label
    ending = f" {MARK}" if label.endswith(MARK) else ""
    return label.removesuffix(ending)[: width - 1 - len(ending)] + "…" + ending


def _pipes(table: list[Cells]) -> str:
    frame = pd.DataFrame([{_one_line(k): v.replace("|", r"\|") for k, v in row.items()} for row in table])
    frame["method"] = [f"**{name}**" if name in BLOCKS.values() else name for name in frame["method"]]
    return pipe_table(frame)


def pipe_table(frame: pd.DataFrame) -> str:
    """A data frame of texts as a Markdown table: the first column to the left, the others to the right."""
    alignment = ["left"] + ["right"] * (len(frame.columns) - 1)
    return str(frame.to_markdown(index=False, tablefmt="pipe", disable_numparse=True, colalign=alignment))


def _one_line(header: str) -> str:
    return header.replace("-\n", "").replace("\n", " ")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, TERMINAL_WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:+.2f}" if round(value, 2) else "0.00"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.2f}–{high:.2f}"


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def significant(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if abs(value) >= 0.001 else "<0.001"
