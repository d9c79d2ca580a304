"""What a candidate costs, cheapest facts first, and the widths that the budgets leave it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices import Kernels, Profile, input_pixels, kernels_of, latency_basis
from n2n_edge.errors import InputError
from n2n_edge.figures import MB, Figure
from n2n_edge.gate import Budget
from n2n_edge.graph import Architecture, Teacher, WidthCosts, build, costs, serialize
from n2n_edge.measure import BenchOptions, MeasurementError, WarmWorker
from n2n_edge.search.fitting import Ratios, Widths, fit_widths, widths_at
from n2n_edge.search.journal import Journal, JsonObject
from n2n_edge.search.reward import violation

__all__ = ["METADATA_BYTES", "CandidateCosts", "CostMeter"]

METADATA_BYTES = 4096
"""Room kept in a size budget for what shipping writes into the file: profile, provenance, normalisation."""

_LATENCY_HEADROOM = 0.96
"""Share of a measured latency budget that candidates may use: the same file timed again differs by a few percent."""

_FAILED_EXCESS = 100.0
"""The excess that stands for a candidate that the runtime couldn't run."""

_LATENCY_ROUNDS = 4

_SIZE_SLACK = 512
"""Bytes by which a file may be larger than its tensors tell: indices that cuts add."""

_WIDTH_COSTS_KEPT = 64

_FILE_ROUNDS = 3


@dataclass(frozen=True)
class CandidateCosts:
    """Costs of one candidate for one device; `latency` is None where nobody has to know it.

    Budgets and reward take `held_ms` for the latency: its upper bound where it is predicted, unless the user accepts
    the expected value. `failed` says that the runtime crashed on it, hung, or refused it.
    """

    size_mb: float
    params: int
    macs: int
    memory_bound_mb: float
    latency: Figure | None = None
    held_ms: float = 0.0
    failed: bool = False

    def as_mapping(self) -> dict[str, float]:
        """Return the costs that are known, by the names that budgets use."""
        known = {
            "size_mb": self.size_mb,
            "params": float(self.params),
            "macs": float(self.macs),
            "memory_bound_mb": self.memory_bound_mb,
        }
        return known if self.latency is None else {**known, "latency_ms": self.held_ms}

    def with_latency(self, latency: Figure | None, *, accept_expected: bool = False) -> "CandidateCosts":
        """Return the costs with the latency found out; None where it couldn't be run."""
        held = 0.0 if latency is None else latency.held(accept_expected=accept_expected)
        return replace(self, latency=latency, held_ms=held, failed=latency is None)


