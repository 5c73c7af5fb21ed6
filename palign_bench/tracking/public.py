"""What stands for a person outside this machine, and values in a form that a mirror can keep."""

import hmac
import math
import os
import secrets
from pathlib import Path
from typing import Any

import pandas as pd


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


def plain_rows(table: pd.DataFrame) -> list[list[Any]]:
    """The rows of a table; what is missing, of whatever kind, is None."""
    blank = table.astype(object).where(table.notna(), None)
    return [[plain(value) for value in row] for row in blank.itertuples(index=False)]


def plain(value: Any) -> Any:
    """A number of NumPy or pandas as Python's own; one that is not finite as None, which W&B shows as blank."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
