import numpy as np
import pytest
from scipy import stats

from palign_bench.report.statistics import mean, mean_interval, pearson


def test_interval_of_a_large_sample_is_the_normal_one() -> None:
    values = np.random.default_rng(5).gamma(2.0, 1.0, 2000)
    low, high = mean_interval(values) or (0, 0)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_interval_of_zeros_and_ones_is_the_binomial_one() -> None:
    """The bootstrap mean of k ones among n values is Binomial(n, k/n)/n exactly."""
    interval = mean_interval([1] * 30 + [0] * 70, draws=40_000)
    assert interval is not None
    expected = stats.binom(100, 0.3).ppf([0.025, 0.975]) / 100
    assert interval == pytest.approx(tuple(expected), abs=0.0101)  # one step of 1/n


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(3.0, 40)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(7)
    ).confidence_interval
    width = theirs.high - theirs.low
    ours = mean_interval(values, draws=40_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_interval_is_seeded_and_also_when_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=25)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)
    whole = mean_interval(values)
    monkeypatch.setattr("palign_bench.report.statistics._CHUNK", 1000)
    assert mean_interval(values) == whole


def test_interval_of_a_few_people_is_students() -> None:
    values = [2.0, 3.0, 7.0, 4.0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))


def test_interval_of_nobody_or_one_is_none_and_nan_is_refused() -> None:
    assert mean_interval([1.0]) is None
    assert mean_interval([]) is None
    assert mean_interval([2.0] * 10) == (2.0, 2.0)
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0] * 10 + [float("nan")])


@pytest.mark.parametrize("shape", ["skewed", "whole", "few", "one outlier", "equal"])
@pytest.mark.parametrize("people", [1_001, 20_000])
def test_the_interval_of_many_people_is_what_drawing_tends_to(shape: str, people: int) -> None:
    generator = np.random.default_rng(11)
    samples = {
        "skewed": generator.gamma(0.5, 2.0, people),
        "whole": generator.integers(0, 6, people).astype(float),
        "few": np.where(np.arange(people) < 3, 2.5, 0.0),  # rows that differ on three people only
        "one outlier": np.where(np.arange(people) < 1, 1e6, generator.normal(size=people)),
        "equal": np.full(people, 0.1),
    }
    sample = samples[shape]
    values, counts = np.unique(sample, return_counts=True)
    if len(values) < 10:  # drawing people is drawing how often each value comes
        means = generator.multinomial(people, counts / people, 100_000) @ values / people
    else:
        means = np.concatenate(
            [sample[generator.integers(0, people, (100, people))].mean(axis=1) for _ in range(2_000_000 // people)]
        )
    interval = mean_interval(sample)
    assert interval is not None
    error = 0.08 * means.std() + 1e-12  # of a quantile of so many draws, five times over
    for end, share in zip(interval, (0.025, 0.975), strict=True):
        # Of a lumpy mean the quantile may be any value of the step that holds it.
        assert np.mean(means <= end + error) >= share - 0.01 and np.mean(means >= end - error) >= 1 - share - 0.01
    assert interval == mean_interval(sample, draws=10, seed=3)


@pytest.mark.parametrize(("better", "worse"), [(3, 0), (0, 3), (6, 1), (9, 2), (9, 1)])
def test_rows_of_which_few_people_differ_are_told_apart_as_by_drawing(better: int, worse: int) -> None:
    """An end that is 0 when people are drawn is 0, and no other end is."""
    people, much = 1_500, 0.1
    sample = np.zeros(people)
    sample[: better + worse] = [-much] * better + [much] * worse
    shares = [better / people, worse / people, 1 - (better + worse) / people]
    drawn = np.random.default_rng(1).multinomial(people, shares, 200_000) @ [-1, 1, 0]
    ends = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf") * much / people
    interval = mean_interval(sample)
    assert interval == pytest.approx(tuple(ends), abs=1e-3 * (ends[1] - ends[0]))
    assert np.sign(interval).tolist() == np.sign(ends).tolist()


def test_rounding_moves_no_drawn_end_from_0() -> None:
    """One of the differences is a sum of tenths that is 0 but for its last bits."""
    almost = 0.1 + 0.2 - 0.3
    assert almost > 0
    assert mean_interval([0.0] * 40 + [almost] * 3 + [0.5]) == (0.0, pytest.approx(0.034, abs=0.001))


def test_drawing_and_not_drawing_agree_where_one_gives_way_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = np.random.default_rng(6).gamma(2.0, 1.0, 1_000)
    drawn = mean_interval(sample, draws=100_000)
    monkeypatch.setattr("palign_bench.report.statistics.MOST_TO_DRAW", 999)
    assert mean_interval(sample) == pytest.approx(drawn, abs=0.02 * sample.std() / np.sqrt(1_000))


def test_wider_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(3).normal(size=50)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert narrow is not None and wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


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
