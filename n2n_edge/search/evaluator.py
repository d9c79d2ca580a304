"""Evaluator of architectures: costs against budgets, then, only if they are met, a short distillation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import exp, isfinite
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import FAILED_EXCESS, CostMeter
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.rises import PROBED, RATIOS, average_rise, group_rises, scale_of_rises
from n2n_edge.search.store import Fact, Journal, JsonObject, rung_kind
from n2n_edge.search.surrogate import Sensitivity
from n2n_edge.search.trial import Trial, TrialCosts
from n2n_edge.watchdog import phase

if TYPE_CHECKING:
    from n2n_edge.training.proxy_evaluation import ProxyResult, ShortDistiller

__all__ = ["Evaluator", "Objective", "note_crash"]

_LARGEST_RISE = 20.0
"""A loss that rises by more than this says no more than that the cut is fatal."""

_LEAST_ACCURACY = 0.01
"""What a fidelity of nought counts: the loss still tells such candidates apart."""

_INT8 = "int8:"
"""Before the name of a region that is in int8 alone, in the profile."""

_DIGITS = 8
"""Of a candidate's key, in messages."""

_MERGE = "merge:"
"""Before the name of a merge that is made alone, in the profile."""

_UNDER_WAY = "begun"
"""Key of the evaluation that is under way."""

_MOST_SILENT = 3
"""Times that the process may vanish in one evaluation, as with `kill -9` or for want of memory."""

_LOSS_WEIGHT = 0.1
"""How much the logarithm of a candidate's quality falls with its loss (benchmarks/ranking)."""


@dataclass(frozen=True)
class Objective:
    """The cost that the reward counts, its base (the original teacher's), and the ratio that budgets ask for."""

    cost: str
    base: float
    target_ratio: float | None

    @classmethod
    def choose(cls, wanted: str | None, teacher: TrialCosts, budgets: Sequence[Budget]) -> "Objective":
        """Return the user's objective, or the tightest budget's cost where the user names none, or params.

        With a budget on the objective's cost the compression that is paid for ends at the budget.
        """
        base = teacher.as_mapping()
        ratios: dict[str, float] = {b.cost: b.limit / base[b.cost] for b in budgets if b.cost in base}
        tight = {cost: ratio for cost, ratio in ratios.items() if ratio < 1}
        cost = wanted or (min(tight, key=lambda name: tight[name]) if tight else "params")
        return cls(cost, base[cost], tight.get(cost))


