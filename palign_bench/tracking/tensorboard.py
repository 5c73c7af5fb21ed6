"""TensorBoard: a mirror of the ledger for those without Weights & Biases, in files of this machine.

A row is one run of TensorBoard, a person is one step. Like W&B it gets scores, trait scores and costs, and no answers,
texts or ids; people are numbered as they come.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palign_bench.settings import UserError
from palign_bench.tracking.public import public_config
from palign_bench.tracking.tracker import Tracker, figures_of, means_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class TensorBoardTracker(Tracker):
    """Writes event files under ``folder/<experiment>/<row>/``, a new one for each command."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None
        self._group = ""
        self._people: list[dict[str, Any]] = []
        self._stopped = False

    def start_row(self, config: Mapping[str, Any], name: str, group: str, tags: Sequence[str] = ()) -> None:
        def work() -> None:
            self._group, self._people = group, []
            self._writer = self._open(name)
            self._writer.add_text("settings", _as_table(public_config(config)))
            self._writer.add_text("tags", ", ".join(tags))

        self._safely(work)

    def log_person(self, record: Mapping[str, Any]) -> None:
        def work() -> None:
            figures = figures_of(record)
            self._people.append(figures)
            for name, value in figures.items():
                if value is not None:
                    self._writer.add_scalar(f"person/{name}", value, len(self._people))

        self._safely(work)

    def finish_row(self, summary: Mapping[str, Any]) -> None:
        def work() -> None:
            for name, value in {**means_of(self._people), **summary}.items():
                self._writer.add_scalar(f"mean/{name}", value, len(self._people))
            self._close()

        self._safely(work)

    def log_table(self, table: pd.DataFrame, figures: Sequence[Path], title: str) -> None:
        def work() -> None:
            import numpy as np
            from PIL import Image

            self._writer = self._open("table")
            self._writer.add_text(title, table.to_markdown(index=False))
            for path in figures:
                if path.suffix.lower() == ".png":
                    with Image.open(path) as picture:
                        self._writer.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
            self._close()

        self._safely(work)

    def _open(self, name: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        parts = [re.sub(r"[^\w.-]", "_", part) for part in (self._group or "tables", name)]
        return SummaryWriter(str(self.folder.joinpath(*parts, time.strftime("%Y-%m-%d_%H-%M-%S"))))

    def _close(self) -> None:
        self._writer.close()
        self._writer = None

    def _safely(self, work: Callable[[], None]) -> None:
        """Do ``work`` unless tracking has failed before. A mirror must never cost the sweep it mirrors."""
        if self._stopped:
            return
        try:
            work()
        except Exception as error:
            self._stopped = True
            log.warning("TensorBoard tracking stops (%s): the sweep goes on, its results are in the ledger", error)


def make_tensorboard_tracker(settings: Mapping[str, Any], runs: Path) -> TensorBoardTracker:
    """The tracker of ``conf/tracking/tensorboard.yaml``. Raises UserError for an unknown key and a missing package."""
    unknown = [str(key) for key in settings if key not in ("name", "folder")]
    if unknown:
        raise UserError(f"tracking.{unknown[0]}: no such key; the keys are name, folder")
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(
            "tracking=tensorboard needs the package tensorboard: pip install tensorboard, or choose wandb or none"
        ) from error
    return TensorBoardTracker(Path(settings.get("folder") or runs / "tensorboard"))


def _as_table(settings: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {value} |" for key, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])
