import numpy as np

from n2n_edge.measure.doubts import doubts_of_load, doubts_of_sample
from n2n_edge.measure.measurement import summarise


def doubts(samples: list[float], converged: bool = True) -> list[str]:
    return doubts_of_sample(samples, summarise(samples), converged, 10.0)


def steady(n: int = 300) -> list[float]:
    return np.random.default_rng(1).normal(1.0, 0.005, n).tolist()


def test_a_steady_sample_is_not_doubted() -> None:
    assert doubts(steady()) == []


def test_outliers_are_named_and_stay_in_the_sample() -> None:
    samples = steady()
    for place in range(0, 300, 30):
        samples[place] = 9.0

    assert doubts(samples) == ["outliers: 10 of 300 runs took more than 2 times the median"]
    assert summarise(samples).max_ms == 9.0


def test_a_noisy_sample() -> None:
    samples = [1.0 if place % 6 else 1.8 for place in range(300)]

    assert doubts(samples) == ["noisy: one run in ten took more than 1.8 times the median"]


def test_slow_first_runs() -> None:
    samples = [1.3] * 20 + steady(280)

    (doubt,) = doubts(samples)

    assert doubt.startswith("slow first runs: they took 1.3")


def test_drift_to_either_side() -> None:
    samples = (np.array(steady()) * np.linspace(1.0, 1.08, 300)).tolist()

    assert doubts(samples)[0].startswith("drift: the last third of the runs took 5.")
    assert "more than the first" in doubts(samples)[0]
    assert "less than the first" in doubts(samples[::-1])[0]


def test_a_sample_that_has_not_settled() -> None:
    assert doubts(steady(), converged=False)[0].startswith("not settled after 10 s and 300 runs")


def test_a_machine_that_others_use() -> None:
    assert doubts_of_load(1.0, 1, 2, 2) == []
    assert doubts_of_load(1.6, 1, 2, 2) == ["the machine was busy: other programs used 1.6 of 2 cores meanwhile"]
    assert doubts_of_load(0.0, 4, 2, 2) == ["4 threads share 2 cores"]
    assert doubts_of_load(None, 2, 2, 2) == []
