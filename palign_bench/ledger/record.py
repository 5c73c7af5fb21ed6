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


def text_of(record: Mapping[str, Any]) -> str:
    """The content of the cell's file. Raises ValueError for a number that is none."""
    plain = json.loads(canonical(record))  # what a reader will see: string keys, lists
    checksum = hashlib.sha256(canonical(plain).encode()).hexdigest()
    return json.dumps({"sha256": checksum, "record": plain}, ensure_ascii=False) + "\n"


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
    """Whether this is a whole file as `text_of` makes it, without forming the canonical text of its record anew.

    Such a record has its keys in order, so that it is canonical but for the spaces between its tokens. Splitting at the
    quotes tells these from spaces inside strings, as long as no quote is escaped. False: not known.
    """
    framed = content.startswith(_BEFORE_SUM) and content[_SUM_END:_RECORD_START] == _BEFORE_RECORD
    if not framed or not content.endswith(_AFTER_RECORD) or b'\\"' in content:
        return False
    parts = content[_RECORD_START : -len(_AFTER_RECORD)].split(b'"')
    parts[::2] = b'"'.join(parts[::2]).replace(b" ", b"").split(b'"')
    return hashlib.sha256(b'"'.join(parts)).hexdigest().encode() == content[_SUM_START:_SUM_END]
