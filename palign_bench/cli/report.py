"""`palign-bench report`: an experiment's tables again, from the ledger alone."""

import argparse

from palign_bench.cli.arguments import add_experiment, add_twice_reversed
from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_experiment(parser)
    parser.add_argument("--legend", action="store_true", help="with the columns' meaning, and the paper's figures")
    parser.add_argument("--wide", action="store_true", help="all columns, also those that have no room here")
    parser.add_argument("--pictures", action="store_true", help="draw trait densities and some people's profiles")
    parser.add_argument("--ids", default="", help="whose profiles to draw, comma-separated (default: three people)")
    add_twice_reversed(parser)


def do(chosen: argparse.Namespace) -> None:
    """Print the tables."""
    for plan in Plan.all(chosen.runs, chosen.name):
        made = make_report(plan, chosen.legend, chosen.wide)
        print(made.text)
        if chosen.pictures or chosen.ids or chosen.twice_reversed:
            from palign_bench.report.profiles import draw_people  # matplotlib takes a second to import

            ids = [each.strip() for each in chosen.ids.split(",") if each.strip()]
            print(draw_people(made.report, plan.folder, ids, chosen.twice_reversed))
