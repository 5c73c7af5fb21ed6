"""`cost=isolated` as a user types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from palign_bench.files import read_json
from palign_bench.run.isolated import cost_repeats
from palign_bench.settings import UserError
from tests.command import cells, run, save_many_headed, settings, table


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("isolated")
    model = save_many_headed(folder / "tiny24")
    return ["-m", "method=vanilla,pas", "cost=isolated", "cost_repeats=2", *settings(model, folder / "runs")]


@pytest.fixture(scope="module")
def runs(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of two methods measured on two people."""
    result = run(*arguments, folder=tmp_path_factory.mktemp("here"))
    assert result.returncode == 0, result.stderr
    return Path(next(a for a in arguments if a.startswith("runs=")).removeprefix("runs="))


def records(runs: Path, method: str) -> list[dict[str, Any]]:
    (folder,) = (runs / "cells").glob(f"{method}-*")
    return [read_json(path)["record"] for path in sorted((folder / "respondents").glob("*.json"))]


def test_every_method_is_measured_and_stands_in_one_table(runs: Path) -> None:
    frame = table(runs, "run").set_index("method")
    assert list(frame.index) == ["vanilla", "pas"] and set(frame["cost_repeats"]) == {2}
    assert 0 < frame.loc["pas", "search_seconds"] < frame.loc["pas", "align_seconds"]
    assert frame.loc["vanilla", "search_seconds"] == 0
    for phases in (frame.loc["pas"], frame.loc["vanilla"]):
        marginal = phases["align_seconds"] + phases["answer_seconds"]
        assert phases["seconds_for_300"] == pytest.approx(phases["shared_seconds"] + 300 * marginal)


def test_nothing_is_taken_over_between_people_or_methods(runs: Path) -> None:
    """In passing, everyone's Vanilla answers are the first person's."""
    assert [record["cost"]["reused_answers"] for record in records(runs, "vanilla")] == [False, False]
    assert len({record["cost"]["answer_seconds"] for record in records(runs, "vanilla")}) == 2


def test_the_conditions_are_recorded(runs: Path) -> None:
    for method in ("vanilla", "pas"):
        (folder,) = (runs / "cells").glob(f"{method}-*")
        state = read_json(folder / "measurement.json")["before"]
        assert len(state["load_averages"]) == 3 and state["memory_total_mib"] > 0 and "processor_mhz" in state
        (provenance,) = read_json(folder / "provenance.json")
        assert provenance["packages"]["torch"] and provenance["processor"]


def test_finished_cells_are_refused_and_left_alone(runs: Path, arguments: list[str], tmp_path: Path) -> None:
    before = cells(runs)
    result = run(*arguments, folder=tmp_path)
    assert result.returncode == 1 and "runs=FOLDER" in result.stderr and "Traceback" not in result.stderr
    assert cells(runs) == before


@pytest.mark.parametrize("mistake", [{"cost": "guessed"}, {"cost_repeats": 0}, {"cost_repeats": 1.5}])
def test_mistakes_are_named(mistake: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(mistake))):
        cost_repeats({"cost": "isolated", "cost_repeats": 3} | mistake)
