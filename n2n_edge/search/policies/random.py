"""The first yardstick: random candidates of every size."""

from collections.abc import Iterator, Sequence

import numpy as np

from n2n_edge.search.policies.base import NothingTransfers, Observation, choose_distinct, numpy_generator
from n2n_edge.search.problem import DecisionProblem, Proposal

__all__ = ["RandomPolicy"]

_DRAWS_PER_PROPOSAL = 4


class RandomPolicy(NothingTransfers):
    """Draws candidates at random and learns nothing: each has a rate of change of its own, then independent steps.

    The rate makes all sizes about equally likely. Independent steps without it would give networks of one size only,
    since their shares average out.
    """

    name = "random"
    entropy: float | None = None

    def __init__(self, problem: DecisionProblem, *, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._observed = 0

    def propose(self, count: int) -> list[Proposal]:
        """Return `count` random proposals, new ones after every `observe`."""
        generator = numpy_generator(self._seed, self._observed)
        draws = (_draw(self._problem, generator) for _ in range(_DRAWS_PER_PROPOSAL * count))
        return choose_distinct(self._problem, draws, count, generator)

    def observe(self, results: Sequence[Observation]) -> None:
        """Count the results; nothing is learnt from them."""
        for result in results:
            self._problem.check(result.actions)
        self._observed += len(results)


def _draw(problem: DecisionProblem, generator: np.random.Generator) -> Proposal:
    rate = float(generator.uniform(0.01, 0.99))
    return tuple(_steps(problem, rate, generator))


def _steps(problem: DecisionProblem, rate: float, generator: np.random.Generator) -> Iterator[int]:
    """Yield one action per step: the most random choice of a given mean, P(rank) ~ exp(tilt * rank).

    With two actions the second has probability `rate`.
    """
    for step in range(problem.steps):
        ordered = problem.by_change(step)
        tilt = 2.0 * np.log(rate / (1.0 - rate)) / len(ordered)
        weights = np.exp(tilt * (np.arange(len(ordered)) - len(ordered) + 1 if tilt > 0 else np.arange(len(ordered))))
        yield ordered[int(generator.choice(len(ordered), p=weights / weights.sum()))]
