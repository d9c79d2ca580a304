from math import comb

import numpy as np
import pytest

from n2n_edge.measure.measurement import summarise
from n2n_edge.measure.worker import median_ranks


def test_quantiles_of_a_known_sample() -> None:
    quantiles = summarise([float(value) for value in range(100, 0, -1)])

    assert (
        quantiles.p50_ms,
        quantiles.p90_ms,
        quantiles.p99_ms,
        quantiles.min_ms,
        quantiles.max_ms,
        quantiles.n,
    ) == (50.5, 90.0, 99.0, 1.0, 100.0, 100)


def test_one_sample_is_its_own_summary() -> None:
    quantiles = summarise([3.0])

    assert (quantiles.p50_ms, quantiles.p50_low_ms, quantiles.p50_high_ms, quantiles.p99_ms) == (3.0, 3.0, 3.0, 3.0)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


@pytest.mark.parametrize("n", [6, 7, 20, 51, 200, 999])
def test_the_ranks_are_the_narrowest_that_hold_95_percent(n: int) -> None:
    ranks = median_ranks(n)
    assert ranks is not None
    low, high = ranks

    def confidence(rank: int) -> float:
        return float(1 - 2 * sum(comb(n, k) for k in range(rank + 1)) / 2**n)

    assert low + high == n - 1
    assert confidence(low) >= 0.95
    assert confidence(low + 1) < 0.95


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_samples_have_no_ranks(n: int) -> None:
    assert median_ranks(n) is None


@pytest.mark.parametrize("n", [15, 120, 3000])
def test_the_interval_covers_the_true_median_of_a_skewed_distribution(n: int) -> None:
    generator = np.random.default_rng(7)
    trials = 1000
    covered = 0
    for _ in range(trials):
        quantiles = summarise(generator.exponential(1.0, n).tolist())
        covered += quantiles.p50_low_ms <= np.log(2) <= quantiles.p50_high_ms

    assert 0.93 < covered / trials < 0.99
