"""`palign-bench select`: pick people from a population, and say how well they stand for it."""

import argparse
import shlex
from pathlib import Path

import numpy as np
import pandas as pd

from palign_bench.cli.people import add_source, inventory_settings, measures, source_of
from palign_bench.files import write_atomically
from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.population import Population
from palign_bench.respondents.selection import RULES, Selection, select
from palign_bench.settings import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `palign-bench select`."""
    add_source(parser)
    parser.add_argument("--clusters", type=int, default=300, help="K-means clusters, and people picked (default: 300)")
    parser.add_argument("--rule", choices=RULES, default="nearest", help=(
        "nearest to each cluster's centre (the paper's; they are easier to predict than the rest), a random member of "
        "each cluster, or random people (default: nearest)"))  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the clusters and of chance (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("selected"), help="the folder to write (default: selected)")


def do(chosen: argparse.Namespace) -> None:
    """`palign-bench select SOURCE [KEY=VALUE …]`: ids, people and a report in a folder."""
    found, file = source_of(chosen)
    if file is not None and file.doubt and file.assumed:
        raise UserError(file.doubt)
    selection = select(found, chosen.clusters, chosen.rule, chosen.seed)
    command = shlex.join(["palign-bench", *chosen.typed])
    report = _report(found, selection, command)
    out = chosen.out.expanduser()
    write_atomically(out / "ids.csv", _ids(found, selection))
    write_atomically(out / "people.csv", _people(found.take(selection.rows)))
    write_atomically(out / "report.md", report)
    print(report)
    print(f"Written: {out}/ids.csv, people.csv and report.md. To run on them:")
    settings = ["respondents=file", f"respondents.path={out / 'people.csv'}", "respondents.orientation=literal"]
    inventory = inventory_settings(chosen)
    if not inventory and found.inventory.name != "ipip_neo_300":
        inventory = [f"inventory={found.inventory.name}"]
    print(shlex.join(["palign-bench", "method=floors", *inventory, *settings]))


def _report(people: AnswerMatrix, selection: Selection, command: str) -> str:
    rows = np.zeros(len(people), dtype=bool)
    rows[selection.rows] = True
    population = Population(people)
    groups = {f"{int(rows.sum())} selected": population.describe(rows), f"all {len(people)}": population.describe()}
    return (
        f"# People selected from {len(people)}\n\n`{command}`\n\n{people.inventory.name}. Alphas are Cronbach's; "
        "scores are keyed. A floor's composite is the sum over scales of the mean absolute difference on "
        "held-out answers; floors of others use everybody but the person judged.\n\n"
        f"```\n{measures(groups)}\n```\n"
    )


def _ids(people: AnswerMatrix, selection: Selection) -> str:
    frame = pd.DataFrame({"id": [people.ids[row] for row in selection.rows]})
    if selection.sizes is not None:
        frame["people_in_cluster"] = selection.sizes
    return frame.to_csv(index=False)


def _people(people: AnswerMatrix) -> str:
    """Literal answers in the format that `respondents=file` reads."""
    columns = [f"i{item.number}" for item in people.inventory.items]
    frame = pd.DataFrame(people.answers, index=pd.Index(people.ids, name="id"), columns=columns)
    return frame.astype(object).replace(MISSING, "").to_csv()
