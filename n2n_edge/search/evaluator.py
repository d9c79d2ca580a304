"""Judge one architecture: costs against budgets, then, only if they are met, a short distillation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.attempts import Attempts
from n2n_edge.search.candidate_costs import CandidateCosts
from n2n_edge.search.costing import FAILED_EXCESS, CostMeter
from n2n_edge.search.journal import Journal, JsonObject
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.surrogate import Sensitivity
from n2n_edge.watchdog import phase

if TYPE_CHECKING:
    from n2n_edge.training.proxy_evaluation import Judgement, ShortDistiller

__all__ = ["Evaluator", "Judged", "Objective"]

_LARGEST_RISE = 20.0
"""A loss that rises by more than this says no more than that the cut is fatal."""


_HALF_OF_QUARTER = 0.5
"""The rise at half the width, in units of that at a quarter, where none is known."""

_LEAST_ACCURACY = 0.01
"""What a fidelity of nought counts: the loss still tells such candidates apart."""

_DIGITS = 8
"""Of a candidate's key, in messages."""

_LOSS_WEIGHT = 0.1
"""How much the logarithm of a candidate's quality falls with its loss (benchmarks/ranking)."""


@dataclass(frozen=True)
class Objective:
    """The cost that the reward counts, its base (the original teacher's), and the ratio that budgets ask for."""

    cost: str
    base: float
    target_ratio: float | None

    @classmethod
    def choose(cls, wanted: str | None, teacher: CandidateCosts, budgets: Sequence[Budget]) -> "Objective":
        """Return the user's objective, or the tightest budget's cost where the user names none, or params.

        With a budget on the objective's cost the compression that is paid for ends at the budget.
        """
        base = teacher.as_mapping()
        ratios: dict[str, float] = {b.cost: b.limit / base[b.cost] for b in budgets if b.cost in base}
        tight = {cost: ratio for cost, ratio in ratios.items() if ratio < 1}
        cost = wanted or (min(tight, key=lambda name: tight[name]) if tight else "params")
        return cls(cost, base[cost], tight.get(cost))


@dataclass(frozen=True)
class Judged:
    """A judged candidate; `accuracy` (or fidelity) is None where it missed a budget and was never trained.

    `quality` is what the reward counts: the accuracy, in a run with budgets less what its loss tells against it.
    """

    architecture: Architecture
    costs: CandidateCosts
    excesses: Mapping[str, float]
    accuracy: float | None
    quality: float
    reward: float
    fresh: bool

    @property
    def feasible(self) -> bool:
        """Whether it met every budget on its costs."""
        return not self.excesses

    @property
    def total_excess(self) -> float:
        """Sum of the excesses, nought where it is feasible."""
        return sum(self.excesses.values())


