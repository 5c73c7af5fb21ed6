"""From a method's settings to its rows: titles and blocks."""

from typing import Any

import pytest

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.report.names import BLOCKS
from palign_bench.run.assembly import method_identity, title_and_block
from palign_bench.settings import UserError, options, read_option
from tests.rows import shipped


class MyMethod(Aligner):
    """A user's own method; it learns from other people where told so."""

    def __init__(self, needs: frozenset[str] = frozenset()):
        self.needs = needs

    def align(self, case: Case) -> Alignment:
        return Alignment()


@pytest.mark.parametrize(
    ("method", "needs", "expected"),
    [
        ({}, {"prompt"}, ("mine", "methods")),
        ({"title": "Mine"}, {"prompt", "people"}, ("Mine", "people_methods")),
        ({"title": "Mine", "block": "checks"}, {"people"}, ("Mine", "checks")),
        ({"title": {"other": "Other"}}, {"prompt"}, ("mine", "methods")),
        ({"title": {"mine": "Mine, first row"}}, {"prompt"}, ("Mine, first row", "methods")),
    ],
)
def test_a_methods_own_title_and_the_block_that_its_needs_decide(
    method: dict[str, Any], needs: set[str], expected: tuple[str, str]
) -> None:
    assert title_and_block({"name": "mine"} | method, "mine", MyMethod(frozenset(needs))) == expected


def test_a_block_that_no_table_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"method.block=mine: choose one of methods, people_methods"):
        title_and_block({"name": "mine", "block": "mine"}, "mine", MyMethod())


def test_every_shipped_row_has_a_title_and_a_block() -> None:
    found = {}
    for name in options("method"):
        method, aligners = shipped(name)
        found |= {row: title_and_block(method, row, aligner) for row, aligner in aligners.items()}
    assert all(title != row and block in BLOCKS for row, (title, block) in found.items())
    assert len({title for title, _ in found.values()}) == len(found)
    assert found["readout_people"] == ("Readout, others' answers", "people_methods")
    assert found["ridge"] == ("Ridge on others", "other_people_floors")
    assert found["constant_c"] == ("Always C", "own_answers_floors")
    assert (found["truth"][1], found["ceiling"][1], found["pas"][1]) == ("checks", "known_truth", "methods")


def test_how_a_row_reads_is_no_part_of_its_identity() -> None:
    method = read_option("method", "pas")
    renamed = method | {"title": "Another", "block": "checks"}
    assert method_identity(method, "pas", MyMethod()) == method_identity(renamed, "pas", MyMethod())
