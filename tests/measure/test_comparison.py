import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from n2n_edge.measure.comparison import Comparison, Standing, compare
from n2n_edge.measure.measurement import Measurement
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.ratio import LEAST_ROUNDS, ratio_interval, student_t, verdict_of
from n2n_edge.measure.target import HostTarget
from tests.measure.small_models import write_conv_model


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


@pytest.mark.usefixtures("quick_workers")
def test_a_question_that_is_settled_ends_the_rounds_and_is_told_what_is_known(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")
    seen: list[Standing] = []

    def settled(standing: Standing) -> bool:
        seen.append(standing)
        return len(seen) == 2

    options = BenchOptions(threads=1, min_time_s=0.0)
    found = compare([model, model], options, HostTarget(), with_itself=True, settled=settled)
    assert len(seen) == 2
    comparison = seen[0].comparisons[1]
    assert seen[0].comparisons[0] is None
    assert comparison is not None
    assert comparison.rounds == LEAST_ROUNDS
    assert seen[0].floor is not None
    assert isinstance(found.noise_floor, Comparison)
    assert found.noise_floor.rounds > LEAST_ROUNDS
    for measured, interval in zip(found.measurements, found.medians_ms, strict=True):
        assert isinstance(measured, Measurement)
        assert interval is not None
        assert interval[0] <= measured.quantiles.p50_ms <= interval[1]


def test_too_little_time_gives_no_interval_of_a_median(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "model.onnx")
    found = compare([model], BenchOptions(threads=1, min_time_s=0.0, max_time_s=1e-4), HostTarget())
    assert found.medians_ms == (None,)
