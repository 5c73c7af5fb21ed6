"""What may leave the ledger for a mirror, what stands there for a person, and values in a form that it can keep."""

import hmac
import math
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from palign_bench.costs.figures import BY_NAME, FIGURES
from palign_bench.files import LedgerError
from palign_bench.settings import options, read_option

Flags = NDArray[np.bool_]

FEWEST_ITEMS = 3  # held-out answers of a person to a scale, below which its score stays here
_PLACE = re.compile(r"[/~.\\]|[A-Za-z]:[/\\]|\w+://")  # how a path or an address begins
_FILE = re.compile(r".+\.(csv|dat|jsonl?|npy|npz|parquet|pt|safetensors|sav|tsv|txt|xlsx?|ya?ml)", re.I | re.DOTALL)
_SALT = re.compile("[0-9a-f]{64}")
_COSTS = tuple(figure.name for figure in FIGURES if figure.followed)
_TEXTS = ("method", "label", "protocol", "model")  # the columns of a table whose texts may leave
_COUNTS = ("respondents", "missing_cells", "unscored", "known_answers")


def read_salt(path: Path) -> str:
    """The ledger's random salt, made on first use. It stays beside the ledger and is never uploaded.

    Raises LedgerError for a file that holds none: under an empty salt whoever knows the ids knows the people.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        draft.touch(mode=0o600)
        try:
            with draft.open("w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())  # else a power cut leaves the name and not what it names
            os.link(draft, path)  # never replaces the salt that another process has just made
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    salt = path.read_text(encoding="ascii", errors="replace")
    if not _SALT.fullmatch(salt):
        raise LedgerError(
            f"{path} is damaged: it holds no 64 hexadecimal digits, which hide people's ids in what is tracked. "
            "Restore it or delete it; with another, rows and people are called otherwise than before."
        )
    return salt


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


def thin_scales(truth: Flags, answers: Flags, scale_of: Sequence[str]) -> list[str]:
    """Scales of which somebody has a figure over fewer than `FEWEST_ITEMS` items: of nobody's items there is none.

    ``truth``, ``answers``: whether a person gave an answer to an item and was answered for, both (people, items); a
    score is over the items that have both, a trait score over those that have one. ``scale_of``: each item's scale.
    """
    found = []
    for scale in sorted(set(scale_of)):
        own = np.array(scale_of) == scale
        counts = np.stack([given[:, own].sum(axis=1) for given in (truth, answers, truth & answers)])
        if ((counts > 0) & (counts < FEWEST_ITEMS)).any():
            found.append(scale)
    return found


def thin_scales_of(record: Mapping[str, Any], scale_of: Mapping[str, str]) -> list[str]:
    """The `thin_scales` of one person, by the ledger's record and the scale of each held-out item."""
    truth = np.array([[bool(record["truth"].get(item)) for item in scale_of]])  # 0 stands for a missing answer
    answers = np.array([[record["answers"].get(item) is not None for item in scale_of]])
    return thin_scales(truth, answers, list(scale_of.values()))


def withheld(thin: Iterable[str]) -> set[str]:
    """The figures of a person that tell of thin scales: theirs, and the composite, from which they could be found."""
    figures = {f"{kind}{scale}" for scale in thin for kind in ("", "trait/", "person_trait/")}
    return figures | {"composite"} if figures else figures


def figures_of(record: Mapping[str, Any], thin: Iterable[str] = ()) -> dict[str, Any]:
    """What is told of one person: scores, the model's trait scores beside the person's own, and costs.

    ``thin``: scales that are withheld.
    """
    figures = {name: _number(value) for name, value in record["scores"].items()}
    for prefix, part in (("trait", "traits"), ("person_trait", "person_traits")):
        figures.update({f"{prefix}/{name}": _number(value) for name, value in record.get(part, {}).items()})
    hidden = withheld(thin)
    shown = {name: value for name, value in figures.items() if name not in hidden}
    return {**shown, **{name: _number(record["cost"].get(name)) for name in _COSTS}}


def means_of(people: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the people who have each figure, as the table's; costs as the table sums them up."""
    values: dict[str, list[float]] = {}
    for person in people:
        for name, value in person.items():
            if value is not None and name != "respondent":
                values.setdefault(name, []).append(value)
    return {
        name: BY_NAME[name].over(known) if name in BY_NAME else sum(known) / len(known)
        for name, known in values.items()
    }


def public_table(table: pd.DataFrame, scale_of: Mapping[str, str], thin: Collection[str] = ()) -> pd.DataFrame:
    """The columns of a table that may leave: numbers, and texts that name methods, models and protocols.

    ``thin``: scales of which somebody's score is withheld. A mean over everybody, less the others' scores, would be
    that score; so with any of them the other scales' means leave, counts and costs, and no figure over all scales.
    """
    harmless = {*scale_of.values(), *_TEXTS, *_COUNTS, *BY_NAME}.difference(thin)
    kept: dict[str, Any] = {}
    for name in map(str, table.columns):
        if thin and name not in harmless and "seconds" not in name:
            continue
        if pd.api.types.is_numeric_dtype(table[name]) or table[name].isna().all():
            kept[name] = table[name]
        elif name in _TEXTS:
            kept[name] = table[name].map(lambda text: re.split(r"[/\\]", str(text))[-1] if _is_place(text) else text)
    return pd.DataFrame(kept)


def public_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's fingerprint covers, without places and without the name of a file that holds the user's items.

    Of a method's settings that are texts only choices that `conf/` names: any other may name a file.
    """
    kept: dict[str, Any] = without_places(identity)
    if isinstance(method := identity.get("method"), Mapping):
        ours = {key: method[key] for key in ("name", "row", "data_hash") if key in method}
        if "budget" in method:  # with what departs from it, behind a colon
            ours["budget"] = str(method["budget"]).partition(":")[0]
        kept["method"] = _chosen(method) | ours
    if isinstance(kept.get("inventory"), str):  # a file's is its name with a hash of what it holds
        kept["inventory"] = re.sub(r"^.+(?=-[0-9a-f]{8}$)", "file", kept["inventory"], flags=re.DOTALL)
    return kept


def _chosen(value: Any) -> Any:
    """The value without texts that `conf/` does not name, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): _chosen(each) for key, each in value.items() if _is_choice(each)}
    return [_chosen(each) for each in value if _is_choice(each)] if isinstance(value, list | tuple) else plain(value)


def _is_choice(value: Any) -> bool:
    return not isinstance(value, str) or value in _choices()


@cache
def _choices() -> frozenset[str]:
    """The texts among the settings of the shipped methods, and the models that a method may name."""
    methods = [read_option("method", name) for name in options("method")]
    return frozenset({*options("model"), *_texts(methods)})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)


def without_places(value: Any) -> Any:
    """The value without texts that are paths, names of files or addresses, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): without_places(each) for key, each in value.items() if not _is_place(each)}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value if not _is_place(each)]
    return plain(value)


def _is_place(text: Any) -> bool:
    """Whether a text is a path, a file's name or an address, rather than a name like ``owner/model``."""
    return isinstance(text, str) and bool(_PLACE.match(text) or text.count("/") > 1 or _FILE.fullmatch(text))


def _number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    value = plain(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
