"""Johnson's fixed-width files: the layout of the real ones, with the real people's answers where they are at hand."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_120, ipip_neo_300
from palign_bench.respondents import RespondentSource
from palign_bench.respondents.file import load_file, read_people
from palign_bench.respondents.source import RespondentsError


def fixed_width(path: Path, people: Iterable[Respondent], inventory: Inventory, numbers: Iterable[int]) -> None:
    """Write people as Johnson's files hold them: keyed, 0 where missing, eleven or nine characters of country."""
    numbers = list(numbers)
    lines = []
    for person in people:
        keyed = [int(inventory.keyed(n, person.answers[n])) if n in person.answers else 0 for n in numbers]
        country = "Ruritania".ljust(11 if len(numbers) == 300 else 9)
        lines.append(f"{person.id[-6:]:>6}1710102030405107{country}" + "".join(map(str, keyed)))
    path.write_bytes("".join(line + "\r\n" for line in lines).encode("ascii"))


@pytest.fixture
def all_numbers(inventory: Inventory) -> list[int]:
    return [item.number for item in inventory.items]


def test_the_300_items_come_out_literal(
    tmp_path: Path, source: RespondentSource, inventory: Inventory, all_numbers: list[int]
) -> None:
    fixed_width(tmp_path / "IPIP300.dat", source.people, inventory, all_numbers)
    found = load_file(str(tmp_path / "IPIP300.dat"), inventory=ipip_neo_300())
    assert [person.answers for person in found.people] == [dict(person.answers) for person in source.people]
    assert [person.id for person in found.people] == [person.id[-6:] for person in source.people]
    assert "Ruritania" not in repr(found)


def test_literal_must_be_meant_where_the_file_is_keyed(
    tmp_path: Path, source: RespondentSource, inventory: Inventory, all_numbers: list[int]
) -> None:
    """Somebody who says otherwise is believed, with a warning that names the setting."""
    fixed_width(tmp_path / "IPIP300.dat", source.people, inventory, all_numbers)
    found = load_file(str(tmp_path / "IPIP300.dat"), orientation="literal", inventory=ipip_neo_300())
    assert "set respondents.orientation=keyed" in found.notes[-1]
    assert found.people[0].answers != dict(source.people[0].answers)


def test_the_120_items_are_the_known_ones_in_the_short_forms_order(
    tmp_path: Path, source: RespondentSource, inventory: Inventory
) -> None:
    fixed_width(tmp_path / "IPIP120.dat", source.people, inventory, inventory.known)
    found = read_people(str(tmp_path / "IPIP120.dat"), inventory=ipip_neo_300())
    assert [person.answers for person in found.people.respondents()] == [
        {n: person.answers[n] for n in sorted(inventory.known) if n in person.answers} for person in source.people
    ]
    with pytest.raises(RespondentsError, match="answers none of the 180 held-out items"):
        load_file(str(tmp_path / "IPIP120.dat"), inventory=ipip_neo_300())
    short = load_file(str(tmp_path / "IPIP120.dat"), inventory=ipip_neo_120())
    assert [dict(person.answers) for person in short.people] == [
        dict(person.answers) for person in found.people.respondents()
    ]


def test_other_layouts_are_told(
    tmp_path: Path, source: RespondentSource, inventory: Inventory, all_numbers: list[int]
) -> None:
    path = tmp_path / "people.dat"
    fixed_width(path, source.people[:3], inventory, all_numbers)
    whole = path.read_text()
    for content, told in {
        "anna 4 2\n": "first line has 8 characters; a line of Johnson's files has 333",
        whole + "1234\n": "line 4: 4 characters where 333 are due",
        whole.rstrip()[:-1] + "7\n": "line 3, item 300: '7' is no answer",
        whole.rstrip()[:-1] + "é\n": "line 3, item 300: 'é' is no answer",
    }.items():
        path.write_text(content, encoding="utf-8")
        with pytest.raises(RespondentsError, match=told):
            load_file(str(path), inventory=ipip_neo_300())
