"""The file of one finished cell: its record, and the checksum by which an edited or damaged one is known."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from palign_bench.files import canonical

Record = dict[str, Any]

_BEFORE_RECORD, _AFTER_RECORD = b', "record": ', b"}\n"


def file_name(respondent_id: str, suffix: str = ".json") -> str:
    """The name of a cell's file. Ids come from users' files: percent-encoding keeps "../x" and "a/b" in the folder."""
    return quote(respondent_id, safe="").replace(".", "%2E") + suffix


def respondent_of(name: str) -> str:
    """The respondent of a cell's file, or of what tells that it failed."""
    return unquote(name.removesuffix(".json").removesuffix(".error"))


def content_of(record: Mapping[str, Any]) -> bytes:
    """The content of the cell's file. Raises ValueError for a number that is none."""
    body = canonical(json.loads(canonical(record))).encode()  # of what a reader will see: string keys, lists
    return b'{"sha256": "%b"%b%b%b' % (_checksum(body).encode(), _BEFORE_RECORD, body, _AFTER_RECORD)


def intact_record(path: Path) -> Record | None:
    """The record in a cell's file; None when the file is gone, damaged, edited or named after somebody else.

    Its white space may differ.
    """
    try:
        content = path.read_bytes()
        document = json.loads(content.decode("utf-8"))
        body = document["record"]
        as_written = content.partition(_BEFORE_RECORD)[2].removesuffix(_AFTER_RECORD)  # saves writing the record anew
        checksum = document["sha256"]
        whole = checksum == _checksum(as_written) or checksum == _checksum(canonical(body).encode())
    except (FileNotFoundError, IsADirectoryError):  # set aside by another process; a folder named like a cell
        return None
    except (KeyError, TypeError, ValueError, RecursionError):  # ValueError: no UTF-8, no JSON, or no number
        return None
    own = respondent_of(path.name)
    return body if whole and isinstance(body, dict) and body.get("respondent", own) == own else None


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
