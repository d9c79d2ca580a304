"""The search: stage 1 removes layers, stage 2 shrinks what is left, finalists are compared once more.

A run is deterministic given its journal: policies are replayed, what the journal knows is looked up, and only what is
missing is worked out. That is all there is to resuming.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from n2n_edge.graph import Architecture
from n2n_edge.search.evaluator import Evaluator, Judged
from n2n_edge.search.journal import Candidate, Journal
from n2n_edge.search.policies import Observation, Policy, make_policy
from n2n_edge.search.problem import Proposal
from n2n_edge.search.stages import RemovalStage, ShrinkageStage

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.distill import ShortDistiller

__all__ = ["Progress", "SearchPlan", "SearchResult", "search"]

_BATCH = 8
_PROPOSALS_PER_CANDIDATE = 8
"""A stage ends after so many proposals per wanted candidate: most were infeasible, or had been judged already."""


@dataclass(frozen=True)
class SearchPlan:
    """How much to search: trained candidates per stage, finalists, and the policy.

    `policy_states` (by stage) starts the policies from those of another run; `deadline_s` is a limit on the search's
    wall-clock seconds, None for no limit.
    """

    policy: str
    seed: int
    removal_candidates: int
    shrinkage_candidates: int
    finalists: int
    policy_states: Mapping[str, "Mapping[str, Tensor]"] = field(default_factory=dict)
    deadline_s: float | None = None


@dataclass(frozen=True)
class Progress:
    """What the live view shows after each candidate."""

    stage: str
    done: int
    total: int
    judged: Judged
    best: Judged | None
    seconds: float
    entropy: float | None


@dataclass(frozen=True)
class SearchResult:
    """The winner (None where nothing met the budgets), the nearest miss, and what the policies have learned.

    `objective` is the cost that the reward counted.
    """

    winner: Judged | None
    nearest: Judged | None
    policy_states: Mapping[str, "Mapping[str, Tensor]"]
    objective: str


@dataclass
class _Standing:
    """The best candidates so far, over all stages."""

    best: Judged | None = None
    nearest: Judged | None = None
    feasible: dict[str, Judged] = field(default_factory=dict)

    def add(self, judged: Judged) -> None:
        if judged.feasible:
            self.feasible.setdefault(judged.architecture.key, judged)
            if self.best is None or judged.reward > self.best.reward:
                self.best = judged
        elif self.nearest is None or judged.cost_ratio < self.nearest.cost_ratio:
            self.nearest = judged


def search(
    evaluator: Evaluator,
    plan: SearchPlan,
    journal: Journal,
    finals: "Callable[[], ShortDistiller]",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
    """Return the best architecture that `plan` finds; every candidate becomes a row of `journal`.

    Stage 1 judges a choice of layers at the widths that the budgets leave it, all groups shrunk alike; stage 2 varies
    the widths of the best choice. `finals` makes
    what judges the best few again after a longer distillation.
    """
    standing = _Standing()
    states: dict[str, Mapping[str, Tensor]] = {}
    meter = evaluator.meter
    clock = _Clock(journal, plan.deadline_s)

    removal = RemovalStage(evaluator.teacher, meter.profile)
    if any(layer.removable for layer in evaluator.teacher.layers):
        uniform: Mapping[str, float] = {group.name: 1.0 for group in evaluator.teacher.groups}
        states["removal"] = _run_stage(
            _Stage(
                "removal",
                make_policy(
                    plan.policy, removal.problem, seed=plan.seed, expected_candidates=plan.removal_candidates
                ),
                plan.removal_candidates,
                lambda proposal: meter.fitted(removal.removed(proposal), uniform),
                share=0.4,
                given=(removal.problem.default,),
            ),
            evaluator, plan, journal, standing, clock, on_progress,
        )  # fmt: skip

    layers_gone = standing.best.architecture.removed if standing.best is not None else frozenset()
    if standing.best is None and standing.nearest is not None:
        layers_gone = standing.nearest.architecture.removed
    shrinkage = ShrinkageStage(evaluator.teacher, meter.profile, layers_gone)
    if shrinkage.groups:
        states["shrinkage"] = _run_stage(
            _Stage(
                "shrinkage",
                make_policy(
                    plan.policy, shrinkage.problem, seed=plan.seed + 1, expected_candidates=plan.shrinkage_candidates
                ),
                plan.shrinkage_candidates,
                lambda proposal: meter.fitted(layers_gone, shrinkage.ratios(proposal)),
                share=1.0,
                given=(shrinkage.problem.default,),
            ),
            evaluator, plan, journal, standing, clock, on_progress,
        )  # fmt: skip

    winner = _final(evaluator, plan, standing, finals)
    return SearchResult(winner, standing.nearest, states, evaluator.objective.cost)


@dataclass(frozen=True)
class _Stage:
    """One stage: its policy, how many candidates to train, and what a proposal means; `given` is judged first."""

    name: str
    policy: Policy
    candidates: int
    architecture: Callable[[Proposal], Architecture]
    share: float
    given: Sequence[Proposal]


def _run_stage(
    stage: _Stage,
    evaluator: Evaluator,
    plan: SearchPlan,
    journal: Journal,
    standing: _Standing,
    clock: "_Clock",
    on_progress: Callable[[Progress], None],
) -> "Mapping[str, Tensor]":
    """Judge what the stage's policy proposes until enough candidates are trained; return what it has learned."""
    if stage.name in plan.policy_states:
        stage.policy.load_state_dict(plan.policy_states[stage.name])
    recorded = {(row.stage, row.position) for row in journal.candidates(stage.name)}
    trained: set[str] = set()
    position = batch = 0
    while len(trained) < stage.candidates and position < stage.candidates * _PROPOSALS_PER_CANDIDATE:
        replaying = (stage.name, position) in recorded
        if not replaying and clock.stage_is_over(stage.name, batch, stage.share):
            break
        wanted = min(_BATCH, stage.candidates - len(trained))
        proposals = list(stage.given) if batch == 0 else stage.policy.propose(wanted)
        observations = []
        for proposal in proposals:
            start = time.monotonic()
            progress = min(1.0, len(trained) / stage.candidates)
            judged = evaluator.judge(stage.architecture(proposal), progress)
            standing.add(judged)
            if judged.feasible:
                trained.add(judged.architecture.key)
            if (stage.name, position) not in recorded:
                journal.record_candidate(_row(stage.name, position, batch, proposal, judged))
            position += 1
            observations.append(_observation(proposal, judged, evaluator))
            on_progress(
                Progress(
                    stage.name, len(trained), stage.candidates, judged, standing.best,
                    time.monotonic() - start, stage.policy.entropy,
                )
            )  # fmt: skip
        stage.policy.observe(observations)
        batch += 1
    return stage.policy.state_dict()


