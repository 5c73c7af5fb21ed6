"""Floors on the Short Dark Triad, against known figures of the released 300; what it lacks and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from baselines.floors import floors
from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import Corrected
from palign_bench.questionnaire.scoring import COMPOSITE, aligned_scores, as_matrix
from palign_bench.respondents import RespondentSource, load_respondents
from palign_bench.settings import UserError, read_option
from tests.command import run_here, table
from tests.questionnaire.test_inventories import dark_triad  # noqa: F401

# Sum over the three scales of the mean over people, each rounded to three decimals; literal answers, 0 is missing.
FLOORS = {
    "constant_a": "5.193",
    "constant_b": "3.246",
    "constant_c": "3.214",
    "constant_d": "4.312",
    "constant_e": "6.807",
    "domain_mean": "2.091",
    "item_median": "2.585",
    "truth": "0.000",
}


@pytest.fixture(scope="module")
def people(dark_triad: Inventory) -> RespondentSource:  # noqa: F811
    return load_respondents(read_option("respondents", "dark_triad"), dark_triad)


def cases(protocol: Corrected, source: RespondentSource) -> list[Case]:
    numbers = [item.number for item in protocol.inventory.items]
    table = as_matrix(numbers, [person.answers for person in source.people])
    return [
        Case(person.id, protocol.known(person), protocol.selection(person, 0), index,
             others=np.delete(table, index, axis=0), held_out=protocol.held_out(person))
        for index, person in enumerate(source.people)
    ]  # fmt: skip


def test_floors_of_the_released_300(dark_triad: Inventory, people: RespondentSource) -> None:  # noqa: F811
    protocol = Corrected(dark_triad)
    every = cases(protocol, people)

    def composite(row: str) -> float:
        floor = floors([row])[row]
        floor.prepare(None, protocol)
        scored = [
            aligned_scores(dark_triad, alignment.answers or {}, case.held_out or {})
            for alignment, case in zip(floor.align_many(every), every, strict=True)
        ]
        of_scales = ([s[name] for s in scored if s[name] is not None] for name in scored[0] if name != COMPOSITE)
        return sum(round(float(np.mean(scores)), 3) for scores in of_scales)

    assert {row: f"{composite(row):.3f}" for row in FLOORS} == FLOORS
    assert 1.65 < composite("ridge") < 1.75  # penalty 10: 1.697


def test_rows_that_do_not_exist_for_three_scales_without_subscales(dark_triad: Inventory) -> None:  # noqa: F811
    rows = floors(["constant_e", "constant_f", "facet_mean", "domain_mean"])
    assert [name for name, floor in rows.items() if floor.exists_for(dark_triad)] == ["constant_e", "domain_mean"]


def test_the_factor_model_of_ipip_neo_is_refused(dark_triad: Inventory) -> None:  # noqa: F811
    from baselines.ceiling import Ceiling

    with pytest.raises(UserError, match="method=ceiling: the factor model is of ipip_neo_300, not of dark_triad"):
        Ceiling("published", 1, 0).check_inventory(dark_triad)


@pytest.mark.slow
def test_a_readout_of_a_small_model_knows_the_person(dark_triad: Inventory, tmp_path: Path) -> None:  # noqa: F811
    """SmolLM2 answers C to everything; a readout of its states does not. Seen: 2.73 against 3.27, specificity 0.79."""
    ran = run_here(
        "-m", "method=floors,readout", "model=smollm2_135m", "inventory=dark_triad", "respondents=dark_triad",
        "respondents.limit=10", "tracking=none", "name=dark", f"runs={tmp_path}", folder=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = table(tmp_path, "dark").set_index("method")
    assert rows.loc["readout", "composite"] < rows.loc["constant_c", "composite"] - 0.25
    assert rows.loc["readout", "specificity"] > 0.4
    assert rows.loc["constant_c", "specificity"] == pytest.approx(0, abs=1e-9)
