"""The part of an alignment that a readout stores: a prediction of the options for any item, a few hundred numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from palign_bench.backbone.parts.gaussian_process import predictive_variance
from palign_bench.backbone.parts.options import OptionScores
from palign_bench.backbone.parts.ordinal import cuts_of, option_log_scores
from palign_bench.backbone.parts.statements import FeatureRecipe, item_kernel
from palign_bench.questionnaire.inventory import Item
from palign_bench.questionnaire.protocol import EvaluationProtocol

if TYPE_CHECKING:
    from palign_bench.backbone.base import Backbone


@dataclass(frozen=True)
class Readout(ABC):
    """Predicts which option one person picks; applied, it is pooled with the model's own option probabilities.

    ``numbers``: int16, the items of the other tensors. ``strength``: ``(weight, loss)``: the weight of the prediction
    against the model's own log-probabilities, 0…1, and the person's mean absolute error on known answers. Predictions
    are of literal answers, whatever the protocol. Fitted in float64, stored in float32.
    """

    kind: ClassVar[str]
    numbers: Tensor
    strength: Tensor

    @property
    def weight(self) -> float:
        return float(self.strength[0])

    @abstractmethod
    def cuts(self, backbone: Backbone, numbers: Sequence[int]) -> Tensor:
        """Float64 predictions ``(items, options − 1)`` of these (`parts/ordinal.py`). KeyError: an unknown item."""

    def stored(self, weight: float, numbers: Sequence[int]) -> Self:
        """As an alignment keeps it: with this weight, in float32, and of what is kept by item these items' alone."""
        rounded = {name: tensor.float() for name, tensor in self.tensors().items() if tensor.is_floating_point()}
        return replace(self, **rounded | {"strength": torch.tensor([weight, float(self.strength[1])])})

    def tensors(self) -> dict[str, Tensor]:
        """Everything of the person's that is stored."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def settings(self) -> dict[str, Any]:
        """What besides the tensors it takes, the same for all people: JSON values."""
        return {"kind": self.kind}

    def option_scores(self, backbone: Backbone, items: Sequence[Item]) -> OptionScores | None:
        """Log-probabilities of the options per item in the backbone's orientation; None at weight 0: the bare model."""
        if self.weight == 0:
            return None
        scores = option_log_scores(self.cuts(backbone, [item.number for item in items]), self.strength[1].double())
        return OptionScores(as_options(scores, backbone.protocol, items).float(), self.weight)


@dataclass(frozen=True)
class StatementReadout(Readout):
    """A Gaussian process over the model's hidden states of the statements, from the person's own answers alone.

    ``coefficients``: one per known item. ``thresholds``: ``(options − 1,)`` on the latent scale.
    ``uncertainty``: ``(noise, scale, within)``: the process's noise, what its variance is multiplied with to fit the
    person's errors on known answers, and the variance of a latent value inside an option.
    """

    kind: ClassVar[str] = "statements"
    coefficients: Tensor
    thresholds: Tensor
    uncertainty: Tensor
    recipe: FeatureRecipe

    def cuts(self, backbone: Backbone, numbers: Sequence[int]) -> Tensor:
        kernel = item_kernel(backbone, backbone.protocol.inventory, self.recipe)
        known = self.numbers.tolist()
        cross = kernel.between(numbers, known)
        noise, scale, within = self.uncertainty.double()
        variance = predictive_variance(torch.ones(len(cross)), cross, kernel.between(known, known), float(noise))
        return cuts_of(self.thresholds.double(), cross @ self.coefficients.double(), within + scale * variance)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"recipe": {name: list(value) for name, value in vars(self.recipe).items()}}


@dataclass(frozen=True)
class ItemReadout(Readout):
    """A prediction for each item, stored as such ``(items, options − 1)``: what other people's answers give."""

    kind: ClassVar[str] = "items"
    stored_cuts: Tensor

    def cuts(self, backbone: Backbone, numbers: Sequence[int]) -> Tensor:
        row = {number: index for index, number in enumerate(self.numbers.tolist())}
        return self.stored_cuts[[row[number] for number in numbers]].double()

    def stored(self, weight: float, numbers: Sequence[int]) -> ItemReadout:
        at = (self.numbers[:, None] == torch.tensor(numbers)).int().argmax(0)
        return replace(
            super().stored(weight, numbers), numbers=self.numbers[at], stored_cuts=self.stored_cuts[at].float()
        )


def as_options(scores: Tensor, protocol: EvaluationProtocol, items: Sequence[Item]) -> Tensor:
    """Scores ``(items, options)`` of the literal answers, A first, as scores of the options that the model names."""
    reversed_ = torch.tensor([protocol.reverses(item) for item in items])
    return torch.where(reversed_[:, None], scores.flip(-1), scores)


def load_readout(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Readout:
    """What `Readout.settings` and `Readout.tensors` (under ``readout.``) gave."""
    own = {name.removeprefix("readout."): value for name, value in tensors.items() if name.startswith("readout.")}
    if settings["kind"] == StatementReadout.kind:
        return StatementReadout(
            **own, recipe=FeatureRecipe(**{name: tuple(value) for name, value in settings["recipe"].items()})
        )
    return ItemReadout(**own)
