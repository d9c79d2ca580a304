from math import comb

import numpy as np
import pytest

from n2n_edge.measure.measurement import load_warnings, sample_warnings, summarise
from n2n_edge.measure.worker.timing import median_ranks
from n2n_edge.metrics.notices import Notice


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


@pytest.mark.parametrize("n", [15, 120, 1200])
def test_the_interval_covers_the_true_median_of_a_skewed_distribution(n: int) -> None:
    generator = np.random.default_rng(7)
    trials = 1000
    covered = 0
    for _ in range(trials):
        quantiles = summarise(generator.exponential(1.0, n).tolist())
        covered += quantiles.p50_low_ms <= np.log(2) <= quantiles.p50_high_ms

    assert 0.93 < covered / trials < 0.99


def warnings(samples: list[float], converged: bool = True) -> list[Notice]:
    return sample_warnings(samples, summarise(samples), converged, 10.0)


def steady(n: int = 300) -> list[float]:
    return np.random.default_rng(1).normal(1.0, 0.005, n).tolist()


def test_a_steady_sample_has_no_warning() -> None:
    assert warnings(steady()) == []


def test_outliers_are_named_and_stay_in_the_sample() -> None:
    samples = steady()
    samples[::30] = [9.0] * 10

    assert warnings(samples) == [Notice("outliers", "outliers: 10 of 300 runs took more than 2 times the median")]
    assert summarise(samples).max_ms == 9.0


def test_a_noisy_sample() -> None:
    samples = [1.0 if index % 6 else 1.8 for index in range(300)]

    assert warnings(samples) == [Notice("noisy", "noisy: one run in ten took more than 1.8 times the median")]


def test_slow_first_runs() -> None:
    (warning,) = warnings([1.3] * 20 + steady(280))

    assert (warning.code, warning.remedy) == ("slow-start", "warm up for longer")
    assert warning.text.startswith("slow first runs: they took 1.3")


def test_drift_to_either_side() -> None:
    samples = (np.array(steady()) * np.linspace(1.0, 1.08, 300)).tolist()

    (rising,), (falling,) = warnings(samples), warnings(samples[::-1])

    assert rising.code == falling.code == "drift"
    assert rising.text.startswith("drift: the last third of the runs took 5.")
    assert "more than the first" in rising.text
    assert "less than the first" in falling.text


def test_a_sample_that_has_not_settled() -> None:
    (warning,) = warnings(steady(), converged=False)

    assert warning.code == "not-settled"
    assert warning.text.startswith("not settled after 10 s and 300 runs")
    assert str(warning) == f"{warning.text}; allow more time or quieten the machine"


def test_a_machine_that_others_use() -> None:
    assert load_warnings(1.0, 1, 2, 2) == []
    assert load_warnings(None, 2, 2, 2) == []
    assert load_warnings(0.0, 4, 2, 2) == [Notice("too-many-threads", "4 threads share 2 cores")]
    (busy,) = load_warnings(1.6, 1, 2, 2)
    assert busy.code == "busy"
    assert str(busy) == "the machine was busy: other programs used 1.6 of 2 cores meanwhile"
