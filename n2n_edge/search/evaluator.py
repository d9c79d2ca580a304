"""Evaluator of architectures: costs against budgets, then, only if they are met, a short distillation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp
from typing import TYPE_CHECKING, Literal

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.teacher import Teacher, surviving
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.branches import branch_name, branches_of, spread_rises
from n2n_edge.search.costing import FAILED_EXCESS, CostMeter
from n2n_edge.search.evaluations import Candidate, Evaluations, InProcess, Request, SharedDistiller
from n2n_edge.search.results import LARGEST_RISE, Results
from n2n_edge.search.reward import compression_reward, infeasible_reward
from n2n_edge.search.rises import PROBED, RATIOS, average_rise, group_rises, scale_of_rises
from n2n_edge.search.store import Fact, Journal, JsonObject, rung_kind
from n2n_edge.search.surrogate import Sensitivity
from n2n_edge.search.trial import Trial, TrialCosts

if TYPE_CHECKING:
    from n2n_edge.training.proxy_evaluation import ShortDistiller

__all__ = ["Confidence", "Evaluator", "Objective", "Priced", "Score"]

Score = tuple[JsonObject | None, bool]
"""What the journal keeps of a proxy evaluation, None where a budget is missed, and whether it had to be run."""

_LEAST_ACCURACY = 0.01
"""What a fidelity of nought counts: the loss still tells such candidates apart."""

_LAYERS_PER_GROUP = 3
"""So many branches (regions, merges) are tried alone for each group."""

_INT8 = "int8:"
"""Before the name of a region that is in int8 alone, in the profile."""

_DIGITS = 8
"""Of a candidate's key, in messages."""

_MERGE = "merge:"
"""Before the name of a merge that is made alone, in the profile."""

_LOSS_WEIGHT = 2.0
"""How much the logarithm of a candidate's quality falls where its loss is that of a constant (benchmarks/ranking)."""


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


@dataclass(frozen=True)
class Priced:
    """An architecture with its costs, and the budgets that it misses (see `reward.violation`)."""

    architecture: Architecture
    costs: TrialCosts
    excesses: Mapping[str, float]


@dataclass(frozen=True)
class Confidence:
    """Of samples of the validation images, the share in which the winner has the best metric of the `finalists`.

    Equal ones share it.
    """

    probability: float
    finalists: int


