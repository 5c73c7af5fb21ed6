"""A user's own people: the documented format, and one clear line for everything else."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.respondents.file import load_file
from palign_bench.respondents.source import RespondentsError
from palign_bench.settings import UserError

EXAMPLE = Path(__file__).parent / "example_people.csv"
# Item 1 is known, item 9 held out.
HEADER = "id,i1,i9\n"


def test_example_reads_the_same_from_both_formats(inventory: Inventory) -> None:
    from_csv, from_json = (
        load_file(str(EXAMPLE), inventory=ipip_neo_300()),
        load_file(str(EXAMPLE.with_suffix(".json")), inventory=ipip_neo_300()),
    )
    assert from_csv.people == from_json.people
    assert from_csv.data_hash == from_json.data_hash
    assert [person.id for person in from_csv.people] == ["anna", "ben", "chloé"]
    assert (from_csv.name, from_csv.description) == ("file", "3 people of example_people.csv")
    assert {inventory[number].subscale for number in from_csv.people[0].answers} == set(inventory.subscales)
    assert all(person.portrait is None for person in from_csv.people)


def test_answers_are_taken_literally() -> None:
    rows = list(csv.DictReader(EXAMPLE.read_text(encoding="utf-8").splitlines()))
    missing = 0
    for person, row in zip(load_file(str(EXAMPLE), inventory=ipip_neo_300()).people, rows, strict=True):
        cells = {int(column[1:]): cell for column, cell in row.items() if column != "id"}
        assert dict(person.answers) == {number: int(cell) for number, cell in cells.items() if cell}
        missing += sum(not cell for cell in cells.values())
    assert missing > 0


def test_byte_order_mark_blank_lines_and_spaces_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "people.CSV"
    path.write_bytes(b"\xef\xbb\xbfid,i9,i1\r\n anna , 3 ,5\r\n\r\n,,\r\n7,1,2\r\n")
    people = load_file(str(path), inventory=ipip_neo_300()).people
    assert [(p.id, dict(p.answers)) for p in people] == [("anna", {9: 3, 1: 5}), ("7", {9: 1, 1: 2})]


def test_json_takes_null_as_missing_and_a_number_as_id(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text('[{"id": 7, "answers": {"1": 4, "2": null, "9": 2}}]', encoding="utf-8")
    source = load_file(str(path), inventory=ipip_neo_300())
    assert source.people[0].id == "7"
    assert dict(source.people[0].answers) == {1: 4, 9: 2}
    assert source.description == "1 person of people.json"


CSV_FAULTS = {
    "": "empty",
    "\n \n": "empty",
    HEADER: "no people",
    "name|i1|i9\nanna|1|2\n": r"line 1: the header is 'name\|i1\|i9', with no item in it; call the columns i1, i2",
    "id\nanna\n": "header",
    "PK\x03\x04": r"this is a spreadsheet's own format; save it as CSV \(UTF-8\)",
    "anna,1,2\n": "header",
    "4,2,5\n3,1,2\n": "with no item in it",
    "case,subject,i1,i9\n1,7,1,2\n": "case and subject both may be ids; name one in respondents.id_column",
    "id,i1,i301\nanna,1,2\n": "column 'i301' is no item",
    "id,i0,i9\nanna,1,2\n": "column 'i0'",
    "id,i1,i1\nanna,1,2\n": "column i1 is there twice",
    "id,i1,Q1,i9\nanna,1,2,2\n": "column Q1 is there twice as item 1",
    HEADER + "anna,1,2\nben,x,2\n": r"line 3 \(id ben\), column i1: 'x' is no answer; give a whole number 1…5",
    HEADER + "anna,4.5,2\n": "column i1: '4.5'",
    HEADER + "anna,1,0\n": "column i9: '0' is no answer; .* respondents.missing",
    HEADER + "anna,6,1\n": "column i1: '6'",
    HEADER + "anna,-1,1\n": "column i1: '-1'",
    HEADER + "anna,٣,1\n": "column i1: '٣'",
    HEADER + "anna,1\n": "line 2: 2 cells under 3 columns",
    HEADER + "anna,1,2,3\n": "line 2: 4 cells under 3 columns",
    HEADER + "anna,1,2\nanna,2,2\n": "line 3: id anna is there twice",
    HEADER + "  ,1,2\n": "line 2: the id is empty",
    HEADER + "a" * 500 + ",1,2\n": "id is too long",
    HEADER + "anna,,2\n": "id anna answers none of the 120 known items",
    HEADER + "anna,1,\n": "id anna answers none of the 180 held-out items",
    HEADER + '"anna,1,2\n': "not a table with commas",
}


@pytest.mark.parametrize("content", CSV_FAULTS)
def test_faulty_csv_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    _expect_told(tmp_path / "people.csv", content.encode(), CSV_FAULTS[content])


def _person(**change: object) -> str:
    return json.dumps([{"id": "anna", "answers": {"1": 4, "9": 2}} | change])


JSON_FAULTS = {
    "": "empty",
    "[]": "no people",
    "{": "line 1: not JSON",
    '[\n{"id": "anna",}\n]': "line 2: not JSON",
    "[" * 100_000: "not a list of people",
    "9" * 5000: "not a list of people",
    '{"id": "anna"}': "must be a list .*, not an object",
    "3": "must be a list .*, not a number",
    '["anna"]': "entry 1: must be .*, not a text",
    "[null]": "entry 1: must be .*, not null",
    '[{"answers": {"1": 1}}]': "entry 1: 'id' is missing",
    '[{"id": "anna"}]': "entry 1: 'answers' is missing",
    _person(id=True): "'id' must be a text, not true or false",
    _person(id=None): "'id' must be a text, not null",
    _person(id=1.5): "'id' must be a text, not a number with a point",
    _person(id=" "): "the id is empty",
    _person(id="a\nb"): "unprintable",
    _person(id="\ud800"): "unprintable",
    _person(answers=[1, 2]): "'answers' must be .*, not a list",
    _person(answers={"i1": 1}): r"\(id anna\), item 'i1': no such item",
    _person(answers={"301": 1}): "item '301': no such item",
    _person(answers={"01": 1}): "item '01': no such item",
    _person(answers={"1": "4"}): "item '1': a text where a whole number 1…5 is due",
    _person(answers={"1": 4.0}): "item '1': a number with a point",
    _person(answers={"1": True}): "item '1': true or false",
    _person(answers={"1": [4]}): "item '1': a list",
    _person(answers={"1": 0}): "item '1': '0' is no answer",
    _person(answers={"1": 6}): "item '1': '6' is no answer",
    '[{"id": "anna", "answers": {"1": NaN}}]': "item '1': a number with a point",
    '[{"id": "anna", "answers": {"1": 1, "1": 2}}]': "key '1' is there twice",
    _person(answers={}): "none of the 120 known items",
    _person(answers={"1": 4}): "none of the 180 held-out items",
    _person()[:-1] + "," + _person()[1:]: "entry 2: id anna is there twice",
}


@pytest.mark.parametrize("content", JSON_FAULTS, ids=lambda content: content[:50])
def test_faulty_json_is_told_in_one_line(tmp_path: Path, content: str) -> None:
    _expect_told(tmp_path / "people.json", content.encode(), JSON_FAULTS[content])


def test_json_of_another_encoding_is_told(tmp_path: Path) -> None:
    _expect_told(tmp_path / "people.json", '[{"id": "chloé"}]'.encode("latin-1"), "JSON must be UTF-8")


def _expect_told(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as caught:
        load_file(str(path), inventory=ipip_neo_300())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


def test_unusable_paths_are_told(tmp_path: Path) -> None:
    with pytest.raises(RespondentsError, match=r"respondents.path is not set"):
        load_file(None, inventory=ipip_neo_300())
    with pytest.raises(UserError, match="no such file"):
        load_file(str(tmp_path / "none.csv"), inventory=ipip_neo_300())
    with pytest.raises(RespondentsError, match=r"name the file .csv, .tsv or .txt"):
        load_file(str(tmp_path / "people.xlsx"), inventory=ipip_neo_300())
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv is a folder; name a file"):
        load_file(str(tmp_path / "folder.csv"), inventory=ipip_neo_300())


SETTINGS_OF_TABLES = [
    ("people.json", {"columns": "mapping.csv"}),
    ("people.json", {"id_column": "row_number"}),
    ("people.dat", {"columns": "mapping.csv"}),
    ("people.dat", {"id_column": "name"}),
    ("people.dat", {"missing": [5]}),
]


@pytest.mark.parametrize(("name", "setting"), SETTINGS_OF_TABLES)
def test_a_setting_that_a_format_does_not_take_is_refused(tmp_path: Path, name: str, setting: dict[str, Any]) -> None:
    path = tmp_path / name
    path.write_bytes(EXAMPLE.with_suffix(".json").read_bytes())
    told = rf"{name}: a {path.suffix} file takes no respondents.{next(iter(setting))}; leave it out"
    with pytest.raises(RespondentsError, match=told):
        load_file(str(path), **setting, inventory=ipip_neo_300())


def test_only_a_table_is_told_of_its_rows_for_ids(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text(_person()[:-1] + "," + _person()[1:])
    with pytest.raises(RespondentsError, match=r"id anna is there twice; give each person their own$"):
        load_file(str(path), inventory=ipip_neo_300())


def test_marks_of_missing_are_a_list(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text(HEADER + "anna,1,2\n")
    several: Any = "0,9"
    with pytest.raises(RespondentsError, match=r"missing=0,9: give a list, as in respondents.missing=\[0,9\]"):
        load_file(str(path), missing=several, inventory=ipip_neo_300())
    nothing: Any = None
    for one in ("refused", 9, nothing):
        assert load_file(str(path), missing=one, inventory=ipip_neo_300()).people[0].answers == {1: 1, 9: 2}
