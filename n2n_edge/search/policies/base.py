"""The one interface behind which every search policy stands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from n2n_edge.errors import InputError
from n2n_edge.search.problem import DecisionProblem, Proposal

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "NothingTransfers",
    "Observation",
    "Policy",
    "PractisingPolicy",
    "choose_distinct",
    "numpy_generator",
    "varied",
]


@dataclass(frozen=True)
class Observation:
    """What became of one proposal; `cost` is its ratio to the teacher's, `accuracy` is None if it was never trained."""

    actions: Proposal
    reward: float
    feasible: bool
    accuracy: float | None
    cost: float


class Policy(Protocol):
    """Proposes candidates and learns from what became of them.

    >>> policy = make_policy("reinforce", problem, seed=0, expected_candidates=100)
    >>> proposals = policy.propose(8)
    >>> policy.observe([judge(actions) for actions in proposals])

    Proposals are a pure function of the seed, the observations so far and what was practised in between: asking again
    before `observe` gives the same answer, and a resumed run that replays its observations in the same batches stands
    where the first one stood, bit for bit. No global random state is read or written.
    """

    @property
    def name(self) -> str:
        """The name under which `make_policy` knows it."""
        ...

    @property
    def entropy(self) -> float | None:
        """How undecided the policy is: 1 uniformly random, 0 settled; None if it isn't a distribution."""
        ...

    def propose(self, count: int) -> list[Proposal]:
        """Return `count` allowed proposals, distinct among themselves unless the problem has fewer."""
        ...

    def observe(self, results: Sequence[Observation]) -> None:
        """Take in a batch of judged proposals, the policy's own or any others; an empty batch changes nothing."""
        ...

    def state_dict(self) -> "dict[str, Tensor]":
        """Return what another run can continue from; empty for a policy that learns nothing that transfers."""
        ...

    def load_state_dict(self, state: "Mapping[str, Tensor]") -> None:
        """Continue from another run's `state_dict`; raises InputError if it doesn't fit this policy."""
        ...


class NothingTransfers:
    """The part of a policy whose findings hold for its own network only."""

    name: str

    def state_dict(self) -> "dict[str, Tensor]":
        """Return nothing: there is nothing that another run could continue from."""
        return {}

    def load_state_dict(self, state: "Mapping[str, Tensor]") -> None:
        """Raise InputError for any `state` that holds something: this policy has no use for it."""
        if state:
            raise InputError(
                f"policy {self.name} learns nothing that transfers: start from another run with reinforce or n2n only"
            )


@runtime_checkable
class PractisingPolicy(Policy, Protocol):
    """A policy that can also learn from what its candidates are only expected to earn."""

    def sample(self, count: int) -> list[Proposal]:
        """Return `count` candidates as the policy draws them now, repeats among them."""
        ...

    def practise(self, proposals: Sequence[Proposal], rewards: Sequence[float]) -> None:
        """Learn from expected rewards; nothing of it counts as observed."""
        ...


def numpy_generator(*key: int) -> np.random.Generator:
    """Return a generator of its own for `key`, such as (seed, number of observations)."""
    return np.random.default_rng(np.random.SeedSequence(key))


def varied(problem: DecisionProblem, proposal: Proposal, generator: np.random.Generator, changes: int = 1) -> Proposal:
    """Return `proposal` with the actions of up to `changes` random steps moved to a neighbouring allowed action."""
    free = [step for step, choices in enumerate(problem.choices) if choices > 1]
    result = list(proposal)
    for step in generator.permutation(free)[:changes]:
        ordered = problem.by_change(step)
        rank = ordered.index(result[step])
        neighbours = [ordered[r] for r in (rank - 1, rank + 1) if 0 <= r < len(ordered)]
        result[step] = neighbours[int(generator.integers(len(neighbours)))]
    return tuple(result)


def choose_distinct(
    problem: DecisionProblem, draws: Iterable[Proposal], count: int, generator: np.random.Generator
) -> list[Proposal]:
    """Return `count` proposals out of `draws` in order, each once; what is missing is filled with variations of them.

    Repeats only where the problem has fewer than `count` proposals.
    """
    chosen: dict[Proposal, None] = {}
    for draw in draws:
        chosen.setdefault(draw)
        if len(chosen) == count:
            return list(chosen)
    start = list(chosen) or [problem.default]
    changes = 1
    while len(chosen) < min(count, problem.size()):
        for proposal in start:
            if len(chosen) < count:
                chosen.setdefault(varied(problem, proposal, generator, changes))
        start, changes = list(chosen) or start, changes % problem.steps + 1
    proposals = list(chosen)
    return [proposals[i % len(proposals)] for i in range(count)]
