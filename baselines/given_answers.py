"""Answers given in a file: how a system that cannot be run here enters the table (`palign-bench score`).

The file holds what the system answered, literally: the value of the option that it picked for the sentence as worded,
5 (Very Accurate) … 1 (Very Inaccurate). It is read the same way under both protocols. Either a row for
each person and item::

    respondent,item,answer
    anna,3,4

or a row for each person, with the items as columns, which are called as in a file of people; an empty cell is an answer
that the system did not give::

    id,i3,i5
    anna,4,2
"""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.questionnaire.delimited import delimiter_of, read_text, rows_of
from palign_bench.questionnaire.inventory import Answers, Inventory, Respondent
from palign_bench.respondents.formats import not_read, plain, renumbered, scale
from palign_bench.respondents.formats.delimited import cell_reader, find_ids, item_number
from palign_bench.respondents.matrix import MISSING, AnswerMatrix
from palign_bench.respondents.orientation import orientation_evidence
from palign_bench.settings import UserError, counted


class GivenAnswers(Aligner):
    """A row of answers that were made elsewhere. ``path``: the file, CSV. Raises UserError for one that cannot be read.

    A person whom the file lacks is a failed cell; an item that it lacks counts as unparsed.
    """

    needs_backbone = False

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self.text, _ = read_text(self.path, "where the answers lie")
        self.data_hash = hashlib.sha256(self.text.encode()).hexdigest()

    def check_inventory(self, inventory: Inventory) -> None:
        """Read the file: what an item and an answer are, the inventory says."""
        self.answers, self.unread = read_answers(self.path, self.text, inventory)
        if not any(number in given for given in self.answers.values() for number in inventory.held_out):
            raise UserError(f"{self.path}: none of its items is held out in inventory={inventory.name}.")
        respondents = [Respondent(name, given) for name, given in self.answers.items()]
        self.evidence = orientation_evidence(AnswerMatrix.of(respondents, inventory).answers, inventory)

    def notes(self, people: Collection[str]) -> list[str]:
        if not self.answers.keys() & set(people):
            raise UserError(
                f"{self.path}: it has nobody of the source, whose people are called {next(iter(people))}, …; here "
                f"they are {next(iter(self.answers))}, …: call them alike."
            )
        name, strangers = self.path.name, len(self.answers.keys() - set(people))
        found = [not_read(self.path, self.unread)] if self.unread else []
        if strangers:
            found.append(f"{name}: {counted(strangers)} of {len(self.answers)} not used, whom the source lacks.")
        if self.evidence.verdict == "keyed":  # so do a poor system's that agrees with everything: it is not refused
            found.append(
                f"{name}: its answers look keyed ({self.evidence.opposite:+.2f} between oppositely keyed items of one "
                "scale), and are taken as literal; if negatively keyed items are stored reversed, turn them back."
            )
        return found

    def align(self, case: Case) -> Alignment:
        if case.respondent_id not in self.answers:
            raise ValueError(f"{self.path.name} has no answers for this person")  # no id: notes may leave the machine
        return Alignment(answers=self.answers[case.respondent_id])


class _Cell(NamedTuple):
    line: int
    person: str
    item: str  # as the file calls it
    answer: str


def read_answers(place: Path, text: str, inventory: Inventory) -> tuple[dict[str, Answers], list[str]]:
    """Answers by person and item number, and the columns that were not read. Raises UserError with the place at fault.

    ``place``: for messages.
    """
    cells, unread = _cells(place, text)
    lines: dict[str, int] = {}
    for cell in cells:
        lines.setdefault(cell.item, cell.line)
    numbers = _numbers(place, lines, inventory)
    value, found = cell_reader(inventory), dict[str, dict[int, float]]()
    for cell in cells:
        number, given = numbers[cell.item], value(cell.answer)
        where = f"{place}, line {cell.line} (respondent {cell.person}), item {cell.item}"
        if given is None:
            wrong = f"{cell.answer[:20]!r} is no answer"
            raise UserError(f"{where}: {wrong}; give {scale(inventory)}, or nothing when it is missing.")
        if given == MISSING:
            continue
        if not cell.person:
            raise UserError(f"{place}, line {cell.line}: the respondent is empty; give each person an id.")
        if number in found.setdefault(cell.person, {}):
            raise UserError(f"{where}: the respondent answers it twice; keep one of the answers.")
        found[cell.person][number] = given
    if not found:
        raise UserError(f"{place}: it holds no answers.")
    return dict(found), unread


def _cells(place: Path, text: str) -> tuple[list[_Cell], list[str]]:
    """What a file says, whichever way it is laid out, and the columns that were not read."""
    found = list(rows_of(place, text, delimiter_of(text)))
    if not found:
        raise UserError(f"{place}: the file is empty; it must have a header like respondent,item,answer and answers.")
    (line, header), *rows = found
    where, names = f"{place}, line {line}", [name.lower() for name in header]
    answers = [names.index(name) for name in ("item", "answer")] if {"item", "answer"} <= set(names) else []
    items = [] if answers else [column for column, name in enumerate(header) if item_number(name) is not None]
    ids = names.index("respondent") if "respondent" in names else find_ids(where, header, items, otherwise="keep one")
    if ids is None or not (answers or items):
        raise UserError(
            f"{where}: the header is {', '.join(header)[:40]!r}; give the columns respondent, item and answer, or "
            "respondent and one for each item: i1, i2, …"
        )
    used = [ids, *answers, *items]
    if twice := [header[column] for column in used if names.count(names[column]) > 1]:
        raise UserError(f"{where}: column {twice[0]} is there twice; keep one of them.")
    unread = [name or f"(column {column + 1})" for column, name in enumerate(header) if column not in used]
    if answers:
        return [_Cell(line, row[ids], *(row[column] for column in answers)) for line, row in rows], unread
    return [_Cell(line, row[ids], header[column], row[column]) for line, row in rows for column in items], unread


def _numbers(place: Path, lines: Mapping[str, int], inventory: Inventory) -> dict[str, int]:
    """Item numbers by what a file calls the items. ``lines``: where each is called so first."""
    found = {}
    for called, line in lines.items():
        number = item_number(f"i{plain(called)}" if called[:1].isdigit() else called)
        if number is None:
            raise UserError(f"{place}, line {line}: {called[:20]!r} is no item; give a number of {inventory.name}.")
        found[called] = number
    own = renumbered(str(place), set(found.values()), inventory, "add the other items, without answers")
    found = {called: own[number] for called, number in found.items()}
    for called, number in found.items():
        if number not in inventory.by_number:
            short = "its numbers are IPIP-NEO-300's; of the short form's own give all of 1 to 120, if without answers"
            remedy = short if inventory.name == "ipip_neo_120" else "remove it"
            where = f"{place}, line {lines[called]}"
            raise UserError(f"{where}: item {number} is not in inventory={inventory.name}; {remedy}.")
    return found
