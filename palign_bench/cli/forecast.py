"""`palign-bench forecast`: what many people would cost, from measured costs."""

import argparse
import re

from palign_bench.cli.arguments import add_experiment
from palign_bench.ledger.plan import Plan
from palign_bench.report.forecast import MODELS, PEOPLE, write_forecast


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_experiment(parser)
    parser.add_argument(
        "--people",
        type=lambda text: tuple(map(_count, text.split(","))),
        default=PEOPLE,
        help="comma-separated (default: 300,300000)",
    )
    models = ",".join(MODELS)
    parser.add_argument("--models", default=models, help=f"beside the measured (default: {models})")
    parser.add_argument("--shards", type=_count, default=1, help="machines that share the people (default: 1)")


def do(chosen: argparse.Namespace) -> None:
    """Print and keep the forecast of every table."""
    models = [name for name in chosen.models.split(",") if name]
    for plan in Plan.all(chosen.runs, chosen.name):
        print(write_forecast(plan, chosen.people, models, chosen.shards))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)
