"""`palign-bench dashboard`: the W&B workspace of an experiment."""

import argparse

from palign_bench.cli.arguments import add_experiment
from palign_bench.ledger.plan import Plan
from palign_bench.tracking.dashboard import save_workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_experiment(parser)
    parser.add_argument("--project", default="palign-bench", help="the W&B project (default: palign-bench)")
    parser.add_argument("--entity", help="your W&B team; without it your own account")


def do(chosen: argparse.Namespace) -> None:
    """Save the workspace and print where."""
    plans = Plan.all(chosen.runs, chosen.name)
    rows = dict.fromkeys(row.name for plan in plans for row in plan.read()[0])
    path = chosen.runs / chosen.name / "dashboard.json"
    print(save_workspace(path, chosen.project, chosen.entity, chosen.name, list(rows)))
