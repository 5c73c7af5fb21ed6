"""The file of one finished cell: its record, and the checksum by which an edited or damaged one is known."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.files import canonical

Record = dict[str, Any]

_BEFORE_SUM, _BEFORE_RECORD, _AFTER_RECORD = b'{"sha256": "', b'", "record": ', b"}\n"
_SUM_START = len(_BEFORE_SUM)
_SUM_END = _SUM_START + 64
_RECORD_START = _SUM_END + len(_BEFORE_RECORD)


def content_of(record: Mapping[str, Any]) -> bytes:
    """The content of the cell's file. Raises ValueError for a number that is none."""
    body = canonical(json.loads(canonical(record))).encode()  # of what a reader will see: string keys, lists
    return _BEFORE_SUM + hashlib.sha256(body).hexdigest().encode() + _BEFORE_RECORD + body + _AFTER_RECORD


def intact_record(path: Path) -> Record | None:
    """The record in a cell's file; None when the file is gone, damaged or edited. Its white space may differ."""
    try:
        content = path.read_bytes()
        document = json.loads(content.decode("utf-8"))
        body = document["record"]
        whole = _as_written(content) or document["sha256"] == hashlib.sha256(canonical(body).encode()).hexdigest()
    except FileNotFoundError:  # set aside by another process
        return None
    except (KeyError, TypeError, ValueError, RecursionError):  # ValueError: no UTF-8, no JSON, or no number
        return None
    return body if whole and isinstance(body, dict) else None


def _as_written(content: bytes) -> bool:
    """Whether this is a file as `content_of` makes it, found without writing its record anew; False: not known."""
    framed = content.startswith(_BEFORE_SUM) and content[_SUM_END:_RECORD_START] == _BEFORE_RECORD
    body = content[_RECORD_START : -len(_AFTER_RECORD)]
    return framed and hashlib.sha256(body).hexdigest().encode() == content[_SUM_START:_SUM_END]
