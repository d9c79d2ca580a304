"""Surrogate-guided REINFORCE: the policy learns from predicted rewards, an upper confidence bound picks the trials.

Before every batch the policy is updated on rewards that a surrogate predicts at the true costs of what it samples; with
random candidates and a local search around the best of them, those of the highest upper confidence bound are evaluated.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from n2n_edge.graph.merging import Merge
from n2n_edge.search.precision import Base, Depth
from n2n_edge.search.proposers.base import SearchContext, Stream, generator_of, varied
from n2n_edge.search.proposers.baselines import random_actions
from n2n_edge.search.proposers.estimates import Estimator
from n2n_edge.search.proposers.reinforce import ReinforceProposer, ReinforceSettings
from n2n_edge.search.space import Cuts, RemovalStage, ShrinkageStage, Stage
from n2n_edge.search.surrogate import Estimate
from n2n_edge.search.trial import Actions, Trial

__all__ = ["GuidedProposer"]

_UPDATES = {"removal": 6, "shrinkage": 10}
_SAMPLES = {"removal": 24, "shrinkage": 96}
"""Policy updates before each batch, and samples in each: every new choice of layers has to be analysed."""

_RANDOM = {"removal": 32, "shrinkage": 96}
"""Random candidates of every size that join them, among them what the policy would never sample."""

_CLIMBS = {"removal": 2, "shrinkage": 4}
_CLIMBERS = 6
_TRIES = 6
"""Local search in the surrogate: steps, how many of the best candidates take part, and changes tried of each."""

_EXPLORATION_START, _EXPLORATION_END = 0.5, 0.2
"""How many standard deviations above the prediction the upper confidence bound is."""

_WHOLE_NODES = 150
_LEAST = 2
"""Up to so many nodes all of these choices of layers are analysed; of larger networks fewer, in inverse proportion, so
that a batch takes about the same time to propose."""

_BRANCH_MOVES = 0.5

_STARTS = 6
_APART = 0.1
_THINNED = 24
"""With how many choices of layers stage 1 begins, how far their numbers of branches are apart, of all branches, and how
many numbers are looked at for them."""

_CHOICES = 5
_NEIGHBOURS = 16
_VARIATIONS = 24
"""Choices of layers that may lead the next round of stage 2: of the best trials, layers tried beside the first of
them, and widths tried for each."""


class GuidedProposer(ReinforceProposer):
    """Suggests the candidates that a surrogate of accuracy finds most worth evaluating.

    Stage 1 evaluates choices of layers at the widths that the sensitivity profile suggests; before each part of stage 2
    it is asked again which choice of layers promises most.
    """

    name = "reinforce"
    batch = 4
    rounds = 3
    compared = 3
    settings = ReinforceSettings()

    def __init__(self, context: SearchContext) -> None:
        super().__init__(context)
        if context.evaluator is None or context.sensitivity is None:
            raise ValueError("policy reinforce needs an evaluator and a sensitivity profile")
        self._evaluator = context.evaluator
        self._estimator = Estimator(context.evaluator, context.sensitivity())
        self._teacher = context.evaluator.teacher
        self._nodes = sum(1 for _ in self._teacher.model.graph)
        self._best: dict[Depth, Trial] = {}
        self._tried: dict[tuple[str, Depth], set[Actions]] = {}
        self._trained: dict[str, set[str]] = {}
        self._asked_for_layers = 0
        self._compared: Mapping[Depth, float] = {}
        self._begun_without: list[tuple[int, ...]] = []

    def start(self, stage: Stage) -> None:
        """Start a stage, or go on with it."""
        super().start(stage)
        self._tried.setdefault((stage.name, stage.depth), set())
        self._trained.setdefault(stage.name, set())

    def starts(self) -> list[Actions]:
        """Return what a stage begins with.

        Stage 1 without the branches that the profile finds least important for what they cost; stage 2 with the best
        widths so far for its layers, and those that the profile suggests.
        """
        stage, estimator = self.stage, self._estimator
        if isinstance(stage, ShrinkageStage):
            best = self._best.get(stage.depth)
            int8 = self._precisions(stage.depth)[0] if best is None else best.architecture.int8
            suggested = estimator.suggested_ratios(Base(stage.depth.removed, int8, stage.depth.linear))
            ratios = [suggested] if best is None else [estimator.ratios_of(best.architecture), suggested]
            return list(dict.fromkeys(stage.nearest(each, int8) for each in ratios))
        if not estimator.is_bound:
            return [stage.problem.default]
        if not self._begun_without:
            self._begun_without = self._thinned(stage)
        first, *others = self._begun_without
        starts = [stage.without(first, int8) for int8 in self._precisions(stage.cuts(stage.without(first)).base.depth)]
        starts[1:1] = self._merged(stage, first, starts[0])
        starts += [self._promising(stage, steps) for steps in others]
        return list(dict.fromkeys(starts))

    def _thinned(self, stage: RemovalStage) -> list[tuple[int, ...]]:
        """Return the branches to begin without: as many as the profile expects to suffer least, then fewer or more.

        They go in the order of what their removal loses for what they have of the costs that budgets limit.
        """
        lost, share = self._estimator.profile.layers, self._evaluator.meter.limited_shares
        layers = {branch: stage.layers_of(branch) for branch in stage.branches}
        price = {
            branch: sum(lost.get(name, 0.0) for name in names) / max(sum(share[name] for name in names), 1e-9)
            for branch, names in layers.items()
        }
        ranked = sorted(price, key=lambda branch: price[branch])
        tried = min(len(ranked) + 1, max(_STARTS, self._few(_THINNED)))
        counts = sorted({round(count) for count in np.linspace(0, len(ranked), tried)})
        gone = {count: tuple(chain(*ranked[:count])) for count in counts}
        suffered = {
            count: self._estimator.suffered(stage.cuts(stage.without(steps)).base) for count, steps in gone.items()
        }
        apart = max(1, round(_APART * len(ranked)))
        chosen: list[int] = []
        for count in sorted(counts, key=lambda count: suffered[count]):
            if all(abs(count - other) >= apart for other in chosen):
                chosen.append(count)
        return [gone[count] for count in chosen[:_STARTS]]

    def _promising(self, stage: RemovalStage, steps: Iterable[int]) -> Actions:
        """Return the actions that take the cut of `steps` alone, in the precision that promises most."""
        return stage.without(steps, self._precisions(stage.cuts(stage.without(steps)).base.depth)[0])

    def _merged(self, stage: RemovalStage, gone: Sequence[int], start: Actions) -> list[Actions]:
        """Return the `start`, which is without `gone`, with merges made: one, two, and as many as promise most.

        Of these powers of two are looked at. They are those that lose least for what they save. What several lose
        together the profile can't tell: where none promises anything one may gain, and where ten do they may be far
        too many.
        """
        lost = self._estimator.profile.linear
        price = {
            step: sum(lost.get(name, 0.0) for name in priced.merge.linear) / priced.saved
            for step, priced in zip(stage.merge_steps, stage.merges, strict=True)
            if stage.cuts(stage.without((*gone, step))).linear
        }
        ranked = sorted(price, key=lambda step: price[step])
        counts = sorted({min(2**power, len(ranked)) for power in range(len(ranked).bit_length() + 1)} - {0})
        tried = [start, *(self._promising(stage, (*gone, *ranked[:count])) for count in counts)]
        rewards = [one.reward for one in self._estimator.estimates([self.cuts(each) for each in tried], 0.0)]
        return [tried[place] for place in sorted({1, 2, int(np.argmax(rewards))}) if 0 < place < len(tried)]

    def _precisions(self, depth: Depth) -> tuple[frozenset[str], ...]:
        """Return all of the open regions in float and all in int8, that which promises more first."""
        precision, estimator = self._evaluator.meter.precision, self._estimator
        ends = list(dict.fromkeys((precision.always, precision.most)))
        if len(ends) == 1:
            return tuple(ends)
        bases = [Base(depth.removed, int8, depth.linear) for int8 in ends]
        cuts = [Cuts(depth.removed, estimator.suggested_ratios(each), each.int8, depth.linear) for each in bases]
        rewards = [estimate.reward for estimate in estimator.estimates(cuts, 0.0)]
        return tuple(ends[index] for index in sorted(range(len(ends)), key=lambda index: -rewards[index]))

    def ask(self, count: int) -> list[Actions]:
        """Return the actions most worth evaluating; none where nothing is left that would be another architecture."""
        stage, tried = self.stage, self._tried[self.stage.name, self.stage.depth]
        progress = len(self._trained[stage.name]) / self.context.expected[stage.name]
        estimates: dict[Actions, Estimate] = {}
        share = min(1.0, count / self.batch)
        for _ in range(_UPDATES[stage.name]):
            samples = self.policy.sample(self._few(_SAMPLES[stage.name], share))
            self._estimate(samples, estimates, progress)
            self.policy.simulate(samples, [estimates[sample].reward for sample in samples])
        generator = generator_of(Stream.ACQUISITION, self.context.seed, len(tried))
        drawn = generator_of(Stream.PROPOSALS, int(generator.integers(2**31)), 0)
        self._estimate(random_actions(stage.problem, self._few(_RANDOM[stage.name], share), drawn), estimates, progress)
        self._estimate([*self.starts(), *sorted(tried)], estimates, progress)
        for _ in range(_CLIMBS[stage.name]):
            climbers, tries = self._few(_CLIMBERS, share), self._few(_TRIES)
            best = heapq.nlargest(climbers, estimates, key=lambda actions: estimates[actions].reward)
            steps = [_moved(stage, actions, generator) for actions in best for _ in range(tries)]
            self._estimate(steps, estimates, progress)
        return self._acquired(estimates, tried, count, progress)

    def _few(self, count: int, share: float = 1.0) -> int:
        """Return how many of so many candidates are looked at: in stage 1 each is another graph to analyse.

        So there it is a `share` of them, where less than a batch is asked for, and fewer of large networks.
        """
        if isinstance(self.stage, ShrinkageStage):
            return count
        return max(_LEAST, round(count * share * min(1.0, _WHOLE_NODES / self._nodes)))

    def tell(self, trial: Trial) -> None:
        """Let surrogate and policy learn from a trial."""
        super().tell(trial)
        self._tried[self.stage.name, self.stage.depth].add(trial.actions)
        self._estimator.learn(trial)
        if trial.feasible:
            self._trained[self.stage.name].add(trial.key)
            depth = Base.of(trial.architecture).depth
            best = self._best.get(depth)
            if best is None or trial.reward > best.reward:
                self._best[depth] = trial

    def cuts(self, actions: Actions) -> Cuts:
        """Return what `actions` stand for: a choice of layers takes the widths that the profile suggests."""
        cuts = self.stage.cuts(actions)
        if isinstance(self.stage, ShrinkageStage):
            return cuts
        return cuts._replace(ratios=self._estimator.suggested_ratios(cuts.base))

    def reward(self, trial: Trial) -> float:
        """Return the reward as the surrogate knows it from all trials together."""
        return self._estimator.reward_of(trial)

    def tell_compared(self, rewards: Mapping[Depth, float]) -> None:
        """Keep what choices of layers came to on more images: the best of them leads stage 2."""
        self._compared = rewards

    def base_layers(self, feasible: Sequence[Trial], nearest: Trial | None, progress: float) -> Depth | frozenset[str]:
        """Return the choice of layers to remove and to merge whose best widths have the highest predicted reward.

        Tried are the choices of the best trials, and single layers or merges more or less than the first. Where
        choices were compared on more images, it is the best of them, and what stage 2 went on with since, that count.
        """
        if not feasible:
            return super().base_layers(feasible, nearest, progress)
        estimator = self._estimator
        ranked = sorted(feasible, key=lambda trial: -estimator.reward_of(trial))
        choices = list(dict.fromkeys(Base.of(trial.architecture).depth for trial in ranked))[:_CHOICES]
        if self._compared:
            begun = [depth for stage, depth in self._tried if stage == "shrinkage"]
            choices = list(dict.fromkeys([max(self._compared, key=lambda depth: self._compared[depth]), *begun]))
        self._asked_for_layers += 1
        generator = generator_of(Stream.BASE_LAYERS, self.context.seed, self._asked_for_layers)
        choices += self._neighbours(choices[0], generator)
        best_of = {Base.of(trial.architecture).depth: trial for trial in reversed(ranked)}
        rewards: dict[Depth, float] = {}
        for depth in dict.fromkeys(choices):
            like = best_of.get(depth, ranked[0]).architecture
            suggested = estimator.suggested_ratios(Base(depth.removed, like.int8, depth.linear))
            tried = estimator.ratios_of(like)
            starts = [suggested, {**suggested, **{name: tried[name] for name in tried if name in suggested}}]
            ratios = [{}, *starts]
            for _ in range(_VARIATIONS if suggested else 0):
                start = starts[int(generator.integers(len(starts)))]
                factors = np.exp(generator.normal(0.0, 0.3, len(start)) * (generator.random(len(start)) < 0.3))
                ratios.append(
                    {name: ratio * float(factor) for (name, ratio), factor in zip(start.items(), factors, strict=True)}
                )
            candidates = [Cuts(depth.removed, each, like.int8, depth.linear) for each in ratios]
            rewards[depth] = max(estimate.reward for estimate in estimator.estimates(candidates, progress))
        return max(rewards, key=lambda depth: rewards[depth])

    def _neighbours(self, depth: Depth, generator: np.random.Generator) -> list[Depth]:
        """Return choices that differ from `depth` in one layer or branch that is gone, or in one merge."""
        merges = [priced.merge for priced in self._evaluator.meter.merges]
        single: list[frozenset[str] | Merge] = [frozenset({one.name}) for one in self._teacher.layers if one.removable]
        single += [frozenset(branch.layers) for branch in self._teacher.branches]
        single += merges
        found = []
        for index in generator.permutation(len(single))[:_NEIGHBOURS]:
            toggled = single[index]
            removed, linear = depth
            if isinstance(toggled, Merge):
                linear = linear.symmetric_difference(toggled.linear)
            else:
                changed = removed - toggled if toggled <= removed else removed | toggled
                removed = self._teacher.repaired(changed)
            kept = [merge for merge in merges if linear.issuperset(merge.linear) and removed.isdisjoint(merge.layers)]
            found.append(Depth(removed, frozenset(name for merge in kept for name in merge.linear)))
        return found

    def _estimate(self, suggested: Sequence[Actions], estimates: dict[Actions, Estimate], progress: float) -> None:
        """Add estimates of those of `suggested` that aren't among them."""
        new = [actions for actions in dict.fromkeys(suggested) if actions not in estimates]
        candidates = [self.cuts(actions) for actions in new]
        estimates.update(zip(new, self._estimator.estimates(candidates, progress), strict=True))

    def _acquired(
        self, estimates: dict[Actions, Estimate], tried: set[Actions], count: int, progress: float
    ) -> list[Actions]:
        """Return up to `count` untried actions of the highest upper confidence bound, each another architecture."""
        done = {estimates[actions].identity for actions in tried if actions in estimates}
        fresh: dict[object, Actions] = {}
        for actions, estimate in estimates.items():
            if actions not in tried and estimate.identity not in done:
                fresh.setdefault(estimate.identity, actions)
        feasible = [actions for actions in fresh.values() if estimates[actions].feasible]
        exploration = _EXPLORATION_START + progress * (_EXPLORATION_END - _EXPLORATION_START)
        chosen = self._estimator.surrogate.choose([estimates[actions] for actions in feasible], count, exploration)
        others = [actions for actions in fresh.values() if not estimates[actions].feasible]
        others.sort(key=lambda actions: -estimates[actions].reward)
        return [feasible[index] for index in chosen] + others[: count - len(chosen)]


def _moved(stage: Stage, actions: Actions, generator: np.random.Generator) -> Actions:
    """Return `actions` with one or two steps changed, in stage 1 as often with a whole branch gone or back."""
    if not isinstance(stage, RemovalStage) or generator.random() < _BRANCH_MOVES:
        return varied(stage.problem, actions, generator, changes=int(generator.integers(1, 3)))
    branch = stage.branches[int(generator.integers(len(stage.branches)))]
    gone = all(actions[step] == 0 for step in branch)
    moved = list(actions)
    for step in branch:
        moved[step] = stage.problem.default[step] if gone else 0
    return tuple(moved)
