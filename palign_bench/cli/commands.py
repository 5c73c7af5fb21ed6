"""The subcommands beside a run: what they read from the ledger and print."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from palign_bench.cli.people import people
from palign_bench.cli.select import select
from palign_bench.ledger.plan import Plan


def report(arguments: Sequence[str]) -> None:
    """`palign-bench report [NAME] [--runs FOLDER] [--legend] [--wide]`: rebuild and print tables without a model."""
    parser = argparse.ArgumentParser("palign-bench report", description="Rebuild and print tables from the ledger.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    parser.add_argument("--legend", action="store_true", help="with what the columns mean, and the paper's figures")
    parser.add_argument("--wide", action="store_true", help="all columns, also those that the terminal has no room for")
    chosen = parser.parse_args(arguments)
    from palign_bench.report import make_report

    for plan in Plan.all(chosen.runs, chosen.name):
        print(make_report(plan, chosen.legend, chosen.wide).text)


def forecast(arguments: Sequence[str]) -> None:
    """`palign-bench forecast [NAME] [--people 300,300000]`: what a large sweep would cost, from measured costs."""
    from palign_bench.report.forecast import MODELS, PEOPLE, write_forecast

    parser = argparse.ArgumentParser("palign-bench forecast", description="What a sweep over many people would cost.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment that was measured (default: table1)")
    parser.add_argument("--people", type=_counts, default=PEOPLE, help="comma-separated (default: 300,300000)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"beside the measured (default: {','.join(MODELS)})")
    parser.add_argument("--shards", type=_count, default=1, help="machines that share the people (default: 1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    chosen = parser.parse_args(arguments)
    models = [name for name in chosen.models.split(",") if name]
    for plan in Plan.all(chosen.runs, chosen.name):
        print(write_forecast(plan, chosen.people, models, chosen.shards))


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))


def status(arguments: Sequence[str]) -> None:
    """`palign-bench status [NAME] [--runs FOLDER]`: what is finished, failed, missing, and the time left."""
    parser = argparse.ArgumentParser("palign-bench status", description="What is done and left, and for how long.")
    parser.add_argument("name", nargs="?", help="the experiment's name (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    chosen = parser.parse_args(arguments)
    from palign_bench.report.status import status_of

    print(status_of(chosen.runs, chosen.name))


def dashboard(arguments: Sequence[str]) -> None:
    """`palign-bench dashboard [NAME] [--runs FOLDER] [--project P] [--entity E]`: the W&B workspace."""
    parser = argparse.ArgumentParser("palign-bench dashboard", description="Make the W&B workspace of an experiment.")
    parser.add_argument("name", nargs="?", default="table1", help="the experiment's name (default: table1)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the ledger's folder (default: runs)")
    parser.add_argument("--project", default="palign-bench", help="the W&B project (default: palign-bench)")
    parser.add_argument("--entity", help="your W&B team; without it your own account")
    chosen = parser.parse_args(arguments)
    from palign_bench.tracking.dashboard import save_workspace  # W&B takes its time to import

    plans = Plan.all(chosen.runs, chosen.name)
    rows = dict.fromkeys(row.name for plan in plans for row in plan.read()[0])
    path = chosen.runs / chosen.name / "dashboard.json"
    print(save_workspace(path, chosen.project, chosen.entity, chosen.name, list(rows)))


SUBCOMMANDS = {
    "people": people,
    "select": select,
    "report": report,
    "forecast": forecast,
    "status": status,
    "dashboard": dashboard,
}
