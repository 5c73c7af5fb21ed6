"""`make table1` as a newcomer sees it: the organism, a few people, rows one after the other, and plain words."""

import re
import statistics
from pathlib import Path

from scipy import stats

from palign_bench.ledger.cells import CellFolder
from palign_bench.report.statistics import mean_interval
from tests.command import run

METHODS = "floors,vanilla,few_shot,pas"


def test_the_first_table_is_told_row_by_row_and_in_words(tmp_path: Path) -> None:
    limits = ["respondents=simulated", "respondents.figures=published", "respondents.limit=10"]
    ran = run("experiment=table1", f"method={METHODS}", *limits, "tracking=none", "runs=runs", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    on_the_way = ran.stderr.splitlines()
    assert "So far, the best first (3 rows to come; lower is better)" in on_the_way
    (line,) = [each for each in on_the_way if each.startswith("Few-Shot: composite")]
    people = [f"simulated-{number:04d}" for number in range(1, 11)]
    records = {}
    for name in ("vanilla", "few_shot", "pas"):
        (path,) = (tmp_path / "runs" / "cells").glob(f"{name}-organism-*")
        records[name] = [record for _, record in CellFolder(path).read_all(people)]
    composites = {name: [each["scores"]["composite"] for each in found] for name, found in records.items()}
    assert [len(each) for each in composites.values()] == [10, 10, 10]
    mean = statistics.mean(composites["few_shot"])
    assert f"composite {mean:.2f}, " in line and re.search(r"place \d+ of 12 so far", line)
    said = " ".join(ran.stdout.partition("What this table shows")[2].split())
    differences = [a - b for a, b in zip(composites["few_shot"], composites["vanilla"], strict=True)]
    assert stats.ttest_1samp(differences, 0).confidence_interval(0.95).high < 0, (
        "the organism personalises (tests/organism): this table can show it"
    )
    low, high = mean_interval(differences) or (0, 0)
    assert f"{statistics.mean(differences):+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, 10 people: better" in said
    assert "it uses what it is told." in said
    unmoved = sum(each["alignment"]["summary"]["alpha"] == 0 for each in records["pas"])
    assert f"alpha 0, the prompt alone, was chosen for {unmoved} of 10 people." in said
    assert "reads no words" in said
    assert said.rpartition("Next: ")[2].startswith(
        "`palign-bench resume table1 respondents=simulated respondents.limit=50`"
    )
