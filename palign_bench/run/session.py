"""What the jobs of one command share while it runs. PyTorch, which takes seconds, is imported with the first model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from palign_bench.files import canonical
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.respondents import RespondentSource, is_stand_in, load_inventory, load_respondents
from palign_bench.run.answers import AnswerMemo
from palign_bench.settings import Settings, UserError
from palign_bench.tracking.choose import make_tracker
from palign_bench.tracking.tracker import Tracker

if TYPE_CHECKING:
    from palign_bench.backbone.base import Backbone

Made = TypeVar("Made")


class Session:
    """The command, the loaded model, the people, the answers that may be taken over, and the trackers.

    Made by the command and handed down. A launcher's worker, to which it is pickled, starts with the command alone and
    loads for itself.
    """

    def __init__(self, command: str = "", arguments: Sequence[str] = (), is_worker: bool = False):
        self.command = command  # the id that all processes of one command share
        self.arguments = tuple(arguments)
        self.is_worker = is_worker
        self.answers = AnswerMemo()
        self.mistakes: list[str] = []
        self._model = ""  # which one is loaded: one at a time
        self._backbones: dict[tuple[str, str, tuple[int, ...]], tuple[Backbone, float]] = {}
        self._made: dict[str, Any] = {}  # inventories, sources, identities and trackers, by their settings

    def __reduce__(self) -> tuple[type[Self], tuple[str, Sequence[str], bool]]:
        return type(self), (self.command, self.arguments, True)

    def load_backbone(self, model: Settings, protocol: EvaluationProtocol) -> tuple[Backbone, float]:
        """The model under this protocol, with the seconds that loading took.

        It stays loaded until another is asked for, and is loaded anew where a method has changed it. Every protocol,
        inventory and order of known answers has a backbone of its own, which share the weights, so that nobody's
        protocol changes while it is held.
        """
        from palign_bench.backbone import loading
        from palign_bench.backbone.loading.settings import ModelError, model_title
        from palign_bench.backbone.local import LocalBackbone
        from palign_bench.backbone.served import serve

        key, questions = canonical(model), (protocol.name, protocol.inventory.name, protocol.listing.known)
        kept = next((backbone for backbone, _ in self._backbones.values()), None)
        if self._model != key or (kept is not None and not kept.is_as_loaded()):
            for backbone, _ in self._backbones.values():
                backbone.close()
            self._backbones.clear()
            self._model = key
        if not self._backbones:
            print(f"Loading {model_title(model)} …", file=sys.stderr, flush=True)
            started = time.perf_counter()
            if model["engine"] == "vllm":
                made: Backbone = serve(model, protocol)
            else:
                loaded = loading.load(model)
                if (loaded.weights_hash, loaded.tokenizer_hash) != self._planned(model):  # cells are kept by these
                    raise ModelError(
                        f"model={model['name']}: its files have changed since this command began; type it again"
                    )
                made = LocalBackbone(loaded, protocol, engine=model["engine"], cohort=model["cohort"])
            self._backbones[questions] = made, time.perf_counter() - started
        if questions not in self._backbones:
            other, seconds = next(iter(self._backbones.values()))
            self._backbones[questions] = other.asking(protocol), seconds
        return self._backbones[questions]

    def inventory(self, settings: Mapping[str, Any]) -> Inventory:
        """The inventory that the settings name, read once. Raises UserError."""
        return self._once("inventory", settings, lambda: load_inventory(settings))

    def source(self, respondents: Mapping[str, Any], inventory: Inventory) -> RespondentSource:
        """The people that the settings name, loaded once. Raises RespondentsError."""
        asked = {name: value for name, value in respondents.items() if name not in ("limit", "ids")}

        def load() -> RespondentSource:
            source = load_respondents(respondents, inventory)
            instead = [f"respondents=auto: {source.description}"] if is_stand_in(respondents, source) else []
            for note in (*instead, *source.notes):
                print(note, file=sys.stderr)
            return source

        return self._once("source", asked | {"inventory": inventory.name}, load)

    def identify(self, model: Settings) -> dict[str, str]:
        """What identifies weights and chat format (`loading.identify`): large files are read once for all jobs."""
        from palign_bench.backbone import loading

        return self._once("identity", model, lambda: loading.identify(model))

    def _planned(self, model: Settings) -> tuple[str, str]:
        identified = self.identify(model)
        return identified["weights_hash"], identified["tokenizer_hash"]

    def note(self, error: UserError) -> None:
        """Tell a mistake of the user's, once however many jobs make it."""
        if str(error) not in self.mistakes:
            print(f"palign-bench: {error.sentence}", file=sys.stderr)
            self.mistakes.append(str(error))

    def tracker(self, settings: Mapping[str, Any], runs: Path) -> Tracker:
        """The tracker that the settings name, made once. Raises UserError for settings that it refuses."""
        return self._once("tracker", {**settings, "runs": str(runs)}, lambda: make_tracker(settings, runs))

    def _once(self, what: str, settings: Mapping[str, Any], make: Callable[[], Made]) -> Made:
        key = f"{what} {canonical(dict(settings))}"
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]
