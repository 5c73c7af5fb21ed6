"""Gaussian-process regression against refitting with each answer left out."""

import torch

from palign_bench.backbone.parts.gaussian_process import fit, predictive_variance


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 4, generator=generator).double()
    return features @ features.T + 0.1 * torch.eye(12), torch.randn(12, generator=generator).double()


def test_leaving_one_out_in_closed_form_equals_refitting():
    kernel, targets = problem()
    noises = torch.tensor([0.2, 1.5]).double()
    fitted = fit(kernel, targets, noises)
    for level, noise in enumerate(noises):
        for item in range(12):
            others = [i for i in range(12) if i != item]
            inner = kernel[others][:, others] + noise * torch.eye(len(others))
            cross = kernel[item, others]
            mean = cross @ torch.linalg.inv(inner) @ targets[others]
            variance = kernel[item, item] + noise - cross @ torch.linalg.inv(inner) @ cross
            assert torch.allclose(fitted.means[level, item], mean)
            assert torch.allclose(fitted.variances[level, item], variance)
            assert torch.allclose(
                predictive_variance(kernel[item, item][None], cross[None], kernel[others][:, others], float(noise)),
                variance,
            )


def test_coefficients_solve_the_regression():
    kernel, targets = problem()
    fitted = fit(kernel, targets, torch.tensor([0.7]).double())
    assert torch.allclose((kernel + 0.7 * torch.eye(12)) @ fitted.coefficients[0], targets)
