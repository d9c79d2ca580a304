"""The second yardstick: step by step downhill, as NetAdapt does."""

from collections.abc import Iterator, Sequence

import numpy as np

from n2n_edge.search.policies.base import NothingTransfers, Observation, choose_distinct, numpy_generator, varied
from n2n_edge.search.problem import DecisionProblem, Proposal

__all__ = ["GreedyPolicy"]

_DRAWS_PER_PROPOSAL = 32


class GreedyPolicy(NothingTransfers):
    """Tries every single change of the current architecture and moves to the best of them, while that is better.

    It starts from the untouched network; a change removes one more layer or makes one more group a notch narrower. When
    no change is better it tries random neighbours of the best architecture and goes on from one that beats it. After
    NetAdapt (Yang et al., ECCV 2018), with the reward in the place of its accuracy under a falling resource limit.
    """

    name = "greedy"
    entropy: float | None = None

    def __init__(self, problem: DecisionProblem, *, seed: int) -> None:
        self._problem = problem
        self._seed = seed
        self._observed = 0
        self._current = problem.default
        self._rewards: dict[Proposal, float] = {}

    def propose(self, count: int) -> list[Proposal]:
        """Return the next untried changes of the current architecture, then random neighbours."""
        generator = numpy_generator(self._seed, self._observed)
        return choose_distinct(self._problem, self._draws(count, generator), count, generator)

    def observe(self, results: Sequence[Observation]) -> None:
        """Note the rewards and move on where all changes of the current architecture are known."""
        self._observed += len(results)
        for result in results:
            self._problem.check(result.actions)
            self._rewards[result.actions] = result.reward
        while self._move():
            pass

    def _move(self) -> bool:
        changes = list(_changes(self._problem, self._current))
        if any(proposal not in self._rewards for proposal in (self._current, *changes)):
            return False
        best = max(changes, key=self._rewards.__getitem__, default=self._current)
        if self._rewards[best] <= self._rewards[self._current]:
            best = max(self._rewards, key=self._rewards.__getitem__)
        if self._rewards[best] <= self._rewards[self._current]:
            return False
        self._current = best
        return True

    def _draws(self, count: int, generator: np.random.Generator) -> Iterator[Proposal]:
        for proposal in (self._current, *_changes(self._problem, self._current)):
            if proposal not in self._rewards:
                yield proposal
        for attempt in range(_DRAWS_PER_PROPOSAL * count):
            neighbour = self._current
            for _ in range(1 + attempt // (8 * count)):
                neighbour = varied(self._problem, neighbour, generator)
            if neighbour not in self._rewards:
                yield neighbour


def _changes(problem: DecisionProblem, proposal: Proposal) -> Iterator[Proposal]:
    """Yield `proposal` with one step changed by one notch away from the default, for every step that allows it."""
    for step, action in enumerate(proposal):
        ordered = problem.by_change(step)
        rank = ordered.index(action)
        if rank + 1 < len(ordered):
            yield (*proposal[:step], ordered[rank + 1], *proposal[step + 1 :])