class _Clock:
    """Ends stages that run out of time; the decision is journalled, so that a resumed run takes the same one."""

    def __init__(self, journal: Journal, deadline_s: float | None) -> None:
        self._journal = journal
        self._deadline_s = deadline_s
        self._spent_before = float(journal.meta().get("search_seconds", 0.0))
        self._start = time.monotonic()

    def stage_is_over(self, stage: str, batch: int, share: float) -> bool:
        """Tell whether `stage` ends before `batch` because `share` of the time is spent."""
        spent = self._spent_before + time.monotonic() - self._start
        self._journal.set_meta("search_seconds", spent)
        if self._deadline_s is None:
            return False
        known = self._journal.cached("stage_end", stage)
        if known is None and batch > 0 and spent > self._deadline_s * share:
            known = {"batch": batch}
            self._journal.store("stage_end", stage, known)
        return known is not None and batch >= int(known["batch"])


def _final(
    evaluator: Evaluator, plan: SearchPlan, standing: _Standing, finals: "Callable[[], ShortDistiller]"
) -> Judged | None:
    ranked = sorted(standing.feasible.values(), key=lambda judged: -judged.reward)[: plan.finalists]
    if len(ranked) < 2:
        return standing.best
    again = evaluator.refine(ranked, finals)

    def refined_reward(judged: Judged) -> float:
        return judged.reward * again[judged.architecture.key] / max(judged.accuracy or 0.0, 1e-9)

    return max(ranked, key=refined_reward)


def _observation(proposal: Proposal, judged: Judged, evaluator: Evaluator) -> Observation:
    objective = evaluator.objective
    cost = judged.costs.as_mapping().get(objective.cost, objective.base) / objective.base
    return Observation(proposal, judged.reward, judged.feasible, judged.accuracy, cost)


def _row(stage: str, position: int, batch: int, proposal: Proposal, judged: Judged) -> Candidate:
    latency = judged.costs.latency
    return Candidate(
        stage=stage,
        position=position,
        batch=batch,
        actions=tuple(proposal),
        key=judged.architecture.key,
        architecture=judged.architecture.to_json(),
        costs=judged.costs.as_mapping(),
        reward=judged.reward,
        accuracy=judged.accuracy,
        feasible=judged.feasible,
        provenance=latency.provenance if latency is not None else "computed",
    )
