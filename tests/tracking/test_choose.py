from pathlib import Path

import pytest

from palign_bench.settings import UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.tracker import Tracker
from palign_bench.tracking.wandb import WandbTracker


def test_make_tracker_names_the_wrong_key() -> None:
    assert type(make_tracker({"name": "none"})) is Tracker
    tracker = make_tracker({"name": "wandb", "folder": "elsewhere"}, Path("ledger"))
    assert isinstance(tracker, WandbTracker)
    assert (tracker.folder, tracker.salt_file) == (Path("elsewhere"), Path("ledger/.salt"))
    with pytest.raises(UserError, match="tracking=mlflow: choose wandb, trackio or none"):
        make_tracker({"name": "mlflow"})
    with pytest.raises(UserError, match=r"tracking\.projekt: no such key; the keys are name, project"):
        make_tracker({"name": "wandb", "projekt": "x"})
