"""Every method of conf/method on the tiny model, aligned once and kept for all tests of the contract."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from palign_bench.aligner import Aligner, Case
from palign_bench.backbone.alignment import Alignment, AnswerSheet
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Inventory, Respondent, ipip_neo_300
from palign_bench.respondents import simulate
from palign_bench.respondents.source import RespondentSource
from palign_bench.run.assembly import quantized, resolve_budget
from palign_bench.run.case import Cases, seed_everything
from palign_bench.run.methods import make_aligners
from palign_bench.settings import conf_folder, options
from tests.protocols import CORRECTED

# What makes a method quick on the tiny model; everything else is as its YAML has it.
SHORT: dict[str, dict[str, Any]] = {
    "personality_prompt": {"max_new_tokens": 8},
    "pas": {"alphas": [0, 2], "k": 4},
    "pas_no_prompt": {"alphas": [0, 2], "k": 4},
    "pas_random": {"alphas": [0, 2], "k": 4},
}
SHORT_TRAINING = {"steps": 3, "batch_size": 4}
LEARNING_RATE = 1e-3  # so that three steps move the tiny model's answers


@dataclass
class Outcome:
    """What one method did for one person, and the model's logits around it."""

    aligner: Aligner
    backbone: LocalBackbone | None
    alignment: Alignment
    sheet: AnswerSheet | None
    logits_before: torch.Tensor | None
    logits_after: torch.Tensor | None


@dataclass
class Bench:
    """Aligners on tiny backbones (one per quantization), people, and what came out so far."""

    folder: Path
    inventory: Inventory = field(default_factory=ipip_neo_300)
    source: RespondentSource = field(default_factory=lambda: simulate(count=12, seed=3))
    backbones: dict[str, LocalBackbone] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def model_settings(self, name: str) -> dict[str, Any]:
        """The resolved model settings of a method's row."""
        return self._resolved(name)[1]

    def aligner(self, name: str) -> tuple[Aligner, LocalBackbone | None]:
        """A prepared aligner; of the floors (one YAML, many aligners) the ridge, which uses other people."""
        method, model = self._resolved(name)
        made = make_aligners(method)
        aligner = made.get(name) or made.get("ridge") or made["facet_mean"]
        backbone = self._backbone(model) if aligner.needs_backbone else None
        seed_everything(0)
        aligner.prepare(backbone, CORRECTED)
        return aligner, backbone

    def case(self, aligner: Aligner, person: Respondent, seed: int = 0) -> Case:
        """What the runner would tell the aligner about the person."""
        everyone = tuple(person if p.id == person.id else p for p in self.source.people)
        source = replace(self.source, people=everyone)
        told = {
            "protocol": CORRECTED,
            "source": source,
            "known_answers": None,
            "intervention": None,
        }
        cases = Cases(SimpleNamespace(**told, seed=seed))
        return cases.case(replace(person, portrait="You are kind."), aligner.needs)

    def align(self, aligner: Aligner, person: Respondent, seed: int = 0) -> Alignment:
        """Align as the runner does."""
        case = self.case(aligner, person, seed)
        seed_everything(case.seed)
        return aligner.align(case)

    def outcome(self, name: str) -> Outcome:
        """Align and answer the first person, once per method."""
        if name not in self.outcomes:
            aligner, backbone = self.aligner(name)
            before = logits(backbone)
            alignment = self.align(aligner, self.source.people[0])
            items = self.inventory.select(self.inventory.held_out)
            sheet = None
            if alignment.answers is None:
                assert backbone is not None
                sheet = backbone.answer(alignment, items)
            self.outcomes[name] = Outcome(aligner, backbone, alignment, sheet, before, logits(backbone))
        return self.outcomes[name]

    def _resolved(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        overrides = [f"method={name}", "model=local", f"model.name_or_path={self.folder}", "model.dtype=float32"]
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose("config", [*overrides, f"runs={self.folder / 'runs'}"])
        settings: Any = OmegaConf.to_container(config, resolve=True)
        settings["method"] |= SHORT.get(name, {})
        if "budgets" in settings["method"]:
            settings["method"] |= SHORT_TRAINING | {"learning_rate": LEARNING_RATE}
        return quantized(resolve_budget(settings["method"], {"name": "quick"}), resolve_model(settings["model"]))

    def _backbone(self, model: dict[str, Any]) -> LocalBackbone:
        key = model["quantization"]
        if key not in self.backbones:
            self.backbones[key] = LocalBackbone(load(model), CORRECTED)
        return self.backbones[key]


def logits(backbone: LocalBackbone | None) -> torch.Tensor | None:
    """The bare model's logits for a fixed text."""
    if backbone is None:
        return None
    ids = torch.arange(5, 45).view(2, 20)
    with torch.no_grad():
        return backbone.model(input_ids=ids).logits.clone()


@pytest.fixture(scope="session")
def bench(tiny_folder: Path) -> Iterator[Bench]:
    yield Bench(tiny_folder)


@pytest.fixture(params=options("method"))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)
