"""The shipped organism, people of whom the truth is known, and methods as their YAML has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from palign_bench.aligner import Aligner
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import package_path, resolve_model
from palign_bench.backbone.loading.weights import load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import Answers, Inventory, Respondent, ipip_neo_300
from palign_bench.questionnaire.scoring import COMPOSITE, aligned_scores
from palign_bench.respondents import RespondentSource, simulate
from palign_bench.run.assembly import resolve_budget
from palign_bench.run.case import Cases, seed_everything
from palign_bench.run.methods import make_aligners
from palign_bench.settings import conf_folder, read_option
from tests.protocols import CORRECTED


@dataclass
class Testbed:
    """The organism, and simulated people of the figures that it was trained on (other people: another seed)."""

    __test__ = False
    inventory: Inventory = field(default_factory=ipip_neo_300)
    source: RespondentSource = field(default_factory=lambda: simulate(count=40, seed=11, figures="published"))

    def __post_init__(self) -> None:
        self.protocol = CORRECTED
        self.backbone = LocalBackbone(load(self._settings("vanilla")["model"]), self.protocol)
        self.items = self.inventory.select(self.inventory.held_out)

    @property
    def people(self) -> tuple[Respondent, ...]:
        return self.source.people

    def aligner(self, method: str, **settings: Any) -> Aligner:
        """The method, prepared; ``settings`` override its YAML."""
        resolved = self._settings(method)["method"] | settings
        (aligner,) = make_aligners(resolve_budget(resolved, {"name": "quick"})).values()
        aligner.prepare(self.backbone if aligner.needs_backbone else None, self.protocol)
        return aligner

    def align(
        self, aligner: Aligner, person: Respondent, known_answers: int | None = None, told: Answers | None = None
    ) -> Alignment:
        """The person's alignment; ``told`` stands in for the person's own answers."""
        told_person = person if told is None else replace(person, answers=dict(told))
        everyone = tuple(told_person if p.id == person.id else p for p in self.people)
        source = replace(self.source, people=everyone)
        experiment: Any = SimpleNamespace(
            protocol=self.protocol, source=source, seed=0, known_answers=known_answers, intervention=None
        )
        case = Cases(experiment).case(told_person, aligner.needs)
        seed_everything(case.seed)
        return aligner.align(case)

    def answers(self, alignment: Alignment) -> Answers:
        """The held-out answers under an alignment."""
        if alignment.answers is not None:
            return alignment.answers
        return self.backbone.answer(alignment, self.items).answers

    def composite(self, answers: Answers, person: Respondent) -> float:
        """The person's composite of these answers."""
        scores = aligned_scores(self.inventory, answers, self.protocol.truth(self.protocol.held_out(person)))
        composite = scores[COMPOSITE]
        assert composite is not None
        return composite

    def composites(self, method: str, people: Sequence[Respondent], **settings: Any) -> np.ndarray:
        """Every person's composite under an alignment of their own."""
        aligner = self.aligner(method, **settings)
        return np.array([self.composite(self.answers(self.align(aligner, person)), person) for person in people])

    @staticmethod
    def _settings(method: str) -> dict[str, Any]:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            simulated = ["respondents=simulated", "respondents.figures=published"]
            config = compose("config", [f"method={method}", "model=organism", *simulated])
        settings: Any = OmegaConf.to_container(config, resolve=True)
        return settings | {"model": resolve_model(settings["model"])}


@pytest.fixture(scope="session")
def testbed() -> Testbed:
    """Skips while no trained organism lies in the package."""
    settings = resolve_model(read_option("model", "organism"))
    if not package_path(settings["package"], settings["package_file"]).exists():
        pytest.skip("no trained organism lies in the package")
    return Testbed()
