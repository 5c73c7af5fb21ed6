"""One document: a title, tables, texts, notes and pictures, laid out for a terminal, Markdown, LaTeX and HTML."""

import html
import io
import math
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, PackageLoader

from palign_bench.files import WriteError, write_atomically
from palign_bench.settings import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLAIN_WIDTH = 80  # where there is no terminal and COLUMNS is not set
_NARROWEST_LABEL = 22

TableRow = Sequence[str] | str


@dataclass(frozen=True)
class Table:
    """Cells as texts: the first column is a label and stands left, the others right.

    ``columns``: headings, with a line break where one may wrap. ``rows``: one cell per column, or a text that heads the
    rows below it. ``left_out_first``: columns that give way on a narrow terminal, in order; groups together.
    ``marks``: endings of a label that stay when it is shortened. ``detail``: shown on a terminal only with the legend.
    """

    columns: Sequence[str]
    rows: Sequence[TableRow]
    heading: str = ""
    left_out_first: Sequence[str | Sequence[str]] = ()
    marks: Sequence[str] = ()
    detail: bool = False


@dataclass(frozen=True)
class Text:
    """Paragraphs, or ``listed`` notes. ``detail``: shown on a terminal only with the legend."""

    paragraphs: Sequence[str]
    heading: str = ""
    listed: bool = False
    detail: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture beside the document, by its file's name; no terminal shows it."""

    name: str


class Written:
    """The files of one report, each written whole or, in a folder that can only be read, told to be missing."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refused: WriteError | None = None

    def add(self, path: Path, content: str | bytes, told_as: str = "") -> None:
        """Write one file, unless the folder has refused one before. ``told_as``: one name for several files."""
        if self.refused is None:
            try:
                write_atomically(path, content)
                name = told_as or path.name
                self.names += [name] if name not in self.names else []
            except WriteError as error:
                self.refused = error

    def draw(self, figure: "Figure", base: Path) -> list[Path]:
        """Save a picture as ``<base>.png`` and ``.pdf``, without a date; return the paths, none where refused."""
        paths = []
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None})):
            if self.refused is None:
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
                paths.append(base.with_name(f"{base.name}.{kind}"))
                self.add(paths[-1], buffer.getvalue())
        return paths if self.refused is None else []

    def told(self, folder: Path) -> str:
        """One line: what was written where, or why nothing could be."""
        said = f"Written to {folder}: {', '.join(self.names)}" if self.names else ""
        return said if self.refused is None else f"{said}\nNot written: {self.refused}".strip()


@dataclass(frozen=True)
class Document:
    """What one report says, in order. ``hint``: the last line on a terminal, where something was left out.

    A table without rows and a text without paragraphs are not shown.
    """

    title: str
    blocks: Sequence[Table | Text | Picture]
    hint: str = ""

    @property
    def shown(self) -> list[Table | Text | Picture]:
        """The blocks that hold something."""
        content = {Table: "rows", Text: "paragraphs", Picture: "name"}
        return [block for block in self.blocks if getattr(block, content[type(block)])]

    def write(self, base: Path, written: Written) -> None:
        """Write ``<base>.md``, ``.tex`` and ``.html``."""
        for kind in ("md", "tex", "html"):
            written.add(base.with_name(f"{base.name}.{kind}"), render(self, kind))


def write_page(
    title: str, blocks: Sequence[Table | Picture], notes: Sequence[str], base: Path, written: Written
) -> str:
    """Write a report that has a page of its own, ``<base>.…``; return the text for the terminal."""
    document = Document(title, [*blocks, Text(notes, listed=True)], f"All columns are in {base.with_suffix('.md')}.")
    document.write(base, written)
    return f"{terminal(document)}\n{written.told(base.parent)}\n"


def table_of(rows: Sequence[Mapping[str, Any] | str], heading: str = "", **layout: Any) -> Table:
    """Rows by column, or texts that head others: fractions to three decimals, a dash where there is no number.

    ``layout``: more fields of `Table`.
    """
    columns = next((list(row) for row in rows if not isinstance(row, str)), [])
    cells = [row if isinstance(row, str) else [_decimals(value) for value in row.values()] for row in rows]
    return Table(columns, cells, heading, **layout)


def _decimals(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value + 0.0:.3f}" if isinstance(value, float) else str(value)


def terminal_width() -> int:
    """Columns of the terminal; COLUMNS where it is set, `PLAIN_WIDTH` where the output is no terminal."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns


def terminal(document: Document, width: int | None = None, legend: bool = False, wide: bool = False) -> str:
    """The document as plain text. ``width``: None for the terminal's; ``wide``: every column, however long the lines.

    ``legend``: with what is shown on request only.
    """
    width = max(width or terminal_width(), 40)
    parts = [_wrapped(document.title, width)]
    left_out = False
    for block in document.shown:
        if isinstance(block, Picture) or (block.detail and not legend):
            left_out |= not isinstance(block, Picture)
            continue
        if block.heading:
            parts.append(_wrapped(block.heading, width))
        if isinstance(block, Text):
            before = "Note: " if block.listed else ""
            parts.append("\n".join(_wrapped(before + each, width) for each in block.paragraphs))
        else:
            shown = block if wide else _narrowed(block, width)
            left_out |= len(shown.columns) < len(block.columns)
            parts.append(_plain(shown, None if wide else width))
    if left_out and document.hint:
        parts.append(_wrapped(document.hint, width))
    return "\n\n".join(part for part in parts if part) + "\n"


