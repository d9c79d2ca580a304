"""Estimates of candidates that are not built: true costs, and the reward that a surrogate of accuracy predicts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.architecture import Architecture
from n2n_edge.search.evaluator import Evaluator
from n2n_edge.search.precision import Base, Depth
from n2n_edge.search.proposers.suggested import balanced_ratios
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.space import Cuts
from n2n_edge.search.surrogate import Estimate, Sensitivity, Surrogate
from n2n_edge.search.trial import Trial

__all__ = ["Estimator"]

_RATIO_DIGITS = 4

_ESTIMATES_KEPT = 5000

_MISSED = 1e6
"""What missing the budgets by their whole counts, in rises of the loss."""

_MOST_ACCURACY = 1.2
"""Predictions are held below this share of the teacher's accuracy."""


class Estimator:
    """Estimates candidates from true costs and a surrogate of accuracy that learns from every evaluated trial."""

    def __init__(self, evaluator: Evaluator, profile: Sensitivity) -> None:
        self._evaluator = evaluator
        self._meter = evaluator.meter
        teacher = evaluator.teacher
        self.surrogate = Surrogate(
            [layer.name for layer in teacher.layers if layer.name in teacher.removable],
            [group.name for group in teacher.groups if group.shrinkable],
            profile,
            self._meter.precision.open,
            [name for priced in self._meter.merges for name in priced.merge.linear],
        )
        self._full = {group.name: group.width for group in teacher.groups}
        base = self._meter.predicted(Base(), self._widths_of(Depth(), {}))
        self.profile = profile
        self._suggested: dict[Base, Mapping[str, float]] = {}
        self._params, self._macs = max(float(base["params"][0]), 1.0), max(float(base["macs"][0]), 1.0)
        self._learned: set[str] = set()
        self._cached: dict[object, Estimate] = {}
        self._timings = 0

    @property
    def is_bound(self) -> bool:
        """Whether any budget asks for less than the teacher costs."""
        return any(left < 1 for left in self._meter.headroom().values())

    def suffered(self, base: Base) -> float:
        """Return the rise of the loss that the profile expects of a base at the widths that it suggests.

        Where even the narrowest misses the budgets, that is by far more.
        """
        estimate = self._costed([Cuts(base.removed, self.suggested_ratios(base), base.int8, base.linear)])[0]
        return sum(self.profile.rise(estimate)) + _MISSED * estimate.excess

    def learn(self, trial: Trial) -> None:
        """Take in the quality of a trained candidate, each architecture once."""
        if trial.score is not None and trial.key not in self._learned:
            self._learned.add(trial.key)
            self.surrogate.observe([self._estimate_of(trial.architecture)], [self._ratio(trial.quality)])

    def estimates(self, candidates: Sequence[Cuts], progress: float) -> list[Estimate]:
        """Return an estimate of each candidate at `progress` of the search (see `infeasible_reward`)."""
        if not candidates:
            return []
        keys = [(cuts.base, tuple(sorted(cuts.ratios.items()))) for cuts in candidates]
        if self._timings != self._meter.timings or len(self._cached) > _ESTIMATES_KEPT:
            self._cached.clear()
            self._timings = self._meter.timings
        new = {key: cuts for key, cuts in zip(keys, candidates, strict=True) if key not in self._cached}
        self._cached.update(zip(new, self._costed(list(new.values())), strict=True))
        estimates = [self._cached[key] for key in keys]
        accuracies = self.surrogate.predict(estimates)[0]
        return [self._priced(one, float(ratio), progress) for one, ratio in zip(estimates, accuracies, strict=True)]

    def reward_of(self, trial: Trial) -> float:
        """Return the reward of a trial with the luck of its evaluation taken out, as far as that is known."""
        if trial.score is None:
            return trial.reward
        expected = float(self.surrogate.predict([self._estimate_of(trial.architecture)])[0][0])
        return trial.reward * max(expected, 0.0) / max(self._ratio(trial.quality), 1e-9)

    def suggested_ratios(self, base: Base) -> Mapping[str, float]:
        """Return width ratios by group that the sensitivity profile suggests in proportion to which a base is cut.

        They are those of `balanced_ratios` whose widths, fitted to the budgets, suffer least in sum. Equal ratios for
        all are tried, too, and stand where no budget asks for anything.
        """
        ratios = self._suggested.get(base)
        if ratios is None:
            ratios = self._suggest(base)
            if any(ratio < 1 for ratio in ratios.values()):  # else a timing may still show that it has to shrink
                self._suggested[base] = ratios
        return ratios

    def ratios_of(self, architecture: Architecture) -> Mapping[str, float]:
        """Return the width ratio of every group that `architecture` may shrink."""
        groups = self._meter.teacher.base_graph(architecture.removed, architecture.linear).groups
        widths = dict(architecture.widths)
        return {group.name: widths.get(group.name, group.width) / group.width for group in groups if group.shrinkable}

    def _suggest(self, base: Base) -> Mapping[str, float]:
        groups = self._meter.teacher.base_graph(*base.depth).groups
        equal = {group.name: 1.0 for group in groups if group.shrinkable}
        if not equal or not self._meter.limits:
            return equal
        balanced = balanced_ratios(self._meter, base, lambda group, ratio: self.profile.compounded({group.name: ratio}))
        if not len(balanced):
            return equal
        table = np.concatenate([balanced, np.ones((1, len(groups)))])
        widths = self._meter.fitted_many(base, table, roughly=True)
        costs = self._meter.predicted(base, widths)
        suffered = [self.profile.compounded(estimate.ratios) for estimate in self._costed_rows(base, widths, costs)]
        best = int(np.argmin(np.array(suffered) + _MISSED * self._meter.predicted_excesses(costs)))
        return {group.name: float(ratio) for group, ratio in zip(groups, table[best], strict=True) if group.shrinkable}

    def _costed(self, candidates: Sequence[Cuts]) -> list[Estimate]:
        """Return each candidate with its costs at the widths that the budgets leave it, without a reward yet."""
        by_base: dict[Base, list[int]] = {}
        for index, cuts in enumerate(candidates):
            by_base.setdefault(cuts.base, []).append(index)
        estimates: dict[int, Estimate] = {}
        for base, members in by_base.items():
            groups = self._meter.teacher.base_graph(*base.depth).groups
            table = np.array([[candidates[i].ratios.get(group.name, 1.0) for group in groups] for i in members])
            widths = self._meter.fitted_many(base, table, roughly=True)
            costs = self._meter.predicted(base, widths)
            estimates.update(zip(members, self._costed_rows(base, widths, costs), strict=True))
        return [estimates[index] for index in range(len(candidates))]

    def _costed_rows(
        self, base: Base, widths: NDArray[np.int64], costs: Mapping[str, NDArray[np.float64]]
    ) -> list[Estimate]:
        groups = self._meter.teacher.base_graph(*base.depth).groups
        excesses = self._meter.predicted_excesses(costs)
        ratios = costs[self._evaluator.objective.cost] / self._evaluator.objective.base
        return [
            Estimate(
                base.removed,
                {
                    group.name: round(int(width) / self._full[group.name], _RATIO_DIGITS)
                    for group, width in zip(groups, row, strict=True)
                    if group.shrinkable and width < group.width
                },
                float(params) / self._params,
                float(macs) / self._macs,
                float(excess),
                float(ratio),
                int8=base.int8,
                linear=base.linear,
            )
            for row, params, macs, excess, ratio in zip(
                widths, costs["params"], costs["macs"], excesses, ratios, strict=True
            )
        ]

    def _estimate_of(self, architecture: Architecture) -> Estimate:
        base = Base.of(architecture)
        widths = self._widths_of(base.depth, dict(architecture.widths))
        return self._costed_rows(base, widths, self._meter.predicted(base, widths))[0]

    def _priced(self, estimate: Estimate, accuracy: float, progress: float) -> Estimate:
        """Return an estimate with its reward at a predicted accuracy."""
        if not estimate.feasible:
            return replace(estimate, reward=infeasible_reward({"budgets": estimate.excess}, progress))
        best = compression_reward(1.0, estimate.cost_ratio, self._evaluator.objective.target_ratio)
        return replace(estimate, reward=best * float(np.clip(accuracy, 0.0, _MOST_ACCURACY)), slope=best)

    def _ratio(self, accuracy: float) -> float:
        return accuracy / max(self._evaluator.teacher_accuracy, 1e-9)

    def _widths_of(self, depth: Depth, widths: Mapping[str, int]) -> NDArray[np.int64]:
        groups = self._meter.teacher.base_graph(*depth).groups
        return np.array([[min(widths.get(group.name, group.width), group.width) for group in groups]], np.int64)
