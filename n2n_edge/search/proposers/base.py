"""Base class, registry and random streams of proposers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_code
from n2n_edge.search.precision import Depth
from n2n_edge.search.space import Cuts, DecisionProblem, Stage
from n2n_edge.search.trial import Actions, StageName, Trial

if TYPE_CHECKING:
    from n2n_edge.search.evaluator import Evaluator
    from n2n_edge.search.surrogate import Sensitivity

__all__ = [
    "Factory",
    "Proposer",
    "SearchContext",
    "Stream",
    "check_proposer",
    "choose_distinct",
    "generator_of",
    "make_proposer",
    "proposer_errors",
    "proposer_names",
    "register_proposer",
    "varied",
]

_GROUP = "n2n_edge.proposers"
"""Entry points under which packages offer proposers: ``name = "package.module:factory"``."""

_BUILT_IN = {
    "reinforce": "guided:GuidedProposer",
    "n2n": "reinforce:ReinforceProposer",
    "random": "baselines:RandomProposer",
    "greedy": "baselines:GreedyProposer",
    "evolution": "baselines:EvolutionProposer",
}

_STAGE_SEEDS: dict[StageName, int] = {"removal": 0, "shrinkage": 1}


class Stream(IntEnum):
    """Random streams of a search: with a seed and counts, each draw has a generator of its own."""

    PROPOSALS = 0
    SAMPLES = 1
    ACQUISITION = 2
    BASE_LAYERS = 3


def generator_of(stream: Stream, seed: int, *counts: int) -> np.random.Generator:
    """Return the generator for a draw of `stream`, such as that after so many trials."""
    return np.random.default_rng(np.random.SeedSequence((seed, *counts, stream)))


@dataclass(frozen=True)
class SearchContext:
    """What a proposer may use of its search.

    `expected` is how many trained trials each stage will have, about. `evaluator` has the teacher and its costs, and
    `sensitivity` measures how much each part of it matters: that takes a while, so it happens on call.
    """

    seed: int
    expected: Mapping[StageName, int] = field(default_factory=dict)
    evaluator: "Evaluator | None" = None
    sensitivity: "Callable[[], Sensitivity] | None" = None


class Proposer(ABC):
    """Suggests the trials of a search and learns from them.

    It is started for each stage; ``ask(n)`` gives actions for up to `n` trials, and ``tell(trial)`` takes each of them
    back when it was evaluated, with its reward.

    >>> class Alternating(Proposer):
    ...     def ask(self, count):
    ...         return [self.stage.problem.default]
    ...     def tell(self, trial):
    ...         print(trial.actions, trial.reward)
    >>> register_proposer("alternating", Alternating)

    Suggestions are a pure function of the seed and what was told since: asking again before `tell` gives the same
    answer, and a resumed run that replays its trials stands where the first one stood, bit for bit. No global random
    state is read or written.
    """

    name: ClassVar[str] = "of this run"
    """How error messages call it."""
    batch: ClassVar[int] = 8
    """Most trials that are asked for at once."""
    rounds: ClassVar[int] = 1
    """Parts of stage 2; before each of them `base_layers` is asked anew."""
    compared: ClassVar[int] = 0
    """Choices of layers, each with its best trial of stage 1, that are judged on more images before stage 2."""
    stage: Stage

    def __init__(self, context: SearchContext) -> None:
        self.context = context

    @property
    def problem(self) -> DecisionProblem:
        """The decisions of the stage."""
        return self.stage.problem

    @property
    def seed(self) -> int:
        """The seed of the stage."""
        return self.context.seed + _STAGE_SEEDS[self.stage.name]

    @property
    def entropy(self) -> float | None:
        """How undecided its policy is: 1 uniformly random, 0 settled; None if it has none."""
        return None

    def start(self, stage: Stage) -> None:
        """Suggest trials of `stage` from now on, which may have been started before."""
        self.stage = stage

    def starts(self) -> list[Actions]:
        """Return the first trials of the stage: by default the network as it is."""
        return [self.problem.default]

    @abstractmethod
    def ask(self, count: int) -> list[Actions]:
        """Return up to `count` allowed suggestions; none where nothing is left to try."""

    @abstractmethod
    def tell(self, trial: Trial) -> None:
        """Take in an evaluated trial of the stage, suggested by this proposer or not."""

    def cuts(self, actions: Actions) -> Cuts:
        """Return the layers to remove and the width ratios that `actions` stand for."""
        return self.stage.cuts(actions)

    def base_layers(self, feasible: Sequence[Trial], nearest: Trial | None, progress: float) -> Depth | frozenset[str]:
        """Return which layers stage 2 is to be without or has merged: by default those of the best trial.

        A set alone is of those that are gone. `progress` is how much of stage 2 is done, `nearest` the trial that
        missed the budgets by least.
        """
        leader = max(feasible, key=self.reward, default=nearest)
        return Depth() if leader is None else Depth(leader.architecture.removed, leader.architecture.linear)

    def tell_compared(self, rewards: Mapping[Depth, float]) -> None:
        """Take in what the `compared` choices of layers came to on more images, before `base_layers` is asked."""
        return

    def reward(self, trial: Trial) -> float:
        """Return the reward by which feasible trials are ranked in the end."""
        return trial.reward


Factory = Callable[[SearchContext], Proposer]

_registered: dict[str, Factory] = {}


def register_proposer(name: str, factory: Factory) -> None:
    """Make ``factory(context)`` the proposer that ``--policy NAME`` chooses.

    Raises:
        ValueError: the name is taken.
    """
    if name in proposer_names():
        raise ValueError(f"there is a proposer called {name!r} already")
    _registered[name] = factory


def proposer_names() -> tuple[str, ...]:
    """Return the names of all proposers: built in, registered, and offered by installed packages."""
    offered = (entry.name for entry in entry_points(group=_GROUP))
    return tuple(dict.fromkeys([*_BUILT_IN, *_registered, *offered]))


def check_proposer(name: str) -> None:
    """Raise InputError, naming the others, where there is no proposer `name`."""
    if name not in proposer_names():
        raise InputError(f"‹policy› {name}: no such policy; give one of {', '.join(proposer_names())}")


def make_proposer(name: str, context: SearchContext) -> Proposer:
    """Return the proposer called `name`; only those that have a network need torch.

    Raises:
        InputError: there is none, or one from outside can't be loaded or made.
    """
    check_proposer(name)
    with proposer_errors(name):
        factory: Factory
        if name in _BUILT_IN:
            module, _, attribute = _BUILT_IN[name].partition(":")
            factory = getattr(import_module(f"{__package__}.{module}"), attribute)
        elif name in _registered:
            factory = _registered[name]
        else:
            factory = next(iter(entry_points(group=_GROUP, name=name))).load()
        return factory(context)


def proposer_errors(name: str) -> AbstractContextManager[None]:
    """Return a context in which an exception of a proposer from outside becomes an error of one line."""
    return nullcontext() if name in _BUILT_IN else foreign_code(f"‹policy› {name}")


def varied(problem: DecisionProblem, actions: Actions, generator: np.random.Generator, changes: int = 1) -> Actions:
    """Return `actions` with up to `changes` random steps moved to a neighbouring allowed action."""
    free = [step for step, choices in enumerate(problem.choices) if choices > 1]
    result = list(actions)
    for step in generator.permutation(free)[:changes]:
        ordered = problem.by_change(step)
        rank = ordered.index(result[step])
        neighbours = [ordered[r] for r in (rank - 1, rank + 1) if 0 <= r < len(ordered)]
        result[step] = neighbours[int(generator.integers(len(neighbours)))]
    return tuple(result)


def choose_distinct(
    problem: DecisionProblem, draws: Iterable[Actions], count: int, generator: np.random.Generator
) -> list[Actions]:
    """Return `count` suggestions out of `draws` in order, each once; what is missing is filled with variations of them.

    Repeats only where the problem has fewer than `count` candidates.
    """
    chosen: dict[Actions, None] = {}
    for draw in draws:
        chosen.setdefault(draw)
        if len(chosen) == count:
            return list(chosen)
    start = list(chosen) or [problem.default]
    changes = 1
    while len(chosen) < min(count, problem.size()):
        for actions in start:
            if len(chosen) < count:
                chosen.setdefault(varied(problem, actions, generator, changes))
        start, changes = list(chosen) or start, changes % problem.steps + 1
    suggested = list(chosen)
    return [suggested[i % len(suggested)] for i in range(count)]
