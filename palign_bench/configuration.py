"""The resolved configuration: where `conf/` lies, what a run's settings mean, and what of them can change a number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palign_bench.settings import Settings, UserError, read_option

# What cannot change a number stays out of a cell's identity: where things lie and how they are shown.
_METHOD_PLACES = frozenset({"portraits"})


def resolve_model(model: Mapping[str, Any]) -> Settings:
    """A given ``model.name_or_path`` is what is loaded, whatever the option's weights; it also names the cells."""
    settings = dict(model)
    given = settings.get("name_or_path")
    if given:
        if settings["weights"] == "package":
            settings["weights"] = "hub"
        settings["title"] = settings["name_or_path"]
        settings["name"] = Path(str(given)).name.lower().replace("-", "_").replace(".", "_")
    elif settings["weights"] == "hub":
        settings["name_or_path"] = settings.get("hub_name")
        settings["revision"] = settings.get("revision") or settings.get("hub_revision")
    return settings


def resolve_training(training: Mapping[str, Any], on_cuda: bool) -> Settings:
    """``auto`` is ``paper`` where CUDA is and ``quick`` elsewhere; a people_limit and a cohort that were given stay."""
    settings = dict(training)
    cohort = settings.get("cohort", 1)
    if not isinstance(cohort, int) or isinstance(cohort, bool) or cohort < 1:
        raise UserError(f"training.cohort={cohort}: choose a whole number, 1 or more.")
    if settings["name"] == "auto":
        chosen = read_option("training", "paper" if on_cuda else "quick") | {"cohort": cohort}
        return chosen if settings["people_limit"] == "auto" else chosen | {"people_limit": settings["people_limit"]}
    limit = settings["people_limit"]
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UserError(f"training.people_limit={limit}: choose a whole number, 1 or more, or null for all.")
    return settings


def resolve_budget(method: Mapping[str, Any], training: Mapping[str, Any]) -> Settings:
    """A trained method's settings with what its budget leaves to ``auto`` filled in; others come back as they are.

    ``training`` in the result names the budget, "custom" where a number of it was overridden. Raises UserError for a
    budget that the method does not have.
    """
    settings = {key: value for key, value in method.items() if key not in ("budgets", "cohort")}
    cohort = training.get("cohort", 1) if method.get("cohort") == "auto" else method.get("cohort", 1)
    if cohort != 1:  # another trainer, so other cells; TRL's keep the identity that they have
        settings["cohort"] = cohort
    if "budgets" not in method:
        return settings
    budget = method["budgets"].get(training["name"])
    if budget is None:
        choices = ", ".join(method["budgets"])
        raise UserError(f"training={training['name']}: method={method['name']} has the budgets {choices}.")
    left_open = {key: value for key, value in budget.items() if settings.get(key) == "auto"}
    return settings | left_open | {"training": training["name"] if left_open == dict(budget) else "custom"}


def model_title(settings: Mapping[str, Any]) -> str:
    """How the table names the model, with whatever makes it differ from the model of that name."""
    notes = []
    if settings["weights"] == "package":
        notes.append(str(settings["package_note"]))
    if settings["weights"] == "random":
        notes.append("RANDOM WEIGHTS: costs only, the scores mean nothing")
    if settings["quantization"] != "none":
        notes.append(str(settings["quantization"]).upper())
    return f"{settings['title']} ({'; '.join(notes)})" if notes else str(settings["title"])


def method_identity(method: Mapping[str, Any]) -> Settings:
    """The part of a method's settings that can change a number."""
    return {key: value for key, value in method.items() if key not in _METHOD_PLACES}


def model_identity(settings: Mapping[str, Any], identified: Mapping[str, str]) -> Settings:
    """The part of a model's settings that can change a number; ``identified`` is `backbone.loading.identify`'s."""
    kept = {key: settings[key] for key in ("name", "weights", "quantization", "engine")}
    return kept | dict(identified)
