"""People in JSON: whose numbers their keys are, and what stands for missing."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from palign_bench.questionnaire.inventory import ipip_neo_120, ipip_neo_300
from palign_bench.respondents.file import load_file, read_people
from palign_bench.respondents.source import RespondentsError


def _write(path: Path, *people: Iterable[tuple[int, int | None]]) -> str:
    entries = [{"id": f"p{k}", "answers": {str(n): value for n, value in of}} for k, of in enumerate(people)]
    path.write_text(json.dumps(entries))
    return str(path)


def test_the_short_forms_own_numbers_are_read_as_such_and_never_as_the_long_forms(tmp_path: Path) -> None:
    short_form, answers = ipip_neo_300().known, [1 + place % 5 for place in range(120)]
    numbered = list(enumerate(answers, start=1))
    path = _write(tmp_path / "people.json", numbered, numbered[:70])  # all of them, though not by everybody
    people = load_file(path, inventory=ipip_neo_120()).people
    assert people[0].answers == dict(zip(short_form, answers, strict=True)) and people[0].answers[99] == answers[8]
    assert people[1].answers == dict(zip(short_form[:70], answers[:70], strict=True))
    with pytest.raises(RespondentsError, match=r"items are 1 to 120, as the short form .* inventory=ipip_neo_120"):
        read_people(path, inventory=ipip_neo_300())
    _write(tmp_path / "people.json", numbered[:39] + numbered[40:])
    for inventory in (ipip_neo_120(), ipip_neo_300()):
        with pytest.raises(RespondentsError, match=r"119 of 1 to 120, .*: give every item .* null where missing"):
            read_people(path, inventory=inventory)


def test_every_item_as_a_key_tells_the_two_forms_apart(tmp_path: Path) -> None:
    given = {n: 1 + n % 5 for n in range(1, 101)}
    path = _write(tmp_path / "people.json", [(n, given.get(n)) for n in range(1, 121)])
    assert read_people(path, inventory=ipip_neo_120()).people.respondents()[0].answers == {
        ipip_neo_300().known[n - 1]: value for n, value in given.items()
    }
    _write(tmp_path / "people.json", [(n, given.get(n)) for n in range(1, 301)])
    assert read_people(path, inventory=ipip_neo_300()).people.respondents()[0].answers == given


def test_an_item_that_is_none_is_told_with_the_numbers_that_there_are(tmp_path: Path) -> None:
    path = _write(tmp_path / "people.json", [(1, 4), (9, 2)])
    with pytest.raises(RespondentsError, match=r"'9': no such item; ipip_neo_120 has 120 items, .* 29\d with gaps"):
        load_file(path, inventory=ipip_neo_120())
    _write(tmp_path / "people.json", [(301, 4)])
    with pytest.raises(RespondentsError, match=r"'301': no such item; ipip_neo_300 has 300 items, numbered 1 … 300$"):
        load_file(path, inventory=ipip_neo_300())


def test_what_stands_for_missing_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    path.write_text('[{"id": "anna", "answers": {"1": 4, "2": 0, "3": "refused", "9": 2}}]')
    (anna,) = load_file(str(path), missing=[0, "refused"], inventory=ipip_neo_300()).people
    assert dict(anna.answers) == {1: 4, 9: 2}
    (anna,) = read_people(str(path), missing=[0, 2, "refused"], inventory=ipip_neo_300()).people.respondents()
    assert dict(anna.answers) == {1: 4}
