"""What tests of the table share."""

from palign_bench.report.document import terminal
from palign_bench.report.table import Report
from palign_bench.report.words import describe

PEOPLE = tuple(f"p{i}" for i in range(12))
CONSTANTS = tuple(f"constant_{letter}" for letter in "abcde")


def text_of(report: Report) -> str:
    """Everything that a terminal can show of the report."""
    return terminal(describe(report), legend=True, wide=True)
