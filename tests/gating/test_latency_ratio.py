import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n_edge.gating.latency_ratio import LatencyRatio, noise_of, ratio_outcome
from n2n_edge.measure.comparison import Comparison
from n2n_edge.measure.ratio import ratio_interval
from n2n_edge.metrics.figures import Figure

LIMIT = 0.05


def _interval(low, high, rounds=12):
    return Comparison((low * high) ** 0.5, low, high, 0.99, rounds, LIMIT, "inconclusive")


CALM = _interval(0.98, 1.02)

bounds = st.tuples(st.floats(0.2, 5), st.floats(1, 2)).map(lambda pair: (pair[0], pair[0] * pair[1]))


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.98, 1.02, "pass"),
        (1.01, 1.05, "pass"),
        (1.01, 1.051, "inconclusive"),
        (1.04, 1.2, "inconclusive"),
        (1.051, 1.2, "fail"),
        (0.5, 0.6, "pass"),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side_of_the_limit(low, high, outcome):
    assert ratio_outcome(_interval(low, high), CALM, LIMIT) == outcome


@pytest.mark.parametrize(
    ("rounds", "ratio", "outcome"),
    [
        (7, 140.0, "fail"),
        (7, 1.0, "inconclusive"),
        (7, 1.1, "inconclusive"),
        (7, 0.01, "pass"),
        (3, 140.0, "fail"),
        (3, 2.0, "inconclusive"),
        (2, 1.0, "inconclusive"),
        (1, 140.0, "inconclusive"),
        (1, 0.01, "inconclusive"),
    ],
)
def test_few_rounds_decide_what_is_plain(rounds, ratio, outcome):
    few, floor = (
        Comparison(*ratio_interval(np.full((rounds, 2), math.log(true))), 0.99, rounds, 0.05, "inconclusive")
        for true in (ratio, 1.0)
    )
    assert ratio_outcome(few, floor, LIMIT) == outcome


def test_a_machine_that_cannot_tell_a_model_from_itself_fails_and_passes_nothing_near_the_limit():
    noisy = _interval(0.85, 1.1)
    assert ratio_outcome(_interval(1.06, 1.12), CALM, LIMIT) == "fail"
    assert ratio_outcome(_interval(1.06, 1.12), noisy, LIMIT) == "inconclusive"
    assert ratio_outcome(_interval(0.98, 1.02), noisy, LIMIT) == "inconclusive"


def test_a_slowdown_beyond_the_noise_fails_on_a_noisy_machine_too():
    assert ratio_outcome(_interval(1.5, 1.6), _interval(0.9, 1.1), LIMIT) == "fail"


def test_noise_within_the_limit_is_tolerated_and_two_percent_always():
    assert noise_of(_interval(0.96, 1.049), LIMIT) == 1
    assert noise_of(_interval(0.99, 1.019), 0.0) == 1
    assert noise_of(_interval(0.9, 1.01), LIMIT) == pytest.approx(1 / 0.9)
    assert noise_of(None, LIMIT) == 1


@given(found=bounds, floor=bounds)
def test_noise_never_turns_an_open_verdict_into_a_sure_one(found, floor):
    plain = ratio_outcome(_interval(*found), None, LIMIT)
    assert ratio_outcome(_interval(*found), _interval(*floor), LIMIT) in (plain, "inconclusive")


def test_the_reason_says_ratio_interval_limit_rounds_and_noise():
    latency = Figure(2.0, "ms", "measured", 1.9, 2.1, 100)
    ratio = LatencyRatio(_interval(1.06, 1.12), _interval(0.85, 1.1), LIMIT, latency, latency, "host")
    assert ratio.outcome == "inconclusive"
    for words in (
        "1.060 to 1.120",
        "at most 1.05 times",
        "12 rounds in turns on host",
        "noisy",
        "0.850 to 1.100",
        "--max-time",
    ):
        assert words in ratio.reason
    assert ratio.asked == "--max-regression latency_ms=5%"
