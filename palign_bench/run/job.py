"""One job: everything that its settings mean, resolved and checked before anything is loaded or written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from palign_bench.aligner import Aligner
from palign_bench.backbone import loading
from palign_bench.backbone.loading.settings import model_identity, model_title, resolve_model
from palign_bench.ledger.cells import CellFolder
from palign_bench.ledger.plan import PlannedJob, Row
from palign_bench.run.assembly import (
    batch_notes,
    comparable,
    experiment_name,
    method_identity,
    numbers_set,
    quantized,
    resolve_budget,
    resolve_training,
    stored_notes,
    told_version,
    training_notes,
)
from palign_bench.run.checks import (
    check_anatomy,
    check_needs,
    check_portraits,
    check_stand_ins,
    check_words,
)
from palign_bench.run.methods import for_inventory, for_people, make_aligners, title_and_block
from palign_bench.run.session import Session
from palign_bench.run.survey import Survey
from palign_bench.settings import Settings, UserError, options, read_option
from palign_bench.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Job(Survey):
    """What one Hydra job resolves: rows × people, and what the rows share.

    ``composed``: the settings as Hydra left them. ``settings``, ``model``: what they mean. ``rows``: as planned, with
    everybody.
    """

    composed: Settings
    settings: Settings
    runs: Path
    experiment: str
    model: Settings
    tracker: Tracker
    aligners: Mapping[str, Aligner]  # by row
    identities: Mapping[str, Settings]  # by row: everything that can change a number
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  # what the table says about these rows

    @classmethod
    def of(cls, settings: Settings, session: Session) -> Self:
        """Resolve the settings, then refuse what cannot be done as asked. Writes nothing, loads no model.

        Raises UserError.
        """
        survey = Survey.of(settings, session)
        inventory, protocol, source = survey.inventory, survey.protocol, survey.source
        intervention, variant, count = survey.intervention, survey.variant, survey.known_answers
        resolved, model = _resolved(settings)
        method = resolved["method"]
        aligners = for_inventory(make_aligners(method), inventory, method["name"])
        aligners, left_out = for_people(method, aligners, len(source.people))
        check_needs(aligners, model, survey.repeats)
        people = survey.people[: resolved["training"]["people_limit"]] if "budget" in method else survey.people
        check_stand_ins(settings["respondents"], source, len(people))
        check_portraits(aligners, people, source.name, intervention, count)
        shared: Settings = {
            "model": _model(model, aligners, session, survey),
            "respondents": {"source": source.name, "data_hash": source.data_hash},
            "protocol": {"name": protocol.name, "version": protocol.version},
            "inventory": inventory.name,
            "seed": survey.seed,
            "known_answers": count,
            "told_version": told_version(protocol, count, intervention),
            "writer": _writer(method, session),
            "intervention": intervention and intervention.name,
            "variant": variant and variant.name,
            "cost_repeats": survey.repeats,  # what a cell cost is measured in its own way, so it is another cell
        }
        if not str(settings["runs"]).strip():
            raise UserError("runs= is empty: name the ledger's folder, as in runs=runs.")
        runs = Path(str(settings["runs"])).expanduser()
        everybody = [person.id for person in source.people]
        of_methods = [note for aligner in aligners.values() for note in aligner.notes(everybody)]
        identities = {name: _identity(method, name, aligner, shared) for name, aligner in aligners.items()}
        place = f"{model['name'] if shared['model'] else 'none'}-{source.name}-{protocol.name}"
        ids = tuple(person.id for person in people)
        return cls(
            **(vars(survey) | {"people": people}),
            composed=settings,
            settings=resolved,
            runs=runs,
            experiment=experiment_name(settings["name"]),
            model=model,
            tracker=session.tracker(settings["tracking"], runs),
            aligners=aligners,
            identities=identities,
            rows=tuple(
                Row(name, *title_and_block(method, name, aligner), CellFolder.at(runs, f"{name}-{place}", own), ids)
                for (name, aligner), own in zip(aligners.items(), identities.values(), strict=True)
            ),
            notes=(
                *source.notes,
                *left_out,
                *of_methods,
                *training_notes(resolved, model),
                *batch_notes(model, protocol, survey.repeats),
                *(stored_notes(model) if shared["model"] else []),
            ),
        )

    def open(self) -> None:
        """Make the rows' folders in the ledger. Raises WriteError."""
        for row in self.rows:
            row.folder.keep(self.settings, self.identities[row.name])

    def planned(self, order: int, notes: Sequence[str] = ()) -> PlannedJob:
        """What the plan keeps of it. ``order``: its place in the command; ``notes``: more for the table to say."""
        asked_model = resolve_model(self.settings["model"])
        about = {
            "experiment": self.experiment,
            "model": asked_model["name"],
            "model_title": model_title(asked_model),
            "model_caveat": asked_model["caveat"],
            "protocol": self.protocol.name,
            "inventory": self.inventory.outline(),
            "respondents": self.source.name,
            "respondents_description": self.source.description,
            "source_people": len(self.source.people),
            "notes": [*self.notes, *notes],
            "cost_repeats": self.repeats,
        }
        setting = comparable(self.settings | {"model": asked_model}) | {"data_hash": self.source.data_hash}
        if self.variant is not None:  # scores on these items and on all of them never meet in a table
            setting["items"] = len(self.asked)
        return PlannedJob(order, self.rows, about, setting)

    @property
    def own_rows(self) -> tuple[Row, ...]:
        """The rows with the people of this job's part alone."""
        return tuple(row.of(self.shard.cut(row.ids)) if self.shard else row for row in self.rows)

    def tracked_name(self, row: Row) -> str:
        """What trackers call the row: method, model, protocol, seed, what was set otherwise than usual, shard."""
        asked = {"known_answers": self.known_answers, "intervention": self.intervention, "variant": self.variant}
        told = [f"{key}={getattr(value, 'name', value)}" for key, value in asked.items() if value is not None]
        told += numbers_set(self.composed["method"])
        part = [f"{self.shard.index}of{self.shard.count}"] if self.shard else []
        return "-".join((row.name, self._model_name, self.protocol.name, str(self.seed), *told, *part))

    def tags(self, row: Row) -> tuple[str, ...]:
        """What trackers can filter the row by."""
        part = (f"shard-{self.shard.index}of{self.shard.count}",) if self.shard else ()
        return row.name, self._model_name, self.protocol.name, self.source.name, f"seed-{self.seed}", *part

    @property
    def _model_name(self) -> str:
        reads = any(aligner.needs_backbone for aligner in self.aligners.values())
        return str(self.model["name"]) if reads else "none"


