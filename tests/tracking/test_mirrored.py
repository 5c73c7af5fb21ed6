"""What a user's own command puts into a mirror: a private questionnaire, floors, W&B offline."""

import csv
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.command import run, run_here, table
from tests.tracking.wandb_runs import RunRead, runs_of

SCALES, KNOWN, ITEMS = ("calm", "self/other"), 2, 6  # of the six items of a scale the last four are held out
PEOPLE = 5


def mirrored(folder: Path, lacking: int = 0, of: str = "calm", named: str = "secret") -> list[RunRead]:
    """The runs of a table of floors; the first person lacks so many of the held-out answers to a scale."""
    folder.mkdir(exist_ok=True)
    lines = ["number,text,scale,known"]
    for place, scale in enumerate(SCALES):
        for item in range(ITEMS):
            number, known = place * ITEMS + item + 1, "yes" if item < KNOWN else "no"
            lines.append(f"{number},I do thing {number}.,{scale},{known}")
    (folder / f"{named}_inventory.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / f"{named}_inventory.yaml").write_text("wording: sentence\ntitle: Mine\n", encoding="utf-8")
    answers: list[list[Any]] = np.random.default_rng(0).integers(1, 6, size=(PEOPLE, 2 * ITEMS)).tolist()
    last = ITEMS * (SCALES.index(of) + 1)
    answers[0][last - lacking : last] = [""] * lacking
    with (folder / f"{named}_people.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[f"p{place}", *given] for place, given in enumerate(answers)]
        csv.writer(file).writerows([["id", *(f"i{number}" for number in range(1, 2 * ITEMS + 1))], *rows])
    done = run_here(
        "method=floors", "method.rows=[domain_mean,constant_a,random]", "inventory=file",
        f"inventory.path={folder / f'{named}_inventory.csv'}",
        "respondents=file", f"respondents.path={folder / f'{named}_people.csv'}", "respondents.orientation=literal",
        "tracking=wandb", "tracking.mode=offline", f"runs={folder / 'runs'}", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return runs_of(folder / "runs")


def of_rows(found: list[RunRead]) -> dict[str, RunRead]:
    return {str(each.config["method"]["row"]): each for each in found if each.run.job_type == "row"}


def columns_of_table(found: list[RunRead]) -> list[str]:
    (shown,) = [each for each in found if each.run.job_type == "table"]
    return list(shown.table("table")["columns"])


def pictures_of(found: list[RunRead]) -> list[bytes]:
    return [path.read_bytes() for each in found for path in each.folder.glob("files/media/images/*")]


@pytest.mark.parametrize("lacking", [0, 4])
def test_a_rows_means_are_the_tables(tmp_path: Path, lacking: int) -> None:
    """Also where a person lacks a scale, and of a scale with a slash in its name."""
    found = mirrored(tmp_path, lacking)
    frame = table(tmp_path / "runs", "run").set_index("method")
    assert list(frame["unscored"].unique()) == [1 if lacking else 0]
    for method, row in of_rows(found).items():
        for name in ("composite", *SCALES):
            assert row.summary[name] == pytest.approx(frame.loc[method, name]), (method, name)
    assert {"composite", *SCALES} < set(columns_of_table(found)) and pictures_of(found)


@pytest.mark.parametrize("tracking", ["wandb", "trackio"])
def test_a_rows_means_are_the_tables_also_when_fewer_people_are_shown_again(tmp_path: Path, tracking: str) -> None:
    project, means = f"test-{uuid.uuid4().hex}", list[float]()
    if tracking == "trackio":
        pytest.importorskip("trackio", reason="trackio is optional")
    for limit in (3, 2):
        done = run(  # in processes of their own: W&B's service writes one run of an id at a time
            "method=floors", "method.rows=[domain_mean]", "respondents=simulated", "respondents.count=20",
            f"respondents.limit={limit}", f"tracking={tracking}", f"tracking.project={project}", folder=tmp_path,
            variables={"WANDB_MODE": "offline"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        means.append(table(tmp_path / "runs", "run").set_index("method").loc["domain_mean", "composite"])
    assert means[0] != means[1]
    if tracking == "wandb":
        rows = [each for each in runs_of(tmp_path / "runs") if each.run.job_type == "row"]
        told = [each.summary["composite"] for each in sorted(rows, key=lambda each: each.folder.name)]
        assert told == pytest.approx(means) and len({each.run.run_id for each in rows}) == 1
    else:
        assert _logged_by_trackio(project, "mean/composite") == pytest.approx(means[1])


def _logged_by_trackio(project: str, name: str) -> float:
    from trackio.sqlite_storage import SQLiteStorage

    found = [
        line[name]
        for run_ in SQLiteStorage.get_run_records(project)
        for line in SQLiteStorage.get_logs(project, run_["name"], run_id=run_["id"])
        if name in line
    ]
    (mean,) = found
    return float(mean)


def test_a_withheld_score_cannot_be_worked_out(tmp_path: Path) -> None:
    """Two answers of one person to a scale: no mean over everybody stands anywhere, and no picture of everybody."""
    found = mirrored(tmp_path, lacking=2)
    frame = table(tmp_path / "runs", "run").set_index("method")
    assert frame["composite"].notna().all() and frame["calm"].notna().all()  # the ledger has them
    hidden = {"composite", "calm", "trait/calm", "person_trait/calm"}
    for method, row in of_rows(found).items():
        people = row.table("people")
        told = pd.DataFrame(people["data"], columns=people["columns"])
        assert told["calm"].isna().sum() == told["composite"].isna().sum() == 1
        assert not hidden & set(row.summary)
        assert row.summary["self/other"] == pytest.approx(frame.loc[method, "self/other"])
    columns = columns_of_table(found)
    assert {"method", "respondents", "self/other", "unscored"} < set(columns)
    assert not [name for name in columns if name == "calm" or "composite" in name or "correlation" in name]
    assert not pictures_of(found)
    assert not [name for each in found for name in each.summary if name.startswith(("composite", "specificity"))]


def test_no_name_of_a_users_file_is_mirrored(tmp_path: Path) -> None:
    """The same files under other names leave the very same pictures and identities, though the ledger tells them."""
    first, second = (mirrored(tmp_path / name, named=name) for name in ("secret", "hidden"))
    drawn = [[(tmp_path / name / "runs").glob("run/*/run.png") for _ in (0,)] for name in ("secret", "hidden")]
    kept = [next(iter(pictures[0])).read_bytes() for pictures in drawn]
    assert kept[0] != kept[1]
    assert pictures_of(first) == pictures_of(second) != []
    configs = [{method: row.config["inventory"] for method, row in of_rows(each).items()} for each in (first, second)]
    assert configs[0] == configs[1] and all(name.startswith("file-") for name in configs[0].values())
    for each in first:
        for path in each.folder.rglob("*"):
            assert path.suffix == ".log" or not path.is_file() or b"secret_" not in path.read_bytes(), path
        assert "secret" not in json.dumps([each.config, each.summary, each.history])


def test_a_trial_of_several_rows_is_refused_before_it_begins(tmp_path: Path) -> None:
    """`wandb agent` reads one composite of a trial: of two rows it would be the last one's under the first's name."""
    people = ["respondents=simulated", "respondents.count=20", "respondents.limit=2", "tracking=wandb"]
    trial = {"WANDB_RUN_ID": "trial1", "WANDB_MODE": "offline"}
    refused = run_here("method=own_means", *people, folder=tmp_path, variables=trial)
    assert refused.returncode == 1 and not (tmp_path / "runs").exists()
    assert "2 (domain_mean, facet_mean)" in refused.stderr and "method.rows=[domain_mean]" in refused.stderr
    swept = run_here(
        "-m", "method=own_means", "seed=0,1", *people, "method.rows=[domain_mean]", folder=tmp_path, variables=trial
    )
    assert swept.returncode == 1
    followed = run("method=own_means", "method.rows=[domain_mean]", *people, folder=tmp_path, variables=trial)
    assert followed.returncode == 0, followed.stderr
    (read,) = runs_of(tmp_path / "runs")
    frame = table(tmp_path / "runs", "run").set_index("method")
    assert read.summary["composite"] == pytest.approx(frame.loc["domain_mean", "composite"])
    elsewhere = run_here("method=own_means", *people[:-1], "tracking=none", folder=tmp_path, variables=trial)
    assert elsewhere.returncode == 0, elsewhere.stderr
