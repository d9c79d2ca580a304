"""Candidates that exist on paper only: true costs, an accuracy that the surrogate expects, and what they would earn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph import Architecture
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.evaluator import Evaluator, Judged
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.surrogate import Sensitivity, Sketch, Surrogate

__all__ = ["Design", "Expected", "Rehearsal"]

_RATIO_DIGITS = 4

_FITTED_KEPT = 5000

_MOST_ACCURACY = 1.2
"""Expectations are held below this share of the teacher's accuracy."""


@dataclass(frozen=True)
class Design:
    """What a proposal asks for: layers to remove, and width ratios by group before the budgets scale them."""

    removed: frozenset[str]
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class _Fitted:
    """A design at the widths that the budgets leave it."""

    sketch: Sketch
    excess: float
    cost: float


@dataclass(frozen=True)
class Expected:
    """What a design is expected to be: its fitted form, its reward, and how much that grows with its accuracy."""

    sketch: Sketch
    feasible: bool
    reward: float
    slope: float

    @property
    def identity(self) -> tuple[frozenset[str], tuple[tuple[str, float], ...]]:
        """Equal for designs that come out as the same architecture."""
        return self.sketch.removed, tuple(sorted(self.sketch.ratios.items()))


class Rehearsal:
    """Expects what designs earn, from true costs and a surrogate of accuracy that learns from every real judgement."""

    def __init__(self, evaluator: Evaluator, profile: Sensitivity) -> None:
        self._evaluator = evaluator
        self._meter: CostMeter = evaluator.meter
        teacher = evaluator.teacher
        self.surrogate = Surrogate(
            [layer.name for layer in teacher.layers if layer.removable],
            [group.name for group in teacher.groups if group.shrinkable],
            profile,
        )
        self._full = {group.name: group.width for group in teacher.groups}
        base = self._meter.foretold(frozenset(), self._widths_of(frozenset(), {}))
        self._params, self._macs = max(float(base["params"][0]), 1.0), max(float(base["macs"][0]), 1.0)
        self._seen: set[str] = set()
        self._fitted: dict[object, _Fitted] = {}
        self._timings = 0

    def learn(self, judged: Sequence[Judged]) -> None:
        """Take in the accuracies of real judgements, each architecture once."""
        fresh: dict[str, Judged] = {}
        for one in judged:
            if one.accuracy is not None and one.architecture.key not in self._seen:
                fresh.setdefault(one.architecture.key, one)
        self._seen.update(fresh)
        ratios = [self._ratio(float(one.accuracy or 0.0)) for one in fresh.values()]
        self.surrogate.observe([self.sketch(one.architecture) for one in fresh.values()], ratios)

    def sketch(self, architecture: Architecture) -> Sketch:
        """Return an architecture as the surrogate sees it."""
        widths = self._widths_of(architecture.removed, dict(architecture.widths))
        known = self._meter.foretold(architecture.removed, widths)
        return self._sketches(architecture.removed, widths, known)[0]

    def expect(self, designs: Sequence[Design], progress: float) -> list[Expected]:
        """Return what each design is expected to earn at `progress` of the search (see `infeasible_reward`)."""
        if not designs:
            return []
        keys = [(design.removed, tuple(sorted(design.ratios.items()))) for design in designs]
        if self._timings != self._meter.timings or len(self._fitted) > _FITTED_KEPT:
            self._fitted.clear()
            self._timings = self._meter.timings
        new = {key: design for key, design in zip(keys, designs, strict=True) if key not in self._fitted}
        self._fitted.update(zip(new, self._fit(list(new.values())), strict=True))
        fitted = [self._fitted[key] for key in keys]
        accuracy = self.surrogate.predict([one.sketch for one in fitted])[0]
        return [self._worth(one, float(ratio), progress) for one, ratio in zip(fitted, accuracy, strict=True)]

    def _fit(self, designs: Sequence[Design]) -> list["_Fitted"]:
        by_layers: dict[frozenset[str], list[int]] = {}
        for index, design in enumerate(designs):
            by_layers.setdefault(design.removed, []).append(index)
        found: dict[int, _Fitted] = {}
        for removed, members in by_layers.items():
            groups = self._meter.teacher.trunk(removed).groups
            table = np.array([[designs[i].ratios.get(group.name, 1.0) for group in groups] for i in members])
            widths = self._meter.fitted_many(removed, table, roughly=True)
            known = self._meter.foretold(removed, widths)
            excess = self._meter.foretold_excesses(known)
            cost = known[self._evaluator.objective.cost] / self._evaluator.objective.base
            for place, sketch in enumerate(self._sketches(removed, widths, known)):
                found[members[place]] = _Fitted(sketch, float(excess[place]), float(cost[place]))
        return [found[index] for index in range(len(designs))]

    def reward_of(self, judged: Judged) -> float:
        """Return the reward of a judged candidate with the luck of its judgement taken out, as far as that is known."""
        if judged.accuracy is None:
            return judged.reward
        expected = float(self.surrogate.predict([self.sketch(judged.architecture)])[0][0])
        return judged.reward * max(expected, 0.0) / max(self._ratio(judged.accuracy), 1e-9)

    def _worth(self, fitted: "_Fitted", accuracy: float, progress: float) -> Expected:
        if fitted.excess > 0:
            return Expected(fitted.sketch, False, infeasible_reward({"budgets": fitted.excess}, progress), 0.0)
        best = compression_reward(1.0, fitted.cost, self._evaluator.objective.target_ratio)
        return Expected(fitted.sketch, True, best * float(np.clip(accuracy, 0.0, _MOST_ACCURACY)), best)

    def _ratio(self, accuracy: float) -> float:
        return accuracy / max(self._evaluator.teacher_accuracy, 1e-9)

    def _widths_of(self, removed: frozenset[str], widths: Mapping[str, int]) -> NDArray[np.int64]:
        groups = self._meter.teacher.trunk(removed).groups
        return np.array([[min(widths.get(group.name, group.width), group.width) for group in groups]], np.int64)

    def _sketches(
        self, removed: frozenset[str], widths: NDArray[np.int64], known: Mapping[str, NDArray[np.float64]]
    ) -> list[Sketch]:
        groups = self._meter.teacher.trunk(removed).groups
        return [
            Sketch(
                removed,
                {
                    group.name: round(int(width) / self._full[group.name], _RATIO_DIGITS)
                    for group, width in zip(groups, row, strict=True)
                    if group.shrinkable and width < group.width
                },
                float(params) / self._params,
                float(macs) / self._macs,
            )
            for row, params, macs in zip(widths, known["params"], known["macs"], strict=True)
        ]
