"""Search policies: what proposes the next candidates, all behind one interface."""

from n2n_edge.errors import InputError
from n2n_edge.search.policies.base import Observation, Policy
from n2n_edge.search.policies.greedy import GreedyPolicy
from n2n_edge.search.policies.random import RandomPolicy
from n2n_edge.search.problem import DecisionProblem

__all__ = ["POLICY_NAMES", "GreedyPolicy", "Observation", "Policy", "RandomPolicy", "make_policy"]

POLICY_NAMES = ("reinforce", "random", "greedy")


def make_policy(name: str, problem: DecisionProblem, *, seed: int, expected_candidates: int) -> Policy:
    """Return the policy called `name` for `problem`; `expected_candidates` is how many it will see, about.

    Raises InputError for an unknown name. Only "reinforce" needs torch.
    """
    if name == "reinforce":
        from n2n_edge.search.policies.reinforce import ReinforcePolicy

        return ReinforcePolicy(problem, seed=seed, expected_candidates=expected_candidates)
    if name == "random":
        return RandomPolicy(problem, seed=seed)
    if name == "greedy":
        return GreedyPolicy(problem, seed=seed)
    raise InputError(f"there is no policy '{name}': choose one of {', '.join(POLICY_NAMES)}")
