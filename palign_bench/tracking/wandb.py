"""Weights & Biases: a mirror of the ledger, one run per row of a table and one for the table itself.

What leaves the machine: scores, trait scores and costs of each person under a salted hash, the row's summary, the table
and its picture, and the public part of the configuration. What never does: answers, generated texts, ids, demographics,
folders, the command line (it may name ids), and the host. Tracking never asks, never blocks for long and never stops a
run: without an account it logs offline, and when it fails it says so once and steps aside.
"""

from __future__ import annotations

import logging
import math
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from palign_bench.settings import UserError
from palign_bench.tracking.public import _plain, hashed_id, public_config, read_salt
from palign_bench.tracking.tracker import Tracker, _one_line, figures_of, means_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
_PICTURES = {".png", ".jpg", ".jpeg"}  # what W&B shows as an image
TABLE_PANELS = ("composite", "specificity")  # columns that W&B also gets as plain numbers, which panels can draw
_INIT_SECONDS, _FINISH_SECONDS = 30, 60  # the longest that W&B may hold a row up at its start and at its end


class WandbTracker(Tracker):
    """Logs to Weights & Biases.

    ``mode``: see `choose_mode`. ``folder``: where W&B makes its folder ``wandb``. ``salt_file``: see `read_salt`.
    """

    def __init__(
        self,
        project: str = "palign-bench",
        entity: str | None = None,
        mode: str = "auto",
        folder: Path = Path("runs"),
        salt_file: Path = Path("runs/.salt"),
    ):
        self.project = project
        self.entity = entity
        self.mode: Any = choose_mode(mode)
        self._may_fall_back = mode == "auto"
        self.folder = folder
        self.salt_file = salt_file
        self._run: Any = None
        self._group: str | None = None
        self._people: list[dict[str, Any]] = []
        self._stopped = False

    def start_row(self, config: Mapping[str, Any], name: str, group: str, tags: Sequence[str] = ()) -> None:
        def work() -> None:
            if self._run is not None:  # a row that broke off before its summary
                self._run.finish(exit_code=1)
            self._group, self._people = group, []
            self._run = self._open(
                name=name, group=group, tags=list(tags), config=public_config(config), job_type="row"
            )
            # Without this the summary would hold the last person's values under the names of the row's.
            self._run.define_metric("person", summary="none")
            self._run.define_metric("*", step_metric="person", summary="none")

        self._safely(work)

    def log_person(self, record: Mapping[str, Any]) -> None:
        def work() -> None:
            figures = figures_of(record)
            respondent = hashed_id(read_salt(self.salt_file), str(record["respondent"]))
            self._people.append({"respondent": respondent, **figures})
            known = {name: value for name, value in figures.items() if value is not None}
            self._run.log({"person": len(self._people), **known})

        self._safely(work)

    def finish_row(self, summary: Mapping[str, Any]) -> None:
        def work() -> None:
            import wandb

            if self._people:
                names = list(dict.fromkeys(name for person in self._people for name in person))
                rows: list[Any] = [[person.get(name) for name in names] for person in self._people]
                self._run.log({"people": wandb.Table(columns=[*names], data=rows, allow_mixed_types=True)})
            self._close({**means_of(self._people), **public_config(summary)})

        self._safely(work)

    def log_table(self, table: pd.DataFrame, figures: Sequence[Path], title: str) -> None:
        def work() -> None:
            import wandb

            self._run = self._open(name="table", group=self._group, job_type="table", notes=title)
            blank = table.astype(object).where(table.notna(), None)
            rows: list[Any] = [[_plain(value) for value in row] for row in blank.itertuples(index=False)]
            names = [str(name) for name in table.columns]
            document: dict[str, Any] = {"table": wandb.Table(columns=[*names], data=rows, allow_mixed_types=True)}
            for path in figures:
                if path.suffix.lower() in _PICTURES:
                    document[path.stem] = wandb.Image(str(path), caption=title)
            self._run.log(document)
            self._close({"rows": len(rows), **_panels(table)})

        self._safely(work)

    def _open(self, **identity: Any) -> Any:
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)  # W&B would silently use a temporary folder
        wandb.setup(wandb.Settings(silent=True))  # the run's own settings come too late for the words on credentials
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            # Provenance is the ledger's: nothing about code, command line, host or user is collected beside it. System
            # statistics would be sampled while costs are measured.
            disable_code=True,
            disable_git=True,
            host="",
            program="",
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        arguments: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "dir": str(self.folder),
            "reinit": "create_new",  # leaves a run of the user's own, or of a training library, alone
            "settings": settings,
            **identity,
        }
        try:
            return wandb.init(mode=self.mode, **arguments)
        except Exception as error:
            if self.mode != "online" or not self._may_fall_back:
                raise
            log.warning("W&B cannot be reached (%s): logging offline, `wandb sync` uploads later", _one_line(error))
            self.mode = "offline"
            return wandb.init(mode=self.mode, **arguments)

    def _close(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish()
        self._run = None

    def _safely(self, work: Callable[[], None]) -> None:
        """Do ``work`` unless tracking has failed before. A mirror must never cost the sweep it mirrors."""
        if self._stopped:
            return
        try:
            work()
        except Exception as error:
            self._stopped = True
            log.warning("W&B tracking stops (%s): the sweep goes on, its results are in the ledger", _one_line(error))
            log.debug("W&B tracking stopped by", exc_info=True)
            self._abandon()

    def _abandon(self) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        try:
            run.finish(exit_code=1)
        except Exception:
            log.debug("W&B run could not be closed either", exc_info=True)


def choose_mode(mode: str, environment: Mapping[str, str] | None = None) -> str:
    """Turn ``auto`` into W&B's own mode: as ``WANDB_MODE`` says, else online where there is an API key, else offline.

    ``WANDB_MODE=online`` without a key is offline too: W&B would ask for one. Raises UserError for an unknown mode and
    for ``online`` asked for without a key.
    """
    environment = os.environ if environment is None else environment
    if mode not in MODES:
        raise UserError(f"tracking.mode={mode}: choose {', '.join(MODES)}")
    if mode == "online" and not has_api_key(environment):
        raise UserError("tracking.mode=online needs a W&B API key: run `wandb login`, or choose tracking.mode=offline")
    if mode != "auto":
        return mode
    wished = environment.get("WANDB_MODE") or "online"
    if wished == "disabled":
        return wished
    return "online" if wished == "online" and has_api_key(environment) else "offline"


def has_api_key(environment: Mapping[str, str]) -> bool:
    """Whether W&B finds credentials in the environment or in the netrc file, without asking and without a network."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    home = Path(environment.get("HOME") or Path.home())
    named = environment.get("NETRC")
    for path in [Path(named).expanduser()] if named else [home / ".netrc", home / "_netrc"]:
        try:
            credentials = netrc.netrc(path).authenticators(host)
        except (OSError, netrc.NetrcParseError):  # no such file, or one that W&B cannot read either
            continue
        if credentials and credentials[2]:
            return True
    return False


def _panels(table: pd.DataFrame) -> dict[str, float]:
    """Numbers of the table that the dashboard draws, as ``composite/few_shot``."""
    return {
        f"{column}/{row['method']}": float(row[column])
        for _, row in table.iterrows()
        for column in TABLE_PANELS
        if column in table.columns and row[column] is not None and math.isfinite(float(row[column]))
    }
