"""Search policies: what proposes the next candidates, all behind one interface."""

from n2n_edge.errors import InputError
from n2n_edge.search.policies.base import Observation, Policy, PractisingPolicy
from n2n_edge.search.policies.evolution import EvolutionPolicy
from n2n_edge.search.policies.greedy import GreedyPolicy
from n2n_edge.search.policies.random import RandomPolicy
from n2n_edge.search.problem import DecisionProblem

__all__ = [
    "POLICY_NAMES",
    "EvolutionPolicy",
    "GreedyPolicy",
    "Observation",
    "Policy",
    "PractisingPolicy",
    "RandomPolicy",
    "make_policy",
]

POLICY_NAMES = ("reinforce", "n2n", "random", "greedy", "evolution")


def make_policy(name: str, problem: DecisionProblem, *, seed: int, expected_candidates: int) -> Policy:
    """Return the policy called `name` for `problem`; `expected_candidates` is how many it will see, about.

    Raises InputError for an unknown name. Only "reinforce" and "n2n" need torch.
    """
    if name in ("reinforce", "n2n"):
        from n2n_edge.search.policies.reinforce import ReinforcePolicy, ReinforceSettings

        settings = ReinforceSettings.plain() if name == "n2n" else None
        return ReinforcePolicy(problem, seed=seed, expected_candidates=expected_candidates, settings=settings)
    if name == "random":
        return RandomPolicy(problem, seed=seed)
    if name == "greedy":
        return GreedyPolicy(problem, seed=seed)
    if name == "evolution":
        return EvolutionPolicy(problem, seed=seed)
    raise InputError(f"there is no policy '{name}': choose one of {', '.join(POLICY_NAMES)}")
