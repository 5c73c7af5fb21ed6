"""The tracker that `tracking=` names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.settings import UserError
from palign_bench.tracking.public import read_salt
from palign_bench.tracking.tracker import Tracker
from palign_bench.tracking.trackio import TrackioTracker
from palign_bench.tracking.wandb import WandbTracker

_KEYS = {"trackio": ("name", "project"), "wandb": ("name", "project", "entity", "mode", "folder")}


def make_tracker(settings: Mapping[str, Any], runs: Path = Path("runs")) -> Tracker:
    """The tracker that a ``conf/tracking`` file describes; ``folder: null`` means the ledger's folder ``runs``.

    Raises UserError for an unknown name, key or mode, for ``mode=online`` without an API key, and for a damaged salt.
    """
    name = settings.get("name")
    if name == "none":
        return Tracker()
    if name not in _KEYS:
        raise UserError(f"tracking={name}: choose wandb, trackio or none")
    unknown = [str(key) for key in settings if key not in _KEYS[name]]
    if unknown:
        raise UserError(f"tracking.{unknown[0]}: no such key; the keys are {', '.join(_KEYS[name])}")
    salt_file = runs / ".salt"
    if salt_file.exists():
        read_salt(salt_file)
    project = settings.get("project") or "palign-bench"
    if name == "trackio":
        return TrackioTracker(str(project), salt_file)
    return WandbTracker(
        project=project,
        entity=settings.get("entity"),
        mode=settings.get("mode") or "auto",
        folder=Path(settings.get("folder") or runs).expanduser(),
        salt_file=salt_file,
    )
