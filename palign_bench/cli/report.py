"""`palign-bench report`: an experiment's tables again, from the ledger alone."""

import argparse

from palign_bench.cli.arguments import add_experiment
from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_experiment(parser)
    parser.add_argument("--legend", action="store_true", help="with the columns' meaning, and the paper's figures")
    parser.add_argument("--wide", action="store_true", help="all columns, also those that have no room here")


def do(chosen: argparse.Namespace) -> None:
    """Print the tables."""
    for plan in Plan.all(chosen.runs, chosen.name):
        print(make_report(plan, chosen.legend, chosen.wide).text)