def _resolved(settings: Settings) -> tuple[Settings, Settings]:
    """The settings with the method and its training as they will run, and the model that the method runs on."""
    asked = resolve_model(settings["model"])
    on_cuda = loading.choose_device(asked["device"]).type == "cuda"
    training = resolve_training(settings["training"], on_cuda, asked["budget"])
    method, model = quantized(resolve_budget(settings["method"], training), asked)
    return settings | {"method": method, "training": training}, model


def _model(model: Settings, aligners: Mapping[str, Aligner], session: Session, survey: Survey) -> Settings | None:
    """Identity of a model that can do and read what is asked of it; None where no row reads one."""
    if not any(aligner.needs_backbone for aligner in aligners.values()):
        return None
    identity = model_identity(model, session.identify(model))
    protocol, variant = survey.protocol, survey.variant
    check_anatomy(aligners, model, protocol if variant is None else variant.asked(protocol))
    check_words(model, protocol, variant)
    return identity


def _writer(method: Settings, session: Session) -> Settings | None:
    """Identity of the other model that writes the prompts, where the method has one."""
    if method.get("writer") not in options("model"):
        return None
    writer = resolve_model(read_option("model", method["writer"]))
    return model_identity(writer, session.identify(writer))


def _identity(method: Settings, row: str, aligner: Aligner, shared: Settings) -> Settings:
    """Everything that can change a number of the row. What is not asked for is left out, but for the model."""
    asked = {key: value for key, value in shared.items() if value is not None or key == "model"}
    return method_identity(method, row, aligner) | asked
