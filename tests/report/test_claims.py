"""The claims ledger: its statistics against sums by hand, its figures against those found independently."""

from math import comb
from pathlib import Path

import pytest

from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.claims import (
    CONTRADICTED,
    UNDECIDED,
    Evidence,
    all_claims,
    claims_table,
    constant_floor,
    dose,
    evidence_at_hand,
    is_a_share_of,
    page,
    sign_test,
)
from palign_bench.report.paper import LLAMA3_8B, OF_CLAIMS
from palign_bench.respondents import RespondentSource
from palign_bench.respondents.matrix import AnswerMatrix

# What an independent computation on the released files gave (see the claims' places).
FIGURES = {
    "Table 1": ("3.79", "2.74", "8.3288"),
    "§3, Eq. 2": ("3.86",),
    "Figure 14": ("4.62",),
    "Figures 21–25": ("A 3.43, C 3.47, E 3.33, N 2.89, O 3.62", "A 2.95, C 3.14, E 3.19, N 3.04, O 3.11"),
    "Table 7": ("full 0.0609",),
    "Figure 7": ("73.47 and 72.75",),
    "Figure 8": ("p = 0.16",),
}


@pytest.mark.parametrize(("wins", "losses"), [(74, 52), (114, 93), (3, 3), (0, 5), (1, 0)])
def test_the_sign_test_counts_coins(wins: int, losses: int) -> None:
    """Twice the share of as many fair coins that fall as unevenly, or more."""
    tosses = wins + losses
    uneven = sum(comb(tosses, heads) for heads in range(max(wins, losses), tosses + 1))
    assert sign_test(wins, losses) == pytest.approx(min(1, 2 * uneven / 2**tosses))


def test_a_percentage_that_no_count_gives_is_found() -> None:
    assert is_a_share_of(74.15, 1319) == 978
    assert is_a_share_of(73.47, 1319) is None and is_a_share_of(72.75, 1319) is None
    assert all(is_a_share_of(round(100 * k / 7, 2), 7) == k for k in range(8))


def test_figures_are_those_found_independently(papi: RespondentSource, inventory: Inventory, tmp_path: Path) -> None:
    evidence = Evidence(AnswerMatrix.of(papi.people, inventory), None, None, tmp_path)
    found: dict[str, str] = {}
    for claim in all_claims():
        found[claim.place] = found.get(claim.place, "") + claim.finding(evidence).found
    for place, figures in FIGURES.items():
        assert all(figure in found[place] for figure in figures), found[place]


def test_verdicts_follow_what_the_paper_prints(
    papi: RespondentSource, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = AnswerMatrix.of(papi.people, inventory)
    assert dose(people)[0] == CONTRADICTED and constant_floor(people)[0] == UNDECIDED
    monkeypatch.setitem(OF_CLAIMS, "dose", {"pas": 2.7, "few_shot": 2.47, "vanilla": 0.0})
    assert dose(people)[0] == UNDECIDED
    monkeypatch.setitem(OF_CLAIMS, "dose", {"pas": 4.7, "few_shot": 2.47, "vanilla": 0.0})
    assert dose(people)[0] == CONTRADICTED, "more than the known answers were raised"
    for other, verdict, told in ((4.0, CONTRADICTED, "does not hold"), (9.0, UNDECIDED, "holds")):
        monkeypatch.setitem(LLAMA3_8B.figures, "few_shot", [other])
        found, figures = constant_floor(people)
        assert (found, figures["order"], figures["place"]) == (verdict, told, "below")


def test_without_the_people_a_claim_is_undecided_and_says_so(tmp_path: Path) -> None:
    nothing = Evidence(None, None, None, tmp_path)
    assert {claim.finding(nothing).verdict for claim in all_claims() if claim.needs} == {UNDECIDED}
    assert "papi not at hand" in claims_table(nothing)


def test_the_documented_page_is_what_the_command_writes(papi: RespondentSource, tmp_path: Path) -> None:
    documented = Path(__file__).parents[2] / "docs" / "results" / "claims.md"
    evidence = evidence_at_hand(tmp_path)
    assert evidence.dark_triad is not None and len(papi.people) == 300
    assert page(evidence) == documented.read_text(encoding="utf-8")
