"""TensorBoard: a mirror of the ledger for those without Weights & Biases, in files of this machine.

A row is one run of TensorBoard, a person is one step. It gets what `palign_bench.tracking.tracker` lists.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palign_bench.settings import UserError
from palign_bench.tracking.tracker import Mirror

if TYPE_CHECKING:
    import pandas as pd


class TensorBoardTracker(Mirror):
    """Writes event files under ``folder/<experiment>/<row>/``, a new one for each command."""

    service = "TensorBoard"

    def __init__(self, folder: Path, salt_file: Path):
        super().__init__(salt_file)
        self.folder = folder
        self._writer: Any = None
        self._finished = 0

    def _open(self, id_: str, name: str, group: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        parts = [re.sub(r"[^\w.-]", "_", part) for part in (group or "tables", name)]
        self._writer = SummaryWriter(str(self.folder.joinpath(*parts, time.strftime("%Y-%m-%d_%H-%M-%S"))))
        if kind == "row":
            self._writer.add_text("settings", _as_table(config))
            self._writer.add_text("tags", ", ".join(tags))

    def _keep_progress(self, finished: int) -> None:
        self._finished = finished

    def _keep_people(self, people: Sequence[Mapping[str, Any]]) -> None:
        for number, person in enumerate(people, 1):
            for name, value in person.items():
                if value is not None and name != "respondent":
                    self._writer.add_scalar(f"person/{name}", value, number)

    def _keep_table(self, table: pd.DataFrame, pictures: Sequence[Path], title: str) -> None:
        import numpy as np
        from PIL import Image

        self._writer.add_text("table", table.to_markdown(index=False))
        for path in pictures:
            if path.suffix.lower() == ".png":
                with Image.open(path) as picture:
                    self._writer.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def _close(self, summary: Mapping[str, Any]) -> None:
        for name, value in summary.items():
            if value is not None:
                self._writer.add_scalar(f"mean/{name}", value, self._finished)
        self._writer.close()


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
    folder = Path(settings.get("folder") or runs / "tensorboard").expanduser()
    return TensorBoardTracker(folder, runs / ".salt")


def _as_table(settings: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {value} |" for key, value in settings.items()]
    return "\n".join(["| setting | value |", "|---|---|", *lines])
