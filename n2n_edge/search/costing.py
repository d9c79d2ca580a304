"""Costs of candidates, cheapest facts first, and the widths that the budgets leave them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from math import lcm

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Profile
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import Counted, counted, total_costs
from n2n_edge.graph.load import size_of
from n2n_edge.graph.merging import Merge
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from n2n_edge.latency.model import GraphLatency, LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import MB, Figure
from n2n_edge.search.branches import limited_shares
from n2n_edge.search.fitting import Ratios, Widths, fit_widths, widths_at
from n2n_edge.search.latency import DeviceLatency
from n2n_edge.search.merging import PricedMerge, offered_merges
from n2n_edge.search.precision import Base, CandidatePrecision
from n2n_edge.search.reward import violation
from n2n_edge.search.store import Fact, Journal
from n2n_edge.search.trial import TrialCosts

__all__ = ["FAILED_EXCESS", "METADATA_BYTES", "CostMeter"]

METADATA_BYTES = 4096
"""Room kept in a size budget for what shipping writes into the file: profile, provenance, normalisation."""

FAILED_EXCESS = 100.0
"""The excess that stands for a candidate that the runtime couldn't run."""

_LATENCY_ROUNDS = 4

_SIZE_SLACK = 512
"""Bytes by which a file may be larger than its tensors tell: indices that cuts add."""

_WIDTH_COSTS_KEPT = 256

_FILE_ROUNDS = 3


@dataclass(frozen=True)
class _Built:
    """A candidate's graph as `build` makes it, the form in which it ships, and its costs but for the latency."""

    architecture: Architecture
    model: ir.Model
    shipped: ir.Model
    counted: Counted
    costs: TrialCosts


