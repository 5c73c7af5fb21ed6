"""The resolved configuration: where `conf/` lies, what a run's settings mean, and what of them can change a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import instantiate

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import ServedBackbone
from palign_bench.questionnaire.inventory import Inventory, Respondent
from palign_bench.questionnaire.protocol import PROTOCOLS, EvaluationProtocol
from palign_bench.report.names import readable
from palign_bench.run.claims import RETRIES
from palign_bench.run.experiment import Experiment
from palign_bench.settings import Settings, UserError, options, read_option

# What cannot change a number stays out of a cell's identity: where files lie and where the method's code stands.
_METHOD_PLACES = frozenset({"portraits", "_target_"})


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

    ``budget`` in the result is the budget's name, or "custom: …" with what departs from it and from the method's file;
    the row's name carries it. Raises UserError for a budget that the method does not have.
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
    settings |= {key: value for key, value in budget.items() if settings.get(key) == "auto"}
    departures = _departures(settings, _shipped(method) | dict(budget))
    return settings | {"budget": f"custom: {', '.join(departures)}" if departures else training["name"]}


def _shipped(method: Mapping[str, Any]) -> Settings:
    """The method's file in `conf/`; the method itself where it is a user's own."""
    return read_option("method", method["name"]) if method["name"] in options("method") else dict(method)


def _departures(settings: Mapping[str, Any], shipped: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The settings that differ from ``shipped``, as ``key=value``; cohort and quantization have notes of their own."""
    found = []
    for key in settings.keys() - {"cohort", "quantization", "name", "budgets"}:
        own, usual = settings[key], shipped.get(key)
        if isinstance(own, Mapping) and isinstance(usual, Mapping):
            found += _departures(own, usual, f"{prefix}{key}.")
        elif own != usual:
            found.append(f"{prefix}{key}={own}")
    return sorted(found)


def method_identity(method: Mapping[str, Any]) -> Settings:
    """The part of a method's settings that can change a number."""
    return {key: value for key, value in method.items() if key not in _METHOD_PLACES}


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


def make_aligners(method: Mapping[str, Any]) -> dict[str, Aligner]:
    """The method's aligner under its name, or the several that its target makes (floors).

    Raises UserError for a setting that the method refuses.
    """
    settings = {key: value for key, value in method.items() if key not in ("name", "quantization")}
    writer = settings.get("writer")
    if writer is not None and writer not in ("self", "released", "template"):
        if writer not in options("model"):
            choices = ", ".join(("self", "released", "template", *options("model")))
            raise UserError(f"method.writer={writer}: choose one of {choices}.")
        settings["writer"] = resolve_model(read_option("model", writer))
    try:
        made = instantiate(settings, _convert_="all")
    except Exception as error:  # Hydra wraps whatever the constructor raised
        cause = error.__cause__ or error
        raise UserError(f"method={method['name']}: {cause}") from error
    return dict(made) if isinstance(made, Mapping) else {str(method["name"]): made}


def check_needs(aligners: Mapping[str, Aligner], model: Mapping[str, Any]) -> None:
    """Raise UserError when a method needs what the model's kind of backbone lacks, before anything is loaded."""
    of_the_source = {"people", "held_out", "portrait"}
    of_the_weights = {"unquantized weights"} if model["quantization"] == "none" else set()
    served = model["engine"] == "vllm"
    of_the_backbone = (ServedBackbone if served else LocalBackbone).capabilities
    for name, aligner in aligners.items():
        lacking = aligner.needs - of_the_backbone - of_the_source - of_the_weights
        if aligner.needs_backbone and lacking:
            by = "model.engine=vllm does not open; use model.engine=auto" if served else f"model={model['name']} lacks"
            raise UserError(f"method={name} needs {', '.join(sorted(lacking))}, which {by}.")


def check_shapes(aligners: Mapping[str, Aligner], model: Settings) -> None:
    """Raise UserError when a method asks for more than the model has (PAS: heads), before its weights are loaded."""
    shape = loading.shape_of(model)
    if shape is None:
        return
    for aligner in aligners.values():
        if aligner.needs_backbone:
            aligner.check_shape(*shape)


def check_portraits(aligners: Mapping[str, Aligner], people: Sequence[Respondent], source: str) -> None:
    """Raise UserError when a method needs released portraits of people who have none, before anything is loaded."""
    without = [person.id for person in people if not person.portrait]
    for name, aligner in aligners.items():
        if "portrait" in aligner.needs and without:
            raise UserError(
                f"method={name} with released portraits: person {without[0]} of respondents={source} has none; "
                "use method.writer=self or respondents=papi."
            )


def _training_notes(method: Settings, model: Settings, asked_model: Settings, training: Settings) -> list[str]:
    """What the table says about a trained row: its budget, its people, its quantization where that is its own."""
    if "budget" not in method:
        return []
    said = [f"{method['steps']} steps of {method['batch_size']}"]
    if method["budget"].startswith("custom"):
        said.append(f"everything else as of training={training['name']}")
    if "cohort" in method:
        said.append(f"in cohorts of {method['cohort']}")
    if training["people_limit"] is not None:
        said.append(f"at most {training['people_limit']} people (training.people_limit)")
    if model["quantization"] != asked_model["quantization"]:
        said.append(f"weights in {model['quantization'].upper().replace('NONE', 'full precision')}")
    notes = [f"{readable(method['name'])} ({method['budget']}): {', '.join(said)}."]
    if "no NF4" in method["budget"]:
        notes.append(
            f"{readable(method['name'])} is defined with NF4 (4-bit) weights and ran without them: its costs are those "
            "of another method."
        )
    if method["budget"].startswith("quick"):
        notes.append("training=quick shows that everything runs; training=paper takes as many steps as the paper.")
    return notes


def _batch_notes(experiment: Experiment, model: Settings) -> list[str]:
    """What the table says where people's answers share batches."""
    together = model["engine"] == "together" and not experiment.protocol.reading.generates and not experiment.repeats
    return ["model.engine=together: people answered in one batch share its seconds equally."] if together else []


def _protocol(settings: Mapping[str, Any], inventory: Inventory) -> EvaluationProtocol:
    name = settings["name"]
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name} does not exist; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name](inventory)


def _retry(retry: Any) -> str:
    if retry not in RETRIES:
        raise UserError(f"retry={retry}: choose one of {', '.join(RETRIES)}.")
    return str(retry)


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed={seed}: give a whole number.")
    return seed
