"""How long the probes of one person take, solved together and in a loop over heads with scikit-learn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.pas.logistic import fit_logistic


@dataclass(frozen=True)
class ProbeTimes:
    """Seconds for all heads' probes of one person, and how far apart both solutions are."""

    heads: int
    samples: int
    batched_seconds: float
    scikit_learn_seconds: float
    largest_weight_difference: float

    @property
    def ratio(self) -> float:
        """How many times faster the batched solve is."""
        return self.scikit_learn_seconds / self.batched_seconds


def time_probes(features: Tensor, labels: Tensor, clock: Callable[[Callable[[], object]], float]) -> ProbeTimes:
    """Time both on the same data: ``features (heads, samples, head_dim)``, ``labels (samples,)``.

    ``clock``: seconds of some work, done once.

    scikit-learn runs as in the released code (its default solver and tolerance, at most 1,000 iterations); it stops
    further from the optimum than we do, hence the difference.
    """
    from sklearn.linear_model import LogisticRegression

    fit_logistic(features[:2], labels)  # the first call pays for loading the linear algebra
    solved: list[Tensor] = []
    batched = clock(lambda: solved.append(fit_logistic(features, labels)[0]))

    arrays, targets = features.cpu().numpy(), labels.cpu().numpy()
    loop: list[Any] = []
    scikit_learn = clock(
        lambda: loop.extend(LogisticRegression(C=1.0, max_iter=1000).fit(head, targets).coef_[0] for head in arrays)
    )
    pairs = zip(solved[0], loop, strict=True)
    difference = max(float((ours.cpu() - torch.from_numpy(theirs)).abs().max()) for ours, theirs in pairs)
    return ProbeTimes(features.shape[0], features.shape[1], batched, scikit_learn, difference)
