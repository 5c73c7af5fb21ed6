"""Texts are taken as typed: what Hydra's own parser makes of a quoted argument is what the user typed."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from palign_bench.cli.arguments import as_part_of_the_sweep, as_typed, at_home, folders_of_settings, options_first
from palign_bench.settings import UserError
from tests.command import run, run_here

TYPED = ["people (1).csv", "mü ller & co/x.csv", "a=b.csv", "it's.csv", "back\\slash", "ends\\", "q\\'uote", "1e5",
         "007",          "{x}.csv", "[1] x.csv", "#x;y!", "x:y", "true", " led by a space", "tab\tin it", "“quoted”",
         '"half', "a,b"]  # fmt: skip


def read_by_hydra(argument: str) -> Any:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("key", ["runs", "respondents.path", "model.name_or_path", "name", "inventory.path"])
@pytest.mark.parametrize("text", TYPED[:-1])
def test_what_is_typed_is_what_arrives(key: str, text: str) -> None:
    (argument,) = as_typed([f"{key}={text}"])
    assert read_by_hydra(argument) == text
    assert as_typed([argument]) == [argument]  # a command that is kept and resumed


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20))
@example("\\\\'")
@example("'a'b")
def test_any_text_is_taken_as_typed(text: str) -> None:
    argument = f"runs=x{text}"  # so that it is neither quoted as a whole nor a list
    if "," not in text and "(" not in text:
        assert read_by_hydra(*as_typed([argument])) == f"x{text}"


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/mü ller")
    assert read_by_hydra(*as_typed(["runs=~/my runs"])) == "/home/mü ller/my runs"


def test_a_home_in_a_file_of_settings_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {"runs": "~/r", "model": {"name_or_path": "~/m", "k": 3, "title": "~ 3"}, "method": {"portraits": "~/p"},
             "respondents": {"path": "~nobody-of-this-name/x", "ids": None}}  # fmt: skip
    kept = at_home(given)
    assert (kept["runs"], kept["model"]["name_or_path"], kept["method"]["portraits"]) == (
        "/home/me/r", "/home/me/m", "/home/me/p")  # fmt: skip
    assert kept["model"]["k"] == 3 and kept["model"]["title"] == "~ 3" and kept["respondents"] == given["respondents"]


@pytest.mark.parametrize("launcher", [[], ["-m", "hydra/launcher=joblib"]])
def test_a_run_whose_settings_lie_in_a_file_of_the_users(launcher: list[str], tmp_path: Path) -> None:
    """A whole experiment in a folder of one's own, its places given from home: nothing is written beside it."""
    home = tmp_path / "home"
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /method: floors\n  - override /tracking: none\n"
        "  - override /respondents: simulated\nname: own\nruns: ~/ledger\n"
        "method: {rows: [constant_a]}\nrespondents: {limit: 1}\n"
    )
    home.mkdir()
    ran = run("--config-dir", "mine", "experiment=own", *launcher, folder=tmp_path, variables={"HOME": str(home)})
    assert ran.returncode == 0, ran.stderr
    assert len(list(home.glob("ledger/cells/*/respondents/*.json"))) == 1
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("home", "mine")] == []
    assert len(list(home.glob("ledger/hydra/*/*/*/"))) == bool(launcher)  # Hydra's own


def test_what_is_meant_for_hydra_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ["method.alphas=[0, 1]", "respondents.ids=[a b,c]", "runs='x y'", 'runs="x y"', "runs=null", "~seed",
            "-m", "+method.foo=a b", "model.name_or_path=choice(a,b)", "runs=${oc.env:HOME}",
            "hydra.launcher.n_jobs=2"]  # fmt: skip
    assert as_typed(kept) == kept
    assert as_typed(["-m", "model.name_or_path=a b,c"]) == ["-m", "model.name_or_path='a b',c"]
    assert as_typed(["model.name_or_path=a,b"]) == ["model.name_or_path=a,b"]  # Hydra tells how to sweep
    monkeypatch.chdir(tmp_path)
    for name in ("a,b.csv", "f(1)", "'x'"):
        (tmp_path / name).touch()
        assert read_by_hydra(*as_typed(["-m", f"respondents.path={name}"])[1:]) == name


def test_data_are_named_in_full_where_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "my (1), data"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("a.csv", "b,c.csv", "ids", "name"):
        (here / name).touch()
    for key in ("respondents.path", "model.name_or_path", "respondents.columns", "respondents.ids", "+method.folder"):
        (argument,) = as_typed([f"{key}=b,c.csv"], in_full=True)
        assert read_by_hydra(argument) == f"{here}/b,c.csv" and as_typed([argument], in_full=True) == [argument]
    (_, swept) = as_typed(["-m", "respondents.path=a.csv,not there.csv"], in_full=True)
    assert [getattr(each, "text", each) for each in read_by_hydra(swept).list] == [f"{here}/a.csv", "not there.csv"]
    kept = ["runs=a.csv", "name=name", f"respondents.ids=[{'1,' * 999}1]", "respondents.ids=1,2", "method=name"]
    assert as_typed(kept, in_full=True) == kept


