"""Logistic probes of all attention heads in one batched Newton solve, instead of one solver call per head."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

_MAX_STEPS = 200
_TOLERANCE = 1e-6  # of the largest Newton step, relative; the step is still taken, so what is left is about its square
_SUFFICIENT_DECREASE = 1e-4
# Heads solved together, by the bytes of their activations: on a CPU as many as the cache holds (measured: a quarter
# faster than all at once), on a GPU enough to fill it without a second copy of a large model's activations.
_CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 512 * 2**20}


def fit_logistic(
    features: Tensor, labels: Tensor, penalty: float = 1.0, sample_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logistic regression with intercept for every head (paper Eq. 4; the intercept as in scikit-learn).

    Minimises ``sum(sample_weight × log-loss) + penalty / 2 × ‖weights‖²``, the intercept unpenalised: scikit-learn's
    ``LogisticRegression(C=1 / penalty)``, to double precision, also where the classes are separable.

    ``features``: ``(heads, samples, head_dim)``. ``labels``: 0 and 1, ``(samples,)``. ``sample_weight``: as ``labels``,
    not negative; a sample of weight 0 is left out, default 1. Returns float64 ``(weights (heads, head_dim), intercepts
    (heads,))``. Raises ValueError for samples of one label only.
    """
    weight = torch.ones_like(labels) if sample_weight is None else sample_weight
    labels, weight = (each.to(features.device, torch.float64) for each in (labels, weight))
    # The intercept is free, so centring changes no weight; it keeps the Newton system well conditioned where a head's
    # activations lie far from the origin.
    centre = features.mean(dim=1, dtype=torch.float64)
    rows = weight.nonzero().squeeze(-1)
    if len(labels[rows].unique()) < 2:
        raise ValueError("a probe needs samples of both labels")
    used = features[:, rows]
    size = _heads_per_chunk(used)
    fitted = []
    for x, mean in zip(used.split(size), centre.split(size), strict=True):
        design = torch.nn.functional.pad(x.double() - mean[:, None], (0, 1), value=1.0)
        fitted.append(_newton(design, labels[rows], weight[rows], penalty))
    coefficients = torch.cat(fitted)
    weights = coefficients[..., :-1]
    return weights, coefficients[..., -1] - (weights * centre).sum(-1)


def decision_values(features: Tensor, weights: Tensor, intercepts: Tensor) -> Tensor:
    """The probes' log-odds ``(heads, samples)`` in float64 for ``features (heads, samples, head_dim)``."""
    size = _heads_per_chunk(features)
    chunks = zip(features.split(size), weights.split(size), intercepts.split(size), strict=True)
    return torch.cat([torch.baddbmm(b[:, None, None], x.double(), w[:, :, None]).squeeze(-1) for x, w, b in chunks])


def _heads_per_chunk(features: Tensor) -> int:
    _, samples, width = features.shape
    return max(1, _CHUNK_BYTES["cuda" if features.is_cuda else "cpu"] // (8 * samples * (width + 1)))


def _newton(design: Tensor, labels: Tensor, weight: Tensor, penalty: float) -> Tensor:
    """Damped Newton steps for all heads at once, ``design (heads, samples, head_dim + 1)``; converged ones leave.

    The objective is strictly convex, so the line search makes it converge from zero. Raises RuntimeError if it does
    not.
    """
    heads, _, width = design.shape
    ridge = torch.full((width,), penalty, dtype=torch.float64, device=design.device)
    ridge[-1] = 0
    # Far along a separating direction the curvature of the free intercept underflows; a trace of it keeps the system
    # solvable. It alters the path, not the optimum, whose gradient is exact.
    damping = torch.diag(ridge + 1e-12)
    result = design.new_zeros(heads, width)
    active = torch.arange(heads, device=design.device)
    theta, logits = result.clone(), design.new_zeros(design.shape[:2])

    def objective(length: Tensor) -> Tensor:
        """Per head, after a step of this length."""
        z = logits + length[:, None] * along
        loss = ((softplus(z, threshold=40) - labels * z) * weight).sum(-1)
        return loss + 0.5 * (ridge * (theta + length[:, None] * step) ** 2).sum(-1)

    for _ in range(_MAX_STEPS):
        probability = logits.sigmoid()
        gradient = torch.einsum("hn,hnd->hd", (probability - labels) * weight, design) + ridge * theta
        curvature = probability * (1 - probability) * weight
        hessian = design.mT @ (design * curvature[..., None]) + damping
        step = -torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(hessian)).squeeze(-1)
        along = torch.einsum("hnd,hd->hn", design, step)
        length = _step_length(objective, (gradient * step).sum(-1))[:, None]
        theta = theta + length * step
        logits = logits + length * along
        result[active] = theta
        open_ = step.abs().amax(-1) > _TOLERANCE * (1 + theta.abs().amax(-1))
        left = int(open_.sum())
        if left == 0:
            return result
        if left <= 0.75 * len(active):  # copying the design pays only when enough heads leave
            active, design, theta, logits = active[open_], design[open_], theta[open_], logits[open_]
    raise RuntimeError(f"{left} logistic probes did not converge in {_MAX_STEPS} Newton steps")


def _step_length(objective: Callable[[Tensor], Tensor], slope: Tensor) -> Tensor:
    """Per head, the first of 1, 1/2, 1/4, … that lowers the objective enough (Armijo)."""
    length = torch.ones_like(slope)
    start = objective(torch.zeros_like(slope))
    rounding = 1e-13 * (1 + start.abs())  # at the optimum a good step changes the objective by less than this
    for _ in range(60):
        enough = objective(length) <= start + _SUFFICIENT_DECREASE * length * slope + rounding
        if bool(enough.all()):
            break
        length = torch.where(enough, length, length / 2)
    return length
