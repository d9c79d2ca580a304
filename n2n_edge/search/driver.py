"""Search driver: stage 1 removes layers, stage 2 shrinks what is left, finalists are compared once more.

A run is deterministic given its journal: trials are proposed again, results that the journal holds are taken from it,
and only the missing ones are evaluated. That is all there is to resuming.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from n2n_edge.search.clock import Clock, Spent
from n2n_edge.search.evaluator import Confidence, Evaluator, Priced, Score
from n2n_edge.search.halving import Rung, best_by_depth, finalists_of
from n2n_edge.search.precision import Base, Depth
from n2n_edge.search.proposers.base import Proposer, SearchContext, make_proposer, proposer_errors
from n2n_edge.search.space import Cuts, RemovalStage, ShrinkageStage, Stage
from n2n_edge.search.store import Fact, Journal, rung_kind
from n2n_edge.search.surrogate import Sensitivity
from n2n_edge.search.trial import Actions, StageName, Trial
from n2n_edge.watchdog import phase

if TYPE_CHECKING:
    from n2n_edge.training.proxy_evaluation import ShortDistiller

__all__ = ["Progress", "SearchPlan", "SearchResult", "search"]

_PROFILE_SHARE = 0.15
"""Share of the search's time limit that the sensitivity profile may take."""

_LEAST_PROFILED = 24
"""So many parts of the teacher are tried alone in any case, where it has them: fewer tell little of the rest."""

_STAGE_SHARES = {"removal": 0.4, "shrinkage": 1.0}
"""Share of the search's time limit after which each stage ends."""

_RUNG_SHARE = 0.2
"""Share of the search's time limit that comparing finalists once more may take, each time."""

_COMPARISON, _COMPARISON_SHARE = "layers", 0.1
"""The comparison of choices of layers before stage 2 in the journal, and the share of the time limit it may take."""

_PROPOSALS_PER_CANDIDATE = 8
"""A stage ends after so many proposals per wanted candidate: most were infeasible, or had been evaluated already."""


@dataclass(frozen=True)
class SearchPlan:
    """How much to search: trained candidates per stage, and the policy.

    `deadline_s` is a limit on the search's wall-clock seconds, None for no limit; then `profile_s` is one on those of
    the sensitivity profile. `proposals` are made at once, None: as many as the policy likes.
    """

    policy: str
    seed: int
    removal_candidates: int
    shrinkage_candidates: int
    deadline_s: float | None = None
    profile_s: float | None = None
    proposals: int | None = None


@dataclass(frozen=True)
class Progress:
    """Progress of a search after each trial, for live views.

    `metric` is what trials are scored by: accuracy, or fidelity to the teacher.
    """

    stage: str
    done: int
    total: int
    trial: Trial
    best: Trial | None
    seconds: float
    entropy: float | None
    metric: str = "accuracy"


@dataclass(frozen=True)
class SearchResult:
    """The winner (None where nothing met the budgets), the nearest miss, and the cost that the reward counted.

    `spent` is the time it took. `confidence` says how sure the winner's place is among the finalists; None where it was
    the only one.
    """

    winner: Trial | None
    nearest: Trial | None
    objective: str
    spent: Spent
    confidence: Confidence | None = None


@dataclass
class _Leaders:
    """The best trials so far, over all stages."""

    best: Trial | None = None
    nearest: Trial | None = None
    feasible: dict[str, Trial] = field(default_factory=dict)

    def add(self, trial: Trial) -> None:
        if trial.feasible:
            self.feasible.setdefault(trial.key, trial)
            if self.best is None or trial.reward > self.best.reward:
                self.best = trial
        elif self.nearest is None or trial.total_excess < self.nearest.total_excess:
            self.nearest = trial


def search(
    evaluator: Evaluator,
    plan: SearchPlan,
    journal: Journal,
    rungs: Sequence[Rung],
    profiler: "Callable[[], ShortDistiller]",
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_probe: Callable[[int, int], None] = lambda done, total: None,
) -> SearchResult:
    """Return the best architecture that `plan` finds; every trial becomes a row of `journal`.

    Stage 1 chooses which layers go; stage 2 varies the widths of the best choice. The proposer that the plan names
    suggests the trials of both; each is evaluated at the widths that the budgets leave it.
    `rungs` evaluate the best few again after longer distillations, `profiler` makes what refits without training, for
    proposers that ask for a sensitivity profile. ``on_probe(done, total)`` follows that profile, `on_progress` the
    trials. Time is looked at before every part of the profile and every trial.
    """
    clock = Clock(journal, plan.deadline_s)

    def sensitivity() -> Sensitivity:
        most = max(plan.removal_candidates + plan.shrinkage_candidates, _LEAST_PROFILED)
        start = time.monotonic()
        if not evaluator.meter.limits:
            # without budgets this is what stage 1 starts with, whatever the profile says: training begins at once
            with phase("first candidate"):
                architecture = evaluator.meter.fitted(Base(int8=evaluator.meter.precision.always), {})
            evaluator.evaluate(architecture, 0.0, "first candidate")
        first_s, journal_time = time.monotonic() - start, clock.profiling()

        def probed(done: int, total: int) -> None:
            journal_time()
            on_probe(done, total)

        return evaluator.sensitivity(
            profiler,
            most,
            lambda tried: clock.stage_is_over("profile", tried, _PROFILE_SHARE, 1, plan.profile_s, first_s),
            probed,
        )

    expected: dict[StageName, int] = {"removal": plan.removal_candidates, "shrinkage": plan.shrinkage_candidates}
    run = _Search(
        evaluator,
        plan,
        journal,
        clock,
        on_progress,
        make_proposer(plan.policy, SearchContext(plan.seed, expected, evaluator, sensitivity)),
    )
    run.remove_layers()
    run.compare_layers(rungs)
    run.shrink_layers()
    winner, confidence = run.winner(rungs)
    return SearchResult(winner, run.leaders.nearest, evaluator.objective.cost, clock.all_spent(), confidence)


