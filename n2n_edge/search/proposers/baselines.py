"""Baseline proposers: random, greedy and evolutionary search."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from n2n_edge.search.proposers.base import Proposer, SearchContext, Stream, choose_distinct, generator_of, varied
from n2n_edge.search.space import DecisionProblem, Stage
from n2n_edge.search.trial import Actions, Trial

__all__ = ["EvolutionProposer", "GreedyProposer", "RandomProposer", "random_actions"]

_RANDOM_DRAWS, _GREEDY_DRAWS, _EVOLUTION_DRAWS = 4, 32, 8
"""Draws per suggestion."""

_POPULATION = 16
_TOURNAMENT = 4
_MOST_CHANGES = 2


class _Baseline(Proposer):
    """What the baselines share: the rewards of a stage, by actions in the order of the trials."""

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        self._told: list[tuple[Actions, float]] = []

    def start(self, stage: Stage) -> None:
        super().start(stage)
        self._told = []

    def tell(self, trial: Trial) -> None:
        self.problem.check(trial.actions)
        self._told.append((trial.actions, trial.reward))

    def _generator(self) -> np.random.Generator:
        return generator_of(Stream.PROPOSALS, self.seed, len(self._told))


class RandomProposer(_Baseline):
    """Draws candidates at random and learns nothing: each has a rate of change of its own, then independent steps.

    The rate makes all sizes about equally likely. Independent steps without it would give networks of one size only,
    since their shares average out.
    """

    name = "random"

    def ask(self, count: int) -> list[Actions]:
        """Return `count` random candidates, new ones after every `tell`."""
        return random_actions(self.problem, count, self._generator())


class GreedyProposer(_Baseline):
    """Tries every single change of the current architecture and moves to the best of them, while that is better.

    It starts from the untouched network; a change removes one more layer or makes one more group a notch narrower. When
    no change is better it tries random neighbours of the best architecture and goes on from one that beats it. After
    NetAdapt (Yang et al., ECCV 2018), with the reward in the place of its accuracy under a falling resource limit.
    """

    name = "greedy"

    def start(self, stage: Stage) -> None:
        """Start from the untouched network."""
        super().start(stage)
        self._current = self.problem.default

    def ask(self, count: int) -> list[Actions]:
        """Return the next untried changes of the current architecture, then random neighbours."""
        rewards = dict(self._told)
        while self._move(rewards):
            pass
        generator = self._generator()
        return choose_distinct(self.problem, self._draws(count, rewards, generator), count, generator)

    def _move(self, rewards: dict[Actions, float]) -> bool:
        changes = list(_changes(self.problem, self._current))
        if any(actions not in rewards for actions in (self._current, *changes)):
            return False
        best = max(changes, key=rewards.__getitem__, default=self._current)
        if rewards[best] <= rewards[self._current]:
            best = max(rewards, key=rewards.__getitem__)
        if rewards[best] <= rewards[self._current]:
            return False
        self._current = best
        return True

    def _draws(self, count: int, rewards: dict[Actions, float], generator: np.random.Generator) -> Iterator[Actions]:
        for actions in (self._current, *_changes(self.problem, self._current)):
            if actions not in rewards:
                yield actions
        for attempt in range(_GREEDY_DRAWS * count):
            neighbour = self._current
            for _ in range(1 + attempt // (8 * count)):
                neighbour = varied(self.problem, neighbour, generator)
            if neighbour not in rewards:
                yield neighbour


class EvolutionProposer(_Baseline):
    """Starts from random candidates; then each is the winner of a small tournament with a step or two changed.

    The oldest of the population makes room for every newcomer, however good it is (Real et al., Regularized Evolution
    for Image Classifier Architecture Search, AAAI 2019), so that a lucky evaluation doesn't last.
    """

    name = "evolution"

    def ask(self, count: int) -> list[Actions]:
        """Return random candidates until there is a population, then children of its tournaments, unseen ones first."""
        generator = self._generator()
        population = deque(self._told, maxlen=_POPULATION)
        if len(population) < _POPULATION // 2:
            return random_actions(self.problem, count, generator)
        seen = {actions for actions, _ in self._told}
        draws = sorted(self._children(list(population), count, generator), key=lambda child: child in seen)
        return choose_distinct(self.problem, draws, count, generator)

    def _children(
        self, members: list[tuple[Actions, float]], count: int, generator: np.random.Generator
    ) -> Iterator[Actions]:
        for _ in range(_EVOLUTION_DRAWS * count):
            entered = generator.integers(len(members), size=_TOURNAMENT)
            parent, _ = max((members[int(index)] for index in entered), key=lambda member: member[1])
            yield varied(self.problem, parent, generator, changes=int(generator.integers(1, _MOST_CHANGES + 1)))


def random_actions(problem: DecisionProblem, count: int, generator: np.random.Generator) -> list[Actions]:
    """Return `count` random candidates of every size."""
    draws = (
        tuple(_steps(problem, float(generator.uniform(0.01, 0.99)), generator)) for _ in range(_RANDOM_DRAWS * count)
    )
    return choose_distinct(problem, draws, count, generator)


def _steps(problem: DecisionProblem, rate: float, generator: np.random.Generator) -> Iterator[int]:
    """Yield one action per step: the most random choice of a given mean, P(rank) ~ exp(tilt * rank).

    With two actions the second has probability `rate`.
    """
    for step in range(problem.steps):
        ordered = problem.by_change(step)
        tilt = 2.0 * np.log(rate / (1.0 - rate)) / len(ordered)
        weights = np.exp(tilt * (np.arange(len(ordered)) - len(ordered) + 1 if tilt > 0 else np.arange(len(ordered))))
        yield ordered[int(generator.choice(len(ordered), p=weights / weights.sum()))]


def _changes(problem: DecisionProblem, actions: Actions) -> Iterator[Actions]:
    """Yield `actions` with one step changed by one notch away from the default, for every step that allows it."""
    for step, action in enumerate(actions):
        ordered = problem.by_change(step)
        rank = ordered.index(action)
        if rank + 1 < len(ordered):
            yield (*actions[:step], ordered[rank + 1], *actions[step + 1 :])
