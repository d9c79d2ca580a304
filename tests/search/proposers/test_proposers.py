"""What every search policy promises, whichever it is."""

import numpy as np
import pytest
import torch
from n2n_edge.search.policies.base import Observation, Policy
from n2n_edge.search.policies.reinforce import ReinforcePolicy
from n2n_edge.search.problem import DecisionProblem, ProblemKind, Proposal

from n2n_edge.errors import InputError
from n2n_edge.search.policies import POLICY_NAMES, make_policy

every_policy = pytest.mark.parametrize("name", POLICY_NAMES)
every_kind = pytest.mark.parametrize("kind", ["removal", "shrinkage"])


def make_problem(kind: ProblemKind, steps: int = 7, *, seed: int = 0) -> DecisionProblem:
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


def judged(actions: Proposal) -> Observation:
    """A reward that prefers small actions at even steps."""
    reward = sum(-action if step % 2 == 0 else action for step, action in enumerate(actions)) / (5.0 * len(actions))
    return Observation(actions, reward, reward >= 0, None, 0.5)


def run(policy: Policy, batches: int, count: int = 4) -> list[list[Proposal]]:
    history = []
    for _ in range(batches):
        history.append(policy.propose(count))
        policy.observe([judged(actions) for actions in history[-1]])
    return history


@every_kind
@every_policy
def test_proposals_are_allowed_and_distinct(name: str, kind: ProblemKind) -> None:
    problem = make_problem(kind, 9)
    policy = make_policy(name, problem, seed=1, expected_candidates=80)

    for proposals in run(policy, 10, count=8):
        assert len(set(proposals)) == len(proposals) == 8
        for proposal in proposals:
            problem.check(proposal)


@every_policy
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
    policy = make_policy(name, problem, seed=0, expected_candidates=10)

    for proposals in run(policy, 3, count=6):
        assert len(proposals) == 6
        assert len(set(proposals)) == distinct


@every_kind
@every_policy
def test_replaying_the_observations_leads_to_the_same_proposals(name: str, kind: ProblemKind) -> None:
    problem = make_problem(kind)
    unbroken = make_policy(name, problem, seed=5, expected_candidates=40)
    history = run(unbroken, 6)

    torch.manual_seed(99)
    resumed = make_policy(name, problem, seed=5, expected_candidates=40)
    for batch in history:
        resumed.observe([judged(actions) for actions in batch])

    assert unbroken.entropy == resumed.entropy
    assert run(unbroken, 3) == run(resumed, 3)
    for key, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])


@every_policy
def test_asking_again_gives_the_same_answer(name: str) -> None:
    policy = make_policy(name, make_problem("shrinkage"), seed=5, expected_candidates=40)
    run(policy, 2)

    assert policy.propose(4) == policy.propose(4)
    before = policy.propose(4)
    policy.observe([])
    assert before == policy.propose(4)


@every_policy
def test_the_seed_decides_and_global_random_state_is_left_alone(name: str) -> None:
    problem = make_problem("shrinkage", 12)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)

    first, second = (run(make_policy(name, problem, seed=seed, expected_candidates=40), 6) for seed in (0, 1))

    assert first != second
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)


@every_policy
def test_an_action_that_is_not_allowed_is_refused(name: str) -> None:
    problem = make_problem("shrinkage")
    policy = make_policy(name, problem, seed=0, expected_candidates=10)

    with pytest.raises(ValueError, match="action 0 is not allowed at step 0"):
        policy.observe([Observation((0,) * problem.steps, 0.5, True, 0.9, 0.5)])


@every_kind
def test_what_was_learned_carries_over_to_a_network_of_another_depth(kind: ProblemKind) -> None:
    trained = make_policy("reinforce", make_problem(kind, 7), seed=0, expected_candidates=40)
    run(trained, 8)

    other = make_problem(kind, 15, seed=3)
    fresh, continued = (make_policy("reinforce", other, seed=1, expected_candidates=40) for _ in range(2))
    continued.load_state_dict(trained.state_dict())

    for key, value in trained.state_dict().items():
        assert torch.equal(value, continued.state_dict()[key])
    assert fresh.entropy != continued.entropy
    for proposals in run(continued, 2):
        for proposal in proposals:
            other.check(proposal)


def test_a_policy_of_another_kind_is_refused() -> None:
    removal = make_policy("reinforce", make_problem("removal"), seed=0, expected_candidates=10)
    shrinkage = make_policy("reinforce", make_problem("shrinkage"), seed=0, expected_candidates=10)

    with pytest.raises(InputError, match="doesn't fit the removal policy"):
        removal.load_state_dict(shrinkage.state_dict())


@pytest.mark.parametrize("name", ["random", "greedy"])
def test_yardsticks_say_that_they_carry_nothing_over(name: str) -> None:
    yardstick = make_policy(name, make_problem("removal"), seed=0, expected_candidates=10)
    learner = make_policy("reinforce", make_problem("removal"), seed=0, expected_candidates=10)

    assert yardstick.entropy is None
    with pytest.raises(InputError, match="the policy to start from is empty"):
        learner.load_state_dict(yardstick.state_dict())
    with pytest.raises(InputError, match=f"policy {name} learns nothing that transfers"):
        yardstick.load_state_dict(learner.state_dict())


def test_an_unknown_policy_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no policy 'ppo': choose one of reinforce, n2n, random, greedy, evolution"):
        make_policy("ppo", make_problem("removal"), seed=0, expected_candidates=10)


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

    kept = np.mean(make_policy("random", problem, seed=0, expected_candidates=10).propose(200), axis=1)

    assert min(np.histogram(kept, bins=4, range=(0, 1))[0]) > 25


def test_greedy_takes_the_best_single_change_each_time() -> None:
    problem = DecisionProblem(
        np.zeros((3, 1), dtype=np.float32), (3,) * 3, 3, np.ones((3, 3), dtype=bool), (2, 2, 2), "shrinkage"
    )
    gains = (3.0, 1.0, -1.0)  # of every notch of each step
    policy = make_policy("greedy", problem, seed=0, expected_candidates=30)

    def reward(actions: Proposal) -> float:
        return sum(gain * (2 - action) for gain, action in zip(gains, actions, strict=True))

    seen: list[Proposal] = []
    for _ in range(18):
        seen += policy.propose(1)
        policy.observe([Observation(seen[-1], reward(seen[-1]), True, None, 0.5)])

    assert seen[:4] == [(2, 2, 2), (1, 2, 2), (2, 1, 2), (2, 2, 1)]
    assert seen[4:7] == [(0, 2, 2), (1, 1, 2), (1, 2, 1)]
    assert max(seen, key=reward) == (0, 0, 2)
    assert len(set(seen)) == 18
