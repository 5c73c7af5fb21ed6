"""Shards, retries, resumption, the status, and several commands at once on one ledger."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palign_bench.cli.arguments import command_id
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import Command
from palign_bench.run.survey import Shard
from palign_bench.settings import UserError
from tests.command import SCORE_COLUMNS, cells, run, run_here, settings, start, table
from tests.tiny import save_tiny

PEOPLE = 5
FLOORS = 11
CHOICE = ["experiment=table6", "method=floors,few_shot"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ledger of an undisturbed, unsharded run."""
    folder = tmp_path_factory.mktemp("whole")
    ran = run_here(*CHOICE, *settings(model, folder / "runs", people=PEOPLE), folder=folder)
    assert ran.returncode == 0, ran.stderr
    return folder / "runs"


def without_costs(runs: Path) -> dict[Path, str]:
    """Every record as canonical JSON, but for what a clock or a memory meter read."""
    found = {}
    for path in cells(runs):
        record = json.loads((runs / path).read_text())["record"]
        found[path] = json.dumps({key: value for key, value in record.items() if key != "cost"}, sort_keys=True)
    return found


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_the_shards_are_the_whole_in_order(people: Sequence[int], count: int) -> None:
    parts = [Shard(index, count).cut(people) for index in range(1, count + 1)]
    assert [person for part in parts for person in part] == list(people)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.text(max_size=12) | st.integers() | st.floats() | st.booleans() | st.lists(st.integers()))
def test_a_shard_is_a_part_of_a_whole_or_a_mistake(given_: Any) -> None:
    try:
        shard = Shard.parse(given_)
    except UserError as error:
        assert "\n" not in str(error).replace(str(given_), "")
    else:
        assert shard is not None and 1 <= shard.index <= shard.count and str(given_).count("/") == 1


