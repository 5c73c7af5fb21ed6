"""One person's answers predicted: from the own known answers alone, or with other people's correlations of items."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from palign_bench.backbone.parts.gaussian_process import Fit, fit, predictive_variance
from palign_bench.backbone.parts.ordinal import (
    cuts_of,
    medians,
    normal_scores,
    option_shares,
    thresholds_of,
    variance_within,
)
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
class Prediction:
    """One person's fitted prediction of literal answers.

    ``readout``: in float64, of all items. ``numbers``: the items fitted on. ``own_cuts``: leave-one-out cuts of their
    answers ``(items, options − 1)``. ``loss``: the mean absolute error of the medians of these.
    """

    readout: Readout
    numbers: Sequence[int]
    own_cuts: Tensor
    loss: float


def predict_alone(
    inventory: Inventory, kernel: ItemKernel, recipe: FeatureRecipe, answers: Answers, noises: Sequence[float]
) -> Prediction:
    """Fit one person by the own literal answers to known items.

    The noise is that with the smallest mean absolute error of the leave-one-out medians (ties to the smallest noise).
    Raises ValueError for a person without two known answers.
    """
    numbers = [number for number in inventory.known if number in answers]
    if len(numbers) < 2:
        raise ValueError("a readout needs two known answers or more, and a person has fewer")
    own = torch.from_numpy(as_matrix(numbers, [answers]))[0]
    shares = option_shares(own, len(inventory.options))
    thresholds, within = thresholds_of(shares), variance_within(shares)
    targets = normal_scores(own, shares)
    fitted = fit(kernel.between(numbers, numbers), targets, torch.tensor(noises, dtype=torch.float64))
    errors = (medians(thresholds - fitted.means[..., None]) - own).abs().mean(-1)
    choice = int(errors.argmin())
    mean, variance, scale = _left_out(fitted, choice, targets)
    loss = max(float(errors[choice]), SMALLEST_LOSS)
    readout = StatementReadout(
        numbers=torch.tensor(numbers, dtype=torch.int16),
        strength=torch.tensor([1.0, loss]).double(),
        coefficients=fitted.coefficients[choice],
        thresholds=thresholds,
        uncertainty=torch.stack([torch.tensor(noises[choice]).double(), scale, within]),
        recipe=recipe,
    )
    return Prediction(readout, numbers, cuts_of(thresholds, mean, within + scale * variance), loss)


def predict_with_others(inventory: Inventory, kernel: ItemKernel, answers: Answers, others: Tensor) -> Prediction:
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
    targets = normal_scores(own[:, None], shares[at])[:, 0]
    inner, cross = covariance[at][:, at], covariance[:, at]
    fitted = fit(inner, targets, torch.tensor([NOISE]).double())
    mean, variance, scale = _left_out(fitted, 0, targets)
    within = variance_within(shares)
    own_cuts = cuts_of(THRESHOLD_SCALE * thresholds[at], mean, within[at] + scale * variance)
    loss = max(float((medians(own_cuts) - own).abs().mean()), SMALLEST_LOSS)
    new = predictive_variance(covariance.diagonal(), cross, inner, NOISE)
    readout = ItemReadout(
        numbers=torch.tensor(list(kernel.column), dtype=torch.int16),
        strength=torch.tensor([1.0, loss]).double(),
        stored_cuts=cuts_of(THRESHOLD_SCALE * thresholds, cross @ fitted.coefficients[0], within + scale * new),
    )
    return Prediction(readout, numbers, own_cuts, loss)


def _left_out(fitted: Fit, noise: int, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave-one-out means and variances, and the factor by which the variances miss the squared errors."""
    mean, variance = fitted.means[noise], fitted.variances[noise]
    return mean, variance, ((targets - mean) ** 2 / variance).mean()
