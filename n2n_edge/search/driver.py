"""The search: stage 1 removes layers, stage 2 shrinks what is left, finalists are compared once more.

A run is deterministic given its journal: policies are replayed, what the journal knows is looked up, and only what is
missing is worked out. That is all there is to resuming.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from n2n_edge.search.evaluator import Evaluator, Judged
from n2n_edge.search.journal import Candidate, Journal
from n2n_edge.search.policies import make_policy
from n2n_edge.search.policies.base import Observation, Policy, PractisingPolicy
from n2n_edge.search.practice import Practice
from n2n_edge.search.problem import Proposal
from n2n_edge.search.rehearsal import Rehearsal
from n2n_edge.search.stages import RemovalStage, ShrinkageStage
from n2n_edge.watchdog import phase

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.training.proxy_evaluation import ShortDistiller

__all__ = ["Progress", "Rung", "SearchPlan", "SearchResult", "search"]

_BATCH = 8
"""Candidates that a policy which doesn't practise proposes at once."""

_PROFILE_SHARE = 0.15
"""Share of the search's time limit that the sensitivity profile may take."""

_STAGE_SHARES = {"removal": 0.4, "shrinkage": 1.0}
"""Share of the search's time limit after which each stage ends."""

_SHRINKAGE_ROUNDS = 3
"""Parts of stage 2; before each of them, practice chooses anew which layers are gone."""

_RUNG_SHARE = 0.2
"""Share of the search's time limit that comparing finalists once more may take, each time."""

_PROPOSALS_PER_CANDIDATE = 8
"""A stage ends after so many proposals per wanted candidate: most were infeasible, or had been judged already."""


@dataclass(frozen=True)
class SearchPlan:
    """How much to search: trained candidates per stage, and the policy.

    `policy_states` (by stage) starts the policies from those of another run; `deadline_s` is a limit on the search's
    wall-clock seconds, None for no limit.
    """

    policy: str
    seed: int
    removal_candidates: int
    shrinkage_candidates: int
    policy_states: Mapping[str, "Mapping[str, Tensor]"] = field(default_factory=dict)
    deadline_s: float | None = None


@dataclass(frozen=True)
class Rung:
    """One step of successive halving: so many of the best are judged again, on `times` the images of a candidate.

    Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016.
    """

    finalists: int
    times: int
    make: "Callable[[], ShortDistiller]"


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
    metric: str = "accuracy"
    """What candidates are evaluated by: accuracy, or fidelity to the teacher."""


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
    rungs: Sequence[Rung],
    profiler: "Callable[[], ShortDistiller]",
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_probe: Callable[[int, int], None] = lambda done, total: None,
) -> SearchResult:
    """Return the best architecture that `plan` finds; every candidate becomes a row of `journal`.

    Stage 1 judges a choice of layers at widths that the budgets leave it; stage 2 varies the widths of the best choice.
    `rungs` judge the best few again after longer distillations, `profiler` makes what refits without training, for the
    sensitivity profile. ``on_probe(done, total)`` follows that profile, `on_progress` the candidates. Time is looked at
    before every part of the profile and every candidate.

    With policy ``reinforce`` the policy practises before every batch: a surrogate of accuracy, which starts from the
    sensitivity profile and learns from every real judgement, tells what sampled candidates are expected to earn at
    their true costs, and those most worth knowing are judged. Stage 1 then judges choices of layers at the widths that
    the profile suggests, and stage 2 asks now and then whether another choice of layers promises more. Every other
    policy proposes what is judged; all groups are shrunk alike in its stage 1.
    """
    run = _Search(evaluator, plan, journal, _Clock(journal, plan.deadline_s), on_progress)
    if plan.policy == "reinforce":
        most = plan.removal_candidates + plan.shrinkage_candidates
        profile = evaluator.sensitivity(profiler, most, run.profile_is_over, on_probe)
        run.practice = Practice(Rehearsal(evaluator, profile), plan.seed)
    run.remove_layers()
    run.shrink_layers()
    return SearchResult(run.winner(rungs), run.standing.nearest, run.policy_states, evaluator.objective.cost)


@dataclass
class _Stage:
    """One stage under way: its decisions, its policy, and what was judged."""

    problem: RemovalStage | ShrinkageStage
    policy: Policy
    judged: set[Proposal] = field(default_factory=set)


@dataclass
class _Count:
    """What a stage has done, over all choices of layers: rows of the journal, batches, and architectures trained."""

    position: int = 0
    batches: int = 0
    trained: set[str] = field(default_factory=set)


