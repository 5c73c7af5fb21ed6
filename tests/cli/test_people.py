"""`palign-bench people`: what was understood, before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from palign_bench.cli.commands import dispatch
from palign_bench.settings import UserError

EXAMPLE = Path(__file__).parents[1] / "respondents" / "example_people.csv"


def test_a_file_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["people", str(EXAMPLE)])
    told = capsys.readouterr().out
    assert "table with commas, UTF-8" in told and "3 people; ipip_neo_300: " in told
    assert "too few people (3) to tell literal from keyed" in told and "always C" in told
    assert told.rstrip().endswith(f"respondents=file respondents.path={EXAMPLE}")


def test_a_doubtful_orientation_ends_in_the_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "\n".join(f"p{k},{k % 5 + 1},{k % 5 + 1},3,3" for k in range(30))
    (tmp_path / "people.csv").write_text("id,i5,i95,i1,i9\n" + rows)
    path = tmp_path / "people.csv"
    path.write_text(path.read_text().replace("i95", _opposite_of(5)))
    with pytest.raises(UserError, match=r"set respondents.orientation=keyed"):
        dispatch(["people", str(path)])
    assert "correlate +1.00 (1 pairs, 100% positive)" in capsys.readouterr().out
    dispatch(["people", str(path), "orientation=keyed"])
    assert "respondents.orientation=keyed" in capsys.readouterr().out


def _opposite_of(number: int) -> str:
    from palign_bench.questionnaire.inventory import ipip_neo_300

    inventory = ipip_neo_300()
    one = inventory[number]
    return next(f"i{i.number}" for i in inventory.items if i.subscale == one.subscale and i.sign != one.sign)


def test_people_of_a_source_and_mistyped_settings(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["people", "simulated", "count=30", "figures=published"])
    assert "30 people" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"respondents.cuont is no setting of respondents=simulated"):
        dispatch(["people", "simulated", "cuont=30"])
    with pytest.raises(UserError, match="no setting of a file"):
        dispatch(["people", str(EXAMPLE), "cuont=30"])
    with pytest.raises(UserError, match="KEY=VALUE"):
        dispatch(["people", str(EXAMPLE), "keyed"])
