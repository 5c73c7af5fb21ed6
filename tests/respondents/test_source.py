"""Selecting people, and the hash of everything about them that can change a number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from palign_bench.questionnaire.inventory import Respondent, ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.respondents.source import RespondentsError, RespondentSource
from palign_bench.settings import UserError

PEOPLE = (Respondent("a", {1: 5, 2: 1}), Respondent("b", {1: 3}), Respondent("7", {2: 2}, portrait="You worry."))
SOURCE = RespondentSource("file", "3 people", PEOPLE)


def test_selects_all_some_and_first() -> None:
    assert SOURCE.select() == PEOPLE
    assert SOURCE.select(limit=2) == PEOPLE[:2]
    assert SOURCE.select(limit=99) == PEOPLE
    assert SOURCE.select(ids=["7", "a"]) == (PEOPLE[2], PEOPLE[0])
    assert SOURCE.select(limit=1, ids=["b", "a"]) == (PEOPLE[1],)
    assert SOURCE.select(ids=[7]) == (PEOPLE[2],)  # type: ignore[list-item]  # as the command line gives it


@pytest.mark.parametrize(
    ("limit", "ids", "told"),
    [
        (0, None, "respondents.limit=0"),
        (-3, None, "respondents.limit=-3"),
        (True, None, "respondents.limit=True"),
        (1.5, None, "respondents.limit=1.5"),
        ("3", None, "respondents.limit=3"),
        (None, [], "empty list"),
        (None, ["a", "zoe"], "unknown zoe; ids of file are a, b, 7"),
        (None, ["a", "b", "a"], "names a more than once"),
        (None, "a", r"respondents.ids=\[a\]"),
    ],
)
def test_bad_selection_is_told_in_one_line(limit: Any, ids: Any, told: str) -> None:
    with pytest.raises(RespondentsError, match=told) as caught:
        SOURCE.select(limit, ids)
    assert "\n" not in str(caught.value)


def test_many_ids_are_not_all_listed() -> None:
    source = RespondentSource("simulated", "", tuple(Respondent(f"p{i}", {1: 1}) for i in range(300)))
    with pytest.raises(RespondentsError, match=r"p0, p1, p2, p3, p4 … \(300 in all\)"):
        source.select(ids=["x"])


def test_hash_tells_every_difference_but_the_order_of_answers() -> None:
    def data_hash_of(people: Sequence[Respondent]) -> str:
        return RespondentSource("any", "name", tuple(people)).data_hash

    base = data_hash_of([Respondent("a", {1: 5, 2: 1})])
    assert data_hash_of([Respondent("a", {2: 1, 1: 5})]) == base
    assert SOURCE.data_hash == data_hash_of(PEOPLE) != data_hash_of(PEOPLE[::-1])
    others = [
        [Respondent("b", {1: 5, 2: 1})],
        [Respondent("a", {1: 5, 2: 2})],
        [Respondent("a", {1: 5, 3: 1})],
        [Respondent("a", {1: 5})],
        [Respondent("a", {1: 5, 2: 1}, portrait="")],
        [Respondent("a", {1: 5, 2: 1}), Respondent("b", {})],
    ]
    assert len({base, *map(data_hash_of, others)}) == len(others) + 1


@pytest.mark.parametrize("name", ["auto", "file", "papi", "simulated"])
def test_the_shipped_configuration_is_understood(name: str, tmp_path: Path) -> None:
    """Every key is a setting of its loader: loading fails, if at all, on the value given here."""
    conf = Path(__file__).parents[2] / "conf" / "respondents" / f"{name}.yaml"
    settings = yaml.safe_load(conf.read_text(encoding="utf-8"))
    assert (settings["name"], settings["limit"], settings["ids"]) == (name, None, None)
    if name == "simulated":
        assert len(load_respondents(settings, ipip_neo_300()).people) == settings["count"] == 300
        return
    key, told = ("path", "no such file") if name == "file" else ("folder", "is no folder")
    assert settings[key] is None
    with pytest.raises(UserError, match=told):
        load_respondents(settings | {key: str(tmp_path / "nowhere.csv")}, ipip_neo_300())
