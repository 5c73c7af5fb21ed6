"""One job of a command: from resolved settings to recorded cells, and the tables at the command's end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from transformers.utils import logging as transformers_logging

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.backbone.base import QuestionnaireBackbone
from palign_bench.backbone.loading.settings import model_identity, model_title, resolve_model
from palign_bench.backbone.local import LocalBackbone
from palign_bench.backbone.served import ServedBackbone, serve
from palign_bench.cases import told_items
from palign_bench.claims import RETRIES, Shard
from palign_bench.configuration import method_identity, resolve_budget, resolve_training
from palign_bench.costs.machine import provenance
from palign_bench.experiment import Experiment, Row
from palign_bench.isolation import check_cohort, cost_repeats, is_measuring, refuse_finished, run_isolated
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Respondent, ipip_neo_300
from palign_bench.questionnaire.protocol import PROTOCOLS, EvaluationProtocol
from palign_bench.report import make_report
from palign_bench.report.names import readable
from palign_bench.respondents import load_respondents
from palign_bench.runner import run_row
from palign_bench.settings import Settings, UserError, options, read_option
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.tracker import Tracker

transformers_logging.disable_progress_bar()  # ours are per person; a bar per weight file would drown them

_order = 0  # of the jobs of this process; the rows' order in the table
# One at a time: a sweep over methods loads its model once.
_backbones: dict[str, tuple[QuestionnaireBackbone, float]] = {}
_trackers: dict[str, Tracker] = {}


def run(settings: Settings, command: str, order: int | None = None) -> int:
    """Run one method on the selected people. Returns how many cells failed. Raises UserError before any work starts."""
    global _order
    asked, repeats = settings, cost_repeats(settings)
    protocol = _protocol(settings["protocol"])
    asked_model = resolve_model(settings["model"])
    training = resolve_training(settings["training"], loading.choose_device(asked_model["device"]).type == "cuda")
    method, model = quantized(resolve_budget(settings["method"], training), asked_model)
    settings = settings | {"method": method, "training": training}
    aligners = make_aligners(method, protocol)
    check_needs(aligners, model)
    check_cohort(aligners, repeats)
    source = load_respondents(settings["respondents"])
    people = source.select(settings["respondents"].get("limit"), settings["respondents"].get("ids"))
    if "training" in method:
        people = people[: training["people_limit"]]
    shard = Shard.parse(settings["shard"])
    if shard is not None:
        people = tuple(shard.cut(people))
    check_portraits(aligners, people, source.name)
    needs_backbone = any(aligner.needs_backbone for aligner in aligners.values())
    identified = model_identity(model, loading.identify(model)) if needs_backbone else None
    if needs_backbone:
        check_shapes(aligners, model)
    runs = Path(settings["runs"])
    experiment = Experiment(
        runs=runs,
        inventory=ipip_neo_300(),
        protocol=protocol,
        source=source,
        people=people,
        model_name=model["name"] if needs_backbone else "none",
        seed=_seed(settings["seed"]),
        load_backbone=lambda: load_backbone(model, protocol),
        provenance=provenance(),
        tracker=_tracker(settings["tracking"], runs),
        group=settings["name"],
        known_answers=settings["known_answers"],
        repeats=repeats,
        retry=_retry(settings["retry"]),
        shard=shard,
    )
    told_items(experiment.inventory, experiment.known_answers, experiment.seed)  # refuses before anything is loaded
    rows = [_row(name, aligner, settings, identified, experiment) for name, aligner in aligners.items()]
    planned = [experiment.planned(row) for row in rows]
    order = _job_number() if order is None else order
    if repeats:
        refuse_finished(planned)
        if not is_measuring():
            _order += 1
            return run_isolated(asked, command, order)
    about = {
        "experiment": settings["name"],
        "model": model["name"],
        "model_title": model_title(asked_model),
        "protocol": protocol.name,
        "respondents": source.name,
        "respondents_description": source.description,
        "notes": _training_notes(method, model, asked_model, training) + _batch_notes(experiment, model),
    }
    plan = Plan(runs, settings["name"], model["name"], protocol.name)
    part = (shard.index, shard.count) if shard else None
    plan.add(command, planned, order=order, about=about, shard=part)
    _order += 1
    return sum(run_row(experiment, row, cells) for row, cells in zip(rows, planned, strict=True))


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
    return method | {"quantization": settled}, model | {"quantization": settled}


def make_aligners(method: Mapping[str, Any], protocol: EvaluationProtocol) -> dict[str, Aligner]:
    """The method's aligner under its name, or the several that its target makes (floors).

    A target with a parameter ``protocol`` is given it: it answers in the protocol's orientation itself. Raises
    UserError for a setting that the method refuses.
    """
    settings = {key: value for key, value in method.items() if key not in ("name", "quantization")}
    writer = settings.get("writer")
    if writer is not None and writer not in ("self", "released", "template"):
        if writer not in options("model"):
            choices = ", ".join(("self", "released", "template", *options("model")))
            raise UserError(f"method.writer={writer}: choose one of {choices}.")
        settings["writer"] = resolve_model(read_option("model", writer))
    try:
        asked_for = signature(get_object(settings["_target_"])).parameters
        extra = {"protocol": protocol} if "protocol" in asked_for else {}
        made = instantiate(settings, **extra, _convert_="all")
    except Exception as error:  # Hydra wraps whatever the constructor raised
        cause = error.__cause__ or error
        raise UserError(f"method={method['name']}: {cause}") from error
    return dict(made) if isinstance(made, Mapping) else {str(method["name"]): made}


def check_needs(aligners: Mapping[str, Aligner], model: Mapping[str, Any]) -> None:
    """Raise UserError when a method needs what the model's kind of backbone lacks, before anything is loaded."""
    of_the_source = {"people", "truth", "portrait"}
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


