"""Where people come from: the real 300 of PAPI, simulated people, or a user's own file; and what they answered.

Every source is a `RespondentSource`; `load_respondents` finds it from the settings under ``respondents`` in the config,
and `load_inventory` the questionnaire from those under ``inventory``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palign_bench.questionnaire.inventories import read_dark_triad, read_inventory
from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_120, ipip_neo_300
from palign_bench.respondents.dark_triad import load_dark_triad
from palign_bench.respondents.file import load_file
from palign_bench.respondents.papi import load_papi
from palign_bench.respondents.released import Release, ReleaseUnavailableError, locate
from palign_bench.respondents.simulated import simulate
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import UserError


def load_auto(folder: str | None = None, download: bool = True, count: int = 300, seed: int = 0) -> RespondentSource:
    """PAPI where a folder, the cache or the download gives it, else simulated people, with the reason in the title.

    Only that PAPI cannot be had leads to simulated people; a folder that is named but not as released is an error.
    """
    try:
        return load_papi(folder, download)
    except ReleaseUnavailableError as unavailable:
        people = simulate(count, seed)
        return replace(people, description=f"{people.description} (PAPI not reachable: {unavailable.reason})")


_LOADERS: dict[str, Callable[..., RespondentSource]] = {
    "papi": load_papi,
    "simulated": simulate,
    "file": load_file,
    "dark_triad": load_dark_triad,
    "auto": load_auto,
}
PAPI_SETTINGS = ("folder", "download")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "papi": PAPI_SETTINGS,
    "simulated": ("count", "seed", "figures"),
    "file": ("path", "orientation", "columns", "id_column", "missing"),
    "dark_triad": ("folder", "download", "rule", "count", "seed"),
    "auto": ("folder", "download", "count", "seed"),
}
_OF_ANY_INVENTORY = ("file", "dark_triad")  # the others hold answers to IPIP-NEO-300
_INVENTORIES: dict[str, tuple[str, ...]] = {  # and their settings
    "ipip_neo_300": (),
    "ipip_neo_120": (),
    "dark_triad": ("folder", "download"),
    "file": ("path",),
}


def checked(group: str, settings: Mapping[str, Any], known: Mapping[str, Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """The name under ``settings``, and its settings; ``known``: those of each name in the config's ``group``.

    Raises `RespondentsError` for an unknown name or setting, and for a ``download`` that is neither true nor false.
    """
    name = str(settings.get("name"))
    if name not in known:
        raise RespondentsError(f"{group}.name={name}: choose one of {', '.join(known)}")
    given = {str(key): value for key, value in settings.items() if key != "name"}
    if unknown := [key for key in given if key not in known[name]]:
        has = ", ".join(known[name]) or "none"
        raise RespondentsError(f"{group}.{unknown[0]} is no setting of {group}={name}; it has {has}")
    if not isinstance(given.get("download", True), bool):
        raise RespondentsError(f"{group}.download={given['download']}: give true or false")
    for key in given.keys() & {"folder", "path", "columns", "id_column"}:
        given[key] = given[key] and str(given[key])  # a folder or column called 2024 arrives as a number
    return name, given


def load_respondents(settings: Mapping[str, Any], inventory: Inventory) -> RespondentSource:
    """The source that ``settings["name"]`` names, loaded with the other settings; ``limit`` and ``ids`` are left alone.

    ``inventory``: what the people answered. Raises `RespondentsError` as `checked` and the loader do, and for people
    who answered another inventory.
    """
    of_loader = {key: value for key, value in settings.items() if key not in ("limit", "ids")}  # the caller selects
    name, given = checked("respondents", of_loader, _SETTINGS)
    loader = _LOADERS[name]
    if name in _OF_ANY_INVENTORY:
        return loader(**given, inventory=inventory)
    if inventory.name == "ipip_neo_300":
        return loader(**given)
    if set(inventory.items) < set(ipip_neo_300().items):  # a short form of it
        return _restricted(loader(**given), inventory)
    raise RespondentsError(f"respondents={name} answers inventory=ipip_neo_300, not {inventory.name}; set either")


def is_stand_in(settings: Mapping[str, Any], source: RespondentSource) -> bool:
    """Whether ``respondents=auto`` gave simulated people because the real ones cannot be had here."""
    return settings.get("name") == "auto" and source.name == "simulated"


def _restricted(source: RespondentSource, inventory: Inventory) -> RespondentSource:
    """The same people with their answers to the items of the inventory alone; a portrait was written from more."""
    people = tuple(
        Respondent(person.id, {n: person.answers[n] for n in inventory.by_number if n in person.answers})
        for person in source.people
    )
    return replace(source, people=people)


def load_inventory(settings: Mapping[str, Any]) -> Inventory:
    """The inventory that ``settings["name"]`` names, read from its files where it has some.

    Raises UserError as `checked` does, and for files that are missing or not as they must be.
    """
    name, given = checked("inventory", settings, _INVENTORIES)
    if name == "dark_triad":
        return read_dark_triad(locate(Release.of("dark_triad_items"), **given))
    if name == "file":
        if not given.get("path"):
            raise UserError("inventory.path is not set: give the CSV file with your items (number, text, scale, …)")
        return read_inventory(Path(given["path"]).expanduser())
    return ipip_neo_120() if name == "ipip_neo_120" else ipip_neo_300()
