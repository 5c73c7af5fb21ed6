"""A backbone whose hidden states a test plants, and people who answer by them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from baselines.readout.aligner import ClosedFormReadout
from palign_bench.aligner import Case
from palign_bench.questionnaire.inventory import Answers, Inventory, Item, Respondent
from palign_bench.questionnaire.prompts import CONTRASTS, contrast
from palign_bench.questionnaire.protocol import EvaluationProtocol
from palign_bench.questionnaire.scoring import as_matrix

WIDTH = 6
SETTINGS = {"contrasts": ["kind"], "depths": [1.0], "noises": [0.1, 0.3], "weights": [0, 0.5, 1]}


class PlantedBackbone:
    """Affirming moves the hidden state by the item's loadings, denying the other way; texts also move it otherwise."""

    capabilities = frozenset({"prompt", "activations", "log_probs"})
    layers = 2

    def __init__(self, protocol: EvaluationProtocol, inventory: Inventory, own_option: str = "C") -> None:
        self.protocol = protocol
        generator = torch.Generator().manual_seed(3)
        self.loadings = torch.randn(len(inventory.items), WIDTH, generator=generator)
        self.states: dict[str, Tensor] = {}
        for item, loading in zip(inventory.items, self.loadings, strict=True):
            nuisance = 5 * torch.randn(WIDTH, generator=generator)
            for name in CONTRASTS:
                affirmed, denied = contrast(name, inventory, item)
                self.states |= {affirmed: nuisance + loading, denied: nuisance - loading}
        self.bare = torch.full((5,), 0.05)
        self.bare["ABCDE".index(own_option)] = 0.8
        self.asked: list[tuple[str | None, list[int]]] = []
        self.item_kernels: dict[object, object] = {}

    def hidden_states(self, texts: Sequence[str], layers: Sequence[int]) -> Tensor:
        return torch.stack([self.states[text] for text in texts])[:, None].expand(-1, len(layers), -1)

    def bare_option_log_probs(self, system_prompt: str | None, items: Sequence[Item]) -> Tensor:
        self.asked.append((system_prompt, [item.number for item in items]))
        return self.bare.log().expand(len(items), 5)


def answer_by(backbone: PlantedBackbone, inventory: Inventory, seed: int, noise: float = 0.1) -> dict[int, float]:
    """Literal answers, a random linear function of the planted loadings cut into five options of equal share."""
    generator = torch.Generator().manual_seed(seed)
    person = torch.randn(WIDTH, generator=generator)
    latent = backbone.loadings @ person
    latent = latent / latent.std() + noise * torch.randn(len(latent), generator=generator)
    cuts = latent.quantile(torch.tensor([0.2, 0.4, 0.6, 0.8]))
    values = 1 + (latent[:, None] > cuts).sum(1)
    return {item.number: int(value) for item, value in zip(inventory.items, values, strict=True)}


def case_of(protocol: EvaluationProtocol, inventory: Inventory, answers: Answers, **more: object) -> Case:
    person = Respondent("someone", answers)
    known, selection = protocol.known(person), protocol.selection(person, 0)
    if others := more.pop("others", None):
        more["others"] = as_matrix([item.number for item in inventory.items], others)  # type: ignore[arg-type]
    return Case(person.id, known, selection, seed=0, **more)  # type: ignore[arg-type]


def prepared(backbone: object, inventory: Inventory, **settings: object) -> ClosedFormReadout:
    aligner = ClosedFormReadout(**(SETTINGS | settings))  # type: ignore[arg-type]
    aligner.prepare(backbone, backbone.protocol)  # type: ignore[arg-type]
    return aligner
