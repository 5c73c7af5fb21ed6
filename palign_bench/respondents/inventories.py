"""The inventory that the settings under ``inventory`` in the config name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.questionnaire.inventories import DARK_TRIAD_KEY, DARK_TRIAD_SPLIT, read_dark_triad, read_inventory
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_120, ipip_neo_300
from palign_bench.respondents.dark_triad import DARK_TRIAD, DARK_TRIAD_URL
from palign_bench.respondents.released import locate
from palign_bench.settings import UserError

# The text of the Short Dark Triad has terms of its own, so it is not part of this project.
DARK_TRIAD_RELEASE = DARK_TRIAD(
    DARK_TRIAD_URL,
    {
        DARK_TRIAD_KEY: ("fe9518b5a0b6cc8161e46f9c5b6a1732c1a0d031727c00e7a5091bb5621b3106", 9_728),
        DARK_TRIAD_SPLIT: ("215f5984d578d8c533d9d40299a8a4b830f17a8c5bdb48e9bcb741e3ca7e785c", 131),
    },
    instead="choose another inventory=",
)
_SETTINGS: dict[str, tuple[str, ...]] = {
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
    if name not in _SETTINGS:
        raise UserError(f"inventory={name}: choose one of {', '.join(_SETTINGS)}")
    if unknown := sorted(set(map(str, settings)) - {"name", *_SETTINGS[name]}):
        has = ", ".join(_SETTINGS[name]) or "none"
        raise UserError(f"inventory.{unknown[0]} is no setting of inventory={name}; it has {has}")
    if name == "dark_triad":
        folder, download = settings.get("folder"), settings.get("download", True)
        return read_dark_triad(locate(DARK_TRIAD_RELEASE, folder and str(folder), download=bool(download)))
    if name == "file":
        if not settings.get("path"):
            raise UserError("inventory.path is not set: give the CSV file with your items (number, text, scale, …)")
        return read_inventory(Path(str(settings["path"])).expanduser())
    return ipip_neo_120() if name == "ipip_neo_120" else ipip_neo_300()
