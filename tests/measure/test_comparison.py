import math
from statistics import NormalDist

import numpy as np
import pytest

from n2n_edge.measure.comparison import ratio_interval, student_t, verdict_of


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.99, 1.02, "same"),
        (1.005, 1.03, "same"),
        (1.03, 1.08, "slower"),
        (1.2, 1.3, "slower"),
        (0.90, 0.97, "faster"),
        (0.97, 1.07, "inconclusive"),
        (0.90, 1.01, "inconclusive"),
        (0.0, math.inf, "inconclusive"),
    ],
)
def test_verdicts_at_five_percent(low: float, high: float, verdict: str) -> None:
    assert verdict_of(low, high, 0.05) == verdict


@pytest.mark.parametrize(
    ("p", "degrees", "quantile"),  # from the tables
    [
        (0.995, 1, 63.657),
        (0.995, 2, 9.9248),
        (0.995, 3, 5.8409),
        (0.995, 5, 4.0321),
        (0.995, 9, 3.2498),
        (0.975, 5, 2.5706),
        (0.975, 29, 2.0452),
    ],
)
def test_students_t(p: float, degrees: int, quantile: float) -> None:
    assert student_t(p, degrees) == pytest.approx(quantile, rel=0.02)
    assert student_t(p, 10_000) == pytest.approx(NormalDist().inv_cdf(p), rel=1e-3)


def test_one_round_tells_nothing_of_the_spread() -> None:
    ratio, low, high = ratio_interval(np.full((1, 6), math.log(1.1)))

    assert ratio == pytest.approx(1.1)
    assert (low, high) == (0.0, math.inf)


@pytest.mark.parametrize(("rounds", "between"), [(6, 0.02), (6, 0.0), (15, 0.02)])
def test_the_interval_covers_the_true_ratio_even_where_processes_differ(rounds: int, between: float) -> None:
    generator = np.random.default_rng(3)
    trials, covered = 150, 0
    for _ in range(trials):
        noise = generator.normal(0, between, (rounds, 1)) + generator.standard_t(3, (rounds, 6)) * 0.01
        _, low, high = ratio_interval(math.log(1.05) + noise)
        covered += low <= 1.05 <= high

    assert covered / trials >= 0.95
