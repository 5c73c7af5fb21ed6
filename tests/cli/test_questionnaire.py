"""A questionnaire of one's own with other than five options, from the files that a user has to the table."""

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.command import run_here, table

LABELS = ["Always", "Often", "Rather often", "Now and then", "Rather seldom", "Seldom", "Never"]
SIGNS = [1, -1, 1, -1, 1, -1, 1, -1]  # four items of each of two scales; the last two of each are held out
PEOPLE = 12


def written(folder: Path, options: int) -> tuple[list[str], np.ndarray]:
    """Arguments for a questionnaire of so many options and its people; the people's answers ``(people, items)``."""
    lines = ["number,text,scale,sign,known"]
    for number, sign in enumerate(SIGNS, start=1):
        scale, known = ("order", "calm")[(number - 1) // 4], "yes" if (number - 1) % 4 < 2 else "no"
        lines.append(f"{number},I do thing {number}.,{scale},{'+' if sign > 0 else '-'},{known}")
    (folder / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "mine.yaml").write_text(f"options: {LABELS[:options]}\nwording: sentence\n", encoding="utf-8")
    answers = np.random.default_rng(0).integers(1, options + 1, size=(PEOPLE, len(SIGNS)))
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(f"i{number}" for number in range(1, len(SIGNS) + 1))])
        writer.writerows([[f"p{row}", *given] for row, given in enumerate(answers.tolist())])
    files = ["inventory=file", f"inventory.path={folder / 'mine.csv'}", "respondents=file"]
    return [*files, f"respondents.path={folder / 'people.csv'}", "respondents.orientation=literal"], answers


@pytest.mark.parametrize("options", [4, 7])
def test_floors_of_any_number_of_options(options: int, tmp_path: Path) -> None:
    arguments, answers = written(tmp_path, options)
    result = run_here("method=floors", *arguments, "tracking=none", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    frame = table(tmp_path / "runs", "run").set_index("method")
    held_out = answers[:, [2, 3, 6, 7]]
    scales = (held_out[:, :2], held_out[:, 2:])
    for letter, value in zip("abcdefg", range(options, 0, -1), strict=False):
        expected = sum(np.abs(of_scale - value).mean() for of_scale in scales)
        assert frame.loc[f"constant_{letter}", "composite"] == pytest.approx(expected)
    assert frame.loc["truth", "composite"] == 0
    assert frame.loc["truth", "extreme_share"] == pytest.approx(((held_out == 1) | (held_out == options)).mean())
    counts = np.bincount(held_out.ravel())
    assert frame.loc["truth", "most_frequent_option_share"] == pytest.approx(counts.max() / held_out.size)
    balanced = (held_out[:, [0, 2]] + held_out[:, [1, 3]]) / 2  # a + and a - item of each scale
    assert frame.loc["truth", "acquiescence"] == pytest.approx(balanced.mean() - (1 + options) / 2)


def test_an_answer_beyond_the_options_is_refused(tmp_path: Path) -> None:
    arguments, _ = written(tmp_path, 4)
    people = tmp_path / "people.csv"
    people.write_text(people.read_text(encoding="utf-8").replace("p3,", "p3,5,", 1).rstrip(), encoding="utf-8")
    lines = people.read_text(encoding="utf-8").splitlines()
    lines[4] = ",".join(lines[4].split(",")[: len(SIGNS) + 1])
    people.write_text("\n".join(lines), encoding="utf-8")
    refused = run_here("method=floors", *arguments, "tracking=none", folder=tmp_path)
    assert refused.returncode == 1 and "'5' is no answer; give a whole number 1…4" in refused.stderr


def test_a_scale_called_as_a_column_of_the_table_is_refused(tmp_path: Path) -> None:
    """It would take the column's place without a word."""
    arguments, _ = written(tmp_path, 4)
    for name, taken in (("model", True), ("joules", True), ("Model", False)):
        with (tmp_path / "mine.yaml").open("a", encoding="utf-8") as about:
            about.write(f"scales: {{order: {name}, calm: calm}}\n")
        found = run_here("method=floors", *arguments, "tracking=none", folder=tmp_path)
        lines = (tmp_path / "mine.yaml").read_text(encoding="utf-8").splitlines()[:-1]
        (tmp_path / "mine.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")
        assert found.returncode == int(taken), found.stderr
        assert not taken or f"has a column {name} of its own" in found.stderr.strip().splitlines()[-1]
        assert (tmp_path / "runs").exists() is not taken, "refused once something had been written"
