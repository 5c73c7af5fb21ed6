"""Subcommands that read the ledger and compute no cell: report, status, forecast, claims, dashboard."""

import argparse
import re

from palign_bench.cli.arguments import add_experiment, add_twice_reversed, new_place
from palign_bench.files import write_atomically
from palign_bench.ledger.plan import Plan
from palign_bench.report import make_report
from palign_bench.report.forecast import MODELS, PEOPLE, write_forecast
from palign_bench.report.status import status_of


def report_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument("--legend", action="store_true", help="with the columns' meaning, and the paper's figures")
    parser.add_argument("--wide", action="store_true", help="all columns, also those that have no room here")
    parser.add_argument("--pictures", action="store_true", help="draw trait densities and some people's profiles")
    parser.add_argument("--ids", default="", help="whose profiles to draw, comma-separated (default: three people)")
    add_twice_reversed(parser)


def report(chosen: argparse.Namespace) -> None:
    """Print the tables."""
    for plan in Plan.all(chosen.runs, chosen.name):
        made = make_report(plan, chosen.legend, chosen.wide)
        print(made.text)
        if chosen.pictures or chosen.ids or chosen.twice_reversed:
            from palign_bench.report.profiles import draw_people  # matplotlib takes a second to import

            ids = [each.strip() for each in chosen.ids.split(",") if each.strip()]
            print(draw_people(made.report, plan.folder, ids, chosen.twice_reversed))


def status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="the experiment's name (default: all)")


def status(chosen: argparse.Namespace) -> None:
    """Print what is finished, failed and missing, and the time left."""
    print(status_of(chosen.runs, chosen.name))


def forecast_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument("--people", type=lambda text: tuple(map(_count, text.split(","))), default=PEOPLE,
                        help="comma-separated (default: 300,300000)")  # fmt: skip
    models = ",".join(MODELS)
    parser.add_argument("--models", default=models, help=f"beside the measured (default: {models})")
    parser.add_argument("--shards", type=_count, default=1, help="machines that share the people (default: 1)")


def forecast(chosen: argparse.Namespace) -> None:
    """Print and keep the forecast of every table."""
    models = [name for name in chosen.models.split(",") if name]
    for plan in Plan.all(chosen.runs, chosen.name):
        print(write_forecast(plan, chosen.people, models, chosen.shards))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def claims_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", type=new_place, metavar="FILE", help="write the table to this Markdown file as well")


def claims(chosen: argparse.Namespace) -> None:
    """Print every claim of the paper's that can be checked, and what came out here."""
    from palign_bench.report.claims import evidence_at_hand, page

    text = page(evidence_at_hand(chosen.runs))
    print(text)
    if chosen.write is not None:
        write_atomically(chosen.write, text)


def dashboard_arguments(parser: argparse.ArgumentParser) -> None:
    add_experiment(parser)
    parser.add_argument("--project", default="palign-bench", help="the W&B project (default: palign-bench)")
    parser.add_argument("--entity", help="your W&B team; without it your own account")


def dashboard(chosen: argparse.Namespace) -> None:
    """Save the W&B workspace of an experiment and print where."""
    from palign_bench.report.rows import read_rows
    from palign_bench.tracking.dashboard import save_workspace
    from palign_bench.tracking.wandb import panel_names

    tables = [read_rows(plan) for plan in Plan.all(chosen.runs, chosen.name)]
    named = dict.fromkeys(name for rows, _ in tables for name in panel_names([(row.name, row.label) for row in rows]))
    scales = dict.fromkeys(scale for _, about in tables for scale in about["inventory"]["scales"].values())
    path = chosen.runs / chosen.name / "dashboard.json"
    print(save_workspace(path, chosen.project, chosen.entity, chosen.name, list(named), list(scales)))
