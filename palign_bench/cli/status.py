"""`palign-bench status`: what is finished, failed and missing, and the time left."""

import argparse

from palign_bench.report.status import status_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    parser.add_argument("name", nargs="?", help="the experiment's name (default: all)")


def do(chosen: argparse.Namespace) -> None:
    """Print the status."""
    print(status_of(chosen.runs, chosen.name))
