"""`palign-bench people`: what is understood of a file or source of people, before anything is run on them."""

import argparse
import difflib
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate

from palign_bench.cli.arguments import add_twice_reversed
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import load_respondents
from palign_bench.respondents.dark_triad import dark_triad_layout
from palign_bench.respondents.demographics import FEWEST
from palign_bench.respondents.file import FileOfPeople, read_people
from palign_bench.respondents.inventories import load_inventory
from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.orientation import orientation_evidence
from palign_bench.respondents.papi import papi_demographics
from palign_bench.respondents.population import Population
from palign_bench.settings import UserError, counted, options, read_option

_SOURCE = "a file of people, or an option of respondents= (papi, simulated, …)"
_SETTINGS = "settings of respondents=, as in orientation=keyed or count=20000, and inventory= as for a run"


def do(chosen: argparse.Namespace) -> None:
    """`palign-bench people SOURCE [KEY=VALUE …]`: people, items, missing answers, orientation, floors."""
    if chosen.demographics:
        print(_demographics(chosen))
        return
    found, file = source_of(chosen)
    print(_understood(found, file))
    print()
    print(measures({"": Population(found).describe()}))
    if chosen.pictures:
        print(f"\n{_draw(found, chosen)}")
    if file is not None and file.doubt:
        raise UserError(file.doubt)
    if file is not None:
        of_people = [each for each in chosen.settings if not _of_inventory(each)]
        settings = [f"respondents.{setting.removeprefix('respondents.')}" for setting in of_people]
        command = ["method=floors", *inventory_settings(chosen), "respondents=file", f"respondents.path={file.place}"]
        print(f"\nTo run: palign-bench {shlex.join([*command, *settings])}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options beside the ledger's folder."""
    add_source(parser)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw trait densities and correlations there")
    add_twice_reversed(parser)
    parser.add_argument("--demographics", action="store_true", help="of papi, instead: counts by sex, age and country")


def _draw(found: AnswerMatrix, chosen: argparse.Namespace) -> str:
    from palign_bench.report.document import Written
    from palign_bench.report.pictures import traits  # matplotlib takes seconds to import
    from palign_bench.report.pictures.style import save_figure

    folder, inventory, written = chosen.pictures.expanduser(), found.inventory, Written()
    keyed, title = found.keyed(), f"{inventory.title or inventory.name}: {counted(len(found))} of {chosen.source}"
    quantity = traits.TWICE_REVERSED if chosen.twice_reversed else traits.TRAIT_SCORE
    answers = found.twice_reversed() if chosen.twice_reversed else keyed
    scores = traits.scores_of(inventory.items, answers, list(inventory.scales), "scale")
    people = {f"the people (n={len(found)})": scores}
    figures = {
        "traits": traits.trait_figure(people, inventory, title, quantity),
        "correlations": traits.correlation_figure(keyed, inventory, title),
    }
    for name, figure in figures.items():
        written.drawn(partial(save_figure, figure, folder / name))
    return written.told(folder)


def _demographics(chosen: argparse.Namespace) -> str:
    if chosen.source != "papi":
        raise UserError("--demographics: only papi has any; give palign-bench people papi --demographics")
    given = _read(chosen.settings, "respondents.")
    counts = papi_demographics(given.get("folder"), download=given.get("download", True))
    lines = [
        f"{name}: {', '.join(f'{group} {count}' for group, count in found.items())}" for name, found in counts.items()
    ]
    return "\n".join([*lines, f"Groups of fewer than {FEWEST} are counted together."])


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that `source_of` reads."""
    parser.add_argument("source", help=_SOURCE)
    parser.add_argument("settings", nargs="*", default=[], help=_SETTINGS, metavar="KEY=VALUE")


def source_of(chosen: argparse.Namespace) -> tuple[AnswerMatrix, FileOfPeople | None]:
    """The people named on the command line, and what was understood of their file where it is one.

    Raises UserError for a source or setting that does not exist, and for a file that cannot be read.
    """
    inventory = _inventory_of(chosen)
    given = _read([setting for setting in chosen.settings if not _of_inventory(setting)], "respondents.")
    if chosen.source in options("respondents") and chosen.source != "file" and not Path(chosen.source).is_file():
        source = load_respondents(read_option("respondents", chosen.source) | given, inventory)
        return AnswerMatrix.of(source.people, inventory), None
    if not Path(chosen.source).expanduser().exists():
        close = difflib.get_close_matches(chosen.source, _sources(), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UserError(f"{chosen.source}: no such file or source{hint}; give a file or one of {', '.join(_sources())}")
    known = {key for key in read_option("respondents", "file") if key not in ("name", "path", "limit", "ids")}
    if unknown := sorted(set(given) - known):
        raise UserError(f"{unknown[0]} is no setting of a file; it has {', '.join(sorted(known))}")
    file = read_people(chosen.source, inventory=inventory, **given)
    return file.people, file


def inventory_settings(chosen: argparse.Namespace) -> list[str]:
    """The settings of the inventory as they were typed, for the command that runs on the same people."""
    return [each for each in chosen.settings if _of_inventory(each)]


def _inventory_of(chosen: argparse.Namespace) -> Inventory:
    """The inventory that the settings name; without any the one that the source answers."""
    given = _read(inventory_settings(chosen), "inventory.")
    name = str(given.pop("inventory", "dark_triad" if chosen.source.startswith("dark_triad") else "ipip_neo_300"))
    if name == "dark_triad" and not given:
        return dark_triad_layout()  # its wording, which has to be downloaded, is not needed here
    return load_inventory(read_option("inventory", name) | given)


def _of_inventory(setting: str) -> bool:
    return setting.startswith(("inventory=", "inventory."))


def _read(settings: Sequence[str], prefix: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"{setting}: give settings as KEY=VALUE, as in orientation=keyed")
        given[key.removeprefix(prefix)] = yaml.safe_load(value)
    return given


def _sources() -> list[str]:
    return [name for name in options("respondents") if name != "file"]


def _understood(people_: AnswerMatrix, file: FileOfPeople | None) -> str:
    inventory, answers = people_.inventory, people_.answers
    lines = [f"{file.place}: {file.layout}"] if file is not None else []
    answered = (answers != MISSING).any(axis=0)
    parts = [f"{int(answered[people_.columns(numbers)].sum())} of {len(numbers)} {part}"
             for part, numbers in (("known", inventory.known), ("held-out", inventory.held_out))]  # fmt: skip
    lines.append(f"{counted(len(people_))}; {inventory.name}: {' and '.join(parts)} items answered")
    lines.append(f"missing: {(answers[:, answered] == MISSING).mean():.2%} of the answers to these items")
    lines += _unusable(people_, inventory)
    if file is None:
        lines.append(f"orientation: literal; {orientation_evidence(answers, inventory)}")
    else:
        lines.append(f"orientation: {file.orientation}, {file.reason}; {file.evidence}")
        lines += file.notes
    return "\n".join(lines)


def _unusable(people_: AnswerMatrix, inventory: Inventory) -> list[str]:
    lines = []
    for part, numbers in (("known", inventory.known), ("held-out", inventory.held_out)):
        none = (people_.answers[:, people_.columns(numbers)] == MISSING).all(axis=1)
        if none.any():
            named = ", ".join(people_.ids[row] for row in np.flatnonzero(none)[:5])
            lines.append(f"cannot be used, since they answer no {part} item: {int(none.sum())} ({named}…)")
    return lines


def measures(described: Mapping[str, Mapping[str, float]]) -> str:
    """What `Population.describe` found, a column for each group of people, the floors in a table of their own."""
    names = [name for name in next(iter(described.values())) if name not in ("people", "missing answers")]
    names = [name for name in names if not all(np.isnan(found[name]) for found in described.values())]
    tables = []
    for title, chosen in (
        ("keyed answers", [name for name in names if not name.startswith("composite: ")]),
        ("composite of a floor", [name for name in names if name.startswith("composite: ")]),
    ):
        rows = [[name.removeprefix("composite: "), *(found[name] for found in described.values())] for name in chosen]
        tables.append(tabulate(rows, headers=[title, *described], floatfmt=".3f", tablefmt="simple"))
    return "\n\n".join(tables)
