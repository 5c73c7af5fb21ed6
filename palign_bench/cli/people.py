"""`palign-bench people` and `select`: what is understood of a file or source of people, and some who stand for all."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from tabulate import tabulate

from palign_bench.cli.arguments import add_twice_reversed, new_place
from palign_bench.files import write_atomically
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents import PAPI_SETTINGS, checked, load_inventory, load_respondents
from palign_bench.respondents.dark_triad import dark_triad_layout
from palign_bench.respondents.file import FileOfPeople, read_people
from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.orientation import orientation_evidence
from palign_bench.respondents.papi import FEWEST, papi_demographics
from palign_bench.respondents.population import Population
from palign_bench.respondents.selection import RULES, Selection, select_people
from palign_bench.settings import UserError, counted, did_you_mean, options, read_option

_NAMED = 5  # people who are named before the rest is counted
_SOURCE = "a file of people, or an option of respondents= (papi, simulated, …)"
_SETTINGS = "settings of respondents=, as in orientation=keyed or count=20000, and inventory= as for a run"


def people(chosen: argparse.Namespace) -> None:
    """`palign-bench people SOURCE [KEY=VALUE …]`: people, items, missing answers, orientation, floors."""
    if chosen.demographics:
        print(_demographics(chosen))
        return
    found, file = _source_of(chosen)
    if not (found.answers != MISSING).any():
        raise UserError(f"{chosen.source}: nobody answers any item of {found.inventory.name}; fill in their answers")
    print(_understood(found, file))
    print()
    print(_measures({"": Population(found).describe()}))
    if chosen.pictures:
        print(f"\n{_draw(found, chosen)}")
    if file is not None and file.doubt:
        raise UserError(file.doubt)
    if file is not None:
        of_people = [each for each in chosen.settings if not _of_inventory(each)]
        settings = [f"respondents.{setting.removeprefix('respondents.')}" for setting in of_people]
        command = ["method=floors", *_inventory_settings(chosen), "respondents=file", f"respondents.path={file.place}"]
        print(f"\nTo run: palign-bench {shlex.join([*command, *settings])}")


def people_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument(
        "--pictures", type=new_place, metavar="FOLDER", help="draw trait densities and correlations there"
    )
    add_twice_reversed(parser)
    parser.add_argument("--demographics", action="store_true", help="of papi, instead: counts by sex, age and country")


def _draw(found: AnswerMatrix, chosen: argparse.Namespace) -> str:
    from palign_bench.report.document import Written
    from palign_bench.report.pictures import traits  # matplotlib takes seconds to import

    folder, inventory, written = chosen.pictures, found.inventory, Written()
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
        written.draw(figure, folder / name)
    return written.told(folder)


def _demographics(chosen: argparse.Namespace) -> str:
    if chosen.source != "papi":
        raise UserError("--demographics: only papi has any; give palign-bench people papi --demographics")
    given = _read(chosen.settings, "respondents.")
    _, of_papi = checked("respondents", {**given, "name": "papi"}, {"papi": PAPI_SETTINGS})
    counts = papi_demographics(**of_papi)
    lines = [
        f"{name}: {', '.join(f'{group} {count}' for group, count in found.items())}" for name, found in counts.items()
    ]
    return "\n".join([*lines, f"Groups of fewer than {FEWEST} are counted together."])


def _add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that `_source_of` reads."""
    parser.add_argument("source", help=_SOURCE)
    parser.add_argument("settings", nargs="*", default=[], help=_SETTINGS, metavar="KEY=VALUE")


def _source_of(chosen: argparse.Namespace) -> tuple[AnswerMatrix, FileOfPeople | None]:
    """The people named on the command line, and what was understood of their file where it is one.

    Raises UserError for a source or setting that does not exist, and for a file that cannot be read.
    """
    inventory = _inventory_of(chosen)
    given = _read([setting for setting in chosen.settings if not _of_inventory(setting)], "respondents.")
    sources = [name for name in options("respondents") if name != "file"]
    if chosen.source in sources and not Path(chosen.source).is_file():
        settings = read_option("respondents", chosen.source) | given
        people = load_respondents(settings, inventory).select(settings["limit"], settings["ids"])
        return AnswerMatrix.of(people, inventory), None
    if not Path(chosen.source).expanduser().exists():
        hint = did_you_mean(chosen.source, sources)
        raise UserError(f"{chosen.source}: no such file or source{hint}; give a file or one of {', '.join(sources)}")
    known = {key for key in read_option("respondents", "file") if key not in ("name", "path", "limit", "ids")}
    if unknown := sorted(set(given) - known):
        raise UserError(f"{unknown[0]} is no setting of a file; it has {', '.join(sorted(known))}")
    file = read_people(chosen.source, inventory=inventory, **given)
    return file.people, file


def _inventory_settings(chosen: argparse.Namespace) -> list[str]:
    """The settings of the inventory as they were typed, for the command that runs on the same people."""
    return [each for each in chosen.settings if _of_inventory(each)]


def _inventory_of(chosen: argparse.Namespace) -> Inventory:
    """The inventory that the settings name; without any the one that the source answers."""
    given = _read(_inventory_settings(chosen), "inventory.")
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
        try:
            given[key.removeprefix(prefix)] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: of a date that does not exist
            raise UserError(f"{setting}: cannot be read; close its brackets, or put quotes around the value") from error
    return given


