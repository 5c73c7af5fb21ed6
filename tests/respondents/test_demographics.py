"""Counts of people by group: none below five, and none to be found by subtraction."""

from palign_bench.respondents.papi import FEWEST, counts_of, papi_demographics
from palign_bench.respondents.source import RespondentSource


def test_small_groups_are_counted_together() -> None:
    assert counts_of("a" * 9 + "b" * 5 + "c" * 3 + "d" * 2) == {"a": 9, "b": 5, "others": 5}
    assert counts_of("a" * 9 + "b" * 6 + "c" * 4) == {"a": 9, "others": 10}  # four alone would be told by the total
    assert counts_of("a" * 3 + "b") == {"others": 4}
    assert counts_of("ab" * 5) == {"a": 5, "b": 5} and counts_of("") == {}


def test_counts_of_the_real_people(papi: RespondentSource) -> None:
    """The paper's appendix G: 203 women, 97 men; 125 people of 10 to 20 and 111 of 20 to 30 years; 235 of the USA."""
    found = papi_demographics()
    assert found["sex"] == {"women": 203, "men": 97}
    assert (found["age"]["11–20"], found["age"]["21–30"]) == (125, 111)
    assert {k: found["country"][k] for k in ("USA", "Canada", "UK", "Australia")} == {
        "USA": 235, "Canada": 17, "UK": 9, "Australia": 9}  # fmt: skip
    for counts in found.values():
        assert sum(counts.values()) == 300 and min(counts.values()) >= FEWEST
