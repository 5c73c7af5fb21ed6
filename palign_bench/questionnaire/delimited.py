"""Tables as spreadsheets save them: a text of some encoding, with commas, tabs or semicolons between cells."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from palign_bench.settings import UserError, counted

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how .xlsx, .ods and .numbers begin, and .xls


def read_text(place: Path, key: str) -> tuple[str, str]:
    """A text file's content and its encoding: by its byte order mark, else UTF-8, else Windows' Latin-1 (cp1252).

    ``key``: the setting that names the file, for messages.
    """
    try:
        content = place.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{place}: no such file; check {key}") from error
    except IsADirectoryError as error:
        raise UserError(f"{place} is a folder; name a file in {key}") from error
    except OSError as error:
        raise UserError(f"{place}: cannot be read ({error.strerror}); check {key}") from error
    if content.startswith(_SPREADSHEETS):
        raise UserError(f"{place}: this is a spreadsheet's own format; save it as CSV (UTF-8)")
    for encoding in [name for mark, name in _MARKS if content.startswith(mark)] or ["utf-8", "cp1252"]:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError as error:
            problem = error
    raise UserError(
        f"{place}: byte {problem.start + 1} is neither UTF-8 nor Latin-1; save the file as UTF-8"
    ) from problem


def delimiter_of(text: str) -> str:
    """The delimiter that stands most often in the header."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=header.count)


def rows_of(place: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the line it ends on; cells without the spaces around them.

    Not `pandas.read_csv`: it fills a row that is too short without a word.
    """
    reader, columns = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 0
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            columns = columns or len(cells)
            if len(cells) != columns:
                raise UserError(
                    f"{place}, line {reader.line_num}: {counted(len(cells), 'cell', 'cells')} under "
                    f"{counted(columns, 'column', 'columns')}; add or remove cells, or quote one with "
                    f"{DELIMITERS[delimiter]} in it"
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(
            f"{place}, line {reader.line_num}: not a table with {DELIMITERS[delimiter]} ({error}); save it as CSV"
        ) from error
