from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from palign_bench.statistics import bootstrap_interval, mean, paired_differences, pearson


def test_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(5).gamma(2.0, 1.0, 2000)
    low, high = bootstrap_interval(values) or (0, 0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_of_zeros_and_ones_is_the_binomial_one() -> None:
    """The bootstrap mean of k ones among n values is Binomial(n, k/n)/n exactly."""
    interval = bootstrap_interval([1] * 30 + [0] * 70, draws=40_000)
    assert interval is not None
    expected = stats.binom(100, 0.3).ppf([0.025, 0.975]) / 100
    assert interval == pytest.approx(tuple(expected), abs=0.0101)  # one step of 1/n


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(3.0, 40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    width = theirs.high - theirs.low
    ours = bootstrap_interval(values, draws=40_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_interval_is_seeded_and_also_when_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=25)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values)
    whole = bootstrap_interval(values)
    monkeypatch.setattr("palign_bench.statistics._CHUNK", 1000)
    assert bootstrap_interval(values) == whole


def test_interval_is_blank_below_ten_people_and_refuses_nan() -> None:
    assert bootstrap_interval([1.0] * 9) is None
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([2.0] * 10) == (2.0, 2.0)
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1.0] * 10 + [float("nan")])


def test_wider_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(3).normal(size=50)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert narrow is not None and wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_paired_differences_are_over_shared_people() -> None:
    assert paired_differences({"a": 3.0, "b": 1.0, "c": 9.0}, {"b": 4.0, "a": 1.0, "d": 0.0}) == {"a": 2.0, "b": -3.0}
    assert paired_differences({}, {"a": 1.0}) == {}


def test_mean_of_nothing_is_blank() -> None:
    assert mean([]) is None
    assert mean([1.0, 2.0]) == 1.5


def test_pearson_agrees_with_scipy() -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=30)
    y = 0.4 * x + generator.normal(size=30)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert pearson([1, 2, 3], [1, 3, 2]) == pytest.approx(0.5)
    assert pearson([1e-3, 2e-3, 3e-3], [-2, -4, -6]) == pytest.approx(-1)


def test_pearson_is_blank_where_undefined() -> None:
    assert pearson([1, 2], [2, 1]) is None
    assert pearson([3, 3, 3], [1, 2, 3]) is None
    assert pearson([1, 2, 3], [0.1 + 0.2, 0.3, 0.3]) is None  # differs in the last bit only
    with pytest.raises(ValueError, match="equally long"):
        pearson([1, 2, 3], [1, 2])
