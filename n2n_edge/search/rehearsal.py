"""Candidates that exist on paper only: true costs, an accuracy that the surrogate expects, and what they would earn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.layers import Layer
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.evaluator import Evaluator, Judged
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.stages import Design
from n2n_edge.search.surrogate import Sensitivity, Sketch, Surrogate

__all__ = ["Expected", "Rehearsal"]

_RATIO_DIGITS = 4

_FITTED_KEPT = 5000

_PRICES = tuple(10.0**power for power in (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0))
"""Prices of cost in loss, around what a group costs and suffers on average, that `shaped` tries."""

_SHAPES = np.linspace(0.1, 1.0, 19)
"""Width ratios among which it picks for each group."""

_MOST_ACCURACY = 1.2
"""Expectations are held below this share of the teacher's accuracy."""


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
        self.profile = profile
        self._shaped: dict[frozenset[str], Mapping[str, float]] = {}
        self._params, self._macs = max(float(base["params"][0]), 1.0), max(float(base["macs"][0]), 1.0)
        self._seen: set[str] = set()
        self._fitted: dict[object, _Fitted] = {}
        self._timings = 0

    @property
    def is_bound(self) -> bool:
        """Whether any budget asks for less than the teacher costs."""
        return any(left < 1 for left in self._meter.headroom().values())

    def share(self, layer: Layer) -> float:
        """Return a layer's share of the params and of the MACs, summed."""
        return layer.params / self._params + layer.macs / self._macs

    def learn(self, judged: Sequence[Judged]) -> None:
        """Take in the qualities of real judgements, each architecture once."""
        fresh: dict[str, Judged] = {}
        for one in judged:
            if one.accuracy is not None and one.architecture.key not in self._seen:
                fresh.setdefault(one.architecture.key, one)
        self._seen.update(fresh)
        ratios = [self._ratio(one.quality) for one in fresh.values()]
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

    def shaped(self, removed: frozenset[str]) -> Mapping[str, float]:
        """Return width ratios by group that the sensitivity profile suggests where layers `removed` are gone.

        Each group gets the ratio at which the rise of its loss and the price of what it saves of the costs over budget
        are least together; of several prices that one whose widths, fitted to the budgets, suffer least in sum. Equal
        ratios for all are tried, too, and stand where no budget asks for anything.
        """
        known = self._shaped.get(removed)
        if known is None:
            known = self._shape(removed)
            if any(ratio < 1 for ratio in known.values()):  # else a timing may still show that it has to shrink
                self._shaped[removed] = known
        return known

    def ratios_of(self, architecture: Architecture) -> Mapping[str, float]:
        """Return the width ratio of every group that `architecture` may shrink."""
        groups = self._meter.teacher.base_graph(architecture.removed).groups
        widths = dict(architecture.widths)
        return {group.name: widths.get(group.name, group.width) / group.width for group in groups if group.shrinkable}

    def _shape(self, removed: frozenset[str]) -> Mapping[str, float]:
        groups = self._meter.teacher.base_graph(removed).groups
        free = [place for place, group in enumerate(groups) if group.shrinkable]
        equal = {groups[place].name: 1.0 for place in free}
        if not free or not self._meter.limits:
            return equal
        saved = self._saved(removed, free)
        if not saved.any():
            return equal
        rises = np.array([[self.profile.of_group(groups[place].name, ratio) for ratio in _SHAPES] for place in free])
        table = np.ones((len(_PRICES) + 1, len(groups)))
        unit = max(float(rises.mean()), 1e-9) / max(float(saved.mean()), 1e-9)
        for row, price in enumerate(_PRICES):
            table[row, free] = _SHAPES[np.argmin(rises + price * unit * saved[:, None] * _SHAPES, axis=1)]
        widths = self._meter.fitted_many(removed, table, roughly=True)
        known = self._meter.foretold(removed, widths)
        suffered = [self.profile.rise(sketch)[1] for sketch in self._sketches(removed, widths, known)]
        best = int(np.argmin(np.array(suffered) + 1e6 * self._meter.foretold_excesses(known)))
        return {groups[place].name: float(table[best, place]) for place in free}

    def _saved(self, removed: frozenset[str], free: Sequence[int]) -> NDArray[np.float64]:
        """Return what halving each group of `free` saves of the costs that are over budget, in units of the limits."""
        full = self._widths_of(removed, {})
        table = np.repeat(full, len(free) + 1, axis=0)
        for row, place in enumerate(free):
            table[row, place] = max(1, table[row, place] // 2)
        known = self._meter.foretold(removed, table)
        saved = np.zeros(len(free))
        for cost, limit in self._meter.limits.items():
            if known[cost][-1] > self._meter.limit_to_use(cost):
                saved += np.maximum(known[cost][-1] - known[cost][:-1], 0.0) / limit
        return saved

    def _fit(self, designs: Sequence[Design]) -> list["_Fitted"]:
        by_layers: dict[frozenset[str], list[int]] = {}
        for index, design in enumerate(designs):
            by_layers.setdefault(design.removed, []).append(index)
        found: dict[int, _Fitted] = {}
        for removed, members in by_layers.items():
            groups = self._meter.teacher.base_graph(removed).groups
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
        return judged.reward * max(expected, 0.0) / max(self._ratio(judged.quality), 1e-9)

    def _worth(self, fitted: "_Fitted", accuracy: float, progress: float) -> Expected:
        if fitted.excess > 0:
            return Expected(fitted.sketch, False, infeasible_reward({"budgets": fitted.excess}, progress), 0.0)
        best = compression_reward(1.0, fitted.cost, self._evaluator.objective.target_ratio)
        return Expected(fitted.sketch, True, best * float(np.clip(accuracy, 0.0, _MOST_ACCURACY)), best)

    def _ratio(self, accuracy: float) -> float:
        return accuracy / max(self._evaluator.teacher_accuracy, 1e-9)

    def _widths_of(self, removed: frozenset[str], widths: Mapping[str, int]) -> NDArray[np.int64]:
        groups = self._meter.teacher.base_graph(removed).groups
        return np.array([[min(widths.get(group.name, group.width), group.width) for group in groups]], np.int64)

    def _sketches(
        self, removed: frozenset[str], widths: NDArray[np.int64], known: Mapping[str, NDArray[np.float64]]
    ) -> list[Sketch]:
        groups = self._meter.teacher.base_graph(removed).groups
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
