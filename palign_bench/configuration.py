"""The resolved configuration: where `conf/` lies, what a run's settings mean, and what of them can change a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palign_bench.settings import Settings, UserError, read_option

# What cannot change a number stays out of a cell's identity: where things lie and how they are shown.
_METHOD_PLACES = frozenset({"portraits"})


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


def method_identity(method: Mapping[str, Any]) -> Settings:
    """The part of a method's settings that can change a number."""
    return {key: value for key, value in method.items() if key not in _METHOD_PLACES}
