"""Tables of people as they come: whatever spreadsheet, survey tool or statistics program wrote them."""

import json
from pathlib import Path
from typing import Any

import pytest

from palign_bench.questionnaire.inventories import read_inventory
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_120, ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.respondents.file import load_file, read_people
from palign_bench.respondents.source import RespondentsError

TABLES = {
    "commas": b"id,i1,i9\n007,4,2\nanna,5,\n",
    "tabs": b"id\ti1\ti9\n007\t4\t2\nanna\t5\t\n",
    "semicolons, decimal commas": b'id;i1;i9\n007;"4,0";2,0\nanna;5,0;\n',
    "byte order mark, Windows line ends": b"\xef\xbb\xbfid,i1,i9\r\n007,4,2\r\nanna,5,NA\r\n",
    "UTF-16": "id\ti1\ti9\r\n007\t4\t2\r\nanna\t5\t\r\n".encode("utf-16"),
    "old Mac line ends": b"id,i1,i9\r007,4,2\ranna,5,\r",
    "everything quoted": b'"id","i1","i9"\n"007","4","2"\n"anna","5",""\n',
    "floats and blank lines": b"\n\nid,i1,i9\n\n007, 4.0 ,2.00\n,,\nanna,5.0,NaN\n",
    "capitals": b"ID,I1,I9\n007,4,2\nanna,5,.\n",
    "Q": b"Participant,Q1,Q9\n007,4,2\nanna,5,null\n",
    "item_": b"case,item_1,ITEM-009\n007,4,2\nanna,5,\n",
    "other columns": b"age,i1,country,i9,id\n33,4,DE,2,007\n44,5,FR,,anna\n",
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_one_table_however_it_is_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(content)
    people = read_people(str(path), inventory=ipip_neo_300()).people.respondents()
    assert [(person.id, dict(person.answers)) for person in people] == [("007", {1: 4, 9: 2}), ("anna", {1: 5})]


def test_latin_1_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes("id,i1,i9\nchloé,1,2\n".encode("latin-1"))
    found = read_people(str(path), inventory=ipip_neo_300())
    assert found.people.ids == ("chloé",) and "Latin-1" in found.layout


def test_columns_that_are_no_items_are_named_and_their_cells_go_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,age,i1,country,i9,\nanna,7171,4,Ruritania,2,\n")
    source = load_file(str(path), inventory=ipip_neo_300())
    assert source.notes == ("people.csv: not read, since they are no items: age, country, (column 6)",)
    assert "7171" not in repr(source) and "Ruritania" not in repr(source)


def test_a_mapping_says_which_column_holds_which_item(tmp_path: Path) -> None:
    path, mapping = tmp_path / "people.tsv", tmp_path / "columns.csv"
    path.write_text("name\tEXT1\tNEU1\ti1\nanna\t4\t2\tignored\n")
    mapping.write_text("item,column\n2,EXT1\n9,NEU1\n301,X\n")
    wanted = {"name": "file", "path": str(path), "columns": str(mapping), "id_column": "name"}
    with pytest.raises(RespondentsError, match=r"columns.csv, line 4: '301' is no item number of ipip_neo_300"):
        load_respondents(wanted, ipip_neo_300())
    mapping.write_text("item,column\n2,EXT1\n9,NEU1\n3,X\n")
    with pytest.raises(RespondentsError, match=r"column 'X' of respondents.columns is not in the header"):
        load_respondents(wanted, ipip_neo_300())
    mapping.write_text("item,column\n1,EXT1\n9,NEU1\n")
    source = load_respondents(wanted, ipip_neo_300())
    assert [(person.id, dict(person.answers)) for person in source.people] == [("anna", {1: 4, 9: 2})]
    assert "i1" in source.notes[0]


def test_people_without_ids_are_called_by_their_row(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("i1,i9\n4,2\n\n5,1\n")
    source = load_file(str(path), inventory=ipip_neo_300())
    assert [person.id for person in source.people] == ["1", "2"]
    assert "called by their row" in source.notes[0]
    path.write_text("id,i1,i9\nx,4,2\nx,5,1\n")
    with pytest.raises(RespondentsError, match=r"id x is there twice; .* respondents.id_column=row_number"):
        load_file(str(path), inventory=ipip_neo_300())
    assert [person.id for person in load_file(str(path), id_column="row_number", inventory=ipip_neo_300()).people] == [
        "1",
        "2",
    ]


def test_what_stands_for_missing_is_missing_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,i1,i2,i9\nanna,4,-9,2\nben,5,0.0,1\n")
    with pytest.raises(RespondentsError, match=r"line 2 \(id anna\), column i2: '-9' is no answer; .*missing"):
        load_file(str(path), inventory=ipip_neo_300())
    found = load_file(str(path), missing=[0, -9], inventory=ipip_neo_300()).people
    assert [dict(person.answers) for person in found] == [{1: 4, 9: 2}, {1: 5, 9: 1}]


def test_item_numbers_of_another_inventory_are_refused(tmp_path: Path, inventory: Inventory) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"id,i1,i9,Q{len(inventory.items) + 1}\nanna,4,2,1\n")
    with pytest.raises(RespondentsError, match="column 'Q301' is no item: ipip_neo_300 has 300"):
        load_file(str(path), inventory=ipip_neo_300())


def test_the_short_forms_own_numbers_are_read_as_such_and_never_as_the_long_forms(tmp_path: Path) -> None:
    path, short_form = tmp_path / "people.csv", ipip_neo_300().known
    answers = [1 + place % 5 for place in range(120)]
    columns = ",".join(f"i{place}" for place in range(1, 121))
    path.write_text(f"id,{columns}\nanna,{','.join(map(str, answers))}\n")
    (anna,) = load_file(str(path), inventory=ipip_neo_120()).people
    assert anna.answers == dict(zip(short_form, answers, strict=True)) and anna.answers[99] == answers[8]
    with pytest.raises(RespondentsError, match=r"items are 1 to 120, as the short form .* inventory=ipip_neo_120"):
        load_file(str(path), inventory=ipip_neo_300())
    lacking = ",".join(f"i{place}" for place in range(1, 121) if place != 40)
    path.write_text(f"id,{lacking}\nanna,{','.join(map(str, answers[1:]))}\n")
    for inventory in (ipip_neo_120(), ipip_neo_300()):
        with pytest.raises(
            RespondentsError, match=r"items are 119 of 1 to 120, .* may be its or the long form's: name"
        ):
            load_file(str(path), inventory=inventory)
    beginning = ",".join(f"i{place}" for place in range(1, 61))  # IPIP-NEO-60, or who gave up half-way
    path.write_text(f"id,{beginning}\nanna,{','.join(map(str, answers[:60]))}\n")
    with pytest.raises(RespondentsError, match=r"items are 60 of 1 to 120, .* may be its or the long form's: name"):
        load_file(str(path), inventory=ipip_neo_300())
    columns = ",".join(f"i{number}" for number in short_form)
    path.write_text(f"id,{columns}\nanna,{','.join(map(str, answers))}\n")
    assert load_file(str(path), inventory=ipip_neo_120()).people[0].answers == anna.answers


@pytest.mark.parametrize(
    "header",
    ["Participant ID", "Participant-ID", "participant_id", "ParticipantID", "SUBJECT ID", "Case-ID"],
)
def test_ids_under_any_spelling_of_their_usual_names(tmp_path: Path, header: str) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"{header},i1,i9\n007,4,2\n")
    found = read_people(str(path), inventory=ipip_neo_300())
    assert found.people.ids == ("007",) and found.notes == ()


