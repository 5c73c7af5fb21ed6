"""One person's answers predicted: from the own known answers alone, or with other people's correlations of items."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palign_bench.backbone.parts.gaussian_process import Fit, fit, predictive_variance
from palign_bench.backbone.parts.ordinal import medians, normal_scores, option_shares, thresholds_of, variance_within
from palign_bench.backbone.parts.readout import ItemReadout, Readout, StatementReadout
from palign_bench.backbone.parts.statements import FeatureRecipe, ItemKernel
from palign_bench.questionnaire.inventory import Answers, Inventory
from palign_bench.questionnaire.scoring import as_matrix

# Of `predict_with_others`, chosen by leave-one-out predictions of everybody's known answers; flat around.
NOISE = 1.0
SHARE_OF_FEATURES = 0.2  # of the model's kernel, added to the correlations among other people
THRESHOLD_SCALE = 0.8  # a person's answers spread wider than their shrunken prediction
SMALLEST_LOSS = 0.05  # of an absolute error, so that a person who is predicted perfectly keeps finite scores


@dataclass(frozen=True)
class Prediction(ABC):
    """One person's fitted prediction, all in literal answers.

    ``numbers``: the items fitted on. ``own_cuts``: leave-one-out cuts of their answers ``(items, 4)``. ``loss``: the
    mean absolute error of the medians of these.
    """

    numbers: Sequence[int]
    own_cuts: Tensor
    loss: float

    @abstractmethod
    def cuts(self, numbers: Sequence[int]) -> Tensor:
        """Cuts of any items ``(items, 4)``."""

    @abstractmethod
    def readout(self, weight: float) -> Readout:
        """As the part of an alignment."""

    def strength(self, weight: float) -> Tensor:
        return torch.tensor([weight, self.loss])


@dataclass(frozen=True)
class OwnPrediction(Prediction):
    """From the person's own answers, by the model's kernel of the items."""

    kernel: ItemKernel
    recipe: FeatureRecipe
    coefficients: Tensor
    thresholds: Tensor
    uncertainty: Tensor

    def cuts(self, numbers: Sequence[int]) -> Tensor:
        cross = self.kernel.between(numbers, self.numbers)
        noise, scale, within = self.uncertainty
        inner = self.kernel.between(self.numbers, self.numbers)
        variance = predictive_variance(torch.ones(len(cross)), cross, inner, float(noise))
        return _cuts(self.thresholds, cross @ self.coefficients, within + scale * variance)

    def readout(self, weight: float) -> StatementReadout:
        return StatementReadout(
            numbers=torch.tensor(self.numbers, dtype=torch.int16),
            strength=self.strength(weight),
            coefficients=self.coefficients.float(),
            thresholds=self.thresholds.float(),
            uncertainty=self.uncertainty.float(),
            recipe=self.recipe,
        )


@dataclass(frozen=True)
class PeoplePrediction(Prediction):
    """From the person's own answers, by other people's correlations among the items."""

    inventory: Inventory
    all_cuts: Tensor  # (items of the inventory, 4)

    def cuts(self, numbers: Sequence[int]) -> Tensor:
        return self.all_cuts[[self.inventory.column[number] for number in numbers]]

    def readout(self, weight: float) -> ItemReadout:
        held_out = self.inventory.held_out
        return ItemReadout(
            numbers=torch.tensor(held_out, dtype=torch.int16),
            strength=self.strength(weight),
            stored_cuts=self.cuts(held_out).float(),
        )


def predict_alone(
    inventory: Inventory, kernel: ItemKernel, recipe: FeatureRecipe, people: Sequence[Answers], noises: Sequence[float]
) -> list[OwnPrediction]:
    """Fit all people at once, each from its own literal answers to known items.

    The noise is each person's own: that with the smallest mean absolute error of the leave-one-out medians (ties to the
    smallest noise). Raises ValueError for a person without two known answers.
    """
    known = [number for number in inventory.known if any(number in answers for answers in people)]
    table = torch.from_numpy(as_matrix(known, people))
    if ((~table.isnan()).sum(1) < 2).any():
        raise ValueError("a readout needs two known answers or more, and a person has fewer")
    shares = option_shares(table, len(inventory.options))
    thresholds = thresholds_of(shares)
    targets = normal_scores(table, shares)
    fitted = fit(kernel.between(known, known), targets, torch.tensor(noises, dtype=torch.float64))
    errors = (medians(thresholds[None, :, None] - fitted.means[..., None]) - table).abs().nanmean(-1)
    within = variance_within(shares)
    made = []
    for person, choice in enumerate(errors.min(dim=0).indices.tolist()):
        present = (~table[person].isnan()).nonzero()[:, 0]
        mean, variance, scale = _left_out(fitted, choice, person, present, targets)
        made.append(
            OwnPrediction(
                numbers=[known[index] for index in present],
                own_cuts=_cuts(thresholds[person], mean, within[person] + scale * variance),
                loss=max(float(errors[choice, person]), SMALLEST_LOSS),
                kernel=kernel,
                recipe=recipe,
                coefficients=fitted.coefficients[choice, person, present],
                thresholds=thresholds[person],
                uncertainty=torch.stack([torch.tensor(noises[choice]).double(), scale, within[person]]),
            )
        )
    return made


def predict_with_others(inventory: Inventory, kernel: ItemKernel, answers: Answers, others: Tensor) -> PeoplePrediction:
    """Fit one person by the covariance of normal scores among ``others``, literal ``(people, items)`` with NaN.

    Every item's thresholds and all correlations are the other people's; the model's kernel fills in where these are
    uncertain. Raises ValueError for a person without a known answer.
    """
    numbers = [number for number in inventory.known if number in answers]
    if not numbers:
        raise ValueError("a readout needs known answers, and a person has none")
    shares = option_shares(others.T, len(inventory.options))
    thresholds = thresholds_of(shares)
    scores = normal_scores(others.T, shares).nan_to_num(0.0)
    covariance = scores @ scores.T / scores.shape[1] + SHARE_OF_FEATURES * kernel.values
    at = torch.tensor([kernel.column[number] for number in numbers])
    own = torch.from_numpy(as_matrix(numbers, [answers]))[0]
    targets = normal_scores(own[:, None], shares[at]).T
    inner, cross = covariance[at][:, at], covariance[:, at]
    fitted = fit(inner, targets, torch.tensor([NOISE]).double())
    mean, variance, scale = _left_out(fitted, 0, 0, torch.arange(len(numbers)), targets)
    within = variance_within(shares)
    own_cuts = _cuts(THRESHOLD_SCALE * thresholds[at], mean, within[at] + scale * variance)
    new = predictive_variance(covariance.diagonal(), cross, inner, NOISE)
    return PeoplePrediction(
        numbers=numbers,
        own_cuts=own_cuts,
        loss=max(float((medians(own_cuts) - own).abs().mean()), SMALLEST_LOSS),
        inventory=inventory,
        all_cuts=_cuts(THRESHOLD_SCALE * thresholds, cross @ fitted.coefficients[0, 0], within + scale * new),
    )


def _left_out(fitted: Fit, noise: int, row: int, present: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave-one-out means and variances of a row, and the factor by which the variances miss the squared errors."""
    mean, variance = fitted.means[noise, row, present], fitted.variances[noise, row, present]
    return mean, variance, ((targets[row, present] - mean) ** 2 / variance).mean()


def _cuts(thresholds: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (thresholds - mean[:, None]) / variance.sqrt()[:, None]
