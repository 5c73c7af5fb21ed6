"""The 300 real people of PAPI: the test set of *Personality Alignment of Large Language Models* (Zhu et al. 2025).

The files have no licence of their own, so they are not part of this project: they are read from a folder that the user
names, or downloaded from the authors' public repository, pinned by commit and by SHA-256. The stored answers of
negatively keyed items are reverse-scored (Johnson's DAT300 documentation; README, "known deviations"); loading turns
them back into what the person picked. A stored 0 is a missing answer. Age, sex, country and timestamp are not read.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from palign_bench import settings
from palign_bench.questionnaire.inventory import HIGHEST, LOWEST, Inventory, Respondent, ipip_neo_300
from palign_bench.respondents.source import RespondentsError, RespondentSource, make_source

FOLDER_VARIABLE = "PALIGN_PAPI_DIR"

_TIMEOUT_SECONDS = 10  # of one network operation, not of the whole download
_ATTEMPTS = 2
_CHUNK_BYTES = 1 << 16
_REMEDY = f"set {FOLDER_VARIABLE} or respondents.folder to a folder with the files, or use respondents=simulated"


@dataclass(frozen=True)
class Release:
    """Published files: ``url`` of the folder that holds them, SHA-256 (hex) and size in bytes by file name."""

    url: str
    files: Mapping[str, tuple[str, int]]


ANSWERS, SPLIT, PORTRAITS = "Test-set.json", "mpi_300_split.json", "personality_prompt.json"
RELEASE = Release(
    "https://raw.githubusercontent.com/zhu-minjun/PAlign/376f810302337810cd304b16b876738544358fff/PAPI",
    {
        ANSWERS: ("5e46c6cf2b0d72762cce69fe455ae827f2c4cdc27a0979dc9b1e58d09b9ae4c6", 1_649_953),
        SPLIT: ("85c761554504dd1b086de98e13fe84fb6e02915ad7bf2e234bb32428894a52c6", 1_425),
        PORTRAITS: ("400a5d941d77caf04e5450f887f64e5a96e7906f420e0b12c3690f39734af008", 2_421_873),
    },
)


class PapiUnavailableError(RespondentsError):
    """No folder is named, the cache lacks the files and they cannot be downloaded; ``reason`` is short."""

    def __init__(self, reason: str, address: str = "") -> None:
        super().__init__(f"PAPI: {reason}{address and f' ({address})'}; {_REMEDY}")
        self.reason = reason


def load_papi(
    folder: str | None = None, cache: Path | None = None, download: bool = True, release: Release = RELEASE
) -> RespondentSource:
    """The 300 people of PAPI with their portraits, in the released order; an id is the released case number.

    Looks in ``folder``, else in the folder that ``PALIGN_PAPI_DIR`` names, else in ``cache`` (default: ``papi`` under
    ``PALIGN_CACHE_DIR`` or ``~/.cache/palign_bench``), which a download fills. A folder that the user names is never
    filled or passed over. Raises `PapiUnavailableError` where nothing is named and the download fails, and
    `RespondentsError` for a named folder or a file that is not as released.
    """
    named, origin = (folder, "respondents.folder") if folder else (os.environ.get(FOLDER_VARIABLE), FOLDER_VARIABLE)
    if named:
        place = Path(named).expanduser()
        for name in release.files:
            _check_named(place, name, origin, release)
    else:
        place = cache or cache_folder()
        missing = [name for name in release.files if not _is_released(place / name, release.files[name][0])]
        if missing and not download:
            raise PapiUnavailableError(f"{place} lacks {', '.join(missing)} and downloading is off")
        if missing:
            _download(missing, place, release)
    return _read(place, ipip_neo_300())


def cache_folder() -> Path:
    """Where downloaded PAPI files are kept."""
    return settings.cache_folder() / "papi"


def _is_released(path: Path, checksum: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum


def _check_named(place: Path, name: str, origin: str, release: Release) -> None:
    path = place / name
    if not place.is_dir():
        raise RespondentsError(f"{origin}={place} is no folder; it must hold {', '.join(release.files)} of PAPI")
    if not path.is_file():
        raise RespondentsError(f"{origin}={place} lacks {name}; it must hold {', '.join(release.files)} of PAPI")
    try:
        released = _is_released(path, release.files[name][0])
    except OSError as error:
        raise RespondentsError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    if not released:
        raise RespondentsError(f"{path} is not the released file (its SHA-256 differs); fetch it from {release.url}")


def _download(names: list[str], place: Path, release: Release) -> None:
    """Fetch the files into ``place``, each under a temporary name until it is whole and checked."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        total = sum(release.files[name][1] for name in names)
        with tqdm(total=total, unit="B", unit_scale=True, desc="Downloading PAPI") as progress:
            for name in names:
                _download_one(name, place, release, progress)
    except OSError as error:
        raise PapiUnavailableError(f"cannot write to the cache folder {place} ({error.strerror or error})") from error


def _download_one(name: str, place: Path, release: Release, progress: tqdm[Any]) -> None:
    address = f"{release.url}/{name}"
    for attempt in range(1, _ATTEMPTS + 1):
        done = progress.n
        try:
            content = _fetch(address, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            progress.update(done - progress.n)
            if attempt == _ATTEMPTS:
                raise PapiUnavailableError(f"download of {name} failed: {_told(error)}", address) from error
    if hashlib.sha256(content).hexdigest() != release.files[name][0]:
        raise PapiUnavailableError(f"the downloaded {name} is not the released file (its SHA-256 differs)", address)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=place)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(place / name)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _fetch(address: str, progress: tqdm[Any]) -> bytes:
    """The body of one file; raises `http.client.IncompleteRead` where the connection breaks off."""
    parts = []
    with urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS) as response:
        while part := response.read(_CHUNK_BYTES):
            parts.append(part)
            progress.update(len(part))
        announced = response.headers.get("Content-Length")
    content = b"".join(parts)
    if announced is not None and len(content) < int(announced):  # read(n) takes an early end for the end
        raise http.client.IncompleteRead(content, int(announced) - len(content))
    return content


def _told(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection broke off after {len(error.partial)} bytes"
    cause = getattr(error, "reason", error)  # urllib wraps it
    told = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(told.split())


def _read(place: Path, inventory: Inventory) -> RespondentSource:
    rows, split, portraits = (json.loads((place / name).read_bytes()) for name in (ANSWERS, SPLIT, PORTRAITS))
    if tuple(split["train_index"]) != inventory.known or tuple(split["test_index"]) != inventory.held_out:
        raise RespondentsError(f"{place / SPLIT} splits the items otherwise than {inventory.name} does")
    people = [
        Respondent(str(row["case"]), _literal(row, inventory), portrait["output"][0])
        for row, portrait in zip(rows, portraits, strict=True)
    ]
    return make_source("papi", f"{len(people)} people of PAPI", people)


def _literal(row: Mapping[str, Any], inventory: Inventory) -> dict[int, int]:
    """Literal answers of one stored row; on negatively keyed items that is 6 minus what is stored."""
    literal = {}
    for item in inventory.items:
        stored = int(row[f"i{item.number}"])
        if LOWEST <= stored <= HIGHEST:
            literal[item.number] = int(inventory.keyed(item.number, stored))
    return literal
