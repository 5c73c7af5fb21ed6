"""Answers made elsewhere: what is read of a file, and what is refused with the place at fault."""

from pathlib import Path

import pytest

from baselines.given_answers import GivenAnswers, read_answers
from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import Corrected
from palign_bench.settings import UserError

LONG = "respondent,item,answer\nanna,3,4\nanna,5,2\n007,3,1\n"
WIDE = "id,i3,i5\nanna,4,2\n007,1,\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "answers.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [LONG, WIDE, "\ufeff" + WIDE, LONG.replace(",4", ", 4.0")])
def test_long_and_wide_files_say_the_same(tmp_path: Path, text: str) -> None:
    assert read_answers(written(tmp_path, text)) == {"anna": {3: 4, 5: 2}, "007": {3: 1}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,i3\nanna,4\n", "no column `respondent` or `id`"),
        ("id,mood\nanna,4\n", "or one for each item"),
        ("id,i3\nanna,8\n", "respondent anna, item 3, answer 8"),
        ("id,i3\nanna,good\n", "respondent anna, item 3, answer good"),
        ("respondent,item,answer\nanna,3,4\nanna,3,5\n", "anna answers item 3 twice"),
        ("id,i3\nanna,\n", "holds no answers"),
        ("", "answers.csv: "),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_answers(written(tmp_path, text))


def test_a_row_of_given_answers(tmp_path: Path, inventory: Inventory) -> None:
    first, second = inventory.held_out[:2]
    aligner = GivenAnswers(str(written(tmp_path, f"id,i{first},i{second}\nanna,4,2\n")))
    aligner.prepare(None, Corrected(inventory))
    assert aligner.align(Case("anna", {}, {}, 0)).answers == {first: 4, second: 2}
    with pytest.raises(ValueError, match="no answers for respondent ben"):
        aligner.align(Case("ben", {}, {}, 0))


def test_other_answers_are_another_cell_and_another_place_is_not(tmp_path: Path) -> None:
    here, there = GivenAnswers(str(written(tmp_path, LONG))), tmp_path / "there"
    there.mkdir()
    assert GivenAnswers(str(written(there, LONG))).data_hash == here.data_hash
    assert GivenAnswers(str(written(there, WIDE))).data_hash != here.data_hash


def test_an_answer_beyond_the_inventorys_options_is_refused(tmp_path: Path, inventory: Inventory) -> None:
    aligner = GivenAnswers(str(written(tmp_path, f"id,i{inventory.held_out[0]}\nanna,6\n")))
    with pytest.raises(UserError, match="answer 6: inventory=ipip_neo_300 has the answers 1 to 5"):
        aligner.prepare(None, Corrected(inventory))


def test_a_file_about_known_items_only_is_refused(tmp_path: Path, inventory: Inventory) -> None:
    aligner = GivenAnswers(str(written(tmp_path, f"id,i{inventory.known[0]}\nanna,4\n")))
    with pytest.raises(UserError, match="none of its items is held out"):
        aligner.prepare(None, Corrected(inventory))


def test_an_item_of_another_inventory_is_refused(tmp_path: Path, inventory: Inventory) -> None:
    aligner = GivenAnswers(str(written(tmp_path, f"id,i{inventory.held_out[0]},i301\nanna,4,4\n")))
    with pytest.raises(UserError, match="item 301 is not in inventory=ipip_neo_300; remove it"):
        aligner.prepare(None, Corrected(inventory))
