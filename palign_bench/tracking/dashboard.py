"""`palign-bench dashboard`: a Weights & Biases workspace with panels for score, specificity, cost and Pareto.

Saved through W&B's own API where there is an account, else written to a file, so that it can be looked at and kept.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palign_bench.files import write_json
from palign_bench.settings import UserError, first_line
from palign_bench.tracking.wandb import choose_mode


def make_workspace(project: str, entity: str, name: str, methods: Sequence[str], scales: Sequence[str]) -> Any:
    """The workspace of one experiment. ``methods``: the table's rows, for the panels that the table's run feeds.

    ``scales``: full names of what the questionnaire measures, each a column of the table.

    Raises UserError where the package wandb-workspaces is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise UserError("palign-bench dashboard needs the package wandb-workspaces: pip install it") from error

    def bars(title: str, *metrics: str) -> Any:
        return reports.BarPlot(title=title, metrics=list(metrics), orientation="h")

    def by_method(column: str) -> list[str]:
        return [f"{column}/{method}" for method in methods]

    def scatter(title: str, cost: str) -> Any:
        return reports.ScatterPlot(title=title, x=cost, y="composite")

    sections = {
        "Score (lower is better)": [
            bars("Composite aligned score by row", "composite"),
            *(bars(scale.capitalize(), scale) for scale in scales),
            bars("Composite by method, from the table", *by_method("composite")),
        ],
        "Specificity (0: ignored the person)": [bars("Specificity by method", *by_method("specificity"))],
        "Cost per person": [
            bars("Seconds to align", "align_seconds"),
            bars("Seconds to answer", "answer_seconds"),
            bars("Peak memory above the bare model, MiB", "peak_memory_mib"),
        ],
        "Pareto: score against cost": [
            scatter("Composite against seconds to align", "align_seconds"),
            scatter("Composite against peak memory", "peak_memory_mib"),
        ],
    }
    return workspaces.Workspace(
        name=f"palign-bench {name}",
        entity=entity,
        project=project,
        sections=[workspaces.Section(name=title, panels=panels, is_open=True) for title, panels in sections.items()],
        runset_settings=workspaces.RunsetSettings(filters=f"Metric('Group') == '{name}'"),
    )


def save_workspace(
    path: Path, project: str, entity: str | None, name: str, methods: Sequence[str], scales: Sequence[str]
) -> str:
    """Save the workspace at W&B, or without an account to ``path``. Returns a line that says where it is."""
    if choose_mode("auto") == "online":
        import wandb
        import wandb.errors

        try:
            return f"Saved: {make_workspace(project, entity or _own_account(), name, methods, scales).save().url}"
        except (wandb.errors.Error, OSError) as error:
            raise UserError(
                f"W&B cannot be reached ({first_line(error)}); WANDB_MODE=offline writes a file instead."
            ) from error
    workspace = make_workspace(project, entity or "ENTITY", name, methods, scales)
    write_json(path, workspace._to_model().model_dump(mode="json", by_alias=True, exclude_none=True))
    return f"Written to {path}. With a W&B account (`wandb login`) the same command saves it there."


def _own_account() -> str:
    import wandb

    entity = os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    if not entity:
        raise UserError("W&B names no default account: give --entity")
    return str(entity)
