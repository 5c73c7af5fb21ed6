"""What a run's settings mean, and what of them can change a number."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.questionnaire.intervention import Intervention
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.settings import Settings, UserError, counted, is_whole, options, read_option

_OTHER_FOLDERS = frozenset({"bench", "cells", "given_answers", "hydra", "organism", "portraits", "reference", "wandb"})

_LONGEST_NAME = 150  # bytes of an experiment's name, which files are named after: most systems take 255

MEASURED_STEPS = 1  # optimizer steps of training=measured on a CPU

# What cannot change a number stays out of a cell's identity: how a row reads, where files and our own code lie.
_NO_NUMBERS = frozenset({"portraits", "title", "block"})
# 2: fewer people than a cohort are filled up. 3: PPO and RLOO read what prompts share once, which rounds otherwise.
_COHORT_VERSION = 3


def resolve_training(training: Mapping[str, Any], on_cuda: bool, of_model: str | None = None) -> Settings:
    """``auto`` is ``paper`` where CUDA is and ``quick`` elsewhere; a people_limit and a cohort that were given stay.

    ``of_model``: the budget that ``auto`` stands for with this model, on as many people as otherwise.
    """
    settings = dict(training)
    if settings["name"] == "measured":
        steps = settings.get("steps", "auto")
        if steps == "auto":
            steps = None if on_cuda else MEASURED_STEPS
        elif not is_whole(steps, 1):
            raise UserError(f"training.steps={steps}: choose a whole number, 1 or more, or auto.")
        settings["steps"] = steps
    cohort = settings.get("cohort", 1)
    if not is_whole(cohort, 1):
        raise UserError(f"training.cohort={cohort}: choose a whole number, 1 or more.")
    if settings["name"] == "auto":
        chosen = read_option("training", "paper" if on_cuda else "quick") | {"cohort": cohort}
        chosen["name"] = of_model or chosen["name"]
        return chosen if settings["people_limit"] == "auto" else chosen | {"people_limit": settings["people_limit"]}
    limit = settings["people_limit"]
    if limit is not None and not is_whole(limit, 1):
        raise UserError(f"training.people_limit={limit}: choose a whole number, 1 or more, or null for all.")
    return settings


def resolve_budget(method: Mapping[str, Any], training: Mapping[str, Any]) -> Settings:
    """A trained method's settings with what its budget leaves to ``auto`` filled in; others come back as they are.

    ``budget`` in the result is the budget's name, or "custom: …" with what departs from it and from the method's file;
    the row's name carries it. Raises UserError for a budget that the method does not have.
    """
    settings = {key: value for key, value in method.items() if key not in ("budgets", "cohort")}
    cohort = training.get("cohort", 1) if method.get("cohort") == "auto" else method.get("cohort", 1)
    if cohort != 1:  # another trainer, so other cells; TRL's keep the identity that they have
        settings["cohort"] = cohort
    if "budgets" not in method:
        return settings
    measured = training["name"] == "measured"
    budget = method["budgets"].get("paper" if measured else training["name"])
    if budget is None:
        choices = ", ".join(method["budgets"])
        raise UserError(f"training={training['name']}: method={method['name']} has the budgets {choices}.")
    if measured:
        budget = budget | ({"steps": training["steps"]} if training["steps"] else {})
    settings |= {key: value for key, value in budget.items() if settings.get(key) == "auto"}
    name = "paper" if measured and not training["steps"] else training["name"]
    departures = _departures(settings, _shipped(method) | dict(budget))
    told = sorted(f"{key}={value}" for key, value in departures.items())
    return settings | {"budget": f"custom: {', '.join(told)}" if told else name}


def _shipped(method: Mapping[str, Any]) -> Settings:
    """The method's file in `conf/`; the method itself where it is a user's own."""
    return read_option("method", method["name"]) if method["name"] in options("method") else dict(method)


def numbers_set(method: Mapping[str, Any]) -> list[str]:
    """Numbers and switches that differ from the method's file, as ``key=value``. Texts may say where things lie."""
    departures = _departures(method, _shipped(method))
    return [f"{key}={value}" for key, value in departures.items() if isinstance(value, int | float)]


def _departures(settings: Mapping[str, Any], shipped: Mapping[str, Any], prefix: str = "") -> Settings:
    """The settings that differ from ``shipped``, by dotted key; cohort and quantization have notes of their own."""
    found: Settings = {}
    for key in sorted(settings.keys() - {"cohort", "quantization", "name", "title", "block", "budgets"}):
        own, usual = settings[key], shipped.get(key)
        if isinstance(own, Mapping) and isinstance(usual, Mapping):
            found |= _departures(own, usual, f"{prefix}{key}.")
        elif own != usual:
            found[f"{prefix}{key}"] = own
    return found


def method_identity(method: Mapping[str, Any], row: str, aligner: Aligner) -> Settings:
    """The part of a row's identity that its method decides: name, version, and every setting that can change a number.

    A whole number is one setting however it is written (``1`` and ``1.0``).
    """
    settings = {key: value for key, value in method.items() if key not in _NO_NUMBERS}
    if row != method["name"]:
        settings.pop("rows", None)  # a floor's numbers do not depend on which other floors were asked for
    target = str(settings.get("_target_", ""))
    if target.startswith("baselines.") and target == _shipped(method).get("_target_"):
        del settings["_target_"]  # `version` tells of changes of ours
    more: Settings = {"row": row, "version": aligner.version}
    if aligner.data_hash:
        settings.pop("path", None)
        more["data_hash"] = aligner.data_hash
    if settings.get("cohort", 1) != 1:
        more["cohort_version"] = _COHORT_VERSION
    return {"method": canonical_numbers(settings) | more}


