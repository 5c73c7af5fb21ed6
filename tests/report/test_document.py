"""One document laid out four ways."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from palign_bench.report.document import (
    Document,
    Picture,
    Table,
    Text,
    Written,
    escape_latex,
    escape_markdown,
    render,
    terminal,
    terminal_width,
)

EVIL = "a|b <i>_x_</i> *y* $z$ & 50 %"
TABLE = Table(
    ["method", "compo-\nsite", "left\nout of all"],
    ["Group", [EVIL, "1.00", "7"], ["A name that is far too long for any narrow terminal at all †", "-2.00", "8"]],
    "Scores",
    left_out_first=["left\nout of all"],
    marks=["†"],
)
DOCUMENT = Document(
    "A title",
    [TABLE, Text(["first", "second"], listed=True), Text(["the legend"], "Legend", detail=True)],
    "more: --wide",
)


def test_what_tells_rows_apart_stays_when_a_name_is_shortened() -> None:
    rows = [["The mean of all own answers [known=30] †", "1"], ["The mean of all own [a very long difference]", "2"]]
    told = terminal(Document("", [Table(["method", "n"], rows, marks=["†"])]), 40).splitlines()
    assert told[2:] == [
        "The mean of all own ans… [known=30] †  1",
        "The mean of all own [a very long dif…  2",
    ]


def test_terminal_gives_up_columns_then_shortens_labels() -> None:
    assert terminal(DOCUMENT, 40).splitlines() == [
        "A title",
        "",
        "Scores",
        "",
        f"{'':32}  compo-",
        f"{'method':32}    site",
        f"{'-' * 32}  ------",
        "Group",
        f"{EVIL:32}    1.00",
        f"{'A name that is far too long f… †':32}   -2.00",
        "",
        "Note: first",
        "Note: second",
        "",
        "more: --wide",
    ]
    whole = terminal(DOCUMENT, 40, legend=True, wide=True)
    assert (
        "any narrow terminal at all †" in whole
        and "the legend" in whole
        and "out of all" in whole
        and "more" not in whole
    )


def test_width_is_the_terminals_or_what_columns_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "123")
    assert terminal_width() == 123
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("os.get_terminal_size", lambda _: (_ for _ in ()).throw(OSError("no terminal")))
    assert terminal_width() == 80


def test_markdown_escapes_and_lines_up() -> None:
    text = render(Document("T_1 *", [TABLE, Picture("p.png")]), "md")
    assert text.startswith("# T_1 \\*\n\n## Scores\n\n| method") and "![p](p.png)" in text
    assert r"a\|b \<i\>\_x\_\</i\> \*y\* $z$ & 50 %" in text and "**Group**" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4} and len(set(map(len, rows))) == 1


def test_latex_is_booktabs_with_groups() -> None:
    lines = render(DOCUMENT, "tex").splitlines()
    assert lines[:3] == ["% A title", "% Scores", r"\begin{tabular}{lrr}"] and lines[-1] == "% the legend"
    assert r"method & composite & left out of all \\" in lines and r"\multicolumn{3}{l}{\textit{Group}} \\" in lines
    assert any(line.endswith(r"$^\dagger$ & $-$2.00 & 8 \\") for line in lines)


def test_html_shows_names_as_text() -> None:
    found: list[str] = []

    class Cells(HTMLParser):
        def handle_data(self, data: str) -> None:
            found.append(data)

    page = render(DOCUMENT, "html")
    Cells().feed(page)
    assert EVIL in found and "<i>" not in page


def test_escapes() -> None:
    assert escape_latex("a_b & 5 % #1 {x} $y$") == r"a\_b \& 5 \% \#1 \{x\} \$y\$"
    assert escape_latex("P² † ×") == r"P$^2$ $^\dagger$ $\times$"
    assert escape_latex("a\\b~c^d") == r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"
    assert escape_latex("<0.001 A|B >") == "$<$0.001 A$|$B $>$"
    assert escape_latex("-0.40") == "$-$0.40" and escape_latex("Few-Shot") == "Few-Shot"
    assert escape_markdown("smollm2_135m `a b`\n_x_") == r"smollm2_135m `a b` \_x\_"


def test_a_folder_that_refuses_a_file_is_asked_for_no_other(tmp_path: Path) -> None:
    written = Written()
    written.add(tmp_path / "a.md", "a")
    (tmp_path / "b.md").mkdir()
    written.add(tmp_path / "b.md", "b")
    written.add(tmp_path / "c.md", "c")
    assert written.draw(Figure(), tmp_path / "d") == [] and not (tmp_path / "d.png").exists()
    assert written.names == ["a.md"] and not (tmp_path / "c.md").exists()
    assert written.told(tmp_path).startswith(f"Written to {tmp_path}: a.md\nNot written: cannot write")
