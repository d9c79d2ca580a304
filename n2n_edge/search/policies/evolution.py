"""The third yardstick: a population that ages, as in regularised evolution."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from n2n_edge.search.policies.base import NothingTransfers, Observation, choose_distinct, numpy_generator, varied
from n2n_edge.search.policies.random import RandomPolicy
from n2n_edge.search.problem import DecisionProblem, Proposal

__all__ = ["EvolutionPolicy"]

_POPULATION = 16
_TOURNAMENT = 4
_DRAWS_PER_PROPOSAL = 8
_MOST_CHANGES = 2


class EvolutionPolicy(NothingTransfers):
    """Starts from random candidates; then each is the winner of a small tournament with a step or two changed.

    The oldest of the population makes room for every newcomer, however good it is (Real et al., Regularized Evolution
    for Image Classifier Architecture Search, AAAI 2019), so that a lucky judgement doesn't last.
    """

    name = "evolution"
    entropy: float | None = None

    def __init__(self, problem: DecisionProblem, *, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._observed = 0
        self._random = RandomPolicy(problem, seed=seed)
        self._population: deque[tuple[Proposal, float]] = deque(maxlen=_POPULATION)
        self._seen: set[Proposal] = set()

    def propose(self, count: int) -> list[Proposal]:
        """Return random candidates until there is a population, then children of its tournaments, unseen ones first."""
        if len(self._population) < _POPULATION // 2:
            return self._random.propose(count)
        generator = numpy_generator(self._seed, self._observed)
        draws = sorted(self._children(count, generator), key=lambda child: child in self._seen)
        return choose_distinct(self._problem, draws, count, generator)

    def observe(self, results: Sequence[Observation]) -> None:
        """Let judged candidates join the population."""
        self._random.observe(results)
        self._observed += len(results)
        for result in results:
            self._population.append((result.actions, result.reward))
            self._seen.add(result.actions)

    def _children(self, count: int, generator: np.random.Generator) -> Iterator[Proposal]:
        members = list(self._population)
        for _ in range(_DRAWS_PER_PROPOSAL * count):
            entered = generator.integers(len(members), size=_TOURNAMENT)
            parent, _ = max((members[int(index)] for index in entered), key=lambda member: member[1])
            yield varied(self._problem, parent, generator, changes=int(generator.integers(1, _MOST_CHANGES + 1)))
