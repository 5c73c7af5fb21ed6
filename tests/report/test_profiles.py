"""Pictures of people beside what methods answer for them: the numbers that are drawn, and that they can be read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from palign_bench.cli.commands import dispatch
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory, ipip_neo_300
from palign_bench.questionnaire.scoring import aligned_scores, trait_scores
from palign_bench.report.pictures import traits
from palign_bench.report.profiles import _Compared, draw_people
from palign_bench.report.table import Report, build_report
from palign_bench.respondents import simulate
from palign_bench.respondents.matrix import AnswerMatrix
from palign_bench.respondents.source import RespondentSource
from palign_bench.settings import UserError
from tests.report.test_figures import assert_legible

PEOPLE = 24


@pytest.fixture(scope="module")
def people() -> RespondentSource:
    return simulate(count=PEOPLE, seed=5)


@pytest.fixture
def report(
    make_record: Callable[..., dict[str, Any]], make_plan: Callable[..., Plan], people: RespondentSource
) -> Report:
    """Few-Shot answers for the first person as that person, and ever worse for the others; one floor, one constant."""
    inventory = ipip_neo_300()
    generator = np.random.default_rng(0)
    rows: dict[str, dict[str, Any]] = {"few_shot": {}, "facet_mean": {}, "constant_c": {}}
    for number, person in enumerate(people.people):
        truth = {n: person.answers[n] for n in inventory.held_out}
        wrong = generator.random(180) < number / PEOPLE
        answers = {n: 3 if each else truth[n] for n, each in zip(truth, wrong, strict=True)}
        for name, given in {
            "few_shot": answers,
            "facet_mean": dict.fromkeys(truth, 2),
            "constant_c": dict.fromkeys(truth, 3),
        }.items():
            scores = aligned_scores(inventory, given, truth)
            rows[name][person.id] = make_record(given, truth, scores["composite"], scores=scores)
    return build_report(make_plan(rows, tuple(person.id for person in people.people)), inventory)


def test_what_is_drawn_are_trait_scores(report: Report, people: RespondentSource) -> None:
    compared, inventory = _Compared(report), report.inventory
    assert list(compared.rows) == ["Few-Shot", report.rows[1]["label"]]  # methods, then the best own-answers floor
    drawn = compared.densities(twice_reversed=False)
    truth = [trait_scores(inventory, {n: p.answers[n] for n in inventory.held_out}) for p in people.people]
    names = list(inventory.scales.values())
    expected = np.array([[scores[name] for name in names] for scores in truth])
    np.testing.assert_allclose(drawn[f"the people (n={PEOPLE})"], expected)
    np.testing.assert_allclose(drawn["Few-Shot"][0], expected[0])
    literal = compared.densities(twice_reversed=True)[f"the people (n={PEOPLE})"]
    first, of_a = people.people[0].answers, [n for n in inventory.held_out if inventory[n].scale == "A"]
    assert literal[0, 0] == pytest.approx(np.mean([first[n] for n in of_a]))


def test_profiles_are_facet_means_of_chosen_people(report: Report, people: RespondentSource) -> None:
    compared, inventory = _Compared(report), report.inventory
    first, last = people.people[0], people.people[-1]
    shown = compared.profiles([last.id, first.id])
    assert [heading.split(",")[0] for heading in shown] == [last.id, first.id]
    own, method, floor = shown[f"{first.id}, composite of Few-Shot 0.00"].values()
    of, names = traits.subscales_in_order(inventory)
    assert (of, len(names), names[:7]) == ("subscale", 30, ["A1", "A2", "A3", "A4", "A5", "A6", "C1"])
    of_a1 = [n for n in inventory.held_out if inventory[n].subscale == "A1"]
    assert own[0] == pytest.approx(np.mean([inventory.keyed(n, first.answers[n]) for n in of_a1]))
    np.testing.assert_allclose(own, method)
    assert not np.allclose(own, floor)
    chosen = [heading.split(",")[0] for heading in compared.profiles([])]
    composites = report.read[0].composites
    ordered = sorted(composites, key=lambda each: composites[each])
    assert chosen[0] == f"{ordered[0]}: answered best" and chosen[2] == f"{ordered[-1]}: answered worst"
    assert chosen[1].endswith(": median") and len(chosen) == 3
    with pytest.raises(UserError, match="--ids: nobody has no finished cell"):
        compared.profiles(["nobody"])


def test_pictures_lie_beside_the_table_and_can_be_read(report: Report, tmp_path: Path) -> None:
    told = draw_people(report, tmp_path)
    names = [f"table1_{what}.{ending}" for what in ("traits", "profiles") for ending in ("png", "pdf")]
    assert told == f"Written to {tmp_path}: {', '.join(names)}"
    for name in ("traits", "profiles"):
        assert (matplotlib.image.imread(tmp_path / f"table1_{name}.png")[..., :3].min(axis=2) < 0.9).mean() > 0.01
    compared = _Compared(report)
    assert_legible(traits.trait_figure(compared.densities(True), report.inventory, report.title, traits.TWICE_REVERSED))
    assert_legible(traits.profile_figure(compared.profiles([]), report.inventory, report.headline))


def test_the_command_draws_them(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["report", "table1", "--runs", str(tmp_path), "--ids", "simulated-0003"])
    names = ", ".join(f"table1_{what}.{ending}" for what in ("traits", "profiles") for ending in ("png", "pdf"))
    assert capsys.readouterr().out.rstrip().endswith(names)


def test_a_table_without_a_method_is_told(
    make_record: Callable[..., dict[str, Any]], make_plan: Callable[..., Plan], five_items: Inventory, tmp_path: Path
) -> None:
    plan = make_plan({"constant_c": {"p": make_record({6: 3}, {6: 3}, 0.0)}, "vanilla": {}}, ("p",))
    with pytest.raises(UserError, match="no method or own-answers floor is finished"):
        draw_people(build_report(plan, five_items), tmp_path)


def test_correlations_are_pearsons(people: RespondentSource) -> None:
    inventory = ipip_neo_300()
    keyed = AnswerMatrix.of(people.people, inventory).keyed()
    keyed[3, inventory.column[1]] = np.nan
    _, names = traits.subscales_in_order(inventory)
    scores = traits.scores_of(inventory.items, keyed, names, "subscale")
    one, other = scores[:, names.index("N1")], scores[:, names.index("E2")]
    found = traits.correlations(scores)[names.index("N1"), names.index("E2")]
    assert found == pytest.approx(stats.pearsonr(one, other)[0])
    assert_legible(traits.correlation_figure(keyed, inventory, "people"))


def test_items_are_correlated_where_there_are_no_facets() -> None:
    items = tuple(ipip_neo_300().items[k] for k in (0, 1, 5, 6))
    bare = Inventory("bare", tuple(type(i)(i.number, "", i.sign, i.scale) for i in items), (1,), ipip_neo_300().scales)
    figure = traits.correlation_figure(np.array([[1.0, 2, 3, 4], [2, 2, 5, 1], [4, 1, 1, 2.0]]), bare, "four items")
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert sorted(labels) == sorted(f"{item.scale}{item.number}" for item in items)


def test_twice_reversed_answers_are_what_the_paper_drew(papi: RespondentSource, inventory: Inventory) -> None:
    """Means of its figures 21 to 25: A 2.95, C 3.14, E 3.19, N 3.04, O 3.11; those of trait scores are others."""
    matrix = AnswerMatrix.of(papi.people, inventory)
    drawn = traits.scores_of(inventory.items, matrix.twice_reversed(), list(inventory.scales), "scale").mean(axis=0)
    np.testing.assert_allclose(drawn, [2.946, 3.135, 3.193, 3.045, 3.107], atol=6e-4)
    scores = traits.scores_of(inventory.items, matrix.keyed(), list(inventory.scales), "scale").mean(axis=0)
    np.testing.assert_allclose(scores, [3.43, 3.47, 3.33, 2.89, 3.62], atol=6e-3)