def _understood(found: AnswerMatrix, file: FileOfPeople | None) -> str:
    inventory, given = found.inventory, found.answers != MISSING
    answered = given.any(axis=0)
    parts = {part: found.columns(numbers) for part, numbers in inventory.parts.items()}
    counts = " and ".join(f"{answered[columns].sum()} of {len(columns)} {part}" for part, columns in parts.items())
    lines = [f"{file.place}: {file.layout}"] if file is not None else []
    lines.append(f"{counted(len(found))}; {inventory.name}: {counts} items answered")
    lines.append(_options(found))
    lines.append(f"missing: {(~given[:, answered]).mean():.2%} of the answers to these items")
    for part, columns in parts.items():
        none = np.flatnonzero(~given[:, columns].any(axis=1))
        if len(none):
            named = ", ".join([*(found.ids[row] for row in none[:_NAMED]), *(["…"] if len(none) > _NAMED else [])])
            lines.append(f"cannot be used, since they answer no {part} item: {len(none)} ({named})")
    if file is None:
        lines.append(f"orientation: literal; {orientation_evidence(found.answers, inventory)}")
    else:
        lines += [f"orientation: {file.orientation}, {file.reason}; {file.evidence}", *file.notes]
    return "\n".join(lines)


def _options(found: AnswerMatrix) -> str:
    """How often each option was picked by everybody together: a reversed or a shifted scale shows here."""
    times = np.bincount(found.answers.ravel(), minlength=found.inventory.highest + 1)
    said = (
        f"{option.value} {option.label} {f'{times[option.value]:,}×' if times[option.value] else 'never'}"
        for option in found.inventory.options
    )
    return f"options as picked: {', '.join(said)}"


def _measures(described: Mapping[str, Mapping[str, float]]) -> str:
    """What `Population.describe` found, a column for each group of people, the floors in a table of their own."""
    frame = pd.DataFrame(described).dropna(how="all")
    of_floors = frame.index.str.startswith("composite: ")
    parts = {"keyed answers": frame[~of_floors], "composite of a floor": frame[of_floors]}
    tables = []
    for title, part in parts.items():
        named = part.rename(index=lambda name: name.removeprefix("composite: "))
        tables.append(tabulate(named, headers=[title, *described], floatfmt=".3f", tablefmt="simple"))
    return "\n\n".join(tables)


def select_arguments(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    parser.add_argument("--clusters", type=int, default=300, help="K-means clusters, and people picked (default: 300)")
    parser.add_argument("--rule", choices=RULES, default="nearest", help=(
        "nearest to each cluster's centre (the paper's; they are easier to predict than the rest), a random member of "
        "each cluster, or random people (default: nearest)"))  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the clusters and of chance (default: 0)")
    parser.add_argument(
        "--out", type=new_place, default=Path("selected"), help="the folder to write (default: selected)"
    )


def select(chosen: argparse.Namespace) -> None:
    """`palign-bench select SOURCE [KEY=VALUE …]`: ids, people and a report in a folder."""
    everybody, file = _source_of(chosen)
    if file is not None and file.doubt and file.assumed:
        raise UserError(file.doubt)
    selection = select_people(everybody, chosen.clusters, chosen.rule, chosen.seed)
    picked, inventory = everybody.take(selection.rows), everybody.inventory
    report = _report(everybody, selection, shlex.join(["palign-bench", *chosen.typed]))
    ids = pd.DataFrame({"id": picked.ids})
    if selection.sizes is not None:
        ids["people_in_cluster"] = selection.sizes
    columns = [f"i{item.number}" for item in inventory.items]
    people = pd.DataFrame(picked.answers, index=pd.Index(picked.ids, name="id"), columns=columns)
    out = chosen.out
    write_atomically(out / "ids.csv", ids.to_csv(index=False))
    write_atomically(out / "people.csv", people.astype(object).replace(MISSING, "").to_csv())
    write_atomically(out / "report.md", report)
    print(report)
    print(f"Written: {out}/ids.csv, people.csv and report.md. To run on them:")
    settings = ["respondents=file", f"respondents.path={out / 'people.csv'}", "respondents.orientation=literal"]
    asked = _inventory_settings(chosen)
    if not asked and inventory.name != "ipip_neo_300":
        asked = [f"inventory={inventory.name}"]
    print(shlex.join(["palign-bench", "method=floors", *asked, *settings]))


def _report(people: AnswerMatrix, selection: Selection, command: str) -> str:
    rows = np.zeros(len(people), dtype=bool)
    rows[selection.rows] = True
    population = Population(people)
    groups = {f"{int(rows.sum())} selected": population.describe(rows), f"all {len(people)}": population.describe()}
    return (
        f"# People selected from {len(people)}\n\n`{command}`\n\n{people.inventory.name}. Alphas are Cronbach's; "
        "scores are keyed. A floor's composite is the sum over scales of the mean absolute difference on "
        "held-out answers; floors of others use everybody but the person judged.\n\n"
        f"```\n{_measures(groups)}\n```\n"
    )
