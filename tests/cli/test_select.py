"""`palign-bench select`: what is written is what can be run on."""

import csv
from pathlib import Path

import pytest

from palign_bench.cli.commands import dispatch
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents import load_file, simulate
from palign_bench.settings import UserError


def test_ids_people_and_report_of_simulated_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(
        [
            "select",
            "simulated",
            "count=60",
            "--clusters",
            "9",
            "--rule",
            "random_member",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    rows = list(csv.DictReader((tmp_path / "out" / "ids.csv").read_text().splitlines()))
    assert len(rows) == 9 and sum(int(row["people_in_cluster"]) for row in rows) == 60
    everyone = simulate(60)
    by_id = {person.id: person.answers for person in everyone.people}
    people = load_file(str(tmp_path / "out" / "people.csv"), orientation="literal", inventory=ipip_neo_300()).people
    assert [person.id for person in people] == [row["id"] for row in rows]
    assert all(person.answers == by_id[person.id] for person in people)
    assert [each.id for each in everyone.select(ids=str(tmp_path / "out" / "ids.csv"))] == [row["id"] for row in rows]  # type: ignore[arg-type]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "9 selected" in report and "all 60" in report and "always C" in report
    assert report in capsys.readouterr().out


def test_a_file_that_looks_reversed_is_not_selected_from(tmp_path: Path) -> None:
    rows = "\n".join(f"p{k},{k % 5 + 1},{k % 5 + 1},3,3" for k in range(30))
    (tmp_path / "people.csv").write_text("id,i1,i151,i9,i3\n" + rows)
    with pytest.raises(UserError, match=r"set respondents.orientation=keyed"):
        dispatch(["select", str(tmp_path / "people.csv"), "--clusters", "3", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