def test_two_shards_at_once_make_the_unsharded_table(whole: Path, model: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    arguments = [*CHOICE, *settings(model, runs, people=PEOPLE)]
    first = run_here(*arguments, "shard=1/3", folder=tmp_path)
    assert first.returncode == 0, first.stderr  # its own people are finished
    assert "Shards not started yet: 2, 3 of 3" in first.stdout and set(table(runs, "table6")["respondents"]) == {1}
    both = [start(*arguments, f"shard={index}/3", folder=tmp_path) for index in (2, 3)]
    for process in both:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    reported = run_here("report", "table6", folder=tmp_path)
    assert reported.returncode == 0 and "not started" not in reported.stdout
    assert without_costs(runs) == without_costs(whole) and len(without_costs(runs)) == PEOPLE * (FLOORS + 1)
    pd.testing.assert_frame_equal(table(runs, "table6")[SCORE_COLUMNS], table(whole, "table6")[SCORE_COLUMNS])


def test_two_commands_at_once_share_the_work_and_the_table(whole: Path, model: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    both = [start(*CHOICE, *settings(model, runs, people=PEOPLE), folder=tmp_path) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "Few-Shot" in output and "Traceback" not in errors
    assert without_costs(runs) == without_costs(whole)
    assert not list(runs.glob("cells/*/locks/*.lock")) and not list(runs.rglob("*.error.json"))
    pd.testing.assert_frame_equal(table(runs, "table6")[SCORE_COLUMNS], table(whole, "table6")[SCORE_COLUMNS])


FLOOR = ["method=floors", "method.rows=[constant_c,facet_mean]", "respondents=simulated", "tracking=none"]


def test_resume_computes_every_shard(tmp_path: Path) -> None:
    first = run_here(*FLOOR, "name=parts", "respondents.limit=4", "shard=2/2", folder=tmp_path)
    assert first.returncode == 0 and "Shards not started yet: 1 of 2" in first.stdout
    assert "4 cells missing" in run_here("status", "parts", folder=tmp_path).stdout
    resumed = run_here("resume", "parts", folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "not started" not in resumed.stdout and set(table(tmp_path / "runs", "parts")["respondents"]) == {4}


def test_people_of_two_sources_who_share_an_id_are_never_compared(tmp_path: Path) -> None:
    ran = run_here("-m", *FLOOR, "respondents.seed=0,1", "respondents.limit=3", "name=sources", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    folders = sorted(path.name for path in (tmp_path / "runs" / "sources").glob("smollm2*"))
    assert folders == [f"smollm2_135m-corrected-respondents.seed={seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        swept = pd.read_csv(tmp_path / "runs" / "sources" / folder / "sources.csv")
        alone = run_here(
            *FLOOR, f"respondents.seed={seed}", "respondents.limit=3", f"name=alone{seed}", folder=tmp_path
        )
        assert alone.returncode == 0 and "finished before, nothing to do" in alone.stderr
        pd.testing.assert_frame_equal(
            swept[SCORE_COLUMNS], table(tmp_path / "runs", f"alone{seed}")[SCORE_COLUMNS], check_exact=True
        )


def test_methods_are_compared_with_floors_that_were_told_as_much(tmp_path: Path) -> None:
    arguments = ["method=floors", "method.rows=[domain_mean,facet_mean]", *FLOOR[2:], "respondents.limit=5"]
    ran = run_here("-m", *arguments, "known_answers=5,120", "name=curve", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    frame = table(tmp_path / "runs", "curve")
    assert frame["known_answers"].isna().sum() == 2  # their number is all: the same cells as without it
    told = frame["known_answers"].fillna(120)
    assert list(told) == [5, 5, 120, 120]
    again = run_here(*arguments, "name=all", folder=tmp_path)
    assert again.stderr.count("5 people finished before, nothing to do") == 2, again.stderr
    for count in (5, 120):
        of = frame[told == count]
        best = of["composite"].min()
        assert list(of["difference_to_best_own_floor"]) == pytest.approx(list(of["composite"] - best))


def test_simulated_people_stand_in_for_few_and_are_asked_for_by_name(tmp_path: Path) -> None:
    offline = [*FLOOR[:2], "respondents=auto", "respondents.download=false", "tracking=none"]
    missing = {"PALIGN_PAPI_DIR": "", "PALIGN_CACHE_DIR": str(tmp_path / "cache")}
    few = run_here(*offline, "respondents.limit=2", folder=tmp_path, variables=missing)
    assert few.returncode == 0, few.stderr
    assert few.stderr.startswith("respondents=auto: 300 simulated people") and few.stderr.index("Always C") > 0
    many = run_here(*offline, folder=tmp_path, variables=missing)
    assert many.returncode == 1 and "say so with respondents=simulated" in many.stderr


def test_more_shards_than_people_is_no_mistake(tmp_path: Path) -> None:
    arguments = ["method=floors", "method.rows=[constant_a]", "respondents=simulated", "respondents.limit=2"]
    ran = run_here(*arguments, "shard=1/5", "tracking=none", folder=tmp_path)
    assert ran.returncode == 0 and "no people in shard=1/5, nothing to do" in ran.stderr


@pytest.fixture
def half_done(whole: Path, tmp_path: Path) -> Path:
    """A copy of the ledger in which one cell of Few-Shot is missing and another failed."""
    import shutil

    shutil.copytree(whole, tmp_path / "runs")
    (few_shot,) = (tmp_path / "runs" / "cells").glob("few_shot-*")
    folder = CellFolder(few_shot)
    first, second, *_ = sorted(folder.finished())
    for each in (first, second):
        (few_shot / "respondents" / f"{each}.json").unlink()
    folder.fail(second, RuntimeError("out of luck\nand of words"))
    return tmp_path / "runs"


def test_the_status_counts_and_estimates(half_done: Path) -> None:
    told = run_here("status", folder=half_done.parent)
    assert told.returncode == 0, told.stderr
    (few_shot,) = [line.split() for line in told.stdout.splitlines() if line.strip().startswith("Few-Shot")]
    assert few_shot[1:6] == ["5", "3", "0", "1", "2"]
    paths = [path for path in half_done.glob("cells/few_shot-*/respondents/*.json") if "error" not in path.name]
    records = [json.loads(path.read_text())["record"] for path in paths]
    assert len(records) == 3
    seconds = sum(each["cost"]["align_seconds"] + each["cost"]["answer_seconds"] for each in records) / 3
    assert few_shot[6:] == [f"{2 * seconds:.1f}", "s"]
    assert "2 cells missing" in told.stdout and "1 × RuntimeError: out of luck" in told.stdout
    assert told.stdout.count("   5        5        0        0        0  -") == FLOORS
    assert "Loading" not in told.stderr


def test_failed_cells_alone_are_retried_and_others_left(half_done: Path) -> None:
    never = run_here("resume", "table6", "retry=never", folder=half_done.parent)
    last = never.stderr.splitlines()[-1]
    assert never.returncode == 1 and last.startswith(
        "palign-bench: 1 cell is missing, 1 of them failed: tracebacks lie"
    )
    assert len(list(half_done.rglob("*.error.json"))) == 1 and len(cells(half_done)) == PEOPLE * (FLOORS + 1)
    again = run_here("resume", "table6", "retry=never", folder=half_done.parent)
    assert "nothing to do with retry=never, 1 missing" in again.stderr


def test_retrying_failed_cells_leaves_missing_ones(half_done: Path) -> None:
    ran = run_here("resume", "table6", "retry=failed", folder=half_done.parent)
    last = ran.stderr.splitlines()[-1]
    assert ran.returncode == 1 and last == "palign-bench: 1 cell is missing. The same command does the rest."
    assert not list(half_done.rglob("*.error.json"))
    rest = run_here("resume", "table6", folder=half_done.parent)
    assert rest.returncode == 0 and "4 of 5 people finished before, 1 to do" in rest.stderr


def test_resume_repeats_the_command_with_changes(half_done: Path) -> None:
    assert Command.last(half_done, "table6").arguments[:2] == CHOICE
    ran = run_here("resume", "table6", "method=floors", "respondents.limit=1", folder=half_done.parent)
    assert ran.returncode == 0
    typed = ran.stderr.splitlines()[0]
    assert typed.startswith("palign-bench experiment=table6 model=local") and typed.endswith(
        "runs=runs method=floors respondents.limit=1"
    )
    listed = run_here("resume", "table6", "--list", folder=half_done.parent)
    first, second = listed.stdout.splitlines()
    assert first.startswith("1  20") and "respondents.limit=1" not in first and second.endswith("respondents.limit=1")
    earlier = run_here("resume", "table6", "--command", "1", folder=half_done.parent)  # the first is the last again
    assert earlier.returncode == 0 and earlier.stderr.splitlines()[0].endswith("runs=runs")
    assert set(table(half_done, "table6")["respondents"]) == {PEOPLE}
    refused = run_here("resume", "table6", "method=few_shot,pas", "method.k=99", folder=half_done.parent)
    assert refused.returncode == 1
    assert len(Command.all(half_done, "table6")) == 2 and "few_shot,pas" not in str(
        Command.last(half_done, "table6").arguments
    )
    (Command.last(half_done, "table6").folder / "command.json").write_text('{"arguments": 3}')
    damaged = run_here("resume", "table6", "--command", "1", folder=half_done.parent)
    assert damaged.returncode == 1 and "is damaged" in damaged.stderr and damaged.stderr.count("\n") == 1


LAUNCHER = ["-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]


def test_a_cluster_job_per_method_makes_one_table(model: Path, tmp_path: Path) -> None:
    """Each in a process that submitit starts, as on SLURM."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is optional")
    runs = tmp_path / "runs"
    choice = ["name=cluster", "method=floors,vanilla", *settings(model, runs, people=2)]
    ran = run(*LAUNCHER, *choice, folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    frame = table(runs, "cluster")
    assert len(frame) == FLOORS + 1 and set(frame["missing_cells"]) == {0}
    assert len(cells(runs)) == 2 * (FLOORS + 1)


def test_a_mistake_in_a_cluster_job_is_one_line(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is optional")
    ran = run(*LAUNCHER, "method=pas", "method.k=99", *settings(model, tmp_path / "runs"), folder=tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("palign-bench: method.k=99: the model has only 8 heads")


def test_heads_are_swept_as_in_table_5(model: Path, tmp_path: Path) -> None:
    ran = run_here("experiment=table5", "method.k=2,4", *settings(model, tmp_path / "runs", people=1), folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert list(table(tmp_path / "runs", "table5")["label"]) == ["PAS [k=2]", "PAS [k=4]"]


def test_the_last_of_equal_keys_tells_commands_apart() -> None:
    first, second = ["seed=0", "seed=1"], ["seed=1", "seed=0"]
    assert command_id(first) == command_id(["seed=1"]) != command_id(second) == command_id(["seed=0"])


def test_the_same_words_in_another_folder_are_another_command(tmp_path: Path) -> None:
    """And are resumed from anywhere: the people lie where they were typed."""
    numbers = ",".join(f"i{n}" for n in range(1, 301))
    for name, count in (("one", 2), ("two", 3)):
        (tmp_path / name).mkdir()
        rows = [f"p{p}," + ",".join(str((n * p) % 5 + 1) for n in range(300)) for p in range(1, count + 1)]
        (tmp_path / name / "people.csv").write_text("\n".join([f"id,{numbers}", *rows]))
    floor = ["method=floors", "method.rows=[constant_a]", "tracking=none", "name=mine", f"runs={tmp_path / 'runs'}"]
    source = ["respondents=file", "respondents.path=people.csv", "respondents.orientation=literal"]
    first, second = (run_here(*floor, *source, folder=tmp_path / name) for name in ("one", "two"))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "takes the place of" in second.stderr and "takes the place of" not in first.stderr
    resumed = run_here("resume", "mine", "--command", "1", folder=tmp_path)
    assert resumed.returncode == 0 and "2 people finished before" in resumed.stderr, resumed.stderr


def test_shards_and_places_share_a_plan_and_settings_do_not() -> None:
    def same(*arguments: str) -> str:
        return command_id(["experiment=table1", *arguments])

    assert same("shard=1/4", "runs=/a", "tracking=none") == same("retry=failed", "runs=/b", "shard=4/4")
    assert len({same(), same("shard=1/4"), same("shard=1/5"), same("seed=1"), same("respondents.limit=3")}) == 3
