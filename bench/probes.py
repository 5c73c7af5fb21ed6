"""How long the probes of one person take, solved together and in a loop over heads with scikit-learn."""

import time
from dataclasses import dataclass

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


def time_probes(features: Tensor, labels: Tensor) -> ProbeTimes:
    """Time both on the same data: ``features (heads, samples, head_dim)``, ``labels (samples,)``.

    scikit-learn runs as in the released code (its default solver and tolerance, at most 1,000 iterations); it stops
    further from the optimum than we do, hence the difference. Needs scikit-learn (the extra ``test``).
    """
    from sklearn.linear_model import LogisticRegression

    fit_logistic(features[:2], labels)  # the first call pays for loading the linear algebra
    start = time.perf_counter()
    weights, _ = fit_logistic(features, labels)
    if features.is_cuda:
        torch.cuda.synchronize()
    batched = time.perf_counter() - start

    arrays, targets = features.cpu().numpy(), labels.cpu().numpy()
    start = time.perf_counter()
    loop = [LogisticRegression(C=1.0, max_iter=1000).fit(head, targets).coef_[0] for head in arrays]
    scikit_learn = time.perf_counter() - start
    difference = max(float((w.cpu() - torch.from_numpy(o)).abs().max()) for w, o in zip(weights, loop, strict=True))
    return ProbeTimes(features.shape[0], features.shape[1], batched, scikit_learn, difference)