class CostMeter:
    """Tells what architectures cost: the same for all devices, but for the latency.

    `profile` is the primary device, by which policies see the layers; a latency budget holds on it and on all `others`.
    Widths are multiples of what every device likes: of the least common multiple. Candidates cost what they do in the
    `precision` that they ship in, by default that of the teacher. With `merging` layers may be merged.
    """

    def __init__(
        self,
        teacher: Teacher,
        profile: Profile,
        budgets: Sequence[Budget],
        journal: Journal,
        worker: WarmWorker,
        objective: str | None = None,
        *,
        others: Sequence[Profile] = (),
        accept_expected: bool = False,
        precision: CandidatePrecision | None = None,
        merging: bool = False,
    ) -> None:
        self.teacher = teacher
        self._journal, self._others = journal, tuple(others)
        self._merging = merging and ("latency_ms" in (objective, *(budget.cost for budget in budgets)))
        self.precision = CandidatePrecision(teacher) if precision is None else precision
        self.profile = profile
        self.limits: dict[str, float] = {b.cost: b.limit for b in budgets if not COSTS[b.cost].quality}
        self.multiple = lcm(*(each.channel_multiple for each in (profile, *others)))
        self.devices = tuple(
            DeviceLatency(
                each,
                teacher,
                self.precision,
                journal,
                worker,
                budget=self.limits.get("latency_ms"),
                wanted="latency_ms" in self.limits or objective == "latency_ms",
                accept_expected=accept_expected,
            )
            for each in (profile, *others)
        )
        self._last: _Built | None = None
        self._timed = tuple(device for device in self.devices if device.timed)
        self._accept_expected = accept_expected
        self._meets_all: bool | None = None
        self._surplus: dict[Base, tuple[float, float]] = {}  # MB of file and memory beyond what is predicted
        self._width_costs: OrderedDict[Base, tuple[WidthCosts, tuple[GraphLatency, ...]]] = OrderedDict()
        self.timings = 0
        """How often a timing has corrected what is predicted."""

    @property
    def times_candidates(self) -> bool:
        """Whether candidates are timed on this host."""
        return bool(self._timed)

    @cached_property
    def merges(self) -> tuple[PricedMerge, ...]:
        """The merges of layers that candidates choose: those that save on every device, where latency counts.

        A run keeps them; one that was begun before there were any has none.
        """
        if not self._merging:
            return ()
        known = self._journal.cached(Fact.MERGES, "offered")
        if known is None:
            begun = any(True for _ in self._journal.trials())
            found = () if begun else offered_merges(self.teacher, self.profile, self._others)
            layers = [list(one.merge.layers) for one in found]
            saved = [[one.saved_ms, one.saved] for one in found]
            self._journal.store(Fact.MERGES, "offered", {"merges": layers, "saved": saved})
            return found
        borders = {link.layer: link.exact_borders for link in self.teacher.links}
        return tuple(
            PricedMerge(Merge(tuple(layers), all(borders[name] for name in layers[:-1])), float(ms), float(share))
            for layers, (ms, share) in zip(known["merges"], known["saved"], strict=True)
        )

    def static(self, model: ir.Model) -> TrialCosts:
        """Return what the graph alone tells."""
        return self._static(model, counted(model))

    def _static(self, model: ir.Model, found: Counted) -> TrialCosts:
        exact = total_costs(found.amounts, size_of(model))
        return TrialCosts(
            size_mb=(exact.size_bytes + METADATA_BYTES) / MB,
            params=exact.params,
            macs=exact.macs,
            memory_bound_mb=exact.memory_bound_bytes / MB,
            accept_expected=self._accept_expected,
        )

    def excesses(self, found: TrialCosts) -> dict[str, float]:
        """Return the budgets that `found` misses and by how much (see `violation`); a latency on the worst device."""
        if found.failed:
            return {"latency_ms": FAILED_EXCESS}
        reached, limits = found.as_mapping(), dict(self.limits)
        held = [
            (found.held_on(device.name), device.limit)
            for device in self.devices
            if device.limit is not None and device.name in found.latencies
        ]
        if held:
            reached["latency_ms"], limits["latency_ms"] = max(held, key=lambda pair: pair[0] / pair[1])
        return violation(reached, limits)

    def evaluate(self, architecture: Architecture) -> TrialCosts:
        """Return the costs of a candidate; it is only timed where all that is known without meets the budgets."""
        last = self._build(architecture)
        found = self._predicted(last.costs, last.counted)
        if not self._timed or self.excesses(found):
            return found
        return self._measured(found, architecture, last.shipped, self._timed)

    def built(self, architecture: Architecture) -> ir.Model:
        """Return what `build` makes of a candidate; the last one whose costs were asked for has been made already."""
        known = self._known(architecture)
        return build(self.teacher, architecture) if known is None else known.model

    def _build(self, architecture: Architecture) -> "_Built":
        """Return a candidate's graph, the form in which it ships, and what these alone tell."""
        known = self._known(architecture)
        if known is None:
            model = build(self.teacher, architecture)
            shipped = self.precision.shipped(model, architecture.int8)
            found = counted(shipped)
            self._last = known = _Built(architecture, model, shipped, found, self._static(shipped, found))
        return known

    def _known(self, architecture: Architecture) -> "_Built | None":
        """Return the last candidate that was built, if it is this one."""
        return self._last if self._last is not None and self._last.architecture == architecture else None

    def of_teacher(self, *, timed: bool) -> TrialCosts:
        """Return what the teacher costs; its latency is predicted, and measured on this host where `timed`."""
        model = build(self.teacher, self.teacher.full)
        found = self._on_paper(model)
        hosts = tuple(device for device in self.devices if device.profile.is_host)
        return self._measured(found, self.teacher.full, model, hosts) if timed else found

    def of_original(self, model: ir.Model, timed: Callable[[Profile], Figure]) -> TrialCosts:
        """Return what a teacher costs that candidates come from, but for the size of image; `timed` is for this host.

        `model` is its normalised graph.
        """
        found = self._on_paper(model)
        for device in self.devices:
            if device.profile.is_host:
                found = found.with_latency(device.name, timed(device.profile))
        return found

    def _on_paper(self, model: ir.Model) -> TrialCosts:
        """Return what the graph tells, and the latencies predicted for other devices than this host."""
        found = counted(model)
        return self._predicted(self._static(model, found), found)

    def _predicted(self, costs: TrialCosts, found: Counted) -> TrialCosts:
        for device in self.devices:
            if not device.profile.is_host:
                costs = costs.with_latency(device.name, device.predicted(found))
        return costs

    def _measured(
        self, found: TrialCosts, architecture: Architecture, model: ir.Model, hosts: Sequence[DeviceLatency]
    ) -> TrialCosts:
        for device in hosts:
            found = found.with_latency(device.name, device.measured(architecture, model))
        return found

    def headroom(self) -> dict[str, float]:
        """Return, by cost, what share of the teacher's the budgets leave."""
        groups = self.teacher.groups
        base = self.predicted(Base(), np.array([[group.width for group in groups]], np.int64))
        return {cost: limit / max(float(base[cost][0]), 1e-12) for cost, limit in self.limits.items()}

    @cached_property
    def limited_shares(self) -> Mapping[str, float]:
        """What each layer has of the costs that the budgets limit (see `branches.limited_shares`)."""
        latencies = [LatencyModel(device.profile).node_ms(self.teacher.model) for device in self.devices]
        return limited_shares(self.teacher, self.headroom(), latencies)

    def fitted(self, base: Base, ratios: Mapping[str, float]) -> Architecture:
        """Return the widest architecture in proportion to `ratios` (by group) that the budgets allow.

        Without budgets, or where the teacher meets them all, the ratios are taken as they are and only scaled down. A
        measured latency is met by predicting, timing, and correcting the prediction for the layers that are left.
        """
        groups = self.teacher.base_graph(*base.depth).groups
        table = np.array([[ratios.get(group.name, 1.0) for group in groups]])
        if not self._timed or "latency_ms" not in self.limits:
            return self._fitted_file(base, table)
        best: Architecture | None = None
        for _ in range(_LATENCY_ROUNDS):
            architecture = self._fitted_file(base, table)
            if architecture == best:
                break  # something else than the measured latency binds
            built = self._build(architecture)
            model = built.shipped
            if self.excesses(built.costs):
                return architecture
            over, used = False, False
            for device in self._timed:
                measured = device.measured(architecture, model)
                if measured is None:
                    return architecture
                device.correct(base, measured, built.counted)
                over, used = over or device.is_over(measured), used or device.is_used(measured)
            self.timings += 1
            if over:
                continue
            best = architecture
            if used:
                break
        return best if best is not None else architecture

    def _fitted_file(self, base: Base, table: Ratios) -> Architecture:
        """Return the one architecture of `fitted_many` whose file meets the budgets, too.

        Where cuts add constants to the file that are not predicted, the difference is learned and the fit repeated.
        """
        for _ in range(_FILE_ROUNDS):
            widths = self.fitted_many(base, table)
            architecture = self._named(base, widths[0])
            exact = self._build(architecture).costs
            if not self.excesses(exact):
                break
            known = self.predicted(base, widths)
            before = self._surplus.get(base, (0.0, 0.0))
            more = (exact.size_mb - known["size_mb"][0], exact.memory_bound_mb - known["memory_bound_mb"][0])
            if max(more) <= 0:
                break  # not even the narrowest fits
            self._surplus[base] = (before[0] + max(more[0], 0.0), before[1] + max(more[1], 0.0))
        return architecture

    def fitted_many(self, base: Base, ratios: Ratios, *, roughly: bool = False) -> Widths:
        """Return `fitted` for each row of `ratios`, in the order of the base graph's groups, without timing anything.

        `roughly` leaves a little of the budget unused.
        """
        groups = self.teacher.base_graph(*base.depth).groups
        if not self.limits:
            return widths_at(groups, ratios, np.ones(len(ratios)), self.multiple)
        top = 1.0 if self._teacher_meets_all() else None
        fits = partial(self._fits, base)
        return fit_widths(groups, ratios, fits, self.multiple, top, roughly=roughly)

    def predicted(self, base: Base, widths: Widths) -> dict[str, NDArray[np.float64]]:
        """Return the costs at each row of `widths`, by the names that budgets use, without building a graph.

        ``latency_ms`` is that of the slowest device; that of each stands under ``latency_ms:NAME``.
        """
        at, graphs = self._costs_at(base)
        found = at.costs(widths)
        latencies = {
            _on(device): device.predicted_ms(base, own, found) for device, own in zip(self.devices, graphs, strict=True)
        }
        size, memory = self._surplus.get(base, (0.0, 0.0))
        return {
            "size_mb": (at.size_bytes(found) + METADATA_BYTES + _SIZE_SLACK) / MB + size,
            "params": found.params,
            "macs": found.macs,
            "memory_bound_mb": found.memory_bound_bytes / MB + memory,
            "latency_ms": reduce(np.maximum, latencies.values()),
            **latencies,
        }

    def predicted_excesses(self, known: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the summed excesses of predicted costs over the budgets, `(N,)`, nought where all are met."""
        total = np.zeros(len(known["params"]))
        for name, limit in self.limits.items():
            shares = [known[name] / limit]
            if name == "latency_ms":
                shares = [known[_on(device)] / device.limit for device in self.devices if device.limit is not None]
            total += np.maximum(reduce(np.maximum, shares) - 1.0, 0.0)
        return total

    def limit_to_use(self, cost: str) -> float:
        """Return what candidates may use of a budget: all of it, but for a latency that is measured."""
        if cost == "latency_ms":
            return min(device.limit for device in self.devices if device.limit is not None)
        return self.limits[cost]

    def _fits(self, base: Base, widths: Widths) -> NDArray[np.bool_]:
        return self.predicted_excesses(self.predicted(base, widths)) <= 0

    def _named(self, base: Base, widths: NDArray[np.int64]) -> Architecture:
        architecture = self.teacher.full.remove(*sorted(base.removed)).in_int8(*sorted(base.int8))
        architecture = architecture.linearise(*sorted(base.linear))
        for group, width in zip(self.teacher.base_graph(*base.depth).groups, widths.tolist(), strict=True):
            if group.shrinkable:
                architecture = architecture.resize(group.name, min(width, architecture.width(group.name)))
        return architecture

    def _costs_at(self, base: Base) -> tuple[WidthCosts, tuple[GraphLatency, ...]]:
        known = self._width_costs.get(base)
        if known is None:
            graph = self.teacher.base_graph(*base.depth)
            form = self.precision.shipped(graph.model, base.int8)
            costs_at = WidthCosts(graph, None if form is graph.model else form)
            latencies = tuple(device.of_graph(form, costs_at) for device in self.devices)
            if form is not graph.model:
                _without_weights(form)
            known = self._width_costs[base] = (costs_at, latencies)
            if len(self._width_costs) > _WIDTH_COSTS_KEPT:
                self._width_costs.popitem(last=False)
        return known

    def _teacher_meets_all(self) -> bool:
        """Tell whether no budget asks for anything: widths then follow the policy instead of filling a budget."""
        if self._meets_all is None:
            full = self.teacher.full.in_int8(*self.precision.always)
            self._meets_all = not self.excesses(self.evaluate(full))
        return self._meets_all


def _on(device: DeviceLatency) -> str:
    return f"latency_ms:{device.name}"


def _without_weights(form: ir.Model) -> None:
    """Let go, in place, of the weights of a form whose costs are worked out: hundreds of these are kept."""
    for value in form.graph.initializers.values():
        value.const_value = None
