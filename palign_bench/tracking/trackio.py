"""Trackio: a mirror of the ledger without an account, in one SQLite file of this machine that `trackio show` serves.

A row is one run of Trackio, a person is one step. It gets what `palign_bench.tracking.tracker` lists. Nothing is sent
anywhere, whatever Space or server the environment names: `trackio sync` is the user's own, later step.
"""

import io
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd

from palign_bench.settings import UserError
from palign_bench.tracking.public import plain_rows
from palign_bench.tracking.tracker import Tracker


class TrackioTracker(Tracker):
    """Logs to the project ``project`` where Trackio keeps everything: ``TRACKIO_DIR``, else beside the hub's cache.

    A row or table that is followed again replaces its run: the ledger tells all of its people again. Raises UserError
    for a project that Trackio refuses, and where the package is missing.
    """

    follows_people = True
    service = "Trackio"

    def __init__(self, project: str, salt_file: Path):
        super().__init__(salt_file)
        try:
            from trackio.sqlite_storage import SQLiteStorage

            SQLiteStorage.validate_project_name(project)
        except ImportError as error:
            raise UserError(
                "tracking=trackio needs the package trackio: pip install trackio, or choose wandb or none"
            ) from error
        except ValueError as error:
            raise UserError(f"tracking.project={project}: {error}") from error
        self.project = project
        self._run: Any = None
        self._finished = 0

    def _is_kept(self, id_: str) -> bool:
        from trackio.sqlite_storage import SQLiteStorage

        return any(record["id"] == id_ for record in SQLiteStorage.get_run_records(self.project))

    def _open(
        self, id_: str, name: str, experiment: str, kind: str, config: Mapping[str, Any], tags: Sequence[str]
    ) -> None:
        from trackio import Run
        from trackio.media import get_project_media_path
        from trackio.sqlite_storage import SQLiteStorage

        class AnonymousRun(Run):
            def _get_username(self) -> None:
                """Trackio would ask the hub whose token this machine has, and keep the name."""

        # Pictures lie under a run's name, which therefore is one run's alone, and no path.
        unique = re.sub(r"[^\w.-]", "_", f"{name}-{id_[:8]}")
        SQLiteStorage.init_db(self.project)
        SQLiteStorage.delete_run(self.project, unique, run_id=id_)
        shutil.rmtree(get_project_media_path(self.project, unique))
        kept = {**config, "tags": list(tags)} if kind == "row" else {}
        self._finished = 0
        self._run = AnonymousRun(
            url=None, client=None, project=self.project, name=unique, run_id=id_, group=experiment, config=kept
        )

    def _keep_progress(self, finished: int) -> None:
        self._finished = finished
        self._run.log({"people_finished": finished}, step=finished)

    def _keep_people(self, names: list[str], people: list[list[Any]]) -> None:
        import trackio

        for number, person in enumerate(people, 1):
            known = {f"person/{n}": v for n, v in zip(names[1:], person[1:], strict=True) if v is not None}
            self._run.log(known, step=number)
        self._run.log({"people": trackio.Table(columns=names, data=people)}, step=len(people))

    def _keep_table(self, table: pd.DataFrame, pictures: Sequence[Path], title: str) -> None:
        import trackio

        columns = [*map(str, table.columns)]
        document: dict[str, Any] = {"table": trackio.Table(columns=columns, data=plain_rows(table))}
        for path in pictures:
            if path.suffix.lower() == ".png":
                document[f"picture/{path.stem}"] = trackio.Image(str(path), caption=title)
        self._run.log(document, step=0)

    def _close(self, summary: Mapping[str, Any]) -> None:
        means = {f"mean/{name}": value for name, value in summary.items() if value is not None}
        self._run.log(means, step=self._finished)
        with redirect_stdout(io.StringIO()):  # it would tell of uploading
            self._run.finish()