@dataclass
class _Count:
    """What a stage has done, over all choices of layers: trials, batches, and architectures trained."""

    trials: int = 0
    batches: int = 0
    trained: set[str] = field(default_factory=set)


class _Search:
    """One search under way."""

    def __init__(
        self,
        evaluator: Evaluator,
        plan: SearchPlan,
        journal: Journal,
        clock: "Clock",
        on_progress: Callable[[Progress], None],
        proposer: Proposer,
    ) -> None:
        self.evaluator, self.plan, self.journal, self.clock = evaluator, plan, journal, clock
        self.on_progress = on_progress
        self.proposer = proposer
        self.leaders = _Leaders()
        self.begun: set[Stage] = set()
        self.counts: dict[str, _Count] = {}
        self.compared: list[Trial] = []
        self.metric = str(journal.meta().get("metric", "accuracy"))

    def remove_layers(self) -> None:
        """Run stage 1, if any layer is removable or can be merged."""
        teacher, meter = self.evaluator.teacher, self.evaluator.meter
        if meter.merges or teacher.removable:
            stage = RemovalStage(teacher, meter.profile, meter.headroom(), meter.precision, meter.merges)
            self.run_stage(stage, self.plan.removal_candidates, self.plan.removal_candidates)

    def compare_layers(self, rungs: Sequence[Rung]) -> None:
        """Judge the best choices of layers on the images of the first rung, if the proposer wants to know.

        A short distillation orders the widths of one choice, but misjudges choices of different depths
        (benchmarks/peers). All of them are finalists of that rung later, and not judged again.
        """
        compared = self.proposer.compared
        if compared < 2 or not rungs or not self.plan.shrinkage_candidates:
            return
        best = list(best_by_depth(self.ranked()).values())[:compared]
        most = self.clock.affordable(_COMPARISON, rungs[0], best, self.evaluator.evaluations.width, _COMPARISON_SHARE)
        if min(len(best), most) < 2:
            return
        self.compared = best[:most]
        rewards = self.evaluator.refine(self.compared, 0, rungs[0].make)
        self.clock.spent()
        with proposer_errors(self.plan.policy):
            self.proposer.tell_compared({Base.of(one.architecture).depth: rewards[one.key] for one in self.compared})

    def ranked(self) -> list[Trial]:
        """Return all trials that meet the budgets, the best first."""
        with proposer_errors(self.plan.policy):
            rewards = {key: self.proposer.reward(trial) for key, trial in self.leaders.feasible.items()}
        return sorted(self.leaders.feasible.values(), key=lambda trial: -rewards[trial.key])

    def shrink_layers(self) -> None:
        """Run stage 2 on the layers that stage 1 left, where a group of them can shrink."""
        teacher, meter = self.evaluator.teacher, self.evaluator.meter
        total, rounds = self.plan.shrinkage_candidates, self.proposer.rounds
        stages: dict[Depth, ShrinkageStage] = {}
        for part in range(rounds):
            with proposer_errors(self.plan.policy):
                depth = self.proposer.base_layers(
                    list(self.leaders.feasible.values()), self.leaders.nearest, part / rounds
                )
            if not isinstance(depth, Depth):  # layers that are gone, of a proposer that knows no merges
                depth = Depth(frozenset(depth))
            if not any(group.shrinkable for group in teacher.base_graph(*depth).groups):
                continue
            if depth not in stages:
                stages[depth] = ShrinkageStage(
                    teacher, meter.profile, meter.headroom(), depth.removed, meter.precision, depth.linear
                )
            self.run_stage(stages[depth], total * (part + 1) // rounds, total)

    def run_stage(self, stage: Stage, wanted: int, total: int) -> None:
        """Evaluate what the proposer suggests until `wanted` candidates are trained of `total` in all."""
        name = stage.name
        count = self.counts.setdefault(name, _Count())
        recorded = {trial.number for trial in self.journal.trials(name)}
        with proposer_errors(self.plan.policy):
            self.proposer.start(stage)
        over = False
        while not over and len(count.trained) < wanted and count.trials < wanted * _PROPOSALS_PER_CANDIDATE:
            if self.is_over(name, count.trials, recorded):
                break
            suggested = self.suggested(stage, wanted - len(count.trained))
            if not suggested:
                break  # nothing is left that would be another architecture
            with proposer_errors(self.plan.policy):
                entropy = self.proposer.entropy
            if entropy is not None:
                self.journal.store(Fact.ENTROPY, f"{name}/{count.batches}", {"entropy": entropy})
            told, start = 0, time.monotonic()
            for trial in self.evaluated(stage, suggested, recorded, total):
                if trial.feasible:
                    count.trained.add(trial.key)
                if count.trials not in recorded:
                    self.journal.record_trial(trial)
                count.trials += 1
                with proposer_errors(self.plan.policy):
                    self.proposer.tell(trial)
                seconds, start = time.monotonic() - start, time.monotonic()
                self.on_progress(
                    Progress(name, len(count.trained), total, trial, self.leaders.best, seconds, entropy, self.metric)
                )
                told += 1
            over = told < len(suggested)
            count.batches += 1

    def is_over(self, name: StageName, number: int, recorded: set[int]) -> bool:
        """Tell whether a stage is out of time before a trial; the first is evaluated in any case."""
        least = 1 if self.leaders.best is None else 0
        return number not in recorded and self.clock.stage_is_over(name, number, _STAGE_SHARES[name], least)

    def suggested(self, stage: Stage, wanted: int) -> list[Actions]:
        """Return the next suggestions to evaluate, at most `wanted`: first of all what the stage starts with."""
        with proposer_errors(self.plan.policy):
            if stage not in self.begun:
                suggested = self.proposer.starts()[: max(1, wanted)]
            else:
                suggested = self.proposer.ask(min(self.plan.proposals or self.proposer.batch, wanted))
            for actions in suggested:
                stage.problem.check(actions)
        return suggested

    def evaluated(self, stage: Stage, suggested: Sequence[Actions], recorded: set[int], total: int) -> Iterator[Trial]:
        """Give the trials of one batch of suggestions in order, at the widths that the budgets leave them.

        All are fitted and priced here before the first is given, so before the proposer hears of any; then nothing that
        follows depends on where, and how many at once, they are evaluated. Fewer are given where time runs out.
        """
        name, count, evaluator = stage.name, self.counts[stage.name], self.evaluator
        with proposer_errors(self.plan.policy):
            cuts = [Cuts(*self.proposer.cuts(actions)) for actions in suggested]
        first, batch = count.trials, count.batches
        priced: list[Priced] = []

        def price(number: int) -> Priced:
            while len(priced) <= number:
                each = cuts[len(priced)]
                priced.append(evaluator.price(evaluator.meter.fitted(each.base, each.ratios)))
            return priced[number]

        def wanted() -> Iterator[tuple[str, Priced]]:
            for number in range(len(suggested)):
                if self.is_over(name, first + number, recorded):
                    return
                step = f"{name} {min(len(count.trained) + 1, total)}/{total}"
                with phase(step):
                    one = price(number)
                yield step, one

        last = len(suggested) - 1
        if evaluator.evaluations.aside and evaluator.meter.times_candidates:
            with phase(f"{name} {min(len(count.trained) + 1, total)}/{total}"):
                evaluator.evaluations.settle()
                price(last)  # nothing else may run while a candidate is timed
        for number, (result, fresh) in enumerate(self.all_priced(evaluator.scores(wanted()), price, priced, last)):
            progress = min(1.0, len(count.trained) / total)
            trial = replace(
                evaluator.trial(priced[number], result, progress, fresh=fresh),
                stage=name,
                number=first + number,
                batch=batch,
                actions=tuple(suggested[number]),
            )
            self.begun.add(stage)
            self.leaders.add(trial)
            yield trial

    def all_priced(
        self, results: Iterator[Score], price: Callable[[int], Priced], priced: Sequence[Priced], last: int
    ) -> Iterator[Score]:
        """Give results once every candidate up to the `last` is priced, so that none is known before.

        Where workers evaluate, they get more while the rest are priced.
        """
        waiting: deque[Score] = deque()
        for result in results:
            if not self.evaluator.evaluations.aside:
                price(last)
            waiting.append(result)
            while waiting and len(priced) > last:
                yield waiting.popleft()
        price(last)
        yield from waiting

    def winner(self, rungs: Sequence[Rung]) -> tuple[Trial | None, Confidence | None]:
        """Return the best after successive halving, None where nothing met the budgets, and how sure that is."""
        confidence = None
        ranked = self.ranked()
        for number, rung in enumerate(rungs):
            width = self.evaluator.evaluations.width
            most = self.clock.affordable(rung_kind(number), rung, ranked, width, _RUNG_SHARE)
            ranked = finalists_of(ranked, most, judged=() if number else self.compared)
            if len(ranked) < 2:
                break
            rewards = self.evaluator.refine(ranked, number, rung.make)
            self.clock.spent()
            ranked.sort(key=lambda trial: -rewards[trial.key])
            confidence = self.evaluator.confidence(ranked, number)
        return (ranked[0] if ranked else None), confidence
