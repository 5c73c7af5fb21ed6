"""`palign-bench people`: what was understood, before anything is run."""

import re
import shlex
from pathlib import Path

import pytest

from palign_bench.cli.commands import dispatch
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.run.case import told_items
from palign_bench.settings import UserError
from tests.command import run_here

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
    assert "correlate +1.00 (1 pair, 100% positive)" in capsys.readouterr().out
    dispatch(["people", str(path), "orientation=keyed"])
    assert "respondents.orientation=keyed" in capsys.readouterr().out


def _opposite_of(number: int) -> str:
    inventory = ipip_neo_300()
    one = inventory[number]
    return next(f"i{i.number}" for i in inventory.items if i.subscale == one.subscale and i.sign != one.sign)


def test_people_of_a_source_and_mistyped_settings(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["people", "simulated", "count=30", "figures=published"])
    assert "30 people" in capsys.readouterr().out
    dispatch(["people", "simulated", "count=30", "respondents.limit=7"])
    assert "7 people" in capsys.readouterr().out
    dispatch(["people", "simulated", "count=30", "ids=[simulated-0003,simulated-0001]"])
    assert "2 people" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"respondents.cuont is no setting of respondents=simulated"):
        dispatch(["people", "simulated", "cuont=30"])
    with pytest.raises(UserError, match="no setting of a file"):
        dispatch(["people", str(EXAMPLE), "cuont=30"])
    with pytest.raises(UserError, match="KEY=VALUE"):
        dispatch(["people", str(EXAMPLE), "keyed"])


def test_people_of_a_questionnaire_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items, people = tmp_path / "course.csv", tmp_path / "people.csv"
    lines = (f"{n},Plan day {n}.,{'calm' if n > 4 else 'order'},{'-+'[n % 2]}" for n in range(1, 9))
    items.write_text("number,text,scale,sign\n" + "\n".join(lines))
    people.write_text("id,i1,i2,i3,i4,i5,i6,i7,i8\na,5,1,5,2,1,5,3,3\nb,1,5,2,5,3,3,4,1\nc,3,3,3,3,5,1,5,1")
    of_it = ["inventory=file", f"inventory.path={items}"]
    dispatch(["people", str(people), *of_it])
    told = capsys.readouterr().out
    assert "3 people; course-" in told and "4 of 4 known and 4 of 4 held-out items" in told
    # Items 3, 4, 7 and 8 are held out. From the middle: a 2, 1, 0, 0; b 1, 2, 1, 2; c 0, 0, 2, 2; halved and averaged.
    assert re.search(r"always C +2\.167", told)
    command = shlex.join(["method=floors", *of_it, "respondents=file", f"respondents.path={people}"])
    assert told.rstrip().endswith(f"palign-bench {command}")
    dispatch(["select", str(people), *of_it, "--clusters", "2", "--rule", "random", "--out", str(tmp_path / "out")])
    assert shlex.join(of_it) in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "out" / "people.csv").read_text().startswith("id,i1,i2,i3,i4,i5,i6,i7,i8\n")
    with pytest.raises(UserError, match=r"inventory.path is not set"):
        dispatch(["people", str(people), "inventory=file"])
    with pytest.raises(UserError, match=r"papy: no such file or source \(did you mean papi\?\)"):
        dispatch(["people", "papy"])


def test_pictures_of_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["people", "simulated", "count=30", "--pictures", str(tmp_path / "drawn"), "--twice-reversed"])
    names = "traits.png, traits.pdf, correlations.png, correlations.pdf"
    assert f"Written to {tmp_path / 'drawn'}: {names}" in capsys.readouterr().out
    assert len(list((tmp_path / "drawn").iterdir())) == 4


def test_demographics_are_counts_alone(papi: object, capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["people", "papi", "--demographics"])
    told = capsys.readouterr().out
    assert told.startswith("sex: women 203, men 97\nage: 11–20 125, ") and "composite" not in told
    with pytest.raises(UserError, match="only papi has any"):
        dispatch(["people", "simulated", "--demographics"])
    for mistyped in ("foldr=x", "limit=3", "download=perhaps"):
        with pytest.raises(UserError, match=rf"respondents\.{mistyped.partition('=')[0]}"):
            dispatch(["people", "papi", "--demographics", mistyped])