def test_two_columns_that_may_be_ids_are_named_as_they_are_spelled(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("Participant ID,User-ID,i1,i9\n007,1,4,2\n")
    with pytest.raises(RespondentsError, match="Participant ID and User-ID both may be ids"):
        load_file(str(path), inventory=ipip_neo_300())
    path.write_text("Participant ID,Id,i1,i9\n007,1,4,2\n")
    assert load_file(str(path), inventory=ipip_neo_300()).people[0].id == "1"


def test_a_column_of_ids_may_be_called_by_a_number(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("2024,i1,i9\n007,4,2\n")
    number: Any = 2024  # as the command line reads it
    assert read_people(str(path), id_column=number, inventory=ipip_neo_300()).people.ids == ("007",)


def test_a_questionnaire_of_ones_own_is_no_short_form_whatever_its_name(tmp_path: Path) -> None:
    items, path = tmp_path / "ipip_neo_german.csv", tmp_path / "people.csv"
    items.write_text("number,text,scale\n" + "".join(f"{n},Ich plane Tag {n}.,order\n" for n in range(1, 101)))
    path.write_text(f"id,{','.join(f'i{n}' for n in range(1, 101))}\nanna,{','.join('4' * 100)}\n")
    (anna,) = load_file(str(path), inventory=read_inventory(items)).people
    assert dict(anna.answers) == dict.fromkeys(range(1, 101), 4)


@pytest.mark.parametrize(
    ("rows", "from_0"),
    [("a,4,0\nb,3,1\n", True), ("a,0,1\n", True), ("a,4,0\nb,3,5\n", False), ("a,5,3\nb,3,0\n", False)],
)
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_scale_from_0_is_told_from_a_mark_of_missing(tmp_path: Path, rows: str, from_0: bool, suffix: str) -> None:
    """To call 0 missing would shift everybody by one without a word."""
    path = tmp_path / f"people{suffix}"
    people = [row.split(",") for row in rows.splitlines()]
    as_json = [{"id": name, "answers": {"1": int(one), "9": int(nine)}} for name, one, nine in people]
    path.write_text(json.dumps(as_json) if suffix == ".json" else f"id,i1,i9\n{rows}")
    with pytest.raises(RespondentsError, match=r"'0' is no answer; .* missing in respondents.missing") as caught:
        load_file(str(path), inventory=ipip_neo_300())
    hint = "; if the scale starts at 0 (no 5 is there), add 1 to every answer"
    assert str(caught.value).endswith(hint) is from_0


def test_another_wrong_answer_says_nothing_of_a_scale_from_0(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,i1,i9\nanna,9,2\nben,0,2\n")
    with pytest.raises(RespondentsError, match=r"'9' is no answer; .* in respondents.missing$"):
        load_file(str(path), inventory=ipip_neo_300())
