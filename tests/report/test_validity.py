"""The validity panel: a case computed by hand, and the floors on the real people."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from palign_bench.ledger.columns import Digest
from palign_bench.questionnaire.inventory import DOMAINS, Answers, Inventory, Item
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from palign_bench.report.rows import RowNumbers
from palign_bench.report.specificity import Truths
from palign_bench.report.validity import PANEL, response_style, retest_accuracy, validity
from palign_bench.respondents.source import RespondentSource
from tests.ledgers import kept_folder, row_of

MakeRecord = Callable[..., dict[str, Any]]


def numbers_of(
    inventory: Inventory,
    answers: Mapping[str, Answers],
    truths: Mapping[str, Answers],
    make_record: MakeRecord,
    folder: Path,
    protocol: str = "corrected",
) -> RowNumbers:
    """A row of finished cells with these literal answers and truths."""
    records = [
        make_record(
            own,
            truths[person],
            None,
            scores=aligned_scores(inventory, own, truths[person]),
            traits=trait_scores(inventory, own),
            person_traits=trait_scores(inventory, truths[person]),
        )
        for person, own in answers.items()
    ]
    identity = {"method": {"name": "vanilla"}, "model": None}
    row = row_of("vanilla", kept_folder(folder, "vanilla", identity), list(answers))
    digest = Digest.of(records)
    return RowNumbers(**vars(row), protocol=protocol, model="tiny", identity=identity, respondents=tuple(answers),
                      digest=digest, scale_of={item.number: item.scale for item in inventory.items})  # fmt: skip


@pytest.fixture
def small() -> Inventory:
    """Four held-out items of each domain, two keyed positively and two negatively; every domain is one facet."""
    items = [
        Item(4 * k + j + 1, f"Say {d}{j}.", 1 if j < 2 else -1, d, f"{d}1")
        for k, d in enumerate(DOMAINS)
        for j in range(4)
    ]
    return Inventory("small", tuple(items), (), DOMAINS, stores_keyed=True)


def test_a_small_case_by_hand(small: Inventory, make_record: MakeRecord, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    truth, given = generator.integers(1, 6, (2, 12, 20))
    people = [f"p{i}" for i in range(12)]
    as_answers = [{p: dict(zip(range(1, 21), row.tolist(), strict=True)) for p, row in zip(people, m, strict=True)}
                  for m in (given, truth)]  # fmt: skip
    row = numbers_of(small, *as_answers, make_record, tmp_path)
    found = validity(small, row, Truths.of([row]))
    others = (truth.sum(axis=0) - truth) / 11
    distinctive = [np.corrcoef(given[i] - others[i], truth[i] - others[i])[0, 1] for i in range(12)]
    assert found["distinctive_profile_correlation"] == pytest.approx(np.mean(distinctive))
    overall = [np.corrcoef(given[i], truth[i])[0, 1] for i in range(12)]
    assert found["overall_profile_correlation"] == pytest.approx(np.mean(overall))
    sign = np.tile([1, 1, -1, -1], 5)
    keyed = [np.where(sign > 0, m, 6 - m).reshape(12, 5, 4).mean(axis=2) for m in (given, truth)]
    r = np.corrcoef(keyed[0].T, keyed[1].T)[:5, 5:]
    assert found["trait_correlation"] == pytest.approx(r.diagonal().mean())
    assert found["discriminant_gap"] == pytest.approx(
        r.diagonal().mean() - (np.abs(r).sum() - np.abs(r.diagonal()).sum()) / 20
    )
    assert found["dispersion_ratio"] == pytest.approx((keyed[0].std(axis=0) / keyed[1].std(axis=0)).mean())
    assert found["exact_agreement"] == pytest.approx((given == truth).mean())
    assert found["acquiescence"] == pytest.approx(given.mean() - 3)  # as many items are keyed either way
    plus, minus = (given[:, sign == side].reshape(12, 5, 2).mean(axis=2) for side in (1, -1))
    consistent = [np.corrcoef(plus[:, d], 6 - minus[:, d])[0, 1] for d in range(5)]
    assert found["reverse_key_consistency"] == pytest.approx(np.mean(consistent))
    assert found["extreme_share"] == pytest.approx(((given == 1) | (given == 5)).mean())
    assert set(found) == {column["name"] for column in PANEL}


def test_what_is_not_defined_is_none(small: Inventory, make_record: MakeRecord, tmp_path: Path) -> None:
    truth = {f"p{i}": {n: 1 + (n * (i + 1)) % 5 for n in range(1, 21)} for i in range(3)}
    constant = {person: dict.fromkeys(range(1, 21), 3) for person in truth}
    row = numbers_of(small, constant, truth, make_record, tmp_path)
    found = validity(small, row, Truths.of([row]))
    assert found["distinctive_profile_correlation"] is None, "three people's means say nothing"
    assert found["overall_profile_correlation"] is None and found["trait_correlation"] is None
    assert found["dispersion_ratio"] == 0 and found["retest_normalised_accuracy"] == pytest.approx(0)
    assert found["acquiescence"] == 0 and found["extreme_share"] == 0


def test_answers_scored_as_stored_are_read_literally(small: Inventory, make_record: MakeRecord, tmp_path: Path) -> None:
    """`as_released` keeps negatively keyed items reversed and scores a missing answer as 0: neither is an answer."""
    generator = np.random.default_rng(1)
    literal = {f"p{i}": {n: int(generator.integers(1, 6)) for n in range(1, 21)} for i in range(12)}
    stored = {p: {n: small.keyed(n, v) for n, v in own.items()} for p, own in literal.items()}
    del literal["p0"][1]
    stored["p0"][1] = 0
    rows = [
        numbers_of(small, literal, literal, make_record, tmp_path),
        numbers_of(small, stored | {"p0": {n: v for n, v in stored["p0"].items() if v}}, stored, make_record, tmp_path,
                   "as_released"),
    ]  # fmt: skip
    ours, theirs = (validity(small, row, Truths.of([row])) for row in rows)
    names = ("distinctive_profile_correlation", "exact_agreement", "extreme_share")
    assert {name: ours[name] for name in names} == pytest.approx({name: theirs[name] for name in names})
    assert ours["distinctive_profile_correlation"] == pytest.approx(1) and ours["exact_agreement"] == 1
    # An answer to an item as worded that is scored reversed is agreement with neither.
    unsaid = ("overall_profile_correlation", "acquiescence", "reverse_key_consistency")
    assert {name: theirs[name] for name in unsaid} == dict.fromkeys(unsaid) and None not in [ours[n] for n in unsaid]


def test_a_trait_that_all_people_share_is_left_out(small: Inventory, make_record: MakeRecord, tmp_path: Path) -> None:
    """Rounding makes no spread: own true answers correlate at 1 and are spread as the people are."""
    generator = np.random.default_rng(4)
    truth = {f"p{i}": {n: int(generator.integers(1, 6)) for n in range(1, 21)} for i in range(12)}
    for number, own in enumerate(truth.values()):
        own |= {1: 2, 2: 1, 3: 5, 4: 4} if number % 2 else {1: 1, 2: 2, 3: 4, 4: 5}
    row = numbers_of(small, truth, truth, make_record, tmp_path)
    figures = row.digest.figures.copy()
    place = row.digest.columns.index("person_trait/" + DOMAINS[small.items[0].scale])
    figures[:, place] = np.where(np.arange(12) % 2, 5 / 3, 5 / 3 + 2e-16)
    found = validity(small, replace(row, digest=replace(row.digest, figures=figures)), Truths.of([row]))
    assert found["trait_correlation"] == pytest.approx(1) and found["dispersion_ratio"] == pytest.approx(1)


def test_a_yes_sayer_is_inconsistent(small: Inventory) -> None:
    agrees = np.array([np.full(20, level) for level in (2.0, 4.0, 5.0, 5.0)])
    style = response_style(small, np.arange(1, 21), agrees)
    assert style["reverse_key_consistency"] == pytest.approx(-1) and style["acquiescence"] == 1.0


def test_the_retest_is_what_drawing_many_tends_to(small: Inventory) -> None:
    truth = np.random.default_rng(0).integers(1, 6, (40, 20)).astype(float)
    spread = np.sqrt(truth.var(axis=0, ddof=1).mean() * (1 - 0.65**2))
    draws = truth + spread * np.random.default_rng(2).standard_normal((400, *truth.shape))
    retest = 5 * np.abs(np.clip(np.floor(draws + 0.5), 1, 5) - truth).mean()  # as many items a domain: one mean
    middle = 5 * np.abs(truth - 3).mean()
    found = retest_accuracy(small, np.arange(1, 21), truth, 1.0)
    assert found == pytest.approx((middle - 1.0) / (middle - retest), abs=0.01)


# distinctive r, overall r, convergent, mean absolute off-diagonal, dispersion, exact, retest accuracy
REFERENCE = {
    "always C": (0.00, None, None, None, 0.0, 0.331, 0.0),
    "item median": (0.00, 0.544, None, None, 0.01, 0.483, None),
    "domain mean": (0.343, 0.530, 0.808, 0.242, 1.42, 0.496, None),
    "facet mean": (0.426, 0.595, 0.906, 0.277, 1.23, 0.522, 0.57),
    "ridge": (0.527, 0.722, 0.933, 0.294, 0.85, 0.631, 1.01),
    "truth": (1.0, 1.0, 1.0, 0.263, 1.0, 1.0, None),
}
STYLE = {"truth": (0.105, 0.58, 0.089), "ridge": (0.107, 0.71, None), "domain mean": (0.0, None, None)}


def floors_by_numpy(inventory: Inventory, table: np.ndarray) -> dict[str, np.ndarray]:
    """Literal predictions ``(people, 180)`` of the floors, formed keyed and rounded half up, without the harness."""
    sign = np.array([item.sign for item in inventory.items])
    keyed = np.where(sign > 0, table, 6 - table)
    known = np.array([inventory.column[n] for n in inventory.known])
    held_out = np.array([inventory.column[n] for n in inventory.held_out])

    def own_mean(group: Callable[[Item], str | None]) -> np.ndarray:
        groups = np.array([group(item) for item in inventory.items])
        return np.stack([np.nanmean(keyed[:, known[groups[known] == groups[j]]], axis=1) for j in held_out], axis=1)

    median, ridge = np.empty((2, len(keyed), len(held_out)))
    for person in range(len(keyed)):
        others = np.delete(keyed, person, axis=0)
        median[person] = np.nanmedian(others[:, held_out], axis=0)
        means = np.nanmean(others, axis=0)
        centred = np.nan_to_num(others - means)
        inputs = centred[:, known]
        weights = np.linalg.solve(inputs.T @ inputs + 300 * np.eye(len(known)), inputs.T @ centred[:, held_out])
        ridge[person] = means[held_out] + np.nan_to_num(keyed[person, known] - means[known]) @ weights
    rounded = {
        name: np.clip(np.floor(values + 0.5), 1, 5)
        for name, values in {
            "item median": median,
            "domain mean": own_mean(lambda item: item.scale),
            "facet mean": own_mean(lambda item: item.subscale),
            "ridge": ridge,
        }.items()
    }
    literal = {name: np.where(sign[held_out] > 0, values, 6 - values) for name, values in rounded.items()}
    return literal | {"always C": np.full_like(ridge, 3), "truth": table[:, held_out]}


def test_floors_on_the_real_people(
    papi: RespondentSource, inventory: Inventory, make_record: MakeRecord, tmp_path: Path
) -> None:
    table = np.array([[person.answers.get(item.number, np.nan) for item in inventory.items] for person in papi.people])
    truths = {p.id: {n: p.answers[n] for n in inventory.held_out if n in p.answers} for p in papi.people}
    for name, predicted in floors_by_numpy(inventory, table).items():
        answers = {
            person.id: {n: v for n, v in zip(inventory.held_out, row.tolist(), strict=True) if not np.isnan(v)}
            for person, row in zip(papi.people, predicted, strict=True)
        }
        row = numbers_of(inventory, answers, truths, make_record, tmp_path)
        found = validity(inventory, row, Truths.of([row]))
        gap, convergent = found["discriminant_gap"], found["trait_correlation"]
        off_diagonal = None if gap is None or convergent is None else convergent - gap
        told = (
            found["distinctive_profile_correlation"],
            found["overall_profile_correlation"],
            convergent,
            off_diagonal,
            found["dispersion_ratio"],
            found["exact_agreement"],
            found["retest_normalised_accuracy"],
        )
        for value, expected in zip(told, REFERENCE[name], strict=True):
            if expected is not None:
                digits = max(2, len(str(expected).partition(".")[2]))
                assert value == pytest.approx(expected, abs=0.5001 * 10**-digits), (name, told)
        styles = ("acquiescence", "reverse_key_consistency", "extreme_share")
        for style, expected in zip(styles, STYLE.get(name, ()), strict=False):
            if expected is not None:
                digits = max(2, len(str(expected).partition(".")[2]))
                assert found[style] == pytest.approx(expected, abs=0.5001 * 10**-digits), (name, style)


def test_correlations_are_pearsons(small: Inventory) -> None:
    answers = np.random.default_rng(5).integers(1, 6, (9, 20)).astype(float)
    style = response_style(small, np.arange(1, 21), answers)
    blocks = answers.reshape(9, 5, 4)
    expected = [stats.pearsonr(blocks[:, d, :2].mean(axis=1), 6 - blocks[:, d, 2:].mean(axis=1))[0] for d in range(5)]
    assert style["reverse_key_consistency"] == pytest.approx(np.mean(expected))


def test_chance_that_small_tables_give_to_a_constant(
    papi: RespondentSource, inventory: Inventory, make_record: MakeRecord, tmp_path: Path
) -> None:
    """As the legend and docs/concepts.md say: +.12 among 10 people, +.06 among 20, about 0 among 300."""
    for count, expected in ((10, 0.12), (20, 0.06), (300, 0.0)):
        people = papi.people[:count] if count == 300 else papi.people[:: 300 // count]
        truths = {p.id: {n: p.answers[n] for n in inventory.held_out if n in p.answers} for p in people}
        answers: dict[str, Answers] = {each: dict.fromkeys(truth, 3) for each, truth in truths.items()}
        row = numbers_of(inventory, answers, truths, make_record, tmp_path / str(count))
        found = validity(inventory, row, Truths.of([row]))["distinctive_profile_correlation"]
        assert found == pytest.approx(expected, abs=0.05 if count < 300 else 0.005)


def test_what_hedging_earns_in_a_table_of_twenty(
    papi: RespondentSource, inventory: Inventory, make_record: MakeRecord, tmp_path: Path
) -> None:
    """The figures that README.md and docs/concepts.md tell: means of 20 draws of 20 real people."""
    held_out = inventory.held_out
    table = np.array([[person.answers.get(n, np.nan) for n in held_out] for person in papi.people])
    generator, earned = np.random.default_rng(1), []
    for draw in range(20):
        chosen = generator.choice(len(table), 20, replace=False)
        truths = {papi.people[i].id: {n: v for n, v in zip(held_out, table[i], strict=True) if v > 0} for i in chosen}
        medians = [np.floor(np.nanmedian(np.delete(table, i, axis=0), axis=0) + 0.5) for i in chosen]
        rows = [
            {papi.people[i].id: dict(zip(held_out, own, strict=True)) for i, own in zip(chosen, answers, strict=True)}
            for answers in ([np.full(len(held_out), 3.0)] * 20, medians)
        ]
        made = [numbers_of(inventory, row, truths, make_record, tmp_path / str(draw)) for row in rows]
        earned.append([validity(inventory, row, Truths.of([row]))["distinctive_profile_correlation"] for row in made])
    constant, median = np.mean(np.array(earned, dtype=float), axis=0)
    assert constant == pytest.approx(0.06, abs=0.01) and median == pytest.approx(0.10, abs=0.015)
