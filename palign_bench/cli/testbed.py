"""`palign-bench testbed`: every method and learning curves, on real people and, beside them, on simulated ones."""

import argparse

from palign_bench.cli.arguments import add_overrides, with_defaults, without
from palign_bench.cli.side_by_side import show, side_by_side

PEOPLE_OF_CURVES = 60
SIMULATED = {"respondents": "simulated", "respondents.figures": "published"}
NAMES = ("testbed_simulated", "learning_curve_simulated")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    parser.add_argument(
        "--curve",
        type=int,
        default=PEOPLE_OF_CURVES,
        help=f"people of the learning curves (default: {PEOPLE_OF_CURVES})",
    )
    add_overrides(parser)


def do(chosen: argparse.Namespace) -> None:
    """Make the tables and the curves. Everybody is asked, unless ``respondents.limit`` is typed."""
    log = chosen.runs / f"{NAMES[0]}.log"
    print(f"Real people here, simulated ones beside them: progress in {log}", flush=True)
    real, simulated = commands(chosen)
    side_by_side(real, simulated, log)
    show(chosen.runs, *NAMES)


def commands(chosen: argparse.Namespace) -> tuple[list[list[str]], list[list[str]]]:
    """Those on the real people, and those on simulated ones."""
    ledger = f"runs={chosen.runs}"
    testbed = ["experiment=testbed", ledger, *chosen.overrides]
    curve = ["experiment=learning_curve", ledger, f"respondents.limit={chosen.curve}"]
    curve += without(chosen.overrides, "respondents.limit", "training.people_limit")
    simulated = [
        with_defaults(without(command, *SIMULATED), SIMULATED | {"name": name})
        for command, name in zip((testbed, curve), NAMES, strict=True)
    ]
    return [testbed, curve], simulated
