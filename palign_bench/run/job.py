"""One job of a command: from resolved settings to recorded cells, and the tables at the command's end."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import OmegaConf
from transformers.utils import logging as transformers_logging

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.backbone.loading.settings import model_identity, model_title, resolve_model
from palign_bench.costs.machine import provenance
from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import ipip_neo_300
from palign_bench.respondents import load_respondents
from palign_bench.run.assembly import (
    _batch_notes,
    _protocol,
    _retry,
    _seed,
    _training_notes,
    check_needs,
    check_portraits,
    check_shapes,
    make_aligners,
    method_identity,
    quantized,
    resolve_budget,
    resolve_training,
)
from palign_bench.run.case import told_items
from palign_bench.run.experiment import Experiment, Row
from palign_bench.run.isolated import check_cohort, cost_repeats, is_measuring, refuse_finished, run_isolated
from palign_bench.run.row import run_row
from palign_bench.run.session import _tracker, load_backbone
from palign_bench.run.shard import Shard
from palign_bench.settings import Settings

transformers_logging.disable_progress_bar()  # ours are per person; a bar per weight file would drown them


def run(settings: Settings, command: str, order: int | None = None) -> int:
    """Run one method on the selected people. Returns how many cells failed. Raises UserError before any work starts."""
    global _order
    asked, repeats = settings, cost_repeats(settings)
    protocol = _protocol(settings["protocol"], ipip_neo_300())
    asked_model = resolve_model(settings["model"])
    training = resolve_training(settings["training"], loading.choose_device(asked_model["device"]).type == "cuda")
    method, model = quantized(resolve_budget(settings["method"], training), asked_model)
    settings = settings | {"method": method, "training": training}
    aligners = make_aligners(method)
    check_needs(aligners, model)
    check_cohort(aligners, repeats)
    source = load_respondents(settings["respondents"])
    if _order == 0:
        for note in source.notes:
            print(note, file=sys.stderr)
    people = source.select(settings["respondents"].get("limit"), settings["respondents"].get("ids"))
    if "budget" in method:
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
    told_items(protocol.inventory, experiment.known_answers, experiment.seed)  # refuses before anything is loaded
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
        "notes": [
            *source.notes,
            *_training_notes(method, model, asked_model, training),
            *_batch_notes(experiment, model),
        ],
    }
    plan = Plan(runs, settings["name"], model["name"], protocol.name)
    part = (shard.index, shard.count) if shard else None
    plan.add(command, planned, order=order, about=about, shard=part)
    _order += 1
    return sum(run_row(experiment, row, cells) for row, cells in zip(rows, planned, strict=True))


def _row(name: str, aligner: Aligner, settings: Settings, model: Settings | None, experiment: Experiment) -> Row:
    method = method_identity(settings["method"]) | {"row": name, "version": aligner.version}
    if name != settings["method"]["name"]:
        method.pop("rows", None)  # a floor's numbers do not depend on which other floors were asked for
    identity = {
        "method": method,
        "model": model,
        "respondents": {"source": experiment.source.name, "data_hash": experiment.source.data_hash},
        "protocol": {"name": experiment.protocol.name, "version": experiment.protocol.version},
        "inventory": experiment.protocol.inventory.name,
        "seed": experiment.seed,
    }
    if experiment.known_answers is not None:
        identity["known_answers"] = experiment.known_answers
    return Row(name, aligner, identity, {k: v for k, v in settings.items() if k != "sweep"})


_order = 0  # of the jobs of this process; the rows' order in the table


def _job_number() -> int:
    """The job's place in its sweep (a joblib worker counts from Hydra's number, not from its own process)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return _order
    number = OmegaConf.select(OmegaConf.create({"job": HydraConfig.get().job}), "job.num", default=None)
    return _order if number is None else int(number)
