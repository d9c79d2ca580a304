"""What rounds in turns settle: nothing by chance, and what is plain even where time was up before all rounds."""

import math

import numpy as np
import pytest

from n2n_edge.measure.comparison import _plan
from n2n_edge.measure.ratio import LEAST_ROUNDS, LEVEL, Comparison, Verdict, ratio_interval, verdict_of
from n2n_edge.report.bench_words import comparison_words

THRESHOLD = 0.05


def verdict(log_ratios: np.ndarray) -> Verdict:
    _, low, high = ratio_interval(log_ratios)
    return verdict_of(low, high, THRESHOLD)


@pytest.mark.parametrize("rounds", range(2, LEAST_ROUNDS))
@pytest.mark.parametrize(
    ("between", "within", "sides"),
    [(0.015, 0.01, 0.0), (0.06, 0.03, 0.0), (0.3, 0.03, 0.0), (0.0, 0.01, 0.08), (0.0, 0.0, 0.08)],
    ids=["quiet", "noisy", "very noisy", "two kinds of process", "two kinds, else exact"],
)
def test_equal_models_are_hardly_ever_told_apart_by_few_rounds(
    rounds: int, between: float, within: float, sides: float
) -> None:
    generator = np.random.default_rng(5)
    trials, false = 600, 0
    for _ in range(trials):
        lots = generator.integers(0, 2, (rounds, 1)) - generator.integers(0, 2, (rounds, 1))
        noise = generator.normal(0, between, (rounds, 1)) + generator.standard_t(3, (rounds, 2)) * within
        false += verdict(noise + sides * lots) in ("slower", "faster")

    assert false / trials <= 2.5 * (1 - LEVEL)  # of 600 at 1%, more come in one case of a thousand


@pytest.mark.parametrize("rounds", range(2, LEAST_ROUNDS))
@pytest.mark.parametrize("cycles", [1, 2, 6])
def test_what_is_plain_is_settled_by_few_rounds(rounds: int, cycles: int) -> None:
    noise = np.random.default_rng(rounds).normal(0, 0.03, (rounds, cycles))

    assert verdict(math.log(140) + noise) == "slower"
    assert verdict(-math.log(140) + noise) == "faster"


@pytest.mark.parametrize(("rounds", "ratio"), [(7, 1.3), (6, 1.35), (5, 1.4), (4, 1.6), (3, 2.5)])
def test_the_fewer_rounds_the_plainer_it_has_to_be(rounds: int, ratio: float) -> None:
    exact = np.zeros((rounds, 2))

    assert verdict(math.log(ratio) + exact) == "slower"
    assert verdict(math.log(ratio) + exact[: rounds - 1]) in ("slower", "inconclusive")
    assert verdict(math.log(1.06) + exact) == "inconclusive"


@pytest.mark.parametrize("ratio", [1.0, 140.0, 1e9])
def test_one_round_settles_nothing(ratio: float) -> None:
    assert verdict(np.full((1, 6), math.log(ratio))) == "inconclusive"


@pytest.mark.parametrize("slowest_ms", [0.01, 1.0, 15.0, 40.0, 100.0, 190.0, 210.0, 400.0, 600.0])
@pytest.mark.parametrize("max_time_s", [10.0, 20.0, 60.0])
def test_as_many_rounds_as_an_interval_takes_fit_into_the_time(slowest_ms: float, max_time_s: float) -> None:
    cycles, runs_a_block = _plan(slowest_ms / 1000, max_time_s)
    block_s = max(0.02, runs_a_block * slowest_ms / 1000)

    assert cycles >= 1
    assert (LEAST_ROUNDS - 1) * cycles * 2 * block_s < max_time_s


def test_fast_models_take_turns_as_often_as_ever() -> None:
    assert _plan(0.001, 10.0) == (6, 3)


@pytest.mark.parametrize(
    ("verdict", "says", "not_said"),
    [
        ("slower", "140.000 times a.onnx (100.000 to 200.000), slower; 99% interval from 7 rounds", "inconclusive"),
        ("inconclusive", "inconclusive, 7 of the 8 rounds", "slower"),
    ],
)
def test_a_verdict_from_few_rounds_is_worded_as_one(verdict: Verdict, says: str, not_said: str) -> None:
    words = comparison_words("b.onnx", "a.onnx", Comparison(140.0, 100.0, 200.0, 0.99, 7, 0.05, verdict))

    assert says in words
    assert not_said not in words
