"""Proposers: what each of them promises, whichever it is."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from n2n_edge.graph.architecture import Architecture
from n2n_edge.search.precision import Depth
from n2n_edge.search.proposers.base import Proposer, SearchContext, make_proposer
from n2n_edge.search.proposers.reinforce import ReinforcePolicy, ReinforceProposer
from n2n_edge.search.space import Cuts, DecisionProblem
from n2n_edge.search.trial import Actions, StageName, Trial, TrialCosts

every_proposer = pytest.mark.parametrize("name", ["n2n", "random", "greedy", "evolution"])
every_kind = pytest.mark.parametrize("kind", ["removal", "shrinkage"])


def make_problem(kind: StageName, steps: int = 7, *, seed: int = 0) -> DecisionProblem:
    """A problem with random masks; the first step has no choice."""
    generator = np.random.default_rng(seed)
    actions = 2 if kind == "removal" else 5
    mask = generator.random((steps, actions)) < 0.7
    mask[:, -1] = True
    mask[:1, :-1] = False
    return DecisionProblem(
        features=generator.random((steps, 4), dtype=np.float32),
        choices=tuple(int(n) for n in mask.sum(axis=1)),
        actions=actions,
        mask=mask,
        default=(actions - 1,) * steps,
        kind=kind,
    )


@dataclass(frozen=True, eq=False)
class MadeUpStage:
    problem: DecisionProblem
    depth: Depth = field(default_factory=Depth)
    removed: frozenset[str] = frozenset()

    @property
    def name(self) -> StageName:
        return self.problem.kind

    def cuts(self, actions: Actions) -> Cuts:
        return frozenset(), {}


def started(name: str, problem: DecisionProblem, seed: int, expected: int = 40) -> Proposer:
    proposer = make_proposer(name, SearchContext(seed, {problem.kind: expected}))
    proposer.start(MadeUpStage(problem))  # type: ignore[arg-type]
    return proposer


def evaluated(actions: Actions, reward: float | None = None) -> Trial:
    """A trial whose reward prefers small actions at even steps."""
    if reward is None:
        reward = sum(-action if step % 2 == 0 else action for step, action in enumerate(actions)) / (5.0 * len(actions))
    return Trial(Architecture(), TrialCosts(1.0, 1, 1, 1.0), reward, reward >= 0, actions=actions)


def run(proposer: Proposer, batches: int, count: int = 4) -> list[list[Actions]]:
    history = []
    for _ in range(batches):
        history.append(proposer.ask(count))
        for actions in history[-1]:
            proposer.tell(evaluated(actions))
    return history


@every_kind
@every_proposer
def test_proposals_are_allowed_and_distinct(name: str, kind: StageName) -> None:
    problem = make_problem(kind, 9)
    proposer = started(name, problem, 1, 80)

    for proposals in run(proposer, 10, count=8):
        assert len(set(proposals)) == len(proposals) == 8
        for proposal in proposals:
            problem.check(proposal)


@every_proposer
@pytest.mark.parametrize(("steps", "distinct"), [(1, 1), (3, 4)])
def test_small_problems_are_covered_before_anything_repeats(name: str, steps: int, distinct: int) -> None:
    mask = np.ones((steps, 2), dtype=bool)
    mask[:1, 0] = False
    problem = DecisionProblem(
        features=np.zeros((steps, 4), dtype=np.float32),
        choices=tuple(int(n) for n in mask.sum(axis=1)),
        actions=2,
        mask=mask,
        default=(1,) * steps,
        kind="removal",
    )
    proposer = started(name, problem, 0, 10)

    for proposals in run(proposer, 3, count=6):
        assert len(proposals) == 6
        assert len(set(proposals)) == distinct


@every_kind
@every_proposer
def test_replaying_the_observations_leads_to_the_same_proposals(name: str, kind: StageName) -> None:
    problem = make_problem(kind)
    unbroken = started(name, problem, 5, 40)
    history = run(unbroken, 6)

    torch.manual_seed(99)
    resumed = started(name, problem, 5, 40)
    for batch in history:
        for actions in batch:
            resumed.tell(evaluated(actions))
        resumed.ask(4)  # as between batches

    assert unbroken.entropy == resumed.entropy
    assert run(unbroken, 3) == run(resumed, 3)
    assert unbroken.entropy == resumed.entropy


@every_proposer
def test_asking_again_gives_the_same_answer(name: str) -> None:
    proposer = started(name, make_problem("shrinkage"), 5, 40)
    run(proposer, 2)

    assert proposer.ask(4) == proposer.ask(4)


@every_proposer
def test_the_seed_decides_and_global_random_state_is_left_alone(name: str) -> None:
    problem = make_problem("shrinkage", 12)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)

    first, second = (run(started(name, problem, seed, 40), 6) for seed in (0, 1))

    assert first != second
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


@every_proposer
def test_an_action_that_is_not_allowed_is_refused(name: str) -> None:
    problem = make_problem("shrinkage")
    proposer = started(name, problem, 0, 10)

    with pytest.raises(ValueError, match="action 0 is not allowed at step 0"):
        proposer.tell(evaluated((0,) * problem.steps, 0.5))


@every_kind
def test_what_was_learned_carries_over_to_another_choice_of_layers_and_is_kept_for_each(kind: StageName) -> None:
    problem, other = make_problem(kind, 7), make_problem(kind, 15, seed=3)
    proposer, fresh = started("n2n", problem, 0), started("n2n", other, 0)
    assert isinstance(proposer, ReinforceProposer)
    run(proposer, 8)
    learned, entropy = proposer.policy.state_dict(), proposer.entropy

    proposer.start(MadeUpStage(other, Depth(frozenset({"conv"}))))  # type: ignore[arg-type]
    for key, value in learned.items():
        assert torch.equal(value, proposer.policy.state_dict()[key])
    assert proposer.entropy != fresh.entropy
    for suggested in run(proposer, 2):
        for actions in suggested:
            other.check(actions)

    proposer.start(MadeUpStage(problem))  # type: ignore[arg-type]
    assert proposer.entropy == entropy


def test_nothing_carries_over_to_the_other_stage() -> None:
    proposer, fresh = started("n2n", make_problem("removal"), 0), started("n2n", make_problem("shrinkage"), 0)
    run(proposer, 8)

    proposer.start(MadeUpStage(make_problem("shrinkage")))  # type: ignore[arg-type]

    assert proposer.ask(8) == fresh.ask(8)


@pytest.mark.parametrize("name", ["random", "greedy", "evolution"])
def test_baselines_have_no_policy_to_be_undecided(name: str) -> None:
    assert started(name, make_problem("removal"), 0).entropy is None


def test_a_contradictory_problem_is_refused() -> None:
    features, mask = np.zeros((2, 3), dtype=np.float32), np.array([[True, True], [False, True]])

    with pytest.raises(ValueError, match="nothing to decide"):
        DecisionProblem(features[:0], (), 2, mask[:0], (), "removal")
    with pytest.raises(ValueError, match="default action 0 of step 1 is not allowed"):
        DecisionProblem(features, (2, 1), 2, mask, (1, 0), "removal")
    with pytest.raises(ValueError, match="choices differ"):
        DecisionProblem(features, (2, 2), 2, mask, (1, 1), "removal")
    with pytest.raises(ValueError, match="not finite"):
        DecisionProblem(np.full((2, 3), np.nan, dtype=np.float32), (2, 1), 2, mask, (1, 1), "removal")


def test_reinforce_starts_close_to_the_untouched_network() -> None:
    problem = DecisionProblem(
        np.zeros((20, 4), dtype=np.float32), (2,) * 20, 2, np.ones((20, 2), dtype=bool), (1,) * 20, "removal"
    )

    kept = np.mean(ReinforcePolicy(problem, seed=0, expected_candidates=10).propose(50))

    assert 0.75 < kept < 0.85


def test_reinforce_starts_from_the_bias_it_is_given() -> None:
    bias = np.tile(np.array([4.0, 0.0], dtype=np.float32), (20, 1))
    problem = DecisionProblem(
        np.zeros((20, 4), dtype=np.float32), (2,) * 20, 2, np.ones((20, 2), dtype=bool), (1,) * 20, "removal", bias
    )

    kept = np.mean(ReinforcePolicy(problem, seed=0, expected_candidates=10).propose(8))

    assert kept < 0.1


def test_random_covers_all_sizes() -> None:
    problem = DecisionProblem(
        np.zeros((20, 4), dtype=np.float32), (2,) * 20, 2, np.ones((20, 2), dtype=bool), (1,) * 20, "removal"
    )

    kept = np.mean(started("random", problem, 0, 10).ask(200), axis=1)

    assert min(np.histogram(kept, bins=4, range=(0, 1))[0]) > 25


def test_greedy_takes_the_best_single_change_each_time() -> None:
    problem = DecisionProblem(
        np.zeros((3, 1), dtype=np.float32), (3,) * 3, 3, np.ones((3, 3), dtype=bool), (2, 2, 2), "shrinkage"
    )
    gains = (3.0, 1.0, -1.0)  # of every notch of each step
    proposer = started("greedy", problem, 0, 30)

    def reward(actions: Actions) -> float:
        return sum(gain * (2 - action) for gain, action in zip(gains, actions, strict=True))

    seen: list[Actions] = []
    for _ in range(18):
        seen += proposer.ask(1)
        proposer.tell(evaluated(seen[-1], reward(seen[-1])))

    assert seen[:4] == [(2, 2, 2), (1, 2, 2), (2, 1, 2), (2, 2, 1)]
    assert seen[4:7] == [(0, 2, 2), (1, 1, 2), (1, 2, 1)]
    assert max(seen, key=reward) == (0, 0, 2)
    assert len(set(seen)) == 18