class CostMeter:
    """Tells what architectures cost on a device, remembering measured latencies in the journal."""

    def __init__(
        self,
        teacher: Teacher,
        profile: Profile,
        budgets: Sequence[Budget],
        journal: Journal,
        worker: WarmWorker,
        objective: str | None = None,
        *,
        accept_expected: bool = False,
    ) -> None:
        self.teacher = teacher
        self._accept_expected = accept_expected
        self._basis = latency_basis(profile, pixels=input_pixels(teacher.model))
        self.profile = profile
        self.limits: dict[str, float] = {b.cost: b.limit for b in budgets if b.direction == "max"}
        self._journal = journal
        self._worker = worker
        self._timed = profile.is_host and ("latency_ms" in self.limits or objective == "latency_ms")
        self._meets_all: bool | None = None
        self._corrections: dict[frozenset[str], float] = {}  # measured over predicted, by what is removed
        self._surplus: dict[frozenset[str], tuple[float, float]] = {}  # MB of file and memory beyond what is foretold
        self._width_costs: OrderedDict[frozenset[str], tuple[WidthCosts, Kernels]] = OrderedDict()
        self.timings = 0
        """How often a timing has corrected what is foretold."""

    def static(self, model: ir.Model) -> CandidateCosts:
        """Return what the graph alone tells."""
        counted = costs(model)
        return CandidateCosts(
            size_mb=(counted.size_bytes + METADATA_BYTES) / MB,
            params=counted.params,
            macs=counted.macs,
            memory_bound_mb=counted.memory_bound_bytes / MB,
        )

    def excesses(self, found: CandidateCosts) -> dict[str, float]:
        """Return the budgets that `found` misses and by how much (see `violation`)."""
        if found.failed:
            return {"latency_ms": _FAILED_EXCESS}
        limits = {cost: limit * self.share_to_use(cost) for cost, limit in self.limits.items()}
        return violation(found.as_mapping(), limits)

    def judge(self, architecture: Architecture, model: ir.Model) -> CandidateCosts:
        """Return the costs of a candidate; its latency is only found out where its other costs meet their budgets."""
        found = self.static(model)
        if self.profile.is_host:
            if not self._timed or self.excesses(found):
                return found
            return found.with_latency(self.measured(architecture, model))
        return found.with_latency(self.predicted(model), accept_expected=self._accept_expected)

    def predicted(self, model: ir.Model) -> Figure:
        """Return the predicted latency on the device, from the same evidence for every candidate."""
        return self._basis.latency(*kernels_of(model, self.profile.block))

    def of_teacher(self, *, timed: bool) -> CandidateCosts:
        """Return what the teacher costs; its latency is predicted, or measured on this host where `timed`."""
        model = build(self.teacher, self.teacher.full)
        found = self.static(model)
        if not self.profile.is_host:
            return found.with_latency(self.predicted(model), accept_expected=self._accept_expected)
        return found.with_latency(self.measured(self.teacher.full, model)) if timed else found

    def measured(self, architecture: Architecture, model: ir.Model) -> Figure | None:
        """Return the latency of a candidate on this host, timed once per architecture; None where it can't be run.

        A crash or a hang of the runtime is tried once more with a new worker; it fails this candidate alone.
        """
        key = f"{architecture.key}/{self.profile.name}/{self.profile.default_threads}"
        known = self._journal.cached("latency", key)
        if known is None:
            known = self._timing(serialize(model), architecture.key)
            self._journal.store("latency", key, known)
        return None if "failed" in known else Figure(**known)

    def _timing(self, model: bytes, key: str) -> JsonObject:
        failure = ""
        for _ in range(2):
            try:
                options = BenchOptions(
                    threads=self.profile.default_threads,
                    providers=self.profile.providers,
                    min_time_s=0.2,
                    max_time_s=1.0,
                    timeout_s=60.0,
                )
                measurement = self._worker.measure(model, options)
                return dict(measurement.latency().to_json())
            except (MeasurementError, InputError) as error:
                failure = str(error)
                self._journal.record_event("timing failed", {"candidate": key, "error": failure})
        return {"failed": failure}

    def headroom(self) -> dict[str, float]:
        """Return, by cost, what share of the teacher's the budgets leave."""
        groups = self.teacher.groups
        base = self.foretold(frozenset(), np.array([[group.width for group in groups]], np.int64))
        return {cost: limit / max(float(base[cost][0]), 1e-12) for cost, limit in self.limits.items()}

    def fitted(self, removed: frozenset[str], ratios: Mapping[str, float]) -> Architecture:
        """Return the widest architecture in proportion to `ratios` (by group) that the budgets allow.

        Without budgets, or where the teacher meets them all, the ratios are taken as they are and only scaled down. A
        measured latency is met by predicting, timing, and correcting the prediction for the layers that are left.
        """
        groups = self.teacher.trunk(removed).groups
        table = np.array([[ratios.get(group.name, 1.0) for group in groups]])
        if not self._timed or "latency_ms" not in self.limits:
            return self._fitted_file(removed, table)
        limit = self.limits["latency_ms"] * self.share_to_use("latency_ms")
        best: Architecture | None = None
        for _ in range(_LATENCY_ROUNDS):
            architecture = self._fitted_file(removed, table)
            model = build(self.teacher, architecture)
            measured = None if self.excesses(self.static(model)) else self.measured(architecture, model)
            if measured is None:
                return architecture
            correction = measured.value / self.predicted(model).value
            self._corrections[removed] = correction * (1.01 if measured.value > limit else 1.0)
            self.timings += 1
            if measured.value > limit:
                continue
            best = architecture
            if measured.value >= 0.94 * limit:
                break
        return best if best is not None else architecture

    def _fitted_file(self, removed: frozenset[str], table: Ratios) -> Architecture:
        """Return the one architecture of `fitted_many` whose file meets the budgets, too.

        Where cuts add constants to the file that are not foretold, the difference is learned and the fit repeated.
        """
        for _ in range(_FILE_ROUNDS):
            widths = self.fitted_many(removed, table)
            architecture = self._named(removed, widths[0])
            exact = self.static(build(self.teacher, architecture))
            if not self.excesses(exact):
                break
            known = self.foretold(removed, widths)
            before = self._surplus.get(removed, (0.0, 0.0))
            more = (exact.size_mb - known["size_mb"][0], exact.memory_bound_mb - known["memory_bound_mb"][0])
            if max(more) <= 0:
                break  # not even the narrowest fits
            self._surplus[removed] = (before[0] + max(more[0], 0.0), before[1] + max(more[1], 0.0))
        return architecture

    def fitted_many(self, removed: frozenset[str], ratios: Ratios, *, roughly: bool = False) -> Widths:
        """Return `fitted` for each row of `ratios`, in the order of the trunk's groups, without timing anything.

        `roughly` leaves a little of the budget unused.
        """
        groups = self.teacher.trunk(removed).groups
        if not self.limits:
            return widths_at(groups, ratios, np.ones(len(ratios)), self.profile.channel_multiple)
        top = 1.0 if self._teacher_meets_all() else None
        fits = partial(self._fits, removed)
        return fit_widths(groups, ratios, fits, self.profile.channel_multiple, top, roughly=roughly)

    def foretold(self, removed: frozenset[str], widths: Widths) -> dict[str, NDArray[np.float64]]:
        """Return the costs at each row of `widths`, by the names that budgets use, without building a graph.

        The latency is predicted, and of a board that isn't at hand it is the upper bound unless the expected value is
        accepted; on this host it is corrected by what was measured so far.
        """
        at, kernels = self._costs_at(removed)
        found = at.costs(widths)
        expected = self.profile.is_host or self._accept_expected
        latencies = (self._basis.latencies_ms if expected else self._basis.upper_ms)(kernels, found)
        size, memory = self._surplus.get(removed, (0.0, 0.0))
        return {
            "size_mb": (at.size_bytes(found) + METADATA_BYTES + _SIZE_SLACK) / MB + size,
            "params": found.params,
            "macs": found.macs,
            "memory_bound_mb": found.memory_bound_bytes / MB + memory,
            "latency_ms": latencies * self._correction(removed),
        }

    def foretold_excesses(self, known: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return the summed excesses of `foretold` costs over the budgets, `(N,)`, nought where all are met."""
        total = np.zeros(len(known["params"]))
        for name, limit in self.limits.items():
            total += np.maximum(known[name] / (limit * self.share_to_use(name)) - 1.0, 0.0)
        return total

    def share_to_use(self, cost: str) -> float:
        """Return the share of a budget that candidates may use: all of it, but for a latency that is measured."""
        return _LATENCY_HEADROOM if self._timed and cost == "latency_ms" else 1.0

    def _fits(self, removed: frozenset[str], widths: Widths) -> NDArray[np.bool_]:
        return self.foretold_excesses(self.foretold(removed, widths)) <= 0

    def _correction(self, removed: frozenset[str]) -> float:
        """Return measured over predicted latency: of this choice of layers, or of the choice that is most like it."""
        if not self._timed:
            return 1.0
        if not self._corrections:
            self._corrections[frozenset()] = self._teacher_correction()
        return self._corrections[min(self._corrections, key=lambda known: len(known ^ removed))]

    def _named(self, removed: frozenset[str], widths: NDArray[np.int64]) -> Architecture:
        architecture = self.teacher.full.remove(*sorted(removed))
        for group, width in zip(self.teacher.trunk(removed).groups, widths.tolist(), strict=True):
            if group.shrinkable:
                architecture = architecture.resize(group.name, min(width, architecture.width(group.name)))
        return architecture

    def _costs_at(self, removed: frozenset[str]) -> tuple[WidthCosts, Kernels]:
        known = self._width_costs.get(removed)
        if known is None:
            trunk = self.teacher.trunk(removed)
            costs_at = WidthCosts(trunk)
            kernels = Kernels(
                costs_at.plan.places, [str(value.name) for value in trunk.model.graph.outputs], self.profile.block
            )
            known = self._width_costs[removed] = (costs_at, kernels)
            if len(self._width_costs) > _WIDTH_COSTS_KEPT:
                self._width_costs.popitem(last=False)
        return known

    def _teacher_correction(self) -> float:
        full = self.teacher.full
        model = build(self.teacher, full)
        measured = self.measured(full, model)
        return 1.0 if measured is None else measured.value / self.predicted(model).value

    def _teacher_meets_all(self) -> bool:
        """Tell whether no budget asks for anything: widths then follow the policy instead of filling a budget."""
        if self._meets_all is None:
            self._meets_all = not self.excesses(self.judge(self.teacher.full, build(self.teacher, self.teacher.full)))
        return self._meets_all
