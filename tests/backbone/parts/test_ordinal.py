"""Cuts, thresholds and scores against sampling, sums and quadrature."""

import pytest
import torch

from palign_bench.backbone.parts.ordinal import (
    medians,
    normal_scores,
    option_log_scores,
    option_shares,
    thresholds_of,
    variance_within,
)


def test_shares_count_each_option_once_more_and_leave_missing_answers_out():
    answers = torch.tensor([[1.0, 1, 5, torch.nan]]).double()
    assert option_shares(answers)[0].tolist() == pytest.approx([3 / 8, 1 / 8, 1 / 8, 1 / 8, 2 / 8])


def test_normal_scores_and_what_varies_within_an_option_agree_with_sampling():
    shares = torch.tensor([[0.1, 0.3, 0.2, 0.25, 0.15]]).double()
    latent = torch.randn(400_000, generator=torch.Generator().manual_seed(0)).double()
    answers = 1 + (latent[:, None] > thresholds_of(shares)[0]).sum(1)
    scores = normal_scores(torch.tensor([[1.0, 2, 3, 4, 5, torch.nan]]).double(), shares)[0]
    for value in range(1, 6):
        assert scores[value - 1].item() == pytest.approx(latent[answers == value].mean().item(), abs=0.01)
        assert (answers == value).double().mean().item() == pytest.approx(shares[0, value - 1].item(), abs=0.003)
    assert scores[5].isnan()
    residual = latent - scores[answers - 1]
    assert variance_within(shares)[0].item() == pytest.approx((residual**2).mean().item(), abs=0.005)


def test_the_likeliest_option_is_the_median_and_errs_least():
    generator = torch.Generator().manual_seed(1)
    cuts = (2 * torch.randn(500, 4, generator=generator)).double().sort(dim=1).values
    below = torch.distributions.Normal(0, 1).cdf(cuts.float()).double()
    shares = torch.diff(below, dim=1, prepend=torch.zeros(500, 1), append=torch.ones(500, 1))
    errors = torch.stack([(shares * (torch.arange(1.0, 6) - answer).abs()).sum(1) for answer in range(1, 6)], dim=1)
    least = 1 + errors.argmin(dim=1)
    scores = option_log_scores(cuts, torch.tensor(0.8).double())
    assert torch.equal(medians(cuts), least)
    assert torch.equal(5 - scores.argmax(dim=1), least)
    assert torch.allclose(scores.exp().sum(1), torch.ones(500).double())
    gap = scores[:, 4] - scores[:, 0]  # E is 1, A is 5
    assert torch.allclose(gap, (errors[:, 4] - errors[:, 0]) / 0.8, atol=1e-5)
