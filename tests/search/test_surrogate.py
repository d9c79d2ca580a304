"""The surrogate: it learns an accuracy that depends on what is cut, and knows what it doesn't know."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from n2n_edge.search.surrogate import Estimate, Sensitivity, Surrogate

LAYERS = tuple(f"layer{i}" for i in range(8))
GROUPS = tuple(f"g{i}" for i in range(6))
PROFILE = Sensitivity(
    layers={name: 0.1 * (i + 1) / 3 for i, name in enumerate(LAYERS)},
    groups={name: (0.5 / (i + 1), 0.1 / (i + 1)) for i, name in enumerate(GROUPS)},
)


def estimates(count: int, seed: int) -> list[Estimate]:
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        removed = frozenset(name for name in LAYERS if random.random() < 0.3)
        ratios = {name: float(random.uniform(0.3, 1.0)) for name in GROUPS}
        share = (1 - 0.08 * len(removed)) * float(np.mean(list(ratios.values())))
        drawn.append(Estimate(removed, ratios, share, share**1.5))
    return drawn


def truth(estimate: Estimate) -> float:
    """Cuts cost as much as the profile says, save that layer3 is free and g5 dear, which it doesn't know."""
    removed, narrowed = PROFILE.rise(estimate)
    removed -= 0.4 * ("layer3" in estimate.removed)
    return 0.9 - 0.1 * removed - 0.15 * narrowed - 0.1 * (1 - estimate.ratios["g5"])


def seen(count: int, noise: float = 0.005) -> Surrogate:
    surrogate = Surrogate(LAYERS, GROUPS, PROFILE)
    observed = estimates(count, seed=1)
    random = np.random.default_rng(2)
    surrogate.observe(observed, [truth(one) + float(random.normal(0, noise)) for one in observed])
    return surrogate


def correlation(surrogate: Surrogate) -> float:
    others = estimates(200, seed=3)
    return float(np.corrcoef(surrogate.predict(others)[0], [truth(one) for one in others])[0, 1])


def test_the_profile_alone_ranks() -> None:
    assert correlation(Surrogate(LAYERS, GROUPS, PROFILE)) > 0.6


def test_more_observations_make_it_better() -> None:
    few, many = correlation(seen(8)), correlation(seen(80))
    assert many > few
    assert many > 0.95


def test_its_deviation_covers_its_errors_and_shrinks() -> None:
    others = estimates(200, seed=3)
    few, many = seen(10), seen(80)
    for surrogate in (few, many):
        mean, deviation = surrogate.predict(others)
        errors = np.abs(mean - [truth(one) for one in others])
        assert float((errors < 2 * deviation).mean()) > 0.7
    assert float(many.predict(others)[1].mean()) < float(few.predict(others)[1].mean())


def test_a_layer_that_the_profile_ranks_wrongly_is_corrected() -> None:
    surrogate = seen(120)
    base = Estimate(frozenset(), dict.fromkeys(GROUPS, 0.7), 0.7, 0.6)
    worst = {
        name: float(surrogate.predict([Estimate(frozenset({name}), base.ratios, 0.64, 0.55)])[0][0]) for name in LAYERS
    }
    assert worst["layer3"] > worst["layer7"]
    assert worst["layer3"] > worst["layer4"]


def test_exploring_choices_differ_from_each_other() -> None:
    """Near-copies of the most promising candidate are not all chosen: the first one's outcome tells of the others."""
    surrogate = seen(20)
    one = Estimate(frozenset({"layer0"}), dict.fromkeys(GROUPS, 0.9), 0.85, 0.8)
    copies = [Estimate(one.removed, {**one.ratios, "g0": 0.9 - 1e-6 * i}, 0.85, 0.8) for i in range(6)]
    other = Estimate(frozenset({"layer1", "layer2"}), dict.fromkeys(GROUPS, 0.85), 0.7, 0.65)
    together = [*copies, other]
    worth = surrogate.predict(together)[0]
    together = [replace(one, reward=float(reward), slope=1.0) for one, reward in zip(together, worth, strict=True)]
    chosen = surrogate.choose(together, 3, exploration=8.0)
    assert 6 in chosen
    assert len(set(chosen)) == 3
    greedy = surrogate.choose(together, 1, exploration=0.0)
    assert greedy == [int(np.argmax(worth))]


def test_equal_observations_do_no_harm() -> None:
    surrogate = Surrogate(LAYERS, GROUPS, PROFILE)
    one = estimates(1, seed=0)
    for _ in range(5):
        surrogate.observe(one, [0.8])
    mean, deviation = surrogate.predict(one)
    assert mean[0] == pytest.approx(0.8, abs=0.01)
    assert np.isfinite(deviation).all()


def test_what_has_no_cost_left_is_no_danger() -> None:
    """A residual model of which every layer can go is left with no weights at all."""
    surrogate = seen(10)
    nothing = Estimate(frozenset(LAYERS), {}, 0.0, 0.0)
    surrogate.observe([nothing], [0.1])
    mean, deviation = surrogate.predict([nothing, *estimates(5, seed=4)])
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()


def test_the_order_of_a_set_changes_nothing() -> None:
    """A resumed run is another process, in which sets of names have another order."""
    program = (
        "from tests.search.test_surrogate import PROFILE, estimates;"
        "print([PROFILE.rise(one) for one in estimates(40, seed=0)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_much_lost_in_one_place_is_worse_than_a_little_in_many() -> None:
    profile = Sensitivity({}, {"a": (0.8, 0.4), "b": (0.8, 0.4)})
    one, many = ({"a": 0.25, "b": 1.0}, {"a": 0.5, "b": 0.5})
    assert profile.compounded(one) > 1.5 * profile.compounded(many)
    rises = [profile.rise(Estimate(frozenset(), ratios, 1, 1))[1] for ratios in (one, many)]
    assert rises[0] > 1.2 * rises[1]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_after_few_candidates_more_loss_is_expected_to_cost_accuracy(count: int) -> None:
    """What was seen says nothing of it: the candidates differ in their costs alone."""
    surrogate = Surrogate(LAYERS, GROUPS, PROFILE)
    ratios = dict.fromkeys(GROUPS, 0.5)
    alike = [Estimate(frozenset(LAYERS[:2]), ratios, 0.3 + 0.01 * turn, 0.3) for turn in range(count)]
    surrogate.observe(alike, [0.5 + 0.01 * turn for turn in range(count)])
    narrower = [Estimate(frozenset(LAYERS[:2]), dict.fromkeys(GROUPS, ratio), 0.3, 0.3) for ratio in (0.5, 0.4, 0.25)]
    shorter = [Estimate(frozenset(LAYERS[:gone]), ratios, 0.3, 0.3) for gone in (2, 4, 8)]
    for worse_and_worse in (narrower, shorter):
        expected = surrogate.predict(worse_and_worse)[0].tolist()
        assert expected == sorted(expected, reverse=True)
        assert len(set(expected)) == 3
