"""Trained aligners on the tiny model, with settings that let it learn in seconds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from baselines.training.aligner import TrainedAligner
from baselines.training.dpo import DirectPreferenceOptimization
from baselines.training.ppo import ProximalPolicyOptimization
from baselines.training.rloo import ReinforceLeaveOneOut
from baselines.training.supervised import SupervisedFineTuning
from palign_bench.aligner import Case
from palign_bench.backbone.alignment import Alignment
from palign_bench.backbone.loading.settings import resolve_model
from palign_bench.backbone.loading.weights import LoadedModel, load
from palign_bench.backbone.local import LocalBackbone
from palign_bench.questionnaire.inventory import OPTIONS, Inventory
from palign_bench.respondents import RespondentSource
from palign_bench.settings import read_option
from tests.protocols import CORRECTED
from tests.tiny import tiny_model, tiny_tokenizer

LORA = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": "all-linear"}
PROMPT = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8, "prompt_tuning_init": "SAMPLE_VOCAB"}
COMMON: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 8, "steps": 3, "schedule": "constant"}
METHODS: dict[str, Callable[..., TrainedAligner]] = {
    "lora": lambda **s: SupervisedFineTuning(**{"peft": LORA, **COMMON, **s}),
    "full": lambda **s: SupervisedFineTuning(**{"peft": None, **COMMON, **s}),
    "prompt": lambda **s: SupervisedFineTuning(**{"peft": PROMPT, **COMMON, **s}),
    "dpo": lambda **s: DirectPreferenceOptimization(**{"peft": LORA, **COMMON, **s}),
    "ppo": lambda **s: ProximalPolicyOptimization(**{"peft": LORA, "epochs": 2, **COMMON, **s}),
    "rloo": lambda **s: ReinforceLeaveOneOut(**{"peft": LORA, "generations": 4, **COMMON, **s}),
}


@dataclass
class Bench:
    """A backbone, and aligners prepared on it."""

    backbone: LocalBackbone
    inventory: Inventory
    source: RespondentSource

    def aligner(self, name: str, **settings: Any) -> TrainedAligner:
        aligner = METHODS[name](**settings)
        aligner.prepare(self.backbone, self.backbone.protocol)
        return aligner

    def case(self, index: int = 0, seed: int = 0, known: dict[int, int] | None = None) -> Case:
        person = self.source.people[index]
        known = CORRECTED.known(person) if known is None else known
        return Case(respondent_id=person.id, known=known, selection={}, seed=seed)

    def error(self, alignment: Alignment, known: dict[int, int]) -> float:
        """Mean absolute difference of the alignment's answers to the known items."""
        answers = self.backbone.answer(alignment, self.inventory.select(sorted(known))).answers
        return sum(abs(answers[n] - value) for n, value in known.items()) / len(known)

    def surprise(self, alignment: Alignment, known: dict[int, int]) -> float:
        """Mean negative log-probability of the person's own options: what supervised training lowers."""
        found = self.backbone.answer(alignment, self.inventory.select(sorted(known))).log_probs
        assert found is not None
        own = {option.value: index for index, option in enumerate(OPTIONS)}
        return -sum(found[n][own[value]] for n, value in known.items()) / len(known)


@pytest.fixture
def bench(tiny_backbone: LocalBackbone, inventory: Inventory, simulated: RespondentSource) -> Bench:
    return Bench(tiny_backbone, inventory, simulated)


@pytest.fixture
def nf4_backbone(tiny_folder: Any) -> LocalBackbone:
    settings = read_option("model", "local") | {"name_or_path": str(tiny_folder), "dtype": "float32"}
    return LocalBackbone(load(resolve_model(settings) | {"quantization": "nf4"}), CORRECTED)


@pytest.fixture(scope="session")
def talking_weights(inventory: Inventory, simulated: RespondentSource) -> Mapping[str, Tensor]:
    """Weights with which the tiny model answers with a random option in the right words; trained once."""
    tokenizer = tiny_tokenizer()
    model = LoadedModel(tiny_model(tokenizer), tokenizer, "tiny", "tiny", "none")
    bench = Bench(LocalBackbone(model, CORRECTED), inventory, simulated)
    known = {n: 1 + (7 * n) % 5 for n in inventory.known}
    alignment = bench.aligner("full", learning_rate=2e-3, steps=60, batch_size=16).align(bench.case(known=known))
    assert alignment.adapter is not None
    return {name: tensor.clone() for name, tensor in alignment.adapter.items()}


@pytest.fixture
def talking_bench(bench: Bench, talking_weights: Mapping[str, Tensor]) -> Bench:
    """A model that talks: on-policy methods need something to reward."""
    for name, parameter in bench.backbone.model.named_parameters():
        parameter.data.copy_(talking_weights[name])
    return bench