@dataclass
class _Search:
    """One search under way."""

    evaluator: Evaluator
    plan: SearchPlan
    journal: Journal
    clock: "_Clock"
    on_progress: Callable[[Progress], None]
    standing: _Standing = field(default_factory=_Standing)
    practice: Practice | None = None
    policy_states: "dict[str, Mapping[str, Tensor]]" = field(default_factory=dict)
    counts: dict[str, _Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metric = str(self.journal.meta().get("metric", "accuracy"))

    def profile_is_over(self, tried: int) -> bool:
        """Tell whether the sensitivity profile has had its share of the time."""
        return self.clock.stage_is_over("profile", tried, _PROFILE_SHARE, least=1)

    def remove_layers(self) -> None:
        """Run stage 1, if any layer is removable."""
        teacher, meter = self.evaluator.teacher, self.evaluator.meter
        if any(layer.removable for layer in teacher.layers):
            problem = RemovalStage(teacher, meter.profile, meter.headroom())
            self.judge_until(self.begun(problem), self.plan.removal_candidates, self.plan.removal_candidates)

    def shrink_layers(self) -> None:
        """Run stage 2 on the layers that stage 1 left, where a group of them can shrink."""
        teacher, meter = self.evaluator.teacher, self.evaluator.meter
        total = self.plan.shrinkage_candidates
        rounds = _SHRINKAGE_ROUNDS if self.practice is not None else 1
        stages: dict[frozenset[str], _Stage] = {}
        for part in range(rounds):
            gone = self.leading_layers(part / rounds)
            if not any(group.shrinkable for group in teacher.base_graph(gone).groups):
                continue
            if gone not in stages:
                stages[gone] = self.begun(ShrinkageStage(teacher, meter.profile, meter.headroom(), gone))
            self.judge_until(stages[gone], total * (part + 1) // rounds, total)

    def begun(self, problem: RemovalStage | ShrinkageStage) -> _Stage:
        """Return a stage whose policy goes on from what was learned in this run, or in the one to start from."""
        removal = problem.name == "removal"
        policy = make_policy(
            self.plan.policy,
            problem.problem,
            seed=self.plan.seed if removal else self.plan.seed + 1,
            expected_candidates=self.plan.removal_candidates if removal else self.plan.shrinkage_candidates,
        )
        learned = self.policy_states.get(problem.name, self.plan.policy_states.get(problem.name))
        if learned is not None:
            policy.load_state_dict(learned)
        return _Stage(problem, policy)

    def leading_layers(self, progress: float) -> frozenset[str]:
        """Return which layers stage 2 is to be without."""
        feasible = list(self.standing.feasible.values())
        if self.practice is not None and feasible:
            return self.practice.leading_layers(self.evaluator.teacher, feasible, progress)
        leader = max(feasible, key=self.reward, default=self.standing.nearest)
        return leader.architecture.removed if leader is not None else frozenset()

    def judge_until(self, stage: _Stage, wanted: int, total: int) -> None:
        """Judge what the stage's policy proposes until `wanted` candidates are trained of `total` in all.

        What a stage starts with comes first.
        """
        name = stage.problem.name
        count = self.counts.setdefault(name, _Count())
        recorded = {(row.stage, row.position) for row in self.journal.candidates(name)}
        over = False
        while not over and len(count.trained) < wanted and count.position < wanted * _PROPOSALS_PER_CANDIDATE:
            if self.is_over(name, recorded):
                break
            proposals = self.propose(stage, wanted - len(count.trained), len(count.trained) / total)
            if not proposals:
                break  # nothing is left that would be another architecture
            entropy = stage.policy.entropy
            if entropy is not None:
                self.journal.store("entropy", f"{name}/{count.batches}", {"entropy": entropy})
            observations = []
            for proposal in proposals:
                over = self.is_over(name, recorded)
                if over:
                    break
                start = time.monotonic()
                progress = min(1.0, len(count.trained) / total)
                with phase(f"{name} {min(len(count.trained) + 1, total)}/{total}"):
                    judged = self.judge(stage, proposal, progress)
                if judged.feasible:
                    count.trained.add(judged.architecture.key)
                if (name, count.position) not in recorded:
                    self.journal.record_candidate(_row(name, count.position, count.batches, proposal, judged))
                count.position += 1
                observations.append(_observation(proposal, judged, self.evaluator))
                self.on_progress(
                    Progress(
                        name, len(count.trained), total, judged, self.standing.best,
                        time.monotonic() - start, entropy, self.metric,
                    )
                )  # fmt: skip
            if observations:
                stage.policy.observe(observations)
            count.batches += 1
        self.policy_states[name] = stage.policy.state_dict()

    def is_over(self, name: str, recorded: set[tuple[str, int]]) -> bool:
        """Tell whether a stage is out of time before its next candidate; one is judged in any case."""
        position = self.counts[name].position
        least = 1 if self.standing.best is None else 0
        return (name, position) not in recorded and self.clock.stage_is_over(name, position, _STAGE_SHARES[name], least)

    def judge(self, stage: _Stage, proposal: Proposal, progress: float) -> Judged:
        """Judge one proposal at the widths that the budgets leave it."""
        design = (
            stage.problem.design(proposal) if self.practice is None else self.practice.design(stage.problem, proposal)
        )
        architecture = self.evaluator.meter.fitted(design.removed, design.ratios)
        judged = self.evaluator.judge(architecture, progress)
        stage.judged.add(proposal)
        self.standing.add(judged)
        if self.practice is not None:
            self.practice.learn(judged)
        return judged

    def propose(self, stage: _Stage, wanted: int, progress: float) -> list[Proposal]:
        """Return the next proposals to judge: what the stage starts with, then what practice or the policy chooses."""
        if not stage.judged:
            starts = [stage.problem.problem.default] if self.practice is None else self.practice.starts(stage.problem)
            return starts[: max(1, wanted)]  # what is left over is among the first that practice looks at
        if self.practice is None or not isinstance(stage.policy, PractisingPolicy):
            return stage.policy.propose(min(_BATCH, wanted))
        return self.practice.propose(stage.problem, stage.policy, wanted, stage.judged, progress)

    def reward(self, judged: Judged) -> float:
        """Return what a judged candidate earns, by the surrogate's better knowledge where there is one."""
        return judged.reward if self.practice is None else self.practice.rehearsal.reward_of(judged)

    def winner(self, rungs: Sequence[Rung]) -> Judged | None:
        """Return the best after successive halving; None where nothing met the budgets."""
        rewards = {key: self.reward(judged) for key, judged in self.standing.feasible.items()}
        ranked = sorted(self.standing.feasible.values(), key=lambda judged: -rewards[judged.architecture.key])
        for place, rung in enumerate(rungs):
            ranked = ranked[: self.clock.affordable(f"rung{place}", rung, ranked)]
            if len(ranked) < 2:
                break
            rewards = self.evaluator.refine(ranked, f"rung{place}", rung.make)
            ranked.sort(key=lambda judged: -rewards[judged.architecture.key])
        return ranked[0] if ranked else None


class _Clock:
    """Ends stages that run out of time; the decision is journalled, so that a resumed run takes the same one."""

    def __init__(self, journal: Journal, deadline_s: float | None) -> None:
        self._journal = journal
        self._deadline_s = deadline_s
        self._spent_before = float(journal.meta().get("search_seconds", 0.0))
        self._start = time.monotonic()

    def stage_is_over(self, stage: str, position: int, share: float, least: int) -> bool:
        """Tell whether `stage` ends before its next part, `share` of the time being spent; `least` are done anyway."""
        spent = self._spent_before + time.monotonic() - self._start
        self._journal.set_meta("search_seconds", spent)
        if self._deadline_s is None:
            return False
        begun = self._journal.cached("stage_reached", stage)
        if begun is not None and position <= int(begun["position"]):
            return False
        known = self._journal.cached("stage_over", stage)
        if known is None and position >= least and spent > self._deadline_s * share:
            known = {"position": position}
            self._journal.store("stage_over", stage, known)
        if known is not None and position >= int(known["position"]):
            return True
        self._journal.store("stage_reached", stage, {"position": position})
        return False

    def affordable(self, name: str, rung: Rung, finalists: Sequence[Judged]) -> int:
        """Return how many of `finalists` the time allows for a rung, one at least."""
        if self._deadline_s is None:
            return max(1, rung.finalists)
        known = self._journal.cached("rung_size", name)
        if known is None:
            rows = [self._journal.cached("accuracy", judged.architecture.key) or {} for judged in finalists]
            each = rung.times * statistics.median([float(row.get("seconds", 0.0)) for row in rows] or [0.0])
            number = rung.finalists if each <= 0 else int(_RUNG_SHARE * self._deadline_s / each)
            known = {"finalists": max(1, min(rung.finalists, number))}
            self._journal.store("rung_size", name, known)
        return int(known["finalists"])


def _observation(proposal: Proposal, judged: Judged, evaluator: Evaluator) -> Observation:
    objective = evaluator.objective
    cost = judged.costs.as_mapping().get(objective.cost, objective.base) / objective.base
    return Observation(proposal, judged.reward, judged.feasible, judged.accuracy, cost)


def _row(stage: str, position: int, batch: int, proposal: Proposal, judged: Judged) -> Candidate:
    latency = judged.costs.latency
    latencies = {"latencies": {name: figure.to_json() for name, figure in judged.costs.latencies.items()}}
    return Candidate(
        stage=stage,
        position=position,
        batch=batch,
        actions=tuple(proposal),
        key=judged.architecture.key,
        architecture=judged.architecture.to_json(),
        costs={**judged.costs.as_mapping(), **({} if latency is None else {"latency_ms": latency.value, **latencies})},
        reward=judged.reward,
        accuracy=judged.accuracy,
        feasible=judged.feasible,
        provenance=latency.provenance if latency is not None else "computed",
    )
