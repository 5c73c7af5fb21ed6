"""Title and block of a shipped method's rows, for plans that a test makes by hand."""

from __future__ import annotations

from palign_bench.run.assembly import make_aligners, resolve_budget, title_and_block
from palign_bench.settings import options, read_option


def title_and_block_of(row: str) -> tuple[str, str]:
    """What a command would plan for the row; the name and the methods' block for a row that nobody ships."""
    for name in ("floors", row):
        if name in options("method"):
            method = resolve_budget(read_option("method", name), {"name": "quick"})
            made = make_aligners(method)
            if row in made:
                return title_and_block(method, row, made[row])
    return row, "methods"
