"""Where people come from: the real 300 of PAPI, simulated people, or a user's own file; and what they answered.

Every source is a `RespondentSource`; `load_respondents` finds it from the settings under ``respondents`` in the config,
and `load_inventory` the questionnaire from those under ``inventory``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from palign_bench.questionnaire.inventories import read_dark_triad, read_inventory
from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_120, ipip_neo_300
from palign_bench.respondents.dark_triad import ITEMS_RELEASE, load_dark_triad
from palign_bench.respondents.file import load_file
from palign_bench.respondents.papi import load_papi
from palign_bench.respondents.released import ReleaseUnavailableError, locate
from palign_bench.respondents.simulated import simulate
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import UserError

_SELECTION = ("limit", "ids")  # for `RespondentSource.select`, which the caller applies


def load_auto(folder: str | None = None, download: bool = True, count: int = 300, seed: int = 0) -> RespondentSource:
    """PAPI where a folder, the cache or the download gives it, else simulated people, with the reason in the title.

    Only that PAPI cannot be had leads to simulated people; a folder that is named but not as released is an error.
    """
    try:
        return load_papi(folder, download)
    except ReleaseUnavailableError as unavailable:
        people = simulate(count, seed)
        return replace(people, description=f"{people.description} (PAPI not reachable: {unavailable.reason})")


_LOADERS: dict[str, tuple[Callable[..., RespondentSource], tuple[str, ...]]] = {
    "papi": (load_papi, ("folder", "download")),
    "simulated": (simulate, ("count", "seed", "figures")),
    "file": (load_file, ("path", "orientation", "columns", "id_column", "missing")),
    "dark_triad": (load_dark_triad, ("folder", "download", "rule", "count", "seed")),
    "auto": (load_auto, ("folder", "download", "count", "seed")),
}

_OF_ANY_INVENTORY = ("file", "dark_triad")  # the others hold answers to IPIP-NEO-300


def load_respondents(settings: Mapping[str, Any], inventory: Inventory) -> RespondentSource:
    """The source that ``settings["name"]`` names, loaded with the other settings; ``limit`` and ``ids`` are left alone.

    ``inventory``: what the people answered. Raises `RespondentsError` for an unknown
    name or setting, for people who answered another inventory, and whatever the loader raises.
    """
    name = settings.get("name")
    if name not in _LOADERS:
        raise RespondentsError(f"respondents.name={name}: choose one of {', '.join(_LOADERS)}")
    loader, keys = _LOADERS[name]
    given = {str(key): value for key, value in settings.items() if key not in ("name", *_SELECTION)}
    for key in given:
        if key not in keys:
            raise RespondentsError(f"respondents.{key} is no setting of respondents={name}; it has {', '.join(keys)}")
    if not isinstance(given.get("download", True), bool):
        raise RespondentsError(f"respondents.download={given['download']}: give true or false")
    for key in ("folder", "path", "columns", "id_column"):
        if given.get(key) is not None:
            given[key] = str(given[key])  # a folder or column called 2024 arrives as a number
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


_INVENTORIES: dict[str, tuple[str, ...]] = {  # and their settings
    "ipip_neo_300": (),
    "ipip_neo_120": (),
    "dark_triad": ("folder", "download"),
    "file": ("path",),
}


def load_inventory(settings: Mapping[str, Any]) -> Inventory:
    """The inventory that ``settings["name"]`` names, read from its files where it has some.

    Raises UserError for an unknown name or setting, and for files that are missing or not as they must be.
    """
    name = str(settings.get("name"))
    if name not in _INVENTORIES:
        raise UserError(f"inventory={name}: choose one of {', '.join(_INVENTORIES)}")
    if unknown := sorted(set(map(str, settings)) - {"name", *_INVENTORIES[name]}):
        has = ", ".join(_INVENTORIES[name]) or "none"
        raise UserError(f"inventory.{unknown[0]} is no setting of inventory={name}; it has {has}")
    if name == "dark_triad":
        folder, download = settings.get("folder"), settings.get("download", True)
        return read_dark_triad(locate(ITEMS_RELEASE, folder and str(folder), bool(download)))
    if name == "file":
        if not settings.get("path"):
            raise UserError("inventory.path is not set: give the CSV file with your items (number, text, scale, …)")
        return read_inventory(Path(str(settings["path"])).expanduser())
    return ipip_neo_120() if name == "ipip_neo_120" else ipip_neo_300()
