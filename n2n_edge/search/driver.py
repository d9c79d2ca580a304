"""The search: stage 1 removes layers, stage 2 shrinks what is left, finalists are compared once more.

A run is deterministic given its journal: policies are replayed, what the journal knows is looked up, and only what is
missing is worked out. That is all there is to resuming.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from n2n_edge.search.evaluator import Evaluator, Judged
from n2n_edge.search.journal import Candidate, Journal
from n2n_edge.search.policies import Observation, Policy, PractisingPolicy, RandomPolicy, make_policy
from n2n_edge.search.policies.base import numpy_generator, varied
from n2n_edge.search.problem import DecisionProblem, Proposal
from n2n_edge.search.rehearsal import Design, Expected, Rehearsal
from n2n_edge.search.stages import RemovalStage, ShrinkageStage

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.distill import ShortDistiller

__all__ = ["Progress", "SearchPlan", "SearchResult", "search"]

_BATCH = 8
_REHEARSED_BATCH = 4
"""Candidates judged before the policy learns again; few where it can practise in between."""

_ROUNDS = {"removal": 6, "shrinkage": 10}
_SAMPLES = {"removal": 24, "shrinkage": 96}
"""Rounds of practice before each batch, and designs in each: every new choice of layers has to be analysed."""

_PROFILE_SHARE = 0.15
"""Share of the search's time limit that the sensitivity profile may take."""

_STRANGERS = {"removal": 32, "shrinkage": 96}
"""Random designs of every size that join them: what the policy would never sample may still be worth knowing."""

_CLIMBS = 2
_CLIMBERS = 6
_TRIES = 6
"""Local search in the surrogate: steps, how many of the best designs take part, and changes tried of each."""

_BOLDNESS_START, _BOLDNESS_END = 1.5, 0.3
"""How many standard deviations of doubt count as promise when candidates are chosen to be judged."""

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
    profiler: "Callable[[], ShortDistiller]",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
    """Return the best architecture that `plan` finds; every candidate becomes a row of `journal`.

    Stage 1 judges a choice of layers at the widths that the budgets leave it, all groups shrunk alike; stage 2 varies
    the widths of the best choice. `finals` makes what judges the best few again after a longer distillation,
    `profiler` what refits without training, for the sensitivity profile.

    With policy ``reinforce`` the policy practises before every batch: a surrogate of accuracy, which starts from the
    sensitivity profile and learns from every real judgement, tells what sampled candidates are expected to earn at
    their true costs, and those most worth knowing are judged. Every other policy proposes what is judged.
    """
    standing = _Standing()
    states: dict[str, Mapping[str, Tensor]] = {}
    teacher, profile = evaluator.teacher, evaluator.meter.profile
    run = _Search(evaluator, plan, journal, standing, _Clock(journal, plan.deadline_s), on_progress)
    if plan.policy == "reinforce":
        most = plan.removal_candidates + plan.shrinkage_candidates
        run.rehearsal = Rehearsal(evaluator, evaluator.sensitivity(profiler, most, run.profile_is_over))

    headroom = evaluator.meter.headroom()
    removal = RemovalStage(teacher, profile, headroom)
    if any(layer.removable for layer in teacher.layers):
        stage = _Stage(
            "removal",
            make_policy(plan.policy, removal.problem, seed=plan.seed, expected_candidates=plan.removal_candidates),
            removal.problem,
            plan.removal_candidates,
            lambda proposal: Design(removal.removed(proposal), {}),
            share=0.4,
        )
        states["removal"] = run.stage(stage)

    leader = run.leader()
    layers_gone = leader.architecture.removed if leader is not None else frozenset()
    if any(group.shrinkable for group in teacher.trunk(layers_gone).groups):
        shrinkage = ShrinkageStage(teacher, profile, headroom, layers_gone)
        stage = _Stage(
            "shrinkage",
            make_policy(
                plan.policy, shrinkage.problem, seed=plan.seed + 1, expected_candidates=plan.shrinkage_candidates
            ),
            shrinkage.problem,
            plan.shrinkage_candidates,
            lambda proposal: Design(layers_gone, shrinkage.ratios(proposal)),
            share=1.0,
        )
        states["shrinkage"] = run.stage(stage)

    return SearchResult(run.winner(finals), standing.nearest, states, evaluator.objective.cost)


@dataclass(frozen=True)
class _Stage:
    """One stage: its policy, how many candidates to train, and what a proposal means."""

    name: str
    policy: Policy
    problem: DecisionProblem
    candidates: int
    design: Callable[[Proposal], Design]
    share: float