class Evaluator:
    """Evaluates architectures, each once: results that the journal holds are taken from there."""

    def __init__(
        self,
        teacher: Teacher,
        meter: CostMeter,
        distiller: "ShortDistiller",
        teacher_accuracy: float,
        teacher_loss: float,
        objective: Objective,
        journal: Journal,
        seed: int,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._tell, self._attempts = tell, _Attempts(journal)
        self.teacher = teacher
        self.meter = meter
        self.objective = objective
        self.teacher_accuracy = teacher_accuracy
        self._teacher_loss = teacher_loss
        self._distiller = distiller
        self._journal = journal
        self._seed = seed
        self._params = sum(layer.params for layer in teacher.layers) or 1
        self._macs = sum(layer.macs for layer in teacher.layers) or 1

    def evaluate(self, architecture: Architecture, progress: float) -> Trial:
        """Return the candidate's costs, score and reward; `progress` in [0, 1] sharpens the penalty of a miss."""
        model = build(self.teacher, architecture)
        costs = self.meter.evaluate(architecture, model)
        excesses = self.meter.excesses(costs)
        if excesses:
            reward = infeasible_reward(excesses, progress)
            failed: Literal["runtime"] | None = "runtime" if costs.failed else None
            return Trial(architecture, costs, reward, feasible=False, excesses=excesses, error=failed)
        result, fresh = self._result(Fact.SCORE, architecture, lambda: self._distiller, model)
        if result.get("failed"):
            excesses = {"evaluation": FAILED_EXCESS}
            reward = infeasible_reward(excesses, progress)
            return Trial(architecture, costs, reward, feasible=False, excesses=excesses, error="evaluation")
        quality = self._quality(result)
        return Trial(
            architecture,
            costs,
            self._reward(costs, quality),
            feasible=True,
            score=float(result["accuracy"]),
            loss=result.get("loss"),
            quality=quality,
            fresh=fresh,
        )

    def refine(self, finalists: Sequence[Trial], rung: int, make: "Callable[[], ShortDistiller]") -> dict[str, float]:
        """Return the reward of each finalist (by key) after the longer distillation that ``make()`` prepares.

        The journal keeps them as results of `rung`.
        """
        distiller: ShortDistiller | None = None

        def made() -> "ShortDistiller":
            nonlocal distiller
            distiller = distiller or make()
            return distiller

        rewards = {}
        for number, trial in enumerate(finalists, start=1):
            with phase(f"finalist {number}/{len(finalists)}"):
                result = self._result(rung_kind(rung), trial.architecture, made)[0]
            failed = bool(result.get("failed"))
            rewards[trial.key] = -1.0 if failed else self._reward(trial.costs, self._quality(result))
        return rewards

    def sensitivity(
        self,
        make: "Callable[[], ShortDistiller]",
        most: int,
        out_of_time: Callable[[int], bool],
        on_probe: Callable[[int, int], None] = lambda done, total: None,
    ) -> Sensitivity:
        """Return the teacher's profile: the rise of the loss for each removable layer and each group cut alone.

        Merges are made alone, too, and regions whose precision is open tried in int8 alone.

        `make()` prepares what refits without training. At most `most` parts are tried, layers and the narrowest groups
        first, of those the largest, and no more once ``out_of_time(tried)``; the others count as average.
        ``on_probe(done, total)`` is told of every part, before the first one, too.
        """
        distiller: ShortDistiller | None = None
        rises: dict[str, float] = {}
        parts = [("", self.teacher.full), *self._parts()[:most]]
        for count, (name, architecture) in enumerate(parts):
            result = self._journal.cached(Fact.SENSITIVITY, name)
            if result is None and out_of_time(count):
                break
            on_probe(count, len(parts))
            if result is None:
                with phase(f"sensitivity profile {count + 1}/{len(parts)}"):
                    distiller = distiller or make()
                    result = self._probed(distiller, name, architecture)
                self._journal.store(Fact.SENSITIVITY, name, result)
            rises[name] = float(result["loss"])
        on_probe(len(rises), len(parts))
        base = rises.pop("", 0.0)
        rises = {name: min(max(rise - base, 0.0), _LARGEST_RISE) for name, rise in rises.items()}
        layers = {layer.name for layer in self.teacher.layers if layer.removable}
        groups = [group for group in self.teacher.groups if group.shrinkable]
        probed = {
            group.name: {ratio: rises[f"{group.name}@{ratio}"] for ratio in PROBED if f"{group.name}@{ratio}" in rises}
            for group in groups
        }
        lost = {group.name: self._lost(group) for group in groups}
        known = {name: rises[name] for name in rises if name in layers}
        narrowed = group_rises(probed, lost, scale_of_rises(probed, lost, known))
        wholes = _filled(known, sorted(layers), average_rise(narrowed))
        regions = {
            name.removeprefix(_INT8): rise
            for name, rise in rises.items()
            if name not in layers and name.startswith(_INT8)
        }
        merges = {priced.merge.name: priced.merge.linear for priced in self.meter.merges}
        merged = _filled({name: rises[_MERGE + name] for name in merges if _MERGE + name in rises}, list(merges))
        return Sensitivity(
            wholes,
            narrowed,
            RATIOS,
            _filled(regions, self.meter.precision.open),
            {layer: merged[name] / len(linear) for name, linear in merges.items() for layer in linear},
        )

    def _lost(self, group: ChannelGroup) -> Mapping[float, float] | None:
        shares = self.teacher.lost(group, [_narrowed(group, ratio) for ratio in RATIOS])
        return None if shares is None else dict(zip(RATIOS, shares, strict=True))

    def _probed(self, distiller: "ShortDistiller", name: str, architecture: Architecture) -> JsonObject:
        """Return what the journal keeps of one part of the profile."""
        what = f"network without part of {name}" if name else "the whole network"
        if architecture.int8:
            what = f"network with {name.removeprefix(_INT8)} in int8"
        elif architecture.linear:
            what = f"network with {name.removeprefix(_MERGE)} merged"
        if self._attempts.is_hopeless(Fact.SENSITIVITY, name):
            self._skip(what)
            return {"loss": _LARGEST_RISE, "failed": True}
        with phase(what), self._attempts.attempt(Fact.SENSITIVITY, name):
            result = self._proxy(distiller, architecture, build(self.teacher, architecture))
        return {"loss": result.loss if isfinite(result.loss) else _LARGEST_RISE}

    def _parts(self) -> list[tuple[str, Architecture]]:
        """Return every single cut with its name: whole layers, then groups at each ratio, the largest first."""
        share = {layer.name: layer.params / self._params + layer.macs / self._macs for layer in self.teacher.layers}
        cuts: list[tuple[int, float, str, Architecture]] = []
        for layer in self.teacher.layers:
            if layer.removable and self.teacher.repaired(frozenset({layer.name})):
                cuts.append((0, share[layer.name], layer.name, self.teacher.full.remove(layer.name)))
        for group in self.teacher.groups:
            if group.shrinkable:
                size = sum(share.get(name, 0.0) for name in group.layers)
                for turn, ratio in enumerate(PROBED):
                    narrow = self.teacher.full.resize(group.name, _narrowed(group, ratio))
                    cuts.append((turn, size, f"{group.name}@{ratio}", narrow))
        for region in self.teacher.regions:
            if region.name in self.meter.precision.open:
                size = sum(share.get(name, 0.0) for name in region.layers)
                cuts.append((0, size, f"{_INT8}{region.name}", self.teacher.full.in_int8(region.name)))
        for priced in self.meter.merges:
            size = sum(share[name] for name in priced.merge.layers)
            cuts.append((0, size, f"{_MERGE}{priced.merge.name}", self.teacher.full.linearise(*priced.merge.linear)))
        cuts.sort(key=lambda cut: (cut[0], -cut[1]))
        return [(name, architecture) for _, _, name, architecture in cuts]

    def _proxy(self, distiller: "ShortDistiller", architecture: Architecture, model: ir.Model) -> "ProxyResult":
        kept = surviving(self.teacher, architecture)
        if not architecture.int8:
            return distiller.evaluate(model, kept, seed=self._seed)
        shipped = partial(self.meter.precision.calibrated, int8=architecture.int8)
        return distiller.evaluate(model, kept, seed=self._seed, shipped=shipped)

    def _result(
        self,
        kind: str,
        architecture: Architecture,
        distiller: "Callable[[], ShortDistiller]",
        model: ir.Model | None = None,
    ) -> tuple[JsonObject, bool]:
        """Return what a distillation of this kind makes of a candidate, and whether it had to be run."""
        cached = self._journal.cached(kind, architecture.key)
        if cached is not None:
            return cached, False
        what = f"training candidate {architecture.key[:_DIGITS]}"
        if self._attempts.is_hopeless(kind, architecture.key):
            self._skip(what)
            failed = {"accuracy": 0.0, "loss": None, "seconds": 0.0, "training_seconds": 0.0, "failed": True}
            self._journal.store(kind, architecture.key, failed)
            return failed, False
        made = distiller()
        with phase(what), self._attempts.attempt(kind, architecture.key):
            result = self._proxy(made, architecture, model or build(self.teacher, architecture))
            row = {
                "accuracy": result.accuracy,
                "loss": result.loss if isfinite(result.loss) else None,
                "seconds": result.seconds,
                "training_seconds": result.training_seconds,
            }
            self._journal.store(kind, architecture.key, row)
        return row, True

    def _skip(self, what: str) -> None:
        self._tell(f"{what}: left out, since it ended the process before")

    def _quality(self, result: JsonObject) -> float:
        """Return the accuracy, in a run with budgets times ``exp(-rise of the loss / 10)``.

        Of candidates that cost the same the loss tells more of their order than the hits among some images do. Where
        compression is traded for accuracy, the accuracy stays as it is.
        """
        accuracy = float(result["accuracy"])
        if self.objective.target_ratio is None:
            return accuracy
        loss = result.get("loss")
        rise = _LARGEST_RISE if loss is None else min(max(float(loss) - self._teacher_loss, 0.0), _LARGEST_RISE)
        return max(accuracy, _LEAST_ACCURACY) * exp(-_LOSS_WEIGHT * rise)

    def _reward(self, costs: TrialCosts, quality: float) -> float:
        cost = costs.as_mapping().get(self.objective.cost, self.objective.base)
        return compression_reward(
            quality / max(self.teacher_accuracy, 1e-9), cost / self.objective.base, self.objective.target_ratio
        )


class _Attempts:
    """Evaluations that were begun: one that ends the process is not begun for ever."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def is_hopeless(self, kind: str, key: str) -> bool:
        """Tell whether this evaluation crashed or stalled, or ended the process too often without a word."""
        begun = self._journal.cached(Fact.EVALUATION, _UNDER_WAY) or {}
        same = (begun.get("kind"), begun.get("key")) == (kind, key)
        return same and (bool(begun.get("crashed")) or int(begun.get("times", 0)) >= _MOST_SILENT)

    @contextmanager
    def attempt(self, kind: str, key: str) -> Iterator[None]:
        """Note that an evaluation is under way while in the block; only the end of the process leaves the note."""
        begun = self._journal.cached(Fact.EVALUATION, _UNDER_WAY) or {}
        times = int(begun.get("times", 0)) if (begun.get("kind"), begun.get("key")) == (kind, key) else 0
        self._journal.store(Fact.EVALUATION, _UNDER_WAY, {"kind": kind, "key": key, "times": times + 1})
        try:
            yield
        finally:
            self._journal.store(Fact.EVALUATION, _UNDER_WAY, {})


def note_crash(journal: Journal) -> bool:
    """Note that the process crashed or stalled in what was under way; tell whether that was an evaluation."""
    begun = journal.cached(Fact.EVALUATION, _UNDER_WAY)
    if not begun:
        return False
    journal.store(Fact.EVALUATION, _UNDER_WAY, {**begun, "crashed": True})
    return True


def _narrowed(group: ChannelGroup, ratio: float) -> int:
    return max(1, round(ratio * group.width))


def _filled(known: Mapping[str, float], names: Sequence[str], otherwise: float = 0.0) -> dict[str, float]:
    """Return a figure for every name: its own, or the mean of all, where there are none `otherwise`."""
    mean = sum(known.values()) / len(known) if known else otherwise
    return {name: known.get(name, mean) for name in names}
