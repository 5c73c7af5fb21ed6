"""`palign-bench table1`: the first table, of the organism, and beside it a few rows of a model that reads words.

With a ``model=`` of one's own it is `experiment=table1` on a few people.
"""

import argparse

from palign_bench.cli.arguments import add_overrides, with_defaults, without
from palign_bench.cli.side_by_side import show, side_by_side

MODEL = "organism"
BESIDE, METHODS_BESIDE = "smollm2_135m_taught", "floors,vanilla,few_shot,readout,pas"
# People per row: what is done in minutes on two cores. Trained rows have a limit of their own.
PEOPLE, PEOPLE_OF_OTHERS, PEOPLE_BESIDE = 20, 3, 2
TRAINED_AT_ONCE = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    parser.add_argument("--beside", default=BESIDE, help=f"the other model; empty: none (default: {BESIDE})")
    parser.add_argument("--methods-beside", default=METHODS_BESIDE, help=f"its rows (default: {METHODS_BESIDE})")
    add_overrides(parser)


def do(chosen: argparse.Namespace) -> list[str] | None:
    """Make the table; of a model that was named as the run that is returned."""
    chosen_model = next((each for each in chosen.overrides if each.startswith("model=")), "")
    whole = ["experiment=table1", f"runs={chosen.runs}"]
    if chosen_model in ("", f"model={MODEL}"):
        sizes = {"model": MODEL, "respondents.limit": PEOPLE, "training.cohort": TRAINED_AT_ONCE}
        first = [*whole, *with_defaults(chosen.overrides, sizes)]
    else:
        first = [*whole, *with_defaults(chosen.overrides, {"respondents.limit": PEOPLE_OF_OTHERS})]
    if chosen_model or not chosen.beside:
        return first
    name = f"table1_{chosen.beside}"
    rows = [f"name={name}", f"model={chosen.beside}", f"method={chosen.methods_beside}"]
    few = f"respondents.limit={PEOPLE_BESIDE}"
    second = [*whole, *rows, few, *without(chosen.overrides, "name", "method", "respondents.limit")]
    log = chosen.runs / f"{name}.log"
    print(f"The table of {MODEL} here; beside it {chosen.beside}: progress in {log}", flush=True)
    side_by_side([first], [second], log)
    show(chosen.runs, name)
    return None
