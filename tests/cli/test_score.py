"""`palign-bench score`: answers made elsewhere as a row of a table, from the command that a user types."""

from pathlib import Path

import pytest

from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents import simulate
from tests.command import run, run_here, table

PEOPLE = ["respondents=simulated", "respondents.count=20", "respondents.limit=12"]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """The people's own answers, but for one item each that the system did not answer."""
    held_out = ipip_neo_300().held_out
    lines = ["respondent,item,answer"]
    for person in simulate(count=20, seed=0).people[:12]:
        lines += [f"{person.id},{n},{person.answers[n]}" for n in held_out[1:] if n in person.answers]
    path = tmp_path / "my answers (1).csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_answers_stand_beside_the_floors(answers: Path, tmp_path: Path) -> None:
    result = run("score", str(answers), "--method-name", "Lab X", *PEOPLE, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = table(tmp_path / "runs", "score").set_index("method")
    assert frame.loc["lab_x", "composite"] == 0 and frame.loc["lab_x", "respondents"] == 12
    assert frame.loc["lab_x", "specificity"] > 1 and frame.loc["constant_c", "composite"] > 2
    assert "Lab X" in result.stdout
    assert "score: no language model, protocol corrected" in result.stdout and "SmolLM2" not in result.stdout
    again = run_here("score", str(answers), "--method-name", "Lab X", *PEOPLE, folder=tmp_path)
    assert "finished before" in again.stderr


def test_people_whom_the_file_lacks_are_failed_cells(answers: Path, tmp_path: Path) -> None:
    everybody = [*PEOPLE[:2], "respondents.limit=13"]
    result = run_here("score", str(answers), *everybody, folder=tmp_path)
    assert result.returncode == 1 and "no answers for respondent" in result.stderr
