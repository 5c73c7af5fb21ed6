"""`palign-bench claims`: the paper's checkable claims, recomputed."""

import argparse
from pathlib import Path

from palign_bench.files import write_atomically
from palign_bench.report.claims import evidence_at_hand, page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The option beside the ledger's folder."""
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to this Markdown file as well")


def do(chosen: argparse.Namespace) -> None:
    """Print every claim with what came out here and what that makes of it."""
    text = page(evidence_at_hand(chosen.runs))
    print(text)
    if chosen.write is not None:
        write_atomically(chosen.write, text)
