"""TensorBoard's event files, read back with its own reader."""

from pathlib import Path

import pandas as pd
import pytest

from palign_bench.tracking.choose import make_tracker
from tests.tracking.test_wandb import RAW_IDS, SCALE_OF, a_record

pytest.importorskip("tensorboard", reason="tensorboard is optional")


def test_scores_and_costs_are_found_and_nothing_private(tmp_path: Path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = make_tracker({"name": "tensorboard", "folder": None}, tmp_path)
    tracker.start_row({"seed": 3, "runs": "/secret/place"}, "few/shot-0", "table1", ("few_shot",), scale_of=SCALE_OF)
    people = [a_record(0), a_record(1)]
    for record in people:
        tracker.log_person(record)
    tracker.finish_row({"missing_cells": 1})
    Image.new("RGB", (4, 4)).save(tmp_path / "table1.png")
    tracker.log_table(
        pd.DataFrame({"method": ["few_shot"], "composite": [4.5]}),
        [tmp_path / "table1.png"],
        "table1",
        "tiny-corrected",
        SCALE_OF,
    )

    (row,) = (tmp_path / "tensorboard" / "table1").glob("few_shot-0/*")
    events = EventAccumulator(str(row)).Reload()
    composites = {event.step: event.value for event in events.Scalars("person/composite")}
    assert set(composites) == {1, 2}  # in the salt's order
    assert sorted(composites.values()) == pytest.approx([each["scores"]["composite"] for each in people])
    assert len(events.Scalars("person/openness")) == 1  # the second person has none
    assert events.Scalars("mean/answer_seconds")[0].value == pytest.approx(2.0)
    assert events.Scalars("mean/missing_cells")[0].value == 1
    (table,) = (tmp_path / "tensorboard" / "table1").glob("table/*")
    shown = EventAccumulator(str(table)).Reload()
    assert shown.Tags()["images"] == ["table1"] and shown.Tags()["tensors"] == ["table/text_summary"]
    content = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").rglob("events*"))
    for private in (*RAW_IDS, "Worry about rain", "/secret/place"):
        assert private.encode() not in content
