"""Whole files or none: written under another name, synced and renamed."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from palign_bench.settings import UserError


class LedgerError(UserError):
    """The ledger's folder cannot be used; the message names it and the remedy."""


class WriteError(LedgerError):
    """Nothing can be written there: the disk is full, read-only or gone."""


def canonical(document: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for the same value."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` so that ``path`` holds either its old content or all of the new, also after a power cut.

    Raises WriteError when the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile's 0600: a ledger that a group shares follows the umask.
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            with temporary.open("xb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise WriteError(
            f"cannot write {path}: {error.strerror}. Free the disk or choose another folder with runs=PATH."
        ) from error


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically."""
    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON document. Raises LedgerError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LedgerError(f"cannot read {path}: {error}. Delete it and run the same command again.") from error