def told_version(protocol: EvaluationProtocol, count: int | None, intervention: Intervention | None) -> int | None:
    """The version of what methods are told, where it has changed; None where it has not.

    2: an intervention changes the held-out answers that `as_released` chooses on. 3: what is chosen on is a part of
    what is told (``count`` of the known answers), and never more than half of it.
    """
    if protocol.chooses_on_held_out:
        return None if intervention is None else 2
    inventory, known = protocol.inventory, protocol.inventory.known
    groups = {
        name: each
        for name, each in inventory.grouped(known).items()
        if name in (inventory.subscales or inventory.scales)
    }
    before = len(groups) if inventory.subscales else sum(max(1, len(each) // 5) for each in groups.values())
    return 3 if count not in (None, len(known)) or 2 * before > len(known) else None


def canonical_numbers(value: Any) -> Any:
    """The same value with every float that is a whole number as an int."""
    if isinstance(value, Mapping):
        return {key: canonical_numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [canonical_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Settings by which the rows of one table may differ, and those that change no number. Any other that differs makes
# another table.
_WITHIN_A_TABLE = frozenset({"method", "training", "known_answers", "intervention", "variant"})
_WITHOUT_MEANING = frozenset({"tracking", "runs", "name", "shard", "retry", "respondents.limit", "respondents.ids",
                              "model.budget", "model.caveat"})  # fmt: skip
_FIRST_TOLD = ("inventory.name", "respondents.name", "seed", "cost")


def comparable(settings: Mapping[str, Any]) -> Settings:
    """Every setting, by dotted key, that rows must share to be compared in one table."""
    left_out = tuple(f"{name}." for name in (*_WITHIN_A_TABLE, *_WITHOUT_MEANING))
    flat = {key: value for key, value in sorted(_flat(settings)) if not f"{key}.".startswith(left_out)}
    return {key: flat[key] for key in _FIRST_TOLD if key in flat} | canonical_numbers(flat)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def quantized(method: Settings, model: Settings) -> tuple[Settings, Settings]:
    """The method and the model with the method's own ``quantization`` (nf4, auto or none; null: the model's) settled.

    Raises UserError where bitsandbytes cannot do what is asked.
    """
    asked = method.get("quantization")
    if asked is None:
        return method, model
    if asked not in (*loading.QUANTIZATIONS, "auto"):
        choices = ", ".join((*loading.QUANTIZATIONS, "auto", "null"))
        raise UserError(f"method.quantization={asked}: choose one of {choices}.")
    reason = None if asked == "none" else loading.why_no_nf4(loading.choose_device(model["device"]))
    if asked == "nf4" and reason is not None:
        raise UserError(
            f"method.quantization=nf4: {reason} method.quantization=auto falls back to unquantized weights."
        )
    settled = "none" if asked == "none" or reason is not None else "nf4"
    if "budget" in method and settled == "none" and _shipped(method).get("quantization") == "nf4":
        method = method | {"budget": f"{method['budget']}, no NF4"}  # a row called QLoRA must say that it is none
    return method | {"quantization": settled}, model | {"quantization": settled}


def training_notes(settings: Settings, model: Settings) -> list[str]:
    """What the table says about a trained row: its budget, its people, its quantization where that is its own."""
    method, training = settings["method"], settings["training"]
    if "budget" not in method:
        return []
    said = [f"{counted(method['steps'], 'step', 'steps')} of {method['batch_size']}"]
    if method["budget"].startswith("custom"):
        said.append(f"everything else as of training={training['name']}")
    if "cohort" in method:
        said.append(f"in cohorts of at most {method['cohort']}, each person charged an equal part")
    if training["people_limit"] is not None:
        said.append(f"at most {counted(training['people_limit'])} (training.people_limit)")
    if model["quantization"] != settings["model"]["quantization"]:
        said.append(f"weights in {model['quantization'].upper().replace('NONE', 'full precision')}")
    title = method.get("title", method["name"])
    notes = [f"{title} ({method['budget']}): {', '.join(said)}."]
    if "no NF4" in method["budget"]:
        notes.append(
            f"{title} is defined with NF4 (4-bit) weights and ran without them: its costs are those of another method."
        )
    if method["budget"].startswith("quick"):
        notes.append("training=quick shows that everything runs; training=paper takes as many steps as the paper.")
    return notes


def batch_notes(model: Settings, protocol: EvaluationProtocol, repeats: int | None) -> list[str]:
    """What the table says where people's answers share batches."""
    if model["cohort"] == 1 or protocol.reading.generates or repeats:
        return []
    return [f"model.cohort={model['cohort']}: people answered in one batch share its seconds equally."]


def stored_notes(model: Settings) -> list[str]:
    """What the table says of a model whose weights are quantized in its files, or rounded when they are read."""
    if (stored := loading.stored_quantization(model)) is not None:
        return [f"{model['title']}: its weights are stored quantized ({stored})."]
    if (wider := loading.rounded_from(model)) is not None:
        return [f"{model['title']}: its weights, {wider} in its files, are rounded; model.dtype={wider} keeps them."]
    return []


def experiment_name(name: Any) -> str:
    """The experiment's name, which is a folder of the ledger and a word of commands.

    Raises UserError for one that leads elsewhere, is taken, or is no word: with ``=`` it would be a setting.
    """
    text = str(name)
    fits = len(text.encode()) <= _LONGEST_NAME
    if not re.fullmatch(r"\w[\w.+-]*", text) or not fits or text in _OTHER_FOLDERS:
        taken = "this is a folder of the ledger's own; " if text in _OTHER_FOLDERS else ""
        raise UserError(
            f"name={text}: {taken}use letters, digits, dots, dashes and underscores, at most {_LONGEST_NAME} bytes."
        )
    return text