class Evaluator:
    """Evaluates architectures, each once: results that the journal holds are taken from there.

    What isn't there is left to `evaluations`, by default in this process; costs are always found here.
    """

    def __init__(
        self,
        teacher: Teacher,
        meter: CostMeter,
        distiller: "ShortDistiller",
        teacher_accuracy: float,
        teacher_loss: float,
        constant_loss: float,
        objective: Objective,
        journal: Journal,
        seed: int,
        tell: Callable[[str], None] = lambda text: None,
        evaluations: Evaluations | None = None,
    ) -> None:
        self.teacher = teacher
        self.meter = meter
        self.objective = objective
        self.teacher_accuracy = teacher_accuracy
        self.evaluations = InProcess() if evaluations is None else evaluations
        self._teacher_loss = teacher_loss
        self._constant_loss = constant_loss
        self._distiller = SharedDistiller("candidates", lambda: distiller)
        self._journal = journal
        self._results = Results(journal, self.evaluations, tell)
        self._seed = seed

    def evaluate(self, architecture: Architecture, progress: float, name: str = "candidate") -> Trial:
        """Return the candidate's costs, score and reward; `progress` in [0, 1] sharpens the penalty of a miss.

        `name` is that of the step in messages.
        """
        priced = self.price(architecture)
        ((result, fresh),) = self.scores([(name, priced)])
        return self.trial(priced, result, progress, fresh=fresh)

    def price(self, architecture: Architecture) -> Priced:
        """Return what an architecture costs, and which budgets it misses."""
        costs = self.meter.evaluate(architecture)
        return Priced(architecture, costs, self.meter.excesses(costs))

    def scores(self, wanted: Iterable[tuple[str, Priced]]) -> Iterator[Score]:
        """Give the result of each candidate's proxy evaluation, in order, and whether it had to be run.

        None for one that misses a budget. `wanted`, with the name of the step in messages, is read as far ahead as
        there is room for.
        """
        return self._results.of(
            None if priced.excesses else self._request(Fact.SCORE, priced.architecture, self._distiller, name)
            for name, priced in wanted
        )

    def trial(self, priced: Priced, result: JsonObject | None, progress: float, *, fresh: bool) -> Trial:
        """Return a candidate with what its evaluation gave; `progress` in [0, 1] sharpens the penalty of a miss."""
        architecture, costs, excesses = priced.architecture, priced.costs, priced.excesses
        if result is None:
            reward = infeasible_reward(excesses, progress)
            failed: Literal["runtime"] | None = "runtime" if costs.failed else None
            return Trial(architecture, costs, reward, feasible=False, excesses=excesses, error=failed)
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
        distiller = SharedDistiller(f"finalists of rung {rung}", make)
        results = self._results.of(
            self._request(rung_kind(rung), trial.architecture, distiller, f"finalist {number}/{len(finalists)}")
            for number, trial in enumerate(finalists, start=1)
        )
        rewards = {}
        for trial, (result, _) in zip(finalists, results, strict=True):
            failed = result is None or bool(result.get("failed"))
            rewards[trial.key] = -1.0 if result is None or failed else self._reward(trial.costs, self._quality(result))
        return rewards

    def confidence(self, finalists: Sequence[Trial], rung: int) -> Confidence | None:
        """Return how sure it is that the first of `finalists` is the best of them, which a rung has evaluated.

        It is the share of samples of the validation images with replacement, the same for all, in which its reward is
        the highest by the metric alone, equal ones sharing it: losses aren't resampled, so they don't count here. None
        where the rung didn't resample.
        """
        results = [(trial, self._journal.cached(rung_kind(rung), trial.key) or {}) for trial in finalists]
        judged = [(trial, result) for trial, result in results if not result.get("failed")]
        shares = []
        for metrics in zip(*(result.get("resampled", ()) for _, result in judged), strict=False):
            if None not in metrics:
                rewards = [
                    self._reward(trial.costs, self._quality({"accuracy": metric, "loss": self._teacher_loss}))
                    for (trial, _), metric in zip(judged, metrics, strict=True)
                ]
                best = max(rewards)
                shares.append((rewards[0] == best) / rewards.count(best))
        return Confidence(sum(shares) / len(shares), len(finalists)) if shares else None

    def sensitivity(
        self,
        make: "Callable[[], ShortDistiller]",
        most: int,
        out_of_time: Callable[[int], bool],
        on_probe: Callable[[int, int], None] = lambda done, total: None,
    ) -> Sensitivity:
        """Return the teacher's profile: the rise of the loss for each residual branch and each group cut alone.

        A branch's rise is divided among its layers; removable layers that lie on none count as branches. Merges are
        made alone, too, and regions whose precision is open tried in int8 alone.

        `make()` prepares what refits without training. At most `most` parts are tried, three of layers to one group,
        those first that cost most of what budgets limit, and no more once ``out_of_time(tried)``; the others count as
        average.
        ``on_probe(done, total)`` is told of every part, before the first one, too.
        """
        distiller = SharedDistiller("sensitivity profile", make)
        rises: dict[str, float] = {}
        parts = [("", self.teacher.full), *self._parts()[:most]]

        def wanted() -> Iterator[Request]:
            for count, (name, architecture) in enumerate(parts):
                if self._journal.cached(Fact.SENSITIVITY, name) is None and out_of_time(count):
                    return
                yield self._probe(distiller, name, architecture, f"sensitivity profile {count + 1}/{len(parts)}")

        on_probe(0, len(parts))
        for (name, _), (result, _) in zip(parts, self._results.of(wanted()), strict=False):
            rises[name] = LARGEST_RISE if result is None else float(result["loss"])
            on_probe(len(rises), len(parts))
        base = rises.pop("", 0.0)
        rises = {name: min(max(rise - base, 0.0), LARGEST_RISE) for name, rise in rises.items()}
        branches = branches_of(self.teacher)
        layers = sorted({name for branch in branches for name in branch})
        groups = [group for group in self.teacher.groups if group.shrinkable]
        probed = {
            group.name: {ratio: rises[f"{group.name}@{ratio}"] for ratio in PROBED if f"{group.name}@{ratio}" in rises}
            for group in groups
        }
        lost = {group.name: self._lost(group) for group in groups}
        known = spread_rises(rises, branches)
        narrowed = group_rises(probed, lost, scale_of_rises(probed, lost, known))
        wholes = _filled(known, layers, average_rise(narrowed))
        regions = {
            name.removeprefix(_INT8): rise
            for name, rise in rises.items()
            if name not in known and name.startswith(_INT8)
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

    def _probe(self, distiller: SharedDistiller, name: str, architecture: Architecture, step: str) -> Request:
        """Return what evaluates one part of the profile."""
        what = f"network without part of {name}" if name else "the whole network"
        if architecture.int8:
            what = f"network with {name.removeprefix(_INT8)} in int8"
        elif architecture.linear:
            what = f"network with {name.removeprefix(_MERGE)} merged"
        make = partial(self._candidate, architecture)
        return Request(Fact.SENSITIVITY, name, distiller, make, (step, what))

    def _parts(self) -> list[tuple[str, Architecture]]:
        """Return every single cut with its name.

        Those of layers come three to one group, since how groups compare is known without; the most costly ones first.
        """
        share = self.meter.limited_shares
        of_layers: list[tuple[float, str, Architecture]] = []
        of_groups: list[tuple[int, float, str, Architecture]] = []
        for branch in branches_of(self.teacher):
            if self.teacher.repaired(frozenset(branch)):
                size = sum(share[name] for name in branch)
                of_layers.append((size, branch_name(branch), self.teacher.full.remove(*branch)))
        for region in self.teacher.regions:
            if region.name in self.meter.precision.open:
                size = sum(share.get(name, 0.0) for name in region.layers)
                of_layers.append((size, f"{_INT8}{region.name}", self.teacher.full.in_int8(region.name)))
        for priced in self.meter.merges:
            size = sum(share[name] for name in priced.merge.layers)
            merged = self.teacher.full.linearise(*priced.merge.linear)
            of_layers.append((size, f"{_MERGE}{priced.merge.name}", merged))
        for group in self.teacher.groups:
            if group.shrinkable:
                size = sum(share.get(name, 0.0) for name in group.layers)
                for turn, ratio in enumerate(PROBED):
                    narrow = self.teacher.full.resize(group.name, _narrowed(group, ratio))
                    of_groups.append((turn, size, f"{group.name}@{ratio}", narrow))
        of_layers.sort(key=lambda cut: -cut[0])
        of_groups.sort(key=lambda cut: (cut[0], -cut[1]))
        turns = [(place // _LAYERS_PER_GROUP, cut[-2:]) for place, cut in enumerate(of_layers)]
        turns += [(place, cut[-2:]) for place, cut in enumerate(of_groups)]
        return [cut for _, cut in sorted(turns, key=lambda turn: turn[0])]

    def _request(self, kind: str, architecture: Architecture, distiller: SharedDistiller, step: str) -> Request:
        make = partial(self._candidate, architecture)
        what = f"training candidate {architecture.key[:_DIGITS]}"
        return Request(kind, architecture.key, distiller, make, (step, what))

    def _candidate(self, architecture: Architecture) -> Candidate:
        return Candidate(
            self.meter.built(architecture),
            surviving(self.teacher, architecture),
            self._seed,
            architecture.int8,
            self.meter.precision if architecture.int8 else None,
        )

    def _quality(self, result: JsonObject) -> float:
        """Return the accuracy, in a run with budgets less the more of a constant's loss the candidate has.

        Of candidates that cost the same the loss tells more of their order than the hits among some images do. Where
        compression is traded for accuracy, the accuracy stays as it is.
        """
        accuracy = float(result["accuracy"])
        if self.objective.target_ratio is None:
            return accuracy
        return max(accuracy, _LEAST_ACCURACY) * exp(-_LOSS_WEIGHT * self._loss_share(result.get("loss")))

    def _loss_share(self, loss: float | None) -> float:
        """Return the rise of a loss as a share of that of who answers the same to every image, at most 1.

        So it means the same for every teacher and task: losses come in units of their own. Nought where the teacher
        itself does little else.
        """
        largest = self._constant_loss - self._teacher_loss
        if loss is None:
            return 1.0
        return min(max(loss - self._teacher_loss, 0.0) / largest, 1.0) if largest > 0 else 0.0

    def _reward(self, costs: TrialCosts, quality: float) -> float:
        cost = costs.as_mapping().get(self.objective.cost, self.objective.base)
        return compression_reward(
            quality / max(self.teacher_accuracy, 1e-9), cost / self.objective.base, self.objective.target_ratio
        )


def _narrowed(group: ChannelGroup, ratio: float) -> int:
    return max(1, round(ratio * group.width))


def _filled(known: Mapping[str, float], names: Sequence[str], otherwise: float = 0.0) -> dict[str, float]:
    """Return a figure for every name: its own, or the mean of all, where there are none `otherwise`."""
    mean = sum(known.values()) / len(known) if known else otherwise
    return {name: known.get(name, mean) for name in names}
