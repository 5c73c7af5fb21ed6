"""Published files that are not part of this project: found in a folder or downloaded, and checked."""

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from tqdm import tqdm

from palign_bench import settings
from palign_bench.files import WriteError, write_atomically
from palign_bench.respondents.source import RespondentsError

FOLDER_VARIABLE = "PALIGN_PAPI_DIR"

_TIMEOUT_SECONDS = 10  # of one network operation, not of the whole download
_ATTEMPTS = 2


@dataclass(frozen=True)
class Release:
    """Published files, as ``data/releases.yaml`` describes them; ``files``: SHA-256 and size in bytes by name."""

    url: str
    files: Mapping[str, tuple[str, int]]
    name: str = "PAPI"
    group: str = "respondents"  # of settings: whose key `folder` names them
    subfolder: str = ""
    instead: str = "use respondents=simulated"

    @classmethod
    def of(cls, key: str) -> Self:
        """The release under this key of ``data/releases.yaml``."""
        text = (Path(__file__).parent / "data" / "releases.yaml").read_text(encoding="utf-8")
        return cls(**yaml.safe_load(text)[key])

    @property
    def remedy(self) -> str:
        return f"set {FOLDER_VARIABLE} or {self.group}.folder to a folder with the files, or {self.instead}"


class ReleaseUnavailableError(RespondentsError):
    """No folder is named, the cache lacks the files and they cannot be downloaded; ``reason`` is short."""

    def __init__(self, release: Release, reason: str, address: str = "") -> None:
        super().__init__(f"{release.name}: {reason}{address and f' ({address})'}; {release.remedy}")
        self.reason = reason


def locate(release: Release, folder: str | None = None, download: bool = True) -> Path:
    """The folder that holds the files, each checked.

    Looks in ``folder``, else in the folder that ``PALIGN_PAPI_DIR`` names, else in `cache_folder`, which a download
    fills. A folder that the user names is never filled or passed over. Raises `ReleaseUnavailableError` where nothing
    is named and the download fails, and `RespondentsError` for a named folder or a file that is not as released.
    """
    variable = os.environ.get(FOLDER_VARIABLE)
    if folder or variable:
        origin = f"{release.group}.folder" if folder else FOLDER_VARIABLE
        place = Path(folder).expanduser() if folder else Path(str(variable)).expanduser() / release.subfolder
        for name in release.files:
            _check_named(place, name, origin, release)
        return place
    place = cache_folder() / release.subfolder
    missing = [name for name in release.files if not _is_released(place / name, release.files[name][0])]
    if missing and not download:
        raise ReleaseUnavailableError(release, f"{place} lacks {', '.join(missing)} and downloading is off")
    if missing:
        _download(missing, place, release)
    return place


def cache_folder() -> Path:
    """Where downloaded files are kept."""
    return settings.cache_folder() / "papi"


def _is_released(path: Path, checksum: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def _check_named(place: Path, name: str, origin: str, release: Release) -> None:
    path = place / name
    if not path.is_file():
        fault = f"lacks {name}" if place.is_dir() else "is no folder"
        raise RespondentsError(f"{origin}={place} {fault}; it must hold {', '.join(release.files)} of {release.name}")
    try:
        released = _is_released(path, release.files[name][0])
    except OSError as error:
        raise RespondentsError(f"{path} cannot be read ({error.strerror}); {release.remedy}") from error
    if not released:
        raise RespondentsError(f"{path} is not the released file (its SHA-256 differs); fetch it from {release.url}")


def _download(names: list[str], place: Path, release: Release) -> None:
    """Fetch the files into ``place``, where each is whole and checked or not there at all."""
    total = sum(release.files[name][1] for name in names)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tqdm(total=total, unit="B", unit_scale=True, desc=f"Downloading {release.name}") as progress:
            for name in names:
                content = _fetch(name, release)
                write_atomically(place / name, content)
                progress.update(len(content))
    except (OSError, WriteError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise ReleaseUnavailableError(release, f"cannot write to the cache folder {place} ({reason})") from error


def _fetch(name: str, release: Release) -> bytes:
    """The content of one file, checked."""
    address = f"{release.url}/{name}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as response:
                content: bytes = response.read()
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise ReleaseUnavailableError(release, f"download of {name} failed: {_told(error)}", address) from error
    if hashlib.sha256(content).hexdigest() != release.files[name][0]:
        reason = f"the downloaded {name} is not the released file (its SHA-256 differs)"
        raise ReleaseUnavailableError(release, reason, address)
    return content


def _told(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection broke off after {len(error.partial)} bytes"
    cause = getattr(error, "reason", error)  # urllib wraps it
    told = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(told.split())
