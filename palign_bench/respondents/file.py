"""A user's own people from a file: a delimited table, one of Johnson's fixed-width files, or JSON.

An answer is what the person picked: 5 (Very Accurate) … 1 (Very Inaccurate), for the sentence as worded (*literal*) or
with negatively keyed items already reverse-scored (*keyed*); ``respondents.orientation`` says which, and the data are
asked whether that can be. Item numbers are those of the inventory. Each person needs at least one known answer, for
methods to use, and one held-out answer, to be judged on. Ids are short texts, unique in the file::

    id,i1,i2,i9
    anna,4,,2
    007,5,1,3

Anything else in the file (age, sex, country, …) is not read: nothing else about a person enters the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from palign_bench.questionnaire.delimited import read_text
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.respondents.formats import Stored, not_read
from palign_bench.respondents.formats.delimited import read_delimited, read_mapping
from palign_bench.respondents.formats.fixed_width import read_fixed_width
from palign_bench.respondents.formats.json_list import read_json_list
from palign_bench.respondents.matrix import AnswerMatrix, reverse_negative
from palign_bench.respondents.orientation import ORIENTATIONS, OrientationEvidence, orientation_evidence
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import counted

_TABLES = (".csv", ".tsv", ".tab", ".txt")
_TAKEN = dict.fromkeys(_TABLES, ("columns", "id_column", "missing")) | {".json": ("missing",), ".dat": ()}
_LONGEST_ID = 200  # percent-encoded: the ledger names a file after it


@dataclass(frozen=True)
class FileOfPeople:
    """What was understood of a file.

    ``orientation``: "literal" or "keyed", as the answers were taken to be stored; ``reason``: who says so; ``assumed``:
    not the user.
    """

    place: Path
    people: AnswerMatrix
    places: Sequence[str]
    layout: str
    notes: tuple[str, ...]
    orientation: str
    reason: str
    assumed: bool
    evidence: OrientationEvidence

    @property
    def doubt(self) -> str | None:
        """Why the orientation cannot be right, and what to set; None where the data do not speak against it."""
        verdict = self.evidence.verdict
        if verdict is None or verdict == self.orientation:
            return None
        taken = "were taken as" if self.assumed else "are said to be"
        return (
            f"{self.place}: answers {taken} {self.orientation}, but look {verdict} ({self.evidence.opposite:+.2f} "
            f"between oppositely keyed items of one scale); set respondents.orientation={verdict}, or "
            f"respondents.orientation={self.orientation} if that is what they are"
        )


def load_file(path: str | None = None, *, inventory: Inventory, **settings: Any) -> RespondentSource:
    """The people of a file, in its order, with notes on what was not read.

    ``settings``: those of `read_people`. Raises UserError as that does, and for answers
    whose orientation nobody named and that look reversed; the line names the file, the row or id, the column and the
    remedy.
    """
    found = read_people(path, **settings, inventory=inventory)
    if found.doubt and found.assumed:
        raise RespondentsError(found.doubt)
    given = found.people.answers != 0
    for part, numbers in inventory.parts.items():
        lacking = ~given[:, found.people.columns(numbers)].any(axis=1)
        if lacking.any():
            row = int(lacking.argmax())
            raise RespondentsError(
                f"{found.places[row]}: id {found.people.ids[row]} answers none of the {len(numbers)} {part} items of "
                f"{inventory.name}; add answers or remove the person ({int(lacking.sum())} such)"
            )
    notes = found.notes + ((found.doubt,) if found.doubt else ())
    description = f"{counted(len(found.people))} of {found.place.name}"
    return RespondentSource("file", description, found.people.respondents(), notes)


def read_people(
    path: str | None,
    orientation: str | None = None,
    columns: str | None = None,
    id_column: str | None = None,
    missing: Sequence[object] = (),
    *,
    inventory: Inventory,
) -> FileOfPeople:
    """What a file says, also of people who answer too little to be judged.

    Raises UserError for a file that is missing, unreadable or not as the module describes.
    """
    if not path:
        raise RespondentsError("respondents.path is not set: give the file with your people")
    if orientation not in (None, *ORIENTATIONS):
        raise RespondentsError(f"respondents.orientation={orientation}: choose {' or '.join(ORIENTATIONS)}, or null")
    if isinstance(missing, str) and "," in missing:
        raise RespondentsError(f"respondents.missing={missing}: give a list, as in respondents.missing=[{missing}]")
    if isinstance(missing, str) or not isinstance(missing, Sequence):
        missing = [] if missing is None else [missing]
    place = Path(path).expanduser()
    stored, encoding = _read(place, inventory, columns, id_column, missing)
    _check_ids(place, stored)
    settled = orientation or stored.orientation or "literal"
    evidence = orientation_evidence(stored.answers, inventory)
    answers = stored.answers if settled == "literal" else reverse_negative(stored.answers, inventory)
    return FileOfPeople(
        place=place,
        people=AnswerMatrix(inventory, tuple(stored.ids), answers),
        places=stored.places,
        layout=f"{stored.layout}, {encoding}",
        notes=_notes(place, stored, evidence),
        orientation=settled,
        reason="as set" if orientation else "as its format says" if stored.orientation else "as nobody said",
        assumed=orientation is None,
        evidence=evidence,
    )


def _read(
    place: Path, inventory: Inventory, columns: str | None, id_column: str | None, missing: Sequence[object]
) -> tuple[Stored, str]:
    if place.is_dir():
        raise RespondentsError(f"{place} is a folder; name a file")
    suffix = place.suffix.lower()
    if suffix not in _TAKEN:
        raise RespondentsError(
            f"{place}: name the file .csv, .tsv or .txt (a table), .json, or .dat (Johnson's fixed-width files)"
        )
    for key, value in {"columns": columns, "id_column": id_column, "missing": missing}.items():
        if value and key not in _TAKEN[suffix]:
            remedy = "leave it out, or save the people as a table (.csv)"
            raise RespondentsError(f"{place}: a {suffix} file takes no respondents.{key}; {remedy}")
    text, encoding = read_text(place, "respondents.path")
    if suffix == ".json" and encoding == "cp1252":
        raise RespondentsError(f"{place}: JSON must be UTF-8, and this is not; save the file as UTF-8")
    if not text.strip():
        raise RespondentsError(f"{place}: the file is empty; it must have a header like id,i1,i2,… and people below it")
    if suffix == ".json":
        stored = read_json_list(place, text, inventory, missing)
    elif suffix == ".dat":
        stored = read_fixed_width(place, text, inventory)
    else:
        mapping = read_mapping(str(columns), inventory) if columns else None
        stored = read_delimited(place, text, inventory, mapping, id_column and str(id_column), missing)
    if not len(stored.ids):
        raise RespondentsError(f"{place}: no people in it; add at least one")
    return stored, {"cp1252": "Latin-1 (cp1252)", "utf-8-sig": "UTF-8"}.get(encoding, encoding.upper())


def _check_ids(place: Path, stored: Stored) -> None:
    seen: set[str] = set()
    for where, name in zip(stored.places, stored.ids, strict=True):
        if not name:
            raise RespondentsError(f"{where}: the id is empty; give each person one")
        if not name.isprintable() or len(quote(name, safe="")) > _LONGEST_ID:
            raise RespondentsError(f"{where}: the id is too long or has unprintable characters; give a short one")
        if name in seen:
            rows = ", or set respondents.id_column=row_number" if "id_column" in _TAKEN[place.suffix.lower()] else ""
            raise RespondentsError(f"{where}: id {name} is there twice; give each person their own{rows}")
        seen.add(name)


def _notes(place: Path, stored: Stored, evidence: OrientationEvidence) -> tuple[str, ...]:
    notes = [not_read(place, stored.ignored)] if stored.ignored else []
    notes += [f"{place.name}: {note}" for note in stored.notes]
    if evidence.disagreeing:
        scales = ", ".join(evidence.disagreeing)
        notes.append(f"{place.name}: {scales} look stored otherwise than the rest, which look {evidence.verdict}")
    return tuple(notes)