class Evaluator:
    """Judges architectures, each once: what the journal knows is looked up."""

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
        self._tell, self._attempts = tell, Attempts(journal)
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

    def judge(self, architecture: Architecture, progress: float) -> Judged:
        """Return the candidate's costs, accuracy and reward; `progress` in [0, 1] sharpens the penalty of a miss."""
        model = build(self.teacher, architecture)
        found = self.meter.judge(architecture, model)
        excesses = self.meter.excesses(found)
        if excesses:
            reward = infeasible_reward(excesses, progress)
            return Judged(architecture, found, excesses, None, 0.0, reward, fresh=False)
        known, fresh = self._known("accuracy", architecture, lambda: self._distiller, model)
        if known.get("failed"):
            excesses = {"evaluation": FAILED_EXCESS}
            return Judged(architecture, found, excesses, None, 0.0, infeasible_reward(excesses, progress), fresh)
        quality = self._quality(known)
        reward = self._reward(found, quality)
        return Judged(architecture, found, {}, float(known["accuracy"]), quality, reward, fresh)

    def refine(self, finalists: Sequence[Judged], rung: str, make: "Callable[[], ShortDistiller]") -> dict[str, float]:
        """Return the reward of each finalist (by key) after the longer distillation that ``make()`` prepares.

        The journal keeps them under the name `rung`.
        """
        distiller: ShortDistiller | None = None

        def made() -> "ShortDistiller":
            nonlocal distiller
            distiller = distiller or make()
            return distiller

        rewards = {}
        for place, judged in enumerate(finalists, start=1):
            with phase(f"finalist {place}/{len(finalists)}"):
                known = self._known(rung, judged.architecture, made)[0]
            failed = bool(known.get("failed"))
            rewards[judged.architecture.key] = -1.0 if failed else self._reward(judged.costs, self._quality(known))
        return rewards

    def sensitivity(
        self,
        make: "Callable[[], ShortDistiller]",
        most: int,
        out_of_time: Callable[[int], bool],
        on_probe: Callable[[int, int], None] = lambda done, total: None,
    ) -> Sensitivity:
        """Return the teacher's profile: the rise of the loss for each removable layer and each group cut alone.

        `make()` prepares what refits without training. At most `most` parts are tried, layers and the narrowest groups
        first, of those the largest, and no more once ``out_of_time(tried)``; the others count as average.
        ``on_probe(done, total)`` is told of every part, before the first one, too.
        """
        distiller: ShortDistiller | None = None
        rises: dict[str, float] = {}
        parts = [("", self.teacher.full), *self._parts()[:most]]
        for count, (name, architecture) in enumerate(parts):
            known = self._journal.cached("sensitivity", name)
            if known is None and out_of_time(count):
                break
            on_probe(count, len(parts))
            if known is None:
                with phase(f"sensitivity profile {count + 1}/{len(parts)}"):
                    distiller = distiller or make()
                    known = self._probed(distiller, name, architecture)
                self._journal.store("sensitivity", name, known)
            rises[name] = float(known["loss"])
        on_probe(len(rises), len(parts))
        base = rises.pop("", 0.0)
        rises = {name: min(max(rise - base, 0.0), _LARGEST_RISE) for name, rise in rises.items()}
        layers = {layer.name for layer in self.teacher.layers if layer.removable}
        ratios = Sensitivity().ratios
        groups = [group.name for group in self.teacher.groups if group.shrinkable]
        wholes = _filled({name: rises[name] for name in rises if name in layers}, sorted(layers))
        narrow, half = ({g: rises[f"{g}@{r}"] for g in groups if f"{g}@{r}" in rises} for r in ratios)
        narrow = _filled(narrow, groups)
        both = sum(narrow[name] for name in half)
        falls = sum(half.values()) / both if both else _HALF_OF_QUARTER
        return Sensitivity(
            wholes, {name: (narrow[name], half.get(name, falls * narrow[name])) for name in groups}, ratios
        )

    def _probed(self, distiller: "ShortDistiller", name: str, architecture: Architecture) -> JsonObject:
        """Return what the journal keeps of one part of the profile."""
        what = f"network without part of {name}" if name else "the whole network"
        if self._attempts.is_hopeless("sensitivity", name):
            self._skip("sensitivity", what)
            return {"loss": _LARGEST_RISE, "failed": True}
        with phase(what), self._attempts.attempt("sensitivity", name):
            judgement = self._judgement(distiller, architecture, build(self.teacher, architecture))
        return {"loss": judgement.loss if isfinite(judgement.loss) else _LARGEST_RISE}

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
                for turn, ratio in enumerate(Sensitivity().ratios):
                    narrow = self.teacher.full.resize(group.name, max(1, round(ratio * group.width)))
                    cuts.append((turn, size, f"{group.name}@{ratio}", narrow))
        cuts.sort(key=lambda cut: (cut[0], -cut[1]))
        return [(name, architecture) for _, _, name, architecture in cuts]

    def _judgement(self, distiller: "ShortDistiller", architecture: Architecture, model: ir.Model) -> "Judgement":
        return distiller.judge(model, surviving(self.teacher, architecture), seed=self._seed)

    def _known(
        self,
        kind: str,
        architecture: Architecture,
        distiller: "Callable[[], ShortDistiller]",
        model: ir.Model | None = None,
    ) -> tuple[JsonObject, bool]:
        """Return what a distillation of this kind makes of a candidate, and whether it had to be run."""
        known = self._journal.cached(kind, architecture.key)
        if known is not None:
            return known, False
        what = f"training candidate {architecture.key[:_DIGITS]}"
        if self._attempts.is_hopeless(kind, architecture.key):
            self._skip(kind, what)
            known = {"accuracy": 0.0, "loss": None, "seconds": 0.0, "training_seconds": 0.0, "failed": True}
            self._journal.store(kind, architecture.key, known)
            return known, False
        made = distiller()
        with phase(what), self._attempts.attempt(kind, architecture.key):
            judgement = self._judgement(made, architecture, model or build(self.teacher, architecture))
            known = {
                "accuracy": judgement.accuracy,
                "loss": judgement.loss if isfinite(judgement.loss) else None,
                "seconds": judgement.seconds,
                "training_seconds": judgement.training_seconds,
            }
            self._journal.store(kind, architecture.key, known)
        return known, True

    def _skip(self, kind: str, what: str) -> None:
        self._journal.record_event("skipped", {"kind": kind, "what": what})
        self._tell(f"{what}: left out, since it ended the process before")

    def _quality(self, known: JsonObject) -> float:
        """Return the accuracy, in a run with budgets times ``exp(-rise of the loss / 10)``.

        Of candidates that cost the same the loss tells more of their order than the hits among some images do. Where
        compression is traded for accuracy, the accuracy stays as it is.
        """
        accuracy = float(known["accuracy"])
        if self.objective.target_ratio is None:
            return accuracy
        loss = known.get("loss")
        rise = _LARGEST_RISE if loss is None else min(max(float(loss) - self._teacher_loss, 0.0), _LARGEST_RISE)
        return max(accuracy, _LEAST_ACCURACY) * exp(-_LOSS_WEIGHT * rise)

    def _reward(self, found: CandidateCosts, quality: float) -> float:
        costs = found.as_mapping()
        cost = costs.get(self.objective.cost, self.objective.base)
        return compression_reward(
            quality / max(self.teacher_accuracy, 1e-9), cost / self.objective.base, self.objective.target_ratio
        )


def _filled(known: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Return a figure for every name: the known one, or the mean of all that are known."""
    mean = sum(known.values()) / len(known) if known else 0.0
    return {name: known.get(name, mean) for name in names}