@dataclass
class _Search:
    """One search under way."""

    evaluator: Evaluator
    plan: SearchPlan
    journal: Journal
    standing: _Standing
    clock: "_Clock"
    on_progress: Callable[[Progress], None]
    rehearsal: Rehearsal | None = None

    def stage(self, stage: _Stage) -> "Mapping[str, Tensor]":
        """Judge what the stage's policy proposes until enough candidates are trained; return what it has learned.

        The untouched choice comes first.
        """
        if stage.name in self.plan.policy_states:
            stage.policy.load_state_dict(self.plan.policy_states[stage.name])
        recorded = {(row.stage, row.position) for row in self.journal.candidates(stage.name)}
        trained: set[str] = set()
        judged_before: set[Proposal] = set()
        position = batch = 0
        while len(trained) < stage.candidates and position < stage.candidates * _PROPOSALS_PER_CANDIDATE:
            replaying = (stage.name, position) in recorded
            if not replaying and self.clock.stage_is_over(stage.name, batch, stage.share):
                break
            progress = min(1.0, len(trained) / stage.candidates)
            wanted = stage.candidates - len(trained)
            proposals = [stage.problem.default] if batch == 0 else self.propose(stage, wanted, judged_before, progress)
            if not proposals:
                break  # nothing is left that would be another architecture
            observations = []
            for proposal in proposals:
                start = time.monotonic()
                progress = min(1.0, len(trained) / stage.candidates)
                design = stage.design(proposal)
                architecture = self.evaluator.meter.fitted(design.removed, design.ratios)
                judged = self.evaluator.judge(architecture, progress)
                self.standing.add(judged)
                if self.rehearsal is not None:
                    self.rehearsal.learn([judged])
                if judged.feasible:
                    trained.add(judged.architecture.key)
                if (stage.name, position) not in recorded:
                    self.journal.record_candidate(_row(stage.name, position, batch, proposal, judged))
                position += 1
                judged_before.add(proposal)
                observations.append(_observation(proposal, judged, self.evaluator))
                self.on_progress(
                    Progress(
                        stage.name, len(trained), stage.candidates, judged, self.standing.best,
                        time.monotonic() - start, stage.policy.entropy,
                    )
                )  # fmt: skip
            stage.policy.observe(observations)
            batch += 1
        return stage.policy.state_dict()

    def profile_is_over(self, tried: int) -> bool:
        """Tell whether the sensitivity profile has had its share of the time."""
        return self.clock.stage_is_over("profile", tried, _PROFILE_SHARE)

    def propose(self, stage: _Stage, wanted: int, judged_before: set[Proposal], progress: float) -> list[Proposal]:
        """Return the next proposals to judge: the policy's own, or those most worth knowing after it has practised.

        None where practice finds nothing that would be another architecture.
        """
        if self.rehearsal is None or not isinstance(stage.policy, PractisingPolicy):
            return stage.policy.propose(min(_BATCH, wanted))
        known: dict[Proposal, Expected] = {}
        for _ in range(_ROUNDS[stage.name]):
            samples = stage.policy.sample(_SAMPLES[stage.name])
            self.expect(stage, samples, known, progress)
            stage.policy.practise(samples, [known[sample].reward for sample in samples])
        generator = numpy_generator(self.plan.seed, len(judged_before), 2)
        strangers = RandomPolicy(stage.problem, seed=int(generator.integers(2**31)))
        self.expect(stage, strangers.propose(_STRANGERS[stage.name]), known, progress)
        for _ in range(_CLIMBS):
            best = heapq.nlargest(_CLIMBERS, known, key=lambda proposal: known[proposal].reward)
            steps = [
                varied(stage.problem, proposal, generator, changes=int(generator.integers(1, 3)))
                for proposal in best
                for _ in range(_TRIES)
            ]
            self.expect(stage, steps, known, progress)
        count = min(_REHEARSED_BATCH, wanted)
        return self.most_worth_knowing(known, judged_before, count, progress)

    def expect(
        self, stage: _Stage, proposals: Sequence[Proposal], known: dict[Proposal, Expected], progress: float
    ) -> None:
        """Add to `known` what those of `proposals` are expected to earn that aren't in it."""
        assert self.rehearsal is not None
        new = [proposal for proposal in dict.fromkeys(proposals) if proposal not in known]
        known.update(zip(new, self.rehearsal.expect([stage.design(one) for one in new], progress), strict=True))

    def most_worth_knowing(
        self, known: Mapping[Proposal, Expected], judged_before: set[Proposal], count: int, progress: float
    ) -> list[Proposal]:
        """Return up to `count` proposals that haven't been judged, each another architecture."""
        assert self.rehearsal is not None
        done = {known[proposal].identity for proposal in judged_before if proposal in known}
        fresh: dict[object, Proposal] = {}
        for proposal, expected in known.items():
            if proposal not in judged_before and expected.identity not in done:
                fresh.setdefault(expected.identity, proposal)
        feasible = [proposal for proposal in fresh.values() if known[proposal].feasible]
        boldness = _BOLDNESS_START + progress * (_BOLDNESS_END - _BOLDNESS_START)
        places = self.rehearsal.surrogate.choose(
            [known[proposal].sketch for proposal in feasible],
            np.array([known[proposal].reward for proposal in feasible]),
            np.array([known[proposal].slope for proposal in feasible]),
            count,
            boldness,
        )
        chosen = [feasible[place] for place in places]
        others = [proposal for proposal in fresh.values() if not known[proposal].feasible]
        others.sort(key=lambda proposal: -known[proposal].reward)
        return chosen + others[: count - len(chosen)]

    def reward(self, judged: Judged) -> float:
        """Return what a judged candidate earns, by the surrogate's better knowledge where there is one."""
        return judged.reward if self.rehearsal is None else self.rehearsal.reward_of(judged)

    def leader(self) -> Judged | None:
        """Return the best feasible candidate so far, or what comes nearest."""
        return max(self.standing.feasible.values(), key=self.reward, default=self.standing.nearest)

    def winner(self, finals: "Callable[[], ShortDistiller]") -> Judged | None:
        """Return the best of the finalists after a longer distillation; None where nothing met the budgets."""
        rewards = {key: self.reward(judged) for key, judged in self.standing.feasible.items()}
        ranked = sorted(self.standing.feasible.values(), key=lambda judged: -rewards[judged.architecture.key])
        ranked = ranked[: self.plan.finalists]
        if len(ranked) < 2:
            return ranked[0] if ranked else None
        again = self.evaluator.refine(ranked, finals)

        def refined_reward(judged: Judged) -> float:
            return judged.reward * again[judged.architecture.key] / max(judged.accuracy or 0.0, 1e-9)

        return max(ranked, key=refined_reward)


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