def load_backbone(model: Settings, protocol: EvaluationProtocol) -> tuple[QuestionnaireBackbone, float]:
    """The backbone and the seconds that loading took; a model stays loaded until another is asked for."""
    key = repr(sorted(model.items(), key=str))
    if key not in _backbones:
        _backbones.clear()
        print(f"Loading {model_title(model)} …", file=sys.stderr, flush=True)
        started = time.perf_counter()
        if model["engine"] == "vllm":
            made: QuestionnaireBackbone = serve(model, protocol)
        else:
            made = LocalBackbone(loading.load(model), protocol, engine=model["engine"])
        _backbones[key] = (made, time.perf_counter() - started)
    backbone, seconds = _backbones[key]
    backbone.protocol = protocol
    return backbone, seconds


def show_tables(runs: Path, name: str, command: str, tracking: Settings, shard: str | None = None) -> int | None:
    """Build, print and track every table that has rows of this command. Returns how many of their cells are missing.

    With a shard: how many of the shard's own; the table shows what there is of all of them. None: no such table.
    """
    missing = shown = 0
    for folder in sorted((runs / name).glob("*/plan/last.json")):
        model, _, protocol = folder.parent.parent.name.rpartition("-")
        plan = Plan(runs, name, model, protocol)
        if plan.last_command() != command:
            continue
        report, pictures, text = make_report(plan)
        print(text, flush=True)
        _tracker(tracking, runs).log_table(report.frame, pictures, report.title)
        shown += 1
        part = Shard.parse(shard)
        if part is None:
            missing += int(report.frame["missing_cells"].sum())
        else:
            missing += sum(len(cells.missing()) for cells in plan.read((part.index, part.count))[0])
    return missing if shown else None


def _row(name: str, aligner: Aligner, settings: Settings, model: Settings | None, experiment: Experiment) -> Row:
    method = method_identity(settings["method"]) | {"row": name, "version": aligner.version}
    if name != settings["method"]["name"]:
        method.pop("rows", None)  # a floor's numbers do not depend on which other floors were asked for
    identity = {
        "method": method,
        "model": model,
        "respondents": {"source": experiment.source.name, "data_hash": experiment.source.data_hash},
        "protocol": {"name": experiment.protocol.name, "version": experiment.protocol.version},
        "inventory": experiment.inventory.name,
        "seed": experiment.seed,
    }
    if experiment.known_answers is not None:
        identity["known_answers"] = experiment.known_answers
    return Row(name, aligner, identity, {k: v for k, v in settings.items() if k != "sweep"})


def _training_notes(method: Settings, model: Settings, asked_model: Settings, training: Settings) -> list[str]:
    """What the table says about a trained row: its budget, its people, its quantization where that is its own."""
    if "training" not in method:
        return []
    said = [f"{method['steps']} steps of {method['batch_size']}"]
    if "cohort" in method:
        said.append(f"in cohorts of {method['cohort']}")
    if training["people_limit"] is not None:
        said.append(f"at most {training['people_limit']} people (training.people_limit)")
    if model["quantization"] != asked_model["quantization"]:
        said.append(f"weights in {model['quantization'].upper().replace('NONE', 'full precision')}")
    notes = [f"{readable(method['name'])}: training={method['training']}, {', '.join(said)}."]
    if method["training"] == "quick":
        notes.append("training=quick shows that everything runs; training=paper takes as many steps as the paper.")
    return notes


def _batch_notes(experiment: Experiment, model: Settings) -> list[str]:
    """What the table says where people's answers share batches."""
    together = model["engine"] == "together" and not experiment.protocol.reading.generates and not experiment.repeats
    return ["model.engine=together: people answered in one batch share its seconds equally."] if together else []


def _protocol(settings: Mapping[str, Any]) -> EvaluationProtocol:
    name = settings["name"]
    if name not in PROTOCOLS:
        raise UserError(f"protocol={name} does not exist; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]()


def _retry(retry: Any) -> str:
    if retry not in RETRIES:
        raise UserError(f"retry={retry}: choose one of {', '.join(RETRIES)}.")
    return str(retry)


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed={seed}: give a whole number.")
    return seed


def _tracker(settings: Mapping[str, Any], runs: Path) -> Tracker:
    key = repr(sorted(settings.items(), key=str))
    if key not in _trackers:
        _trackers[key] = make_tracker(settings, runs)
    return _trackers[key]


def _job_number() -> int:
    """The job's place in its sweep (a joblib worker counts from Hydra's number, not from its own process)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return _order
    number = OmegaConf.select(OmegaConf.create({"job": HydraConfig.get().job}), "job.num", default=None)
    return _order if number is None else int(number)
