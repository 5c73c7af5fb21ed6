"""Effects of changed known answers, on the organism and ten people: what must be 0, what must be 1, what follows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_300
from palign_bench.report.effects import Effects, _interval, _ratio, effects
from palign_bench.report.rows import read_rows
from palign_bench.run.checks import check_portraits
from palign_bench.run.methods import make_aligners
from palign_bench.settings import UserError
from tests.command import run_here
from tests.rows import shipped

PEOPLE = ["respondents=simulated", "respondents.figures=published", "respondents.seed=11", "respondents.count=40"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of the experiment."""
    folder = tmp_path_factory.mktemp("effects")
    command = [
        "experiment=effects", "method=floors,vanilla,few_shot",
        *PEOPLE, "respondents.limit=10", "tracking=none", f"runs={folder / 'runs'}",
    ]  # fmt: skip
    done = run_here(*command, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "Every effect is exactly 0: Always A" in done.stdout
    assert "composite" in pd.read_csv(folder / "runs" / "effects" / "organism-corrected" / "effects.csv")  # the table
    return folder / "runs"


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, Effects]:
    (plan,) = Plan.all(runs, "effects")
    return {each.summary["method"]: each for each in effects(read_rows(plan)[0], ipip_neo_300().scales)}


def test_who_is_not_told_or_does_not_listen_has_no_effect_at_all(found: dict[str, Effects]) -> None:
    for title in (*(f"Always {letter}" for letter in "ABCDE"), "Random option", "Item median of others", "Vanilla"):
        assert not found[title].matrix.any(axis=None) and found[title].summary["inverted"] == 0, title


def test_own_means_follow_their_own_scale_and_no_other(found: dict[str, Effects]) -> None:
    for title in ("Own domain mean", "Own facet mean"):
        effect = found[title]
        assert list(effect.matrix.index) == ["A", "C", "E", "N", "O"] and effect.summary["people"] == 10
        assert effect.summary["steerability"] == pytest.approx(1, abs=0.1)  # answers are whole numbers
        assert effect.summary["leakage"] == 0 and effect.summary["inverted"] > 1


def test_a_model_that_reads_the_prompt_follows_it(found: dict[str, Effects]) -> None:
    few_shot = found["Few-Shot"].summary
    assert few_shot["low"] > 0.5
    assert few_shot["leakage"] < 0.3 * few_shot["steerability"]
    assert few_shot["inverted"] > 1


def test_an_effect_is_the_change_of_scores_per_realised_dose(runs: Path, inventory: Inventory) -> None:
    """The ridge row's effect of N on E, from the ledger's records alone."""
    (plan,) = Plan.all(runs, "effects")
    rows = {(row.name, row.intervention): row for row in read_rows(plan)[0]}
    up, down = (dict(rows["ridge", name].folder.read_all(rows["ridge", name].respondents)) for name in ("N+1", "N-1"))
    change = sum(up[each]["traits"]["extraversion"] - down[each]["traits"]["extraversion"] for each in up)
    dose = sum(up[each]["dose"]["neuroticism"] - down[each]["dose"]["neuroticism"] for each in up)
    table = pd.read_csv(plan.folder / "effects_matrix.csv").set_index(["method", "changed"])
    assert 0 < dose <= 24 and change != 0
    assert table.loc[("Ridge on others", "N"), "E"] == pytest.approx(change / dose)
    assert up.keys() == down.keys() and len(up) == 10


@pytest.mark.parametrize(
    ("setting", "title"),
    [
        ("intervention=none,A+1,inverted", "corrected, 3"),
        ("intervention=A+1,A-1", "corrected, 3"),
        ("intervention=inverted", "corrected, intervention=inverted, 3"),
        ("known_answers=30", "corrected, known_answers=30, 3"),
        ("variant=reversed", "corrected, variant=reversed, 3"),
    ],
)
def test_where_nothing_can_be_compared_the_usual_table_is_shown(tmp_path: Path, setting: str, title: str) -> None:
    """With what all rows are told in its title: no label tells what does not tell rows apart."""
    command = ["-m", "method=own_means", setting, *PEOPLE, "respondents.limit=3", "tracking=none", "runs=runs"]
    done = run_here(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "yet" not in done.stdout and "compo-" in done.stdout
    assert " ".join(done.stdout.split()).startswith(f"run: no language model, protocol {title} people in this table")
    (page,) = tmp_path.glob("runs/run/*/run.md")
    assert (r"Own facet mean \[intervention=A+1\]" in page.read_text()) == ("A+1" in setting)


def test_a_dose_counts_only_where_there_is_an_answer() -> None:
    """Half of the people answer nothing of the scale; the others follow what they are told to the full."""
    doses = np.full((1, 12), 2.0)
    changes = np.where(np.arange(12) % 2, np.nan, 2.0).reshape(1, 12, 1)
    assert _ratio(changes, doses) == pytest.approx(np.ones((1, 1)))
    assert _interval(changes[:, :, 0], doses) == pytest.approx((1.0, 1.0))


def test_a_portrait_of_the_unchanged_person_is_refused(inventory: Inventory) -> None:
    people = [Respondent("a", {1: 5}, portrait="You worry.")]
    method = shipped("personality_prompt")[0] | {"writer": "released"}
    with pytest.raises(UserError, match=r"intervention=N\+1: personality_prompt reads the released portrait"):
        check_portraits(make_aligners(method), people, "papi", Intervention.parse("N+1", inventory))
    with pytest.raises(UserError, match="known_answers=5: personality_prompt reads the released portrait, which tells"):
        check_portraits(make_aligners(method), people, "papi", fewer=5)
    check_portraits(make_aligners(method), people, "papi")