def render(document: Document, kind: Literal["md", "tex", "html"]) -> str:
    """The document as Markdown (GitHub's tables), as a page of HTML, or as LaTeX.

    LaTeX has the tables (booktabs: needs ``\\usepackage{booktabs}``), with titles and texts as comments.
    """
    return _templates().get_template(f"document.{kind}").render(title=document.title, blocks=document.shown)


def written_out(name: str, **told: Any) -> list[str]:
    """The paragraphs of ``templates/<name>.txt``, each of which begins with a dash there."""
    text = _templates().get_template(f"{name}.txt").render(told)
    return [" ".join(each.split()) for each in re.split("^- ", text, flags=re.MULTILINE) if each.strip()]


@cache
def _templates() -> Environment:
    found = Environment(loader=PackageLoader("palign_bench.report"), trim_blocks=True, keep_trailing_newline=True)
    found.filters |= {"markdown": escape_markdown, "latex": escape_latex, "html": html.escape}
    found.filters |= {"one_line": in_one_line, "pipes": _pipes, "counted": counted}
    return found


def escape_markdown(text: str) -> str:
    """Plain text for Markdown; code in backticks stays code."""
    text = re.sub(r"([\\*<>|~\[\]])", r"\\\1", " ".join(text.splitlines()))
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def escape_latex(text: str) -> str:
    """Plain text for LaTeX: its special characters escaped, our few non-ASCII ones as commands."""
    replacements = {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{character: f"${character}$" for character in "<>|"},  # in LaTeX's default encoding they are other signs
        "²": "$^2$",
        "Δ": r"$\Delta$",
        "†": r"$^\dagger$",
        "×": r"$\times$",
        "–": "--",
        "−": "$-$",
        "…": r"\ldots{}",
    }
    if re.fullmatch(r"-[0-9.,]+", text):
        text = text.replace("-", "−")
    return "".join(replacements.get(character, character) for character in text)


def _narrowed(table: Table, width: int) -> Table:
    """The table without the columns that a terminal of this width has no room for, its labels not counted in full."""
    left_out: set[str] = set()
    for names in ((), *table.left_out_first):
        left_out.update([names] if isinstance(names, str) else names)
        kept = [index for index, column in enumerate(table.columns) if column not in left_out]
        widths = _widths(table)
        if min(widths[0], _NARROWEST_LABEL) + sum(widths[index] + 2 for index in kept[1:]) <= width:
            break
    rows = [row if isinstance(row, str) else [row[index] for index in kept] for row in table.rows]
    return Table([table.columns[index] for index in kept], rows, marks=table.marks)


def _widths(table: Table) -> list[int]:
    cells = [row for row in table.rows if not isinstance(row, str)]
    return [
        max(len(line) for line in (*name.split("\n"), *(row[index] for row in cells)))
        for index, name in enumerate(table.columns)
    ]


def _plain(table: Table, width: int | None) -> str:
    """Columns two spaces apart; labels give way so that the lines fit the width."""
    widths = _widths(table)
    if width is not None:
        widths[0] = max(8, min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:])))
    heads = [*zip_longest(*(name.split("\n")[::-1] for name in table.columns), fillvalue="")][::-1]
    lines = []
    for row in (*heads, ["-" * each for each in widths], *table.rows):
        if not isinstance(row, str):
            row = _aligned([_shortened(row[0], widths[0], table.marks), *row[1:]], widths, "  ").rstrip()
        lines.append(row)
    return "\n".join(lines)


def _aligned(cells: Sequence[str], widths: Sequence[int], between: str) -> str:
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return between.join([cells[0].ljust(widths[0]), *others])


def _shortened(label: str, width: int, marks: Sequence[str]) -> str:
    if len(label) <= width:
        return label
    mark = next((f" {mark}" for mark in marks if label.endswith(f" {mark}")), "")
    told = re.search(r" \[[^][]*\]$", label.removesuffix(mark))  # what tells a row from others of its name
    ending = (told.group() if told and len(told.group()) < width / 2 else "") + mark
    return label.removesuffix(ending)[: width - 1 - len(ending)] + "…" + ending


def _pipes(table: Table) -> str:
    heads = [escape_markdown(in_one_line(name)) for name in table.columns]
    rows = [
        [f"**{escape_markdown(row)}**", *[""] * (len(heads) - 1)]
        if isinstance(row, str)
        else [escape_markdown(cell) for cell in row]
        for row in table.rows
    ]
    widths = [max(3, *(len(row[index]) for row in (heads, *rows))) for index in range(len(heads))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {_aligned(cells, widths, ' | ')} |" for cells in (heads, rule, *rows))


def in_one_line(heading: str) -> str:
    """A heading without its line breaks."""
    return heading.replace("-\n", "").replace("\n", " ")


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent="  ", break_on_hyphens=False)
