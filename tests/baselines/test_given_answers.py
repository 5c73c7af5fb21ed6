"""Answers made elsewhere: what is read of a file, what is refused with the place at fault, and what a table says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from baselines.given_answers import GivenAnswers, read_answers
from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_120, ipip_neo_300
from palign_bench.respondents import RespondentSource
from palign_bench.settings import UserError

LONG = "respondent,item,answer\nanna,3,4\nanna,5,2\n007,3,1\n"
WIDE = "id,i3,i5\nanna,4,2\n007,1,\n"


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "answers.csv"
    path.write_text(text, encoding=encoding)
    return path


def read(text: str, inventory: Inventory | None = None) -> dict[str, dict[int, float]]:
    found, _ = read_answers(Path("answers.csv"), text, inventory or ipip_neo_300())
    return {person: dict(answers) for person, answers in found.items()}


def aligner(folder: Path, text: str, inventory: Inventory) -> GivenAnswers:
    made = GivenAnswers(str(written(folder, text)))
    made.check_inventory(inventory)
    return made


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        WIDE,
        LONG.replace(",4", ", 4.0"),
        WIDE.replace(",", ";"),
        WIDE.replace(",", "\t"),
        LONG.replace(",", ";").replace(";4", ";4,0"),
        LONG.replace("respondent", "Case").replace("item,answer", "Item,Answer"),
        LONG.replace(",3,", ",i3,").replace(",5,", ",5.0,"),
        WIDE.replace("i3,i5", "Q3,item_5"),
        WIDE.replace("1,", "1,NA") + "ben,,\n\n",
    ],
)
def test_however_a_file_is_laid_out_it_says_the_same(text: str) -> None:
    assert read(text) == {"anna": {3: 4, 5: 2}, "007": {3: 1}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_file_of_any_encoding(tmp_path: Path, encoding: str, inventory: Inventory) -> None:
    made = GivenAnswers(str(written(tmp_path, f"id,i{inventory.held_out[0]}\nJürgen,4\n", encoding)))
    made.check_inventory(inventory)
    assert list(made.answers) == ["Jürgen"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,i3\nanna,4\n", "line 1: the header is 'name, i3'; give the columns respondent, item and answer, or"),
        ("id,mood\nanna,4\n", "line 1: the header is 'id, mood'; give the columns respondent, item and answer, or"),
        ("", "the file is empty; it must have a header like respondent,item,answer"),
        (" \n\n", "the file is empty"),
        ("caseid,pid,i3\n1,2,3\n", "line 1: caseid and pid both may be ids; keep one"),
        ("id,i3\nanna,8\n", "line 2 .respondent anna., item i3: '8' is no answer; give a whole number 1…5, or"),
        ("id,i3\nanna,0\n", "item i3: '0' is no answer; give a whole number 1…5, or nothing when it is missing"),
        ("id,i3\nanna,B\n", "item i3: 'B' is no answer; give a whole number 1…5"),
        ("respondent,item,answer\nanna,3,Very Accurate\n", "item 3: 'Very Accurate' is no answer; give a whole number"),
        ("respondent,item,answer\nanna,3,4\nanna,mood,4\n", "line 3: 'mood' is no item; give a number of ipip_neo_300"),
        ("respondent,item,answer\nanna,3,4\nanna,3,5\n", "line 3 .* item 3: the respondent answers it twice"),
        ("id,i3,Q3\nanna,4,5\n", "line 2 .* item Q3: the respondent answers it twice"),
        ("id,i3\nanna,4\nanna,5\n", "line 3 .* item i3: the respondent answers it twice"),
        ("id,i3,i5,i3\nanna,4,2,5\n", "line 1: column i3 is there twice; keep one"),
        ("respondent,item,answer,answer\nanna,3,4,5\n", "line 1: column answer is there twice; keep one"),
        ("id,i3,i5\nanna,4\n", "line 2: 2 cells under 3 columns; add or remove cells"),
        ("respondent,item,answer\nanna,3\n", "line 2: 2 cells under 3 columns; add or remove cells"),
        ("id,i3\n,4\n", "line 2: the respondent is empty; give each person an id"),
        ("id,i3\nanna,\n", "holds no answers"),
        ("id,i3,i301\nanna,4,4\n", "item 301 is not in inventory=ipip_neo_300; remove it"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises(UserError, match=f"^answers.csv.*{told}") as error:
        read(text)
    assert "respondents." not in str(error.value), "settings of people do nothing for answers"


def short(numbers: range, long: bool = False) -> str:
    """One person's answers to these of the short form's own numbers, all of them 2, but for the second held-out one."""
    answers = {number: 5 if number == 62 else 2 for number in numbers}
    if long:
        return "respondent,item,answer\n" + "".join(f"anna,{number},{answer}\n" for number, answer in answers.items())
    return f"id,{','.join(f'i{number}' for number in answers)}\nanna,{','.join(map(str, answers.values()))}\n"


@pytest.mark.parametrize("long", [False, True])
def test_the_short_forms_own_numbers_are_read_or_refused_with_what_is_true(long: bool) -> None:
    own, inventory = ipip_neo_300().known, ipip_neo_120()
    assert read(short(range(1, 121), long), inventory) == {"anna": {n: 5 if n == own[61] else 2 for n in own}}
    with pytest.raises(UserError, match="numbers its own; set inventory=ipip_neo_120, or add the other items"):
        read(short(range(1, 121), long))
    with pytest.raises(UserError, match=r"100 of 1 to 120, .* its or the long form's: add the other items"):
        read(short(range(1, 101), long), inventory)
    with pytest.raises(UserError, match=r"item 66 is not in .*_120; .* of the short form's own give all of 1 to 120"):
        read(short(range(62, 121), long), inventory)
    if not long:  # what the refusals advise
        header, row = short(range(61, 121)).splitlines()
        whole = f"{header},{','.join(f'i{n}' for n in range(1, 61))}\n{row}{',' * 60}\n"
        assert read(whole, inventory) == {"anna": {n: 5 if n == own[61] else 2 for n in own[60:]}}


def test_a_row_of_given_answers(tmp_path: Path, inventory: Inventory) -> None:
    first, second = inventory.held_out[:2]
    made = aligner(tmp_path, f"id,i{first},i{second}\nanna,4,2\n", inventory)
    assert made.align(Case("anna", {}, {}, 0)).answers == {first: 4, second: 2}
    assert list(made.notes(["anna", "ben"])) == []


def test_a_failure_does_not_tell_whose_it_is(tmp_path: Path, inventory: Inventory) -> None:
    """Its message becomes a note of the table, which may leave the machine; there is one for all people."""
    made = aligner(tmp_path, f"id,i{inventory.held_out[0]}\nanna,4\n", inventory)
    with pytest.raises(ValueError, match=r"^answers.csv has no answers for this person$"):
        made.align(Case("ben", {}, {}, 0))


def test_what_is_not_used_is_told_in_a_note(tmp_path: Path, inventory: Inventory) -> None:
    first, second = inventory.held_out[:2]
    made = aligner(tmp_path, f"id,i{first},mood,Q{second},\n000,4,x,2,y\n0,4,x,2,y\nghost,4,x,2,y\n", inventory)
    assert made.answers["000"] == {first: 4, second: 2}
    assert list(made.notes(["000", "001"])) == [
        "answers.csv: not read, since they are no items: mood, (column 5)",
        "answers.csv: 2 people of 3 not used, whom the source lacks.",
    ]


def test_answers_that_look_keyed_are_told(tmp_path: Path, inventory: Inventory, source: RespondentSource) -> None:
    def noted(people: int, answered: Callable[[int, float], float]) -> str:
        lines = ["respondent,item,answer"]
        for person in source.people[:people]:
            answers = ((n, person.answers[n]) for n in inventory.held_out if n in person.answers)
            lines += [f"{person.id},{n},{answered(n, value):g}" for n, value in answers]
        return " ".join(aligner(tmp_path, "\n".join(lines), inventory).notes([each.id for each in source.people]))

    assert noted(40, lambda n, value: value) == ""
    assert noted(40, lambda n, value: 3) == ""
    assert noted(19, inventory.keyed) == "", "too few to tell"
    assert "answers.csv: its answers look keyed (+0." in noted(40, inventory.keyed)


def test_other_answers_are_another_cell_and_another_place_is_not(tmp_path: Path) -> None:
    here, there = GivenAnswers(str(written(tmp_path, LONG))), tmp_path / "there"
    there.mkdir()
    assert GivenAnswers(str(written(there, LONG))).data_hash == here.data_hash
    assert GivenAnswers(str(written(there, WIDE))).data_hash != here.data_hash


def test_a_file_about_known_items_only_is_refused(tmp_path: Path, inventory: Inventory) -> None:
    with pytest.raises(UserError, match="none of its items is held out"):
        aligner(tmp_path, f"id,i{inventory.known[0]}\nanna,4\n", inventory)


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.csv: no such file; check where the answers lie"):
        GivenAnswers(str(tmp_path / "nowhere.csv"))
