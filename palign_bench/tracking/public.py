"""What may leave this machine: hashed ids, and settings without people or places."""

from __future__ import annotations

import hmac
import math
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def read_salt(path: Path) -> str:
    """The ledger's random salt, made on first use. It stays beside the ledger and is never uploaded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32), encoding="ascii")
        try:
            os.link(draft, path)  # never replaces the salt that another process has just made
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text(encoding="ascii")


def hashed_id(salt: str, respondent_id: str) -> str:
    """Sixteen hexadecimal digits that stand for a respondent outside this machine: HMAC-SHA-256 under the salt."""
    return hmac.new(salt.encode(), respondent_id.encode(), "sha256").hexdigest()[:16]


# A key is dropped when its last word is one of these: ids, what people said and are, secrets, places on a disk.
_PRIVATE = frozenset(
    {"id", "ids", "respondent", "answer", "answers", "text", "texts", "portrait", "portraits", "demographics"}
    | {"age", "sex", "gender", "country", "timestamp", "birthday", "email", "user", "username", "host"}
    | {"key", "apikey", "token", "secret", "password", "credentials"}
    | {"folder", "dir", "directory", "file", "filename", "path"}
)


_PUBLIC_PATHS = frozenset({"name_or_path"})  # usually a name on the hub; judged by its value


_PUBLIC_RESPONDENTS = frozenset({"name", "description", "limit", "count", "seed", "data_hash"})


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that W&B may hold.

    Of ``respondents`` only what describes the source is kept; elsewhere keys that name ids, demographics, secrets or
    places are dropped, and so are values that are paths or addresses or anything but plain JSON.
    """
    kept: dict[str, Any] = {}
    for key, value in config.items():
        name = str(key)
        last = re.split(r"[^a-z0-9]+", name.lower().rstrip("_"))[-1]
        if (last in _PRIVATE and name not in _PUBLIC_PATHS) or "api_key" in name.lower():
            continue
        if name == "respondents" and isinstance(value, Mapping):
            value = {field: value[field] for field in value if field in _PUBLIC_RESPONDENTS}
        if _is_public(value):
            kept[name] = _public_value(value)
    return kept


def _public_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public_config(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_public_value(each) for each in value if _is_public(each)]
    return _plain(value)


def _is_public(value: Any) -> bool:
    if isinstance(value, str):
        return not any(_names_a_place(word) for word in [value, *value.split()])
    return isinstance(_plain(value), bool | int | float | Mapping | Sequence | None) and not isinstance(value, bytes)


def _names_a_place(text: str) -> bool:
    """Whether a text is a path or an address, rather than a name like ``owner/model``."""
    if "://" in text or "\\" in text or re.match(r"[/~]|\.\.?/|[A-Za-z]:/", text):
        return True
    return "/" in text and Path(text).exists()


def _plain(value: Any) -> Any:
    """A number of NumPy or pandas as Python's own; one that is not finite as None, which W&B shows as blank."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
