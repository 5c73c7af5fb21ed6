"""Weights & Biases: a mirror of the ledger, one run per row of a table and one for each table.

What leaves the machine is listed in `palign_bench.tracking.tracker`; what never does: answers, generated texts, ids,
demographics, folders, file names, the command line (it may name ids), and the host. Tracking never asks, never blocks
for long and never stops a run: without an account it logs offline, and what it cannot keep it says once.
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from palign_bench.settings import UserError
from palign_bench.tracking.public import plain_rows
from palign_bench.tracking.tracker import Tracker, one_line

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline", "disabled")
_PICTURES = {".png", ".jpg", ".jpeg"}  # what W&B shows as an image
TABLE_PANELS = ("composite", "specificity")  # columns that W&B also gets as plain numbers, which panels can draw
_INIT_SECONDS, _FINISH_SECONDS = 30, 60  # the longest that W&B may hold a row up at its start and at its end


class WandbTracker(Tracker):
    """Logs to Weights & Biases.

    ``mode``: see `choose_mode`. ``folder``: where W&B makes its folder ``wandb``. ``salt_file``: see `read_salt`. A row
    that is restarted replaces its run: the ledger tells all of its people again. Under ``wandb agent`` everything goes
    into the one run that the agent has made, the sweep's metric in its summary; so a trial is one row.
    """

    follows_people = True
    service = "W&B"

    def __init__(
        self,
        project: str = "palign-bench",
        entity: str | None = None,
        mode: str = "auto",
        folder: Path = Path("runs"),
        salt_file: Path = Path("runs/.salt"),
    ):
        super().__init__(salt_file)
        self.project = project
        self.entity = entity
        self.mode: Any = choose_mode(mode)
        self.follows_people = self.mode != "disabled"
        self._may_fall_back = mode == "auto"
        self.folder = folder
        self._run: Any = None
        self._agents_run = os.environ.get("WANDB_RUN_ID")

    def check_rows(self, names: Sequence[str]) -> None:
        if self._agents_run and self.mode != "disabled" and len(names) > 1:
            raise UserError(
                f"WANDB_RUN_ID is set, as by `wandb agent`: a trial is one row, whose composite is its metric, "
                f"and this command has {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''}); choose "
                f"one method, of floors one by method.rows=[{names[0]}], or tracking=none"
            )

    def _is_kept(self, id_: str) -> bool:
        if self._agents_run:  # a trial that repeats another's cells holds the metric all the same
            return False
        return any(self.folder.glob(f"wandb/*run-*-{id_}"))

    def _open(
        self, id_: str, name: str, experiment: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]
    ) -> None:
        if self._agents_run and self._run is not None:
            return  # the table of a trial goes into the trial's run
        identity: dict[str, Any] = {"id": self._agents_run or id_, "group": experiment, "job_type": kind}
        if not self._agents_run:
            identity["name"] = name
        self._run = self._init(tags=list(tags), config=dict(config), **identity)
        if kind == "row":
            # Without this the summary would hold the last person's values under the names of the row's.
            self._run.define_metric("person", summary="none")
            self._run.define_metric("*", step_metric="person", summary="none")

    def _keep_progress(self, finished: int) -> None:
        self._run.summary["people_finished"] = finished

    def _keep_people(self, names: list[str], people: list[list[Any]]) -> None:
        import wandb

        for number, person in enumerate(people, 1):
            known = {n: v for n, v in zip(names[1:], person[1:], strict=True) if v is not None}
            self._run.log({"person": number, **known})
        self._run.log({"people": wandb.Table(columns=[*names], data=[*people], allow_mixed_types=True)})

    def _keep_table(self, table: pd.DataFrame, pictures: Sequence[Path], title: str) -> None:
        import wandb

        rows: list[Any] = plain_rows(table)
        columns: list[str | int] = [*map(str, table.columns)]
        document: dict[str, Any] = {"table": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)}
        for path in pictures:
            if path.suffix.lower() in _PICTURES:
                document[path.stem] = wandb.Image(str(path), caption=title)
        self._run.log(document)
        self._run.summary.update(_panels(table))

    def _close(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(dict(summary))
        if not self._agents_run:  # W&B itself ends the agent's run with the process
            run, self._run = self._run, None
            run.finish()

    def _init(self, **identity: Any) -> Any:
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
            log.warning("W&B cannot be reached (%s): logging offline, `wandb sync` uploads later", one_line(error))
            self.mode = "offline"
            if wandb.run is None:  # the service would not give the id again; a run of the user's own would end with it
                wandb.teardown()
            return wandb.init(mode=self.mode, **arguments)


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
    from requests.utils import get_netrc_auth  # as W&B reads it

    credentials = get_netrc_auth(environment.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    return bool(credentials and credentials[1])


def panel_names(named: Sequence[tuple[str, str]]) -> list[str]:
    """What the panels of a table's rows are called: by method, or by label where a method has several rows.

    ``named``: method and label of every row.
    """
    methods = [method for method, _ in named]
    return [label if methods.count(method) > 1 else method for method, label in named]


def _panels(table: pd.DataFrame) -> dict[str, float]:
    """Numbers of the table that the dashboard draws, as ``composite/few_shot``."""
    names = panel_names(list(zip(table["method"], table.get("label", table["method"]), strict=True)))
    return {
        f"{column}/{name}": float(row[column])
        for name, (_, row) in zip(names, table.iterrows(), strict=True)
        for column in TABLE_PANELS
        if column in table.columns and row[column] is not None and math.isfinite(float(row[column]))
    }
