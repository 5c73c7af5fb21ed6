"""What a table needs of finished cells, as columns: answers, truth and figures; no log-probabilities, no texts.

A digest is derived from whole records and may be kept beside them, so that a table of 100,000 cells need not read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from palign_bench.costs.figures import BY_NAME
from palign_bench.ledger.record import Record
from palign_bench.questionnaire.inventory import Answers
from palign_bench.questionnaire.protocol import parse_released
from palign_bench.questionnaire.scoring import COMPOSITE, as_matrix

Array = NDArray[np.floating[Any]]
Whole = NDArray[np.int64]

VERSION = 4  # raise it when the same record gives another digest, or is no longer a whole cell
# Items asked; 1 where every answer was generated; items of the audit, those of them with an option, those of these with
# a recorded answer, and those of these that agree.
_READING = ("asked", "generated", "audited", "parsed", "compared", "agreed")
_FIXED: tuple[str, ...] = (f"score/{COMPOSITE}", *(f"cost/{name}" for name in BY_NAME), *_READING)
_OF_SCALES = {"score": "scores", "trait": "traits", "person_trait": "person_traits"}  # by what a record calls them
_ABSENT = -1  # among whole answers


@dataclass(frozen=True)
class Digest:
    """Cells in rows.

    ``items``: item numbers, ascending; ``packed_answers`` and ``packed_truth``: (cells, items), see `_packed`;
    ``figures``: (cells, ``columns``), NaN where a record has none. The columns are `_FIXED` and, for each scale that a
    record names, ``score/…``, ``trait/…`` and ``person_trait/…``.
    """

    items: Whole
    packed_answers: NDArray[Any]
    packed_truth: NDArray[Any]
    figures: Array
    columns: tuple[str, ...] = _FIXED

    @classmethod
    def of(cls, records: Sequence[Record]) -> Self:
        """The digest of these records, in order. Raises KeyError, TypeError or ValueError for one of another shape."""
        people = [(_numbered(record["answers"]), _numbered(record["truth"])) for record in records]
        items = sorted({number for pair in people for answers in pair for number in answers})
        scales = [
            name for name in dict.fromkeys(s for record in records for s in record["scores"]) if name != COMPOSITE
        ]
        figures = [_figures_of(record, answers, scales) for record, (answers, _) in zip(records, people, strict=True)]
        columns = _columns(scales)
        return cls(
            np.array(items, dtype=np.int64),
            _packed(as_matrix(items, [answers for answers, _ in people])),
            _packed(as_matrix(items, [truth for _, truth in people])),
            np.array(figures, dtype=float).reshape(len(records), len(columns)),
            columns,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The cells of all parts, one after the other."""
        columns = tuple(dict.fromkeys((*_FIXED, *(name for part in parts for name in part.columns))))
        items = np.unique(np.concatenate([part.items for part in parts])) if parts else np.array([], dtype=np.int64)
        return cls(
            items,
            _packed(np.concatenate([np.empty((0, len(items))), *(part.answers_to(items) for part in parts)])),
            _packed(np.concatenate([np.empty((0, len(items))), *(part.truth_to(items) for part in parts)])),
            np.concatenate([np.empty((0, len(columns))), *(part.figures_to(columns) for part in parts)]),
            columns,
        )

    def __len__(self) -> int:
        return len(self.figures)

    def take(self, rows: Sequence[int]) -> Self:
        """These rows, in this order."""
        index = np.array(rows, dtype=np.int64)
        return replace(
            self,
            packed_answers=self.packed_answers[index],
            packed_truth=self.packed_truth[index],
            figures=self.figures[index],
        )

    def figure(self, name: str) -> Array:
        """A figure by cell; NaN for one that no record has."""
        if name not in self.columns:
            return np.full(len(self), np.nan)
        return self.figures[:, self.columns.index(name)]

    @property
    def has_known_columns(self) -> bool:
        """Whether the columns are those of some scales, in their order."""
        named = [name.removeprefix("score/") for name in self.columns if name.startswith("score/")]
        return self.columns == _columns([name for name in named if name != COMPOSITE])

    def figures_to(self, columns: Sequence[str]) -> Array:
        """The figures with these columns, NaN where there is none."""
        return _with_columns(self.figures, self.columns, columns)

    @property
    def answers(self) -> Array:
        """(cells, items); NaN is absent."""
        return _unpacked(self.packed_answers)

    def answers_to(self, items: Whole) -> Array:
        """The answers with these items as columns; NaN is absent."""
        return _with_columns(self.answers, self.items, items)

    def truth_to(self, items: Whole) -> Array:
        """The truth with these items as columns; NaN is absent."""
        return _with_columns(_unpacked(self.packed_truth), self.items, items)


def _with_columns(matrix: Array, own: Sequence[Any] | Whole, wanted: Sequence[Any] | Whole) -> Array:
    if list(own) == list(wanted):  # a matrix of 100,000 people need not be copied
        return matrix
    found = np.full((len(matrix), len(wanted)), np.nan)
    _, here, there = np.intersect1d(own, wanted, assume_unique=True, return_indices=True)
    found[:, there] = matrix[:, here]
    return found


def _columns(scales: Sequence[str]) -> tuple[str, ...]:
    """The columns of records with these scales."""
    return (*_FIXED, *(f"{kind}/{scale}" for kind in _OF_SCALES for scale in scales))


def _packed(matrix: Array) -> NDArray[Any]:
    """A byte an answer where all are whole, as nearly always: an eighth of the memory. Else the matrix as it is."""
    with np.errstate(invalid="ignore"):
        whole = np.where(np.isnan(matrix), _ABSENT, matrix)
        small = whole.astype(np.int8)
    return small if (small == whole).all() and not (matrix < 0).any() else matrix


def _unpacked(packed: NDArray[Any]) -> Array:
    return np.where(packed == _ABSENT, np.nan, packed) if packed.dtype == np.int8 else packed


def _numbered(items: Mapping[str, Any] | None) -> dict[int, Any]:
    return {int(number): value for number, value in (items or {}).items()}


def _figures_of(record: Record, answers: Answers, scales: Sequence[str]) -> list[float | None]:
    options = len(next(iter((record["log_probs"] or {}).values()), range(5)))
    audit = {number: parse_released(text, options) for number, text in _numbered(record["audit"]).items()}
    parsed = {number: option for number, option in audit.items() if option is not None}
    # A floor's real number counts as the nearest option; halves go up.
    compared = {n: min(options, max(1, int(answers[n] + 0.5))) for n in parsed if n in answers}
    return [
        record["scores"][COMPOSITE],
        *(record["cost"].get(name) for name in BY_NAME),
        len(record["asked"]),
        record["texts"] is not None,
        len(audit),
        len(parsed),
        len(compared),
        sum(parsed[number] == option for number, option in compared.items()),
        *(record[part].get(scale) for part in _OF_SCALES.values() for scale in scales),
    ]
