"""Answers given in a file: how a system that cannot be run here enters the table (`palign-bench score`).

The file holds what the system answered, literally: the value of the option that it picked for the sentence as worded,
5 (Very Accurate) … 1 (Very Inaccurate). It is read the same way under both protocols. Either a row for
each person and item::

    respondent,item,answer
    anna,3,4

or a row for each person, with the items as columns; an empty cell is an answer that the system did not give::

    id,i3,i5
    anna,4,2
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.base import Backbone
from palign_bench.questionnaire.inventory import LOWEST, MOST_OPTIONS, Answers
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import UserError


class GivenAnswers(Aligner):
    """A row of answers that were made elsewhere. ``path``: the file, CSV. Raises UserError for one that cannot be read.

    A person whom the file lacks is a failed cell; an item that it lacks counts as unparsed.
    """

    needs_backbone = False

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        self.answers = read_answers(self.path)
        self.data_hash = hashlib.sha256(self.path.read_bytes()).hexdigest()

    def prepare(self, backbone: Backbone | None, protocol: EvaluationProtocol) -> None:
        super().prepare(backbone, protocol)
        asked = set(self.inventory.held_out)
        given = {number for answers in self.answers.values() for number in answers}
        for respondent, answers in self.answers.items():
            for number, value in answers.items():
                if value > self.inventory.highest:
                    raise UserError(
                        f"{self.path}: respondent {respondent}, item {number}, answer {value:g}: "
                        f"inventory={self.inventory.name} has the answers {LOWEST} to {self.inventory.highest}."
                    )
        if unknown := given - self.inventory.by_number.keys():
            raise UserError(f"{self.path}: item {min(unknown)} is not in inventory={self.inventory.name}; remove it.")
        if not given & asked:
            raise UserError(f"{self.path}: none of its items is held out in inventory={self.inventory.name}.")

    def align(self, case: Case) -> Alignment:
        if case.respondent_id not in self.answers:
            raise ValueError(f"{self.path.name} has no answers for respondent {case.respondent_id}")
        return Alignment(answers=self.answers[case.respondent_id])


def read_answers(path: Path) -> Mapping[str, Answers]:
    """Answers by respondent and item number. Raises UserError with the line at fault."""
    try:
        frame = pd.read_csv(path, dtype=str, skipinitialspace=True, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    frame.columns = frame.columns.str.strip().str.lower()
    if "respondent" not in frame:
        frame = frame.rename(columns={"id": "respondent"})
    if "respondent" not in frame:
        raise UserError(f"{path}: there is no column `respondent` or `id`.")
    if not {"item", "answer"} <= set(frame.columns):
        items = [name for name in frame.columns if re.fullmatch(r"i\d+", name)]
        if not items:
            raise UserError(f"{path}: give the columns respondent, item and answer, or one for each item: i1, i2, …")
        frame = frame.melt("respondent", items, "item", "answer")
        frame["item"] = frame["item"].str[1:]
    frame = frame.dropna(subset=["answer"])
    found: dict[str, dict[int, float]] = {}
    for respondent, item, answer in zip(frame["respondent"], frame["item"], frame["answer"], strict=True):
        value = pd.to_numeric(answer, errors="coerce")
        if not str(item).isdigit() or not LOWEST <= value <= MOST_OPTIONS:
            raise UserError(
                f"{path}: respondent {respondent}, item {item}, answer {answer}: give an item's number and an answer "
                f"from {LOWEST} up."
            )
        if int(item) in found.setdefault(str(respondent), {}):
            raise UserError(f"{path}: respondent {respondent} answers item {item} twice.")
        found[str(respondent)][int(item)] = float(value)
    if not found:
        raise UserError(f"{path}: it holds no answers.")
    return found