def test_a_folder_of_settings_is_named_in_full_where_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my conf").mkdir()
    whole = str(tmp_path / "my conf")
    for typed in (["--config-dir", "my conf"], ["--config-dir=my conf"], ["-cd", "my conf"], ["-cd=~/my conf"]):
        kept = as_typed([*typed, "seed=1"], in_full=True)
        assert kept in ([typed[0], whole, "seed=1"], [f"{typed[0].partition('=')[0]}={whole}", "seed=1"])
        assert as_typed(kept, in_full=True) == kept and folders_of_settings(kept) == [Path(whole)]
    for typed in (["--config-dir", "other"], ["--config-dir="], ["--config-dir"]):
        assert as_typed(typed, in_full=True) == typed


def test_a_run_with_a_folder_of_ones_own_is_resumed_from_elsewhere(tmp_path: Path) -> None:
    """And a key that a method there does not have is told with those that it has."""
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    method = {"_target_": "baselines.floors.floors", "name": "own", "rows": ["constant_a"]}
    (tmp_path / "mine" / "method" / "own.yaml").write_text(yaml.safe_dump(method))
    people = ["respondents=simulated", "respondents.count=5", "respondents.limit=1", "tracking=none"]
    typed = ["--config-dir", "mine", "method=own", *people]
    ran = run_here(*typed, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    again = run_here("resume", "run", "--runs", str(tmp_path / "runs"), folder=tmp_path / "elsewhere")
    assert again.returncode == 0 and "1 person finished before" in again.stderr, again.stderr
    told = run_here(*typed, "method.row=[constant_a]", folder=tmp_path).stderr
    assert told == "palign-bench: method.row is no setting (did you mean rows?); the keys of method are name, rows.\n"
    told = run_here(*typed[:2], "method=owm", folder=tmp_path).stderr
    assert "method=owm does not exist (did you mean own?)" in told
    (tmp_path / "mine" / "method" / "list.yaml").write_text("- a\n")
    told = run_here(*typed[:2], "method=list", *people, folder=tmp_path)
    assert told.returncode == 1 and "the YAML of a method is lines of KEY: VALUE" in told.stderr


def test_what_an_experiment_of_ones_own_sweeps_over_takes_settings_beside_it(tmp_path: Path) -> None:
    experiment = tmp_path / "mine" / "experiment"
    experiment.mkdir(parents=True)
    typed = ["--config-dir", str(tmp_path / "mine"), "experiment=own", "method.k=6"]
    for text in ("# @package _global_\nname: own\n", "- a\n", "{"):  # sweeps over nothing, or is none
        (experiment / "own.yaml").write_text(text)
        assert as_part_of_the_sweep(typed) == typed
    sweep = {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"method": "pas,pas_no_prompt"}}}}
    (experiment / "own.yaml").write_text("# @package _global_\n" + yaml.safe_dump(sweep))
    assert as_part_of_the_sweep(typed) == [*typed[:-1], "method.k=choice(6)"]
    told = run_here(*typed[:-1], "method.kk=6", "respondents=simulated", folder=tmp_path).stderr
    assert told.startswith("palign-bench: method.kk is no setting (did you mean k?)"), told


@pytest.mark.parametrize("sweep", ["-m", "experiment=table1"])
def test_a_ledger_is_never_swept_over(sweep: str) -> None:
    (_, argument) = as_typed([sweep, "runs=/x/my (1) it's, ledger=x"])
    assert read_by_hydra(argument) == "/x/my (1) it's, ledger=x"
    assert as_typed([sweep, argument]) == [sweep, argument]


def test_hydras_options_may_stand_anywhere() -> None:
    typed = ["seed=1", "-m", "+method.foo=1", "--config-dir", "my conf", "~seed", "--cfg=job"]
    assert options_first(typed) == ["-m", "--config-dir", "my conf", "--cfg=job", "seed=1", "+method.foo=1", "~seed"]
    assert options_first(["--info", "config"]) == ["--info", "config"]
    with pytest.raises(UserError, match=r"--fast is no option of a run \(see palign-bench run --help\)"):
        options_first(["method=pas", "--fast"])


def test_a_run_and_its_resumption_with_awkward_paths(tmp_path: Path) -> None:
    """Spaces, brackets, umlauts and an equals sign, from the command line to the ledger and back."""
    people = tmp_path / "mü ller & co" / "people (1)=a.csv"
    people.parent.mkdir()
    numbers = ",".join(f"i{n}" for n in range(1, 301))
    rows = [f"p{p}," + ",".join(str((n * p) % 5 + 1) for n in range(300)) for p in (1, 2, 3)]
    people.write_text("\n".join([f"id,{numbers}", *rows]))
    floor = ["method=floors", "method.rows=[constant_a]", "tracking=none", "name=mine"]
    source = ["respondents=file", f"respondents.path={people}"]
    ran = run("run", *floor, *source, "--runs", "läufe (1)", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list((tmp_path / "läufe (1)").glob("cells/*/respondents/p?.json"))) == 3
    again = run_here("resume", "mine", "runs=läufe (1)", folder=tmp_path)
    assert again.returncode == 0 and "3 people finished before" in again.stderr, again.stderr
