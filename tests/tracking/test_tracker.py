"""What may leave the ledger for a mirror, and what may not."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from palign_bench.tracking.tracker import figures_of, public_table, thin_scales, without_places
from palign_bench.tracking.wandb import WandbTracker
from tests.tracking.rows import IDENTITY, SCALE_OF, a_record
from tests.tracking.wandb_runs import runs_of


def test_names_stay_and_places_do_not() -> None:
    named = {"model": {"name": "owner/model", "dtype": "float32", "heads": np.int64(3)}, "names": ["a", {"k": None}]}
    assert without_places(named) == named
    places = ["/data/m", "~/m", "./m", "../m", "C:\\m", "http://host/m", "models/of/mine"]
    assert without_places({"values": places, **dict.fromkeys("abc", places[0])}) == {"values": []}


def test_what_hangs_on_fewer_than_three_answers_stays_here(tmp_path: Path) -> None:
    """The mean of one answer is that answer; the composite without the other scales would be it, too."""
    one_item = {number: scale for number, scale in SCALE_OF.items() if scale != "openness" or number == "4"}
    assert list(one_item.values()).count("openness") == 1
    record = a_record(0)
    assert thin_scales(record["truth"], one_item) == ["openness"]
    assert thin_scales(record["truth"], SCALE_OF) == []
    unanswered = record["truth"] | dict.fromkeys([n for n in SCALE_OF if SCALE_OF[n] == "openness"][:4])
    assert thin_scales(unanswered, SCALE_OF) == ["openness"]
    figures = figures_of(record, ["openness"])
    hidden = {"openness", "composite", "trait/openness", "person_trait/openness"}
    assert set(figures_of(record)) - set(figures) == hidden
    tracker = WandbTracker(mode="offline", folder=tmp_path, salt_file=tmp_path / ".salt")
    tracker.start_row(IDENTITY, "row", "group", key="k", scale_of=one_item)
    tracker.log_person(record)
    tracker.finish_row({})
    over_all = ("composite", "specificity", "overall_profile_correlation", "exact_agreement", "discriminant_gap")
    row: dict[str, Any] = {"method": "row", "openness": 0.9, "extraversion": 0.7, **dict.fromkeys(over_all, 0.5)}
    table = pd.DataFrame([row | {"respondents": 1, "align_seconds": 2.0}])
    tracker.log_table(table, [], "group", "t", one_item)
    followed, shown = runs_of(tmp_path)
    assert not hidden & set(followed.summary) and followed.summary["extraversion"] == pytest.approx(0.7)
    assert not hidden & {key for told in followed.history for key in told} and not hidden & set(
        followed.table("people")["columns"]
    )
    assert shown.table("table")["columns"] == ["method", "extraversion", "respondents", "align_seconds"]
    assert list(public_table(table.assign(respondents=3), one_item).columns) == list(table.columns)
