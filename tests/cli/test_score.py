"""`palign-bench score`: answers made elsewhere as a row of a table, from the command that a user types."""

from collections.abc import Callable
from pathlib import Path

import pytest

from palign_bench.questionnaire.inventory import Respondent, ipip_neo_300
from palign_bench.respondents import simulate
from palign_bench.settings import options, read_option
from tests.command import run_here, table

PEOPLE = ["respondents=simulated", "respondents.count=20", "respondents.limit=12"]
TWO = [*PEOPLE[:2], "respondents.limit=2", "tracking=none"]


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
    result = run_here("score", str(answers), "--method-name", "Lab X", *PEOPLE, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = table(tmp_path / "runs", "score").set_index("method")
    assert frame.loc["given_lab_x", "composite"] == 0 and frame.loc["given_lab_x", "respondents"] == 12
    assert frame.loc["given_lab_x", "specificity"] > 1 and frame.loc["constant_c", "composite"] > 2
    assert "Lab X" in result.stdout
    assert "score: no language model, protocol corrected" in result.stdout and "SmolLM2" not in result.stdout
    again = run_here("score", str(answers), "--method-name", "Lab X", *PEOPLE, folder=tmp_path)
    assert "finished before" in again.stderr


def test_a_ledger_with_given_answers_may_be_moved(answers: Path, tmp_path: Path) -> None:
    assert run_here("score", str(answers), *TWO, folder=tmp_path).returncode == 0
    (command,) = (each.name for each in tmp_path.glob("runs/score/commands/*"))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    resumed = run_here("resume", "score", "runs=elsewhere", folder=tmp_path)
    assert resumed.returncode == 0 and "2 people finished before" in resumed.stderr, resumed.stderr
    assert [each.name for each in tmp_path.glob("*/score/commands/*")] == [command]


def test_people_whom_the_file_lacks_are_failed_cells(answers: Path, tmp_path: Path) -> None:
    """One note for all of them, which does not tell who they are."""
    everybody = [*PEOPLE[:2], "respondents.limit=14"]
    result = run_here("score", str(answers), *everybody, folder=tmp_path)
    assert result.returncode == 1 and "no answers for this person" in result.stderr
    noted = " ".join(result.stdout.split())
    assert noted.count("2 failed, ValueError: my answers (1).csv has no answers for this person") == 1
    assert "simulated-00" not in noted


def test_a_file_of_other_people_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text(f"respondent,item,answer\nanna,{ipip_neo_300().held_out[0]},4\n")
    result = run_here("score", str(path), *TWO, folder=tmp_path)
    assert result.returncode == 1 and not (tmp_path / "runs" / "cells").exists()
    assert result.stderr.splitlines()[0] == (
        f"palign-bench: {path}: it has nobody of the source, whose people are called simulated-0001, …; here they are "
        "anna, …: call them alike."
    )


def stored(path: Path, answered: Callable[[Respondent, int], float]) -> Path:
    """A file of what is answered for the first two people."""
    path.parent.mkdir(exist_ok=True)
    lines = [
        f"{person.id},{n},{answered(person, n)}"
        for person in simulate(count=20, seed=0).people[:2]
        for n in ipip_neo_300().held_out
        if n in person.answers
    ]
    path.write_text("\n".join(["respondent,item,answer", *lines]), encoding="utf-8")
    return path


def own(person: Respondent, number: int) -> float:
    return person.answers[number]


@pytest.mark.parametrize(
    "name", ["vanilla", "floors", "lora", "constant_c", "2024", "true", "null", "Ergebnisse_ä", "Ответы", "n" * 200]
)
def test_a_file_may_be_called_as_it_likes(name: str, tmp_path: Path) -> None:
    """As a method, as a row, as what Hydra reads as no text, in any alphabet: it is the file that is scored."""
    result = run_here("score", str(stored(tmp_path / f"{name}.csv", own)), *TWO, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = table(tmp_path / "runs", "score")
    (row,) = frame[~frame["method"].isin(read_option("method", "floors")["rows"])].to_dict("records")
    assert row["composite"] == 0 and row["method"].startswith("given") and name[:20] in result.stdout


def test_a_methods_name_may_be_typed_for_the_answers(tmp_path: Path) -> None:
    answers = stored(tmp_path / "answers.csv", own)
    result = run_here("score", str(answers), "--method-name", "Vanilla", *TWO, folder=tmp_path)
    assert result.returncode == 0 and "Lowest composite: Vanilla, 0.00" in result.stdout, result.stderr
    assert table(tmp_path / "runs", "score").set_index("method").loc["given_vanilla", "composite"] == 0


def test_no_method_is_called_as_given_answers_are() -> None:
    assert not [name for name in (*options("method"), *read_option("method", "floors")["rows"]) if "given" in name]


def test_other_answers_of_the_same_name_leave_the_first_table_alone(tmp_path: Path) -> None:
    first, second = stored(tmp_path / "one" / "a.csv", own), stored(tmp_path / "other" / "a.csv", lambda *_: 3)
    for name, path in (("first", first), ("second", second)):
        assert run_here("score", str(path), *TWO, f"name={name}", folder=tmp_path).returncode == 0
    for command in ("resume", "report"):
        told = run_here(command, "first", folder=tmp_path)
        assert told.returncode == 0 and "Lowest composite: a, 0.00" in told.stdout, told.stderr
        assert table(tmp_path / "runs", "first").set_index("method").loc["given_a", "composite"] == 0
    assert table(tmp_path / "runs", "second").set_index("method").loc["given_a", "composite"] > 2


def test_methods_that_are_typed_stand_beside_the_answers(tmp_path: Path) -> None:
    answers = stored(tmp_path / "a.csv", own)
    result = run_here("score", str(answers), *TWO, "method=own_means", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {"given_a", "facet_mean"} <= set(table(tmp_path / "runs", "score")["method"])


def test_what_of_a_file_is_not_used_stands_under_the_table(tmp_path: Path) -> None:
    answers = stored(tmp_path / "a.csv", own)
    header, *rows = answers.read_text().splitlines()
    ghost = f"ghost,{ipip_neo_300().held_out[0]},3,calm"
    answers.write_text("\n".join([f"{header},mood", *(f"{row},calm" for row in rows), ghost]))
    result = run_here("score", str(answers), *TWO, folder=tmp_path)
    told = " ".join(result.stdout.split())
    assert told.count("a.csv: not read, since they are no items: mood") == 1
    assert told.count("a.csv: 1 person of 3 not used, whom the source lacks.") == 1 and "ghost" not in told
    assert "not used, whom the source lacks" in " ".join(run_here("report", "score", folder=tmp_path).stdout.split())


def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;i4;i5\nanna;4;very\n")
    result = run_here("score", "a.csv", *TWO, folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("palign-bench: ") and "item i5: 'very' is no answer; give a whole" in result.stderr


def test_a_tracker_is_not_told_the_files_name(answers: Path, tmp_path: Path) -> None:
    """It would be the row's; a name that the user gives may leave."""
    refused = run_here("score", str(answers), *PEOPLE, "tracking=wandb", folder=tmp_path)
    assert refused.returncode == 1 and "--method-name" in refused.stderr and not (tmp_path / "runs").exists()