def test_how_often_each_option_was_picked_shows_a_shifted_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, opposite = tmp_path / "people.csv", _opposite_of(5)
    path.write_text(f"id,i5,i9,{opposite}\nanna,4,0,4\nben,3,4,\n")
    told = "options as picked: 5 Very Accurate {}, 4 Moderately Accurate {}, 3 Neither Accurate Nor Inaccurate {}, "
    told += "2 Moderately Inaccurate {}, 1 Very Inaccurate {}\n"
    dispatch(["people", str(path), "missing=[0]"])
    assert told.format("never", "3×", "1×", "never", "never") in capsys.readouterr().out
    dispatch(["people", str(path), "missing=[0]", "orientation=keyed"])
    assert told.format("never", "2×", "1×", "1×", "never") in capsys.readouterr().out
    dispatch(["people", "simulated", "count=30"])
    assert re.search(r"options as picked: 5 Very Accurate [\d,]+×, 4 Moderately Accurate ", capsys.readouterr().out)


@pytest.mark.parametrize(
    "setting", ["missing=[-1", "missing='", "columns=*.csv", "id_column=a: b: c", "missing=2020-13-45"]
)
def test_a_setting_that_cannot_be_read_is_told_in_one_line(setting: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(setting)}: cannot be read") as caught:
        dispatch(["people", str(EXAMPLE), setting])
    assert "\n" not in str(caught.value)


def test_several_marks_of_missing_are_a_list() -> None:
    with pytest.raises(UserError, match=r"missing=0,9: give a list, as in respondents.missing=\[0,9\]"):
        dispatch(["people", str(EXAMPLE), "missing=0,9"])


def test_a_table_counts_the_people_of_whom_methods_are_told_nothing(tmp_path: Path) -> None:
    inventory = ipip_neo_300()
    untold = set(inventory.known) - told_items(inventory, 5, seed=0)
    columns = [item.number for item in inventory.items]
    rows = [[3 if name != "anna" or number in {*untold, 9} else "" for number in columns] for name in ("anna", "ben")]
    lines = [",".join(map(str, ("id", *(f"i{number}" for number in columns))))]
    lines += [",".join(map(str, (name, *row))) for name, row in zip(("anna", "ben"), rows, strict=True)]
    (tmp_path / "people.csv").write_text("\n".join(lines))
    people = ["respondents=file", "respondents.path=people.csv", "tracking=none", "runs=runs"]
    ran = run_here("method=floors", "known_answers=5", *people, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    said = " ".join(ran.stdout.split())
    assert "told nothing of 1 of 2 people: none of the 5 known items that known_answers=5 picks is answered." in said
    assert "told nothing" not in run_here("method=floors", *people, folder=tmp_path).stdout


def test_a_file_without_an_answer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,i1,i9\nanna,,\nben,NA,\n")
    with pytest.raises(UserError, match=r"people\.csv: nobody answers any item of ipip_neo_300; fill in"):
        dispatch(["people", str(path)])
    with pytest.raises(UserError, match=f"^{tmp_path} is a folder; name a file$"):
        dispatch(["people", str(tmp_path)])


@pytest.mark.parametrize(("people", "named"), [(4, "p0, p1, p2, p3"), (6, "p0, p1, p2, p3, p4, …")])
def test_who_cannot_be_used_is_named(
    tmp_path: Path, people: int, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "people.csv"
    path.write_text("id,i5,i9\nanna,4,5\n" + "".join(f"p{each},,3\n" for each in range(people)))
    dispatch(["people", str(path), "orientation=literal"])
    assert f"they answer no known item: {people} ({named})\n" in capsys.readouterr().out


@pytest.mark.parametrize("typed", ["people simulated --pictures", "select simulated --out", "claims --write"])
def test_a_mistyped_place_to_write_to_is_told_before_anything_is_done(tmp_path: Path, typed: str) -> None:
    place = tmp_path / "mistyped" / "deep" / "here"
    with pytest.raises(UserError, match=r"deep is no folder; make it, or name another place"):
        dispatch([*typed.split(), str(place)])
    assert not any(tmp_path.iterdir())
