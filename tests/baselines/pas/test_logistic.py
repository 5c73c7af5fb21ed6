"""The batched probes against scikit-learn, and against the optimality condition itself."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from baselines.pas import logistic
from baselines.pas.logistic import decision_values, fit_logistic


def data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Features (heads, samples, width) and labels of one difficult kind."""
    rng = np.random.default_rng(3)
    samples = 6 if kind == "few_samples" else 90
    labels = np.arange(samples) % 2
    features = rng.normal(size=(5, samples, 8))
    if kind in ("noisy", "few_samples"):
        features[..., 0] += labels
    elif kind == "separable":
        features[..., :2] += 20 * labels[:, None]
    elif kind == "nearly_constant":
        features = 1 + 1e-6 * features
        features[..., 3] = 2.5
    elif kind == "far_from_origin":
        features = features + 30 * rng.normal(size=(5, 1, 8))
    elif kind == "large":
        features = 300 * (features + labels[:, None] * rng.normal(size=8))
    elif kind == "unbalanced":
        labels = (np.arange(samples) == 4).astype(int)
        features[..., 0] += labels
    return features.astype(np.float32), labels


KINDS = ["noisy", "separable", "nearly_constant", "few_samples", "far_from_origin", "large", "unbalanced"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [1.0, 0.1])
def test_agrees_with_scikit_learn(kind: str, penalty: float) -> None:
    features, labels = data(kind)
    weights, intercepts = fit_logistic(torch.tensor(features), torch.tensor(labels), penalty)
    assert weights.dtype == intercepts.dtype == torch.float64
    for head, x in enumerate(features.astype(np.float64)):
        oracle = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-10, max_iter=10_000).fit(x, labels)
        np.testing.assert_allclose(weights[head], oracle.coef_[0], atol=1e-5)
        # The intercept of data far from the origin magnifies the oracle's own rounding.
        np.testing.assert_allclose(intercepts[head], oracle.intercept_[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_default_solver_of_scikit_learn(kind: str) -> None:
    features, labels = data(kind)
    weights, _ = fit_logistic(torch.tensor(features), torch.tensor(labels))
    for head, x in enumerate(features.astype(np.float64)):
        oracle = LogisticRegression(C=1, tol=1e-10, max_iter=100_000).fit(x - x.mean(0), labels)
        np.testing.assert_allclose(weights[head], oracle.coef_[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_vanishes(kind: str) -> None:
    features, labels = data(kind)
    weights, intercepts = (t.numpy() for t in fit_logistic(torch.tensor(features), torch.tensor(labels), 0.7))
    for x, w, b in zip(features.astype(np.float64), weights, intercepts, strict=True):
        residual = 1 / (1 + np.exp(-(x @ w + b))) - labels
        scale = np.abs(x).max() * len(labels)
        assert np.abs(x.T @ residual + 0.7 * w).max() < 1e-9 * scale
        assert abs(residual.sum()) < 1e-9 * scale


def test_sample_weights_are_those_of_scikit_learn() -> None:
    features, labels = data("noisy")
    weight = np.random.default_rng(0).integers(0, 4, size=len(labels)).astype(float)
    weights, intercepts = fit_logistic(torch.tensor(features), torch.tensor(labels), 1.0, torch.tensor(weight))
    for head, x in enumerate(features.astype(np.float64)):
        oracle = LogisticRegression(tol=1e-10, max_iter=10_000).fit(x, labels, sample_weight=weight)
        np.testing.assert_allclose(weights[head], oracle.coef_[0], atol=1e-5)
        np.testing.assert_allclose(intercepts[head], oracle.intercept_[0], atol=1e-5)


def test_a_sample_of_weight_zero_is_left_out() -> None:
    features, labels = (torch.tensor(array) for array in data("noisy"))
    weight = (torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6).double()
    used = weight > 0
    alone = fit_logistic(features, labels, 1.0, weight)
    dropped = fit_logistic(features[:, used], labels[used])
    torch.testing.assert_close(alone[0], dropped[0], rtol=0, atol=1e-9)


def test_heads_in_several_chunks_equal_heads_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = (torch.tensor(array) for array in data("noisy"))
    whole = fit_logistic(features, labels)
    values = decision_values(features, *whole)
    monkeypatch.setitem(logistic._CHUNK_BYTES, "cpu", 2 * 8 * features.shape[1] * 9)
    assert logistic._heads_per_chunk(features) == 2
    for one, several in zip(whole, fit_logistic(features, labels), strict=True):
        torch.testing.assert_close(one, several, rtol=0, atol=1e-9)
    torch.testing.assert_close(values, decision_values(features, *whole), rtol=0, atol=1e-9)
    expected = torch.einsum("hnd,hd->hn", features.double(), whole[0]) + whole[1][:, None]
    torch.testing.assert_close(values, expected)


def test_samples_of_one_label_are_an_error() -> None:
    features, labels = (torch.tensor(array) for array in data("noisy"))
    with pytest.raises(ValueError, match="both labels"):
        fit_logistic(features, torch.ones_like(labels))
    with pytest.raises(ValueError, match="both labels"):
        fit_logistic(features, labels, 1.0, (labels == 1).double())
