"""REINFORCE learns: it gets next to a known best architecture with a fraction of random's candidates."""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from n2n_edge.search.proposers.base import Stream, generator_of
from n2n_edge.search.proposers.baselines import random_actions
from n2n_edge.search.proposers.reinforce import ReinforcePolicy
from n2n_edge.search.reward import compression_reward, infeasible_reward, violation
from n2n_edge.search.space import DecisionProblem
from n2n_edge.search.trial import Actions

SEEDS = range(5)
BATCH = 8


@dataclass(frozen=True)
class Synthetic:
    """A problem whose best reward is known; `evaluate` gives the (cost ratio, accuracy ratio) of actions."""

    problem: DecisionProblem
    evaluate: Callable[[Actions], tuple[float, float]]
    budget: float
    best_reward: float


def removal(seed: int, layers: int = 12, budget: float = 0.45) -> Synthetic:
    """Layers with a cost and an importance of their own, which the policy isn't told; the best by enumeration."""
    generator = np.random.default_rng(seed)
    costs = generator.dirichlet(np.full(layers, 2.0))
    importance = 0.5 * generator.dirichlet(np.full(layers, 0.7))

    def evaluate(actions: Actions) -> tuple[float, float]:
        kept = np.array(actions) == 1
        return float(costs[kept].sum()), 1.0 - float(importance[~kept].sum())

    outcomes = [evaluate(actions) for actions in itertools.product((0, 1), repeat=layers)]
    features = np.stack([costs * layers, generator.random(layers)], axis=1).astype(np.float32)
    problem = DecisionProblem(
        features, (2,) * layers, 2, np.ones((layers, 2), dtype=bool), (1,) * layers, kind="removal"
    )
    best = max(compression_reward(accuracy, cost, budget) for cost, accuracy in outcomes if cost <= budget)
    return Synthetic(problem, evaluate, budget, best)


def shrinkage(seed: int, groups: int = 10, widths: int = 6, budget: float = 0.4) -> Synthetic:
    """Groups with a cost and a sensitivity to narrowing of their own; the best by dynamic programming."""
    generator = np.random.default_rng(seed)
    unit_costs = generator.integers(2, 30, groups)
    sensitivity = 0.6 * generator.dirichlet(np.full(groups, 0.7))
    total = int(unit_costs.sum()) * widths
    losses = (1.0 - np.arange(1, widths + 1) / widths) ** 2

    def evaluate(actions: Actions) -> tuple[float, float]:
        chosen = np.array(actions)
        return float((unit_costs * (chosen + 1)).sum() / total), 1.0 - float((sensitivity * losses[chosen]).sum())

    limit = int(budget * total)
    accuracy = np.full(limit + 1, -np.inf)  # the best with exactly this cost, over the groups so far
    accuracy[0] = 1.0
    for unit_cost, sensitive in zip(unit_costs, sensitivity, strict=True):
        longer = np.full(limit + 1, -np.inf)
        for action in range(widths):
            cost = int(unit_cost) * (action + 1)
            if cost <= limit:
                longer[cost:] = np.maximum(longer[cost:], accuracy[: limit + 1 - cost] - sensitive * losses[action])
        accuracy = longer
    features = np.stack([unit_costs / unit_costs.mean(), generator.random(groups)], axis=1).astype(np.float32)
    problem = DecisionProblem(
        features, (widths,) * groups, widths, np.ones((groups, widths), dtype=bool), (widths - 1,) * groups, "shrinkage"
    )
    return Synthetic(problem, evaluate, budget, compression_reward(float(accuracy.max()), budget, budget))


def candidates_needed(name: str, synthetic: Synthetic, *, seed: int, limit: int) -> int:
    """Return how many candidates it took to come within 2% of the best reward, `limit` if it never did."""
    policy = ReinforcePolicy(synthetic.problem, seed=seed, expected_candidates=300) if name == "reinforce" else None
    done = 0
    while done < limit:
        generator = generator_of(Stream.PROPOSALS, seed, done)
        batch = policy.propose(BATCH) if policy else random_actions(synthetic.problem, BATCH, generator)
        for actions in batch:
            cost, accuracy = synthetic.evaluate(actions)
            missed = violation({"cost": cost}, {"cost": synthetic.budget})
            reward = (
                infeasible_reward(missed, min(done / 300, 1.0))
                if missed
                else compression_reward(accuracy, cost, synthetic.budget)
            )
            done += 1
            assert reward <= synthetic.best_reward + 1e-9
            if reward >= 0.98 * synthetic.best_reward:
                return done
            if policy:
                policy.observe(actions, reward)
    return limit


@pytest.mark.parametrize("make", [removal, shrinkage])
def test_reinforce_needs_clearly_fewer_candidates_than_random(make: Callable[[int], Synthetic]) -> None:
    learned = [candidates_needed("reinforce", make(seed), seed=seed, limit=400) for seed in SEEDS]
    random = [candidates_needed("random", make(seed), seed=seed, limit=1500) for seed in SEEDS]

    assert statistics.median(learned) < 400, f"REINFORCE needed {learned}"
    assert 2.5 * statistics.median(learned) < statistics.median(random), f"REINFORCE needed {learned}, random {random}"


def test_settling_shows_in_the_entropy() -> None:
    synthetic = removal(0)
    policy = ReinforcePolicy(synthetic.problem, seed=0, expected_candidates=150)
    start = policy.entropy
    for _ in range(15):
        for actions in policy.propose(BATCH):
            policy.observe(actions, 1.0 - sum(actions) / 12)

    assert start is not None
    assert policy.entropy is not None
    assert 0.0 <= policy.entropy < start <= 1.0
    assert np.mean(policy.propose(BATCH)) < 0.3
