"""What a candidate costs, cheapest facts first, and the widths that the budgets leave it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from n2n_edge.devices import Profile, predict_latency
from n2n_edge.errors import InputError
from n2n_edge.figures import MB, Figure
from n2n_edge.gate import Budget
from n2n_edge.graph import Architecture, ChannelGroup, Teacher, build, costs, serialize
from n2n_edge.measure import MeasurementError, WarmWorker
from n2n_edge.search.journal import Journal, JsonObject
from n2n_edge.search.reward import violation

__all__ = ["METADATA_BYTES", "CandidateCosts", "CostMeter", "fit_widths", "rounded_width"]

METADATA_BYTES = 4096
"""Room kept in a size budget for what shipping writes into the file: profile, provenance, normalisation."""

_LATENCY_HEADROOM = 0.96
"""Share of a measured latency budget that candidates may use: the same file timed again differs by a few percent."""

_FAILED_EXCESS = 100.0
"""The excess that stands for a candidate that the runtime couldn't run."""

_BISECTIONS = 9
_LATENCY_ROUNDS = 4


@dataclass(frozen=True)
class CandidateCosts:
    """Costs of one candidate for one device; `latency` is None where nobody has to know it.

    `failed` says that the runtime crashed on it, hung, or refused it.
    """

    size_mb: float
    params: int
    macs: int
    memory_bound_mb: float
    latency: Figure | None = None
    failed: bool = False

    def as_mapping(self) -> dict[str, float]:
        """Return the costs that are known, by the names that budgets use."""
        known = {
            "size_mb": self.size_mb,
            "params": float(self.params),
            "macs": float(self.macs),
            "memory_bound_mb": self.memory_bound_mb,
        }
        return known if self.latency is None else {**known, "latency_ms": self.latency.value}


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
    ) -> None:
        self.teacher = teacher
        self.profile = profile
        self.limits: dict[str, float] = {b.cost: b.limit for b in budgets if b.direction == "max"}
        self._journal = journal
        self._worker = worker
        self._timed = profile.is_host and ("latency_ms" in self.limits or objective == "latency_ms")
        self._meets_all: bool | None = None
        self._corrections: dict[frozenset[str], float] = {}  # measured over predicted, by what is removed
        self._foretold: dict[str, CandidateCosts] = {}

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
        limits = dict(self.limits)
        if self._timed and "latency_ms" in limits:
            limits["latency_ms"] *= _LATENCY_HEADROOM
        return violation(found.as_mapping(), limits)

    def judge(self, architecture: Architecture, model: ir.Model) -> CandidateCosts:
        """Return the costs of a candidate; its latency is only found out where its other costs meet their budgets."""
        found = self.static(model)
        if self.profile.is_host:
            if not self._timed or self.excesses(found):
                return found
            latency = self.measured(architecture, model)
            return replace(found, latency=latency, failed=latency is None)
        return replace(found, latency=predict_latency(model, self.profile))

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
                measurement = self._worker.measure(
                    model,
                    threads=self.profile.default_threads,
                    providers=list(self.profile.providers),
                    min_time_s=0.2,
                    max_time_s=1.0,
                )
                return dict(measurement.latency().to_json())
            except (MeasurementError, InputError) as error:
                failure = str(error)
                self._journal.record_event("timing failed", {"candidate": key, "error": failure})
        return {"failed": failure}

    def fitted(self, removed: frozenset[str], ratios: Mapping[str, float]) -> Architecture:
        """Return the widest architecture in proportion to `ratios` (by group) that the budgets allow.

        Without budgets, or where the teacher meets them all, the ratios are taken as they are and only scaled down. A
        measured latency is met by predicting, timing, and correcting the prediction for the layers that are left.
        """
        if not self.limits:
            return _at_scale(self.teacher, removed, ratios, 1.0, self.profile.channel_multiple)
        if not self._timed or "latency_ms" not in self.limits:
            return self._fit(removed, ratios, self._within_budgets)
        limit = self.limits["latency_ms"] * _LATENCY_HEADROOM
        correction = self._corrections.get(removed) or self._teacher_correction()
        best: Architecture | None = None
        for _ in range(_LATENCY_ROUNDS):
            ceiling = limit / correction
            architecture = self._fit(removed, ratios, partial(self._within, ceiling_ms=ceiling))
            model = build(self.teacher, architecture)
            measured = None if self.excesses(self.static(model)) else self.measured(architecture, model)
            if measured is None:
                return architecture
            correction = measured.value / predict_latency(model, self.profile).value
            if measured.value > limit:
                correction *= 1.01
                continue
            best = architecture
            if measured.value >= 0.94 * limit:
                break
        self._corrections.setdefault(removed, correction)
        return best if best is not None else architecture

    def _teacher_correction(self) -> float:
        full = self.teacher.full
        model = build(self.teacher, full)
        measured = self.measured(full, model)
        return 1.0 if measured is None else measured.value / predict_latency(model, self.profile).value

    def _teacher_meets_all(self) -> bool:
        """Tell whether no budget asks for anything: widths then follow the policy instead of filling a budget."""
        if self._meets_all is None:
            self._meets_all = not self.excesses(self.judge(self.teacher.full, build(self.teacher, self.teacher.full)))
        return self._meets_all

    def _within_budgets(self, architecture: Architecture) -> bool:
        return not self.excesses(self._foretell(architecture))

    def _within(self, architecture: Architecture, ceiling_ms: float) -> bool:
        found = self._foretell(architecture)
        in_time = found.latency is not None and found.latency.value <= ceiling_ms
        return in_time and not self.excesses(replace(found, latency=None))

    def _foretell(self, architecture: Architecture) -> CandidateCosts:
        """Return static costs and, where it is budgeted, the predicted latency: many fits ask for the same ones."""
        known = self._foretold.get(architecture.key)
        if known is None:
            model = build(self.teacher, architecture)
            known = self.static(model)
            if "latency_ms" in self.limits:
                known = replace(known, latency=predict_latency(model, self.profile))
            self._foretold[architecture.key] = known
        return known

    def _fit(
        self, removed: frozenset[str], ratios: Mapping[str, float], fits: Callable[[Architecture], bool]
    ) -> Architecture:
        top = 1.0 if self._teacher_meets_all() else None
        return fit_widths(self.teacher, removed, ratios, fits, self.profile.channel_multiple, top)


def fit_widths(
    teacher: Teacher,
    removed: frozenset[str],
    ratios: Mapping[str, float],
    fits: Callable[[Architecture], bool],
    multiple: int = 1,
    largest_scale: float | None = None,
) -> Architecture:
    """Return the widest architecture in proportion to `ratios` for which ``fits`` holds.

    Ratios may be scaled up to `largest_scale`; None allows what brings every group to its full width.

    A common scale is found by bisection; what rounding to the channel multiple leaves of the budget is given to single
    groups, those furthest below their ratio first. Where not even the narrowest fits, that one is returned: its reward
    says how far off it is.
    """
    low, high = 0.0, largest_scale or 1.0 / max(min(ratios.values(), default=1.0), 1e-3)
    top = _at_scale(teacher, removed, ratios, high, multiple)
    if fits(top):
        return top
    best = _at_scale(teacher, removed, ratios, low, multiple)
    if not fits(best):
        return best
    tried = {best.key: True, top.key: False}
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        architecture = _at_scale(teacher, removed, ratios, middle, multiple)
        if architecture.key not in tried:
            tried[architecture.key] = fits(architecture)
        if tried[architecture.key]:
            low, best = middle, architecture
        else:
            high = middle
    return _filled(teacher, best, {name: ratio * low for name, ratio in ratios.items()}, fits, multiple)


def _filled(
    teacher: Teacher,
    architecture: Architecture,
    targets: Mapping[str, float],
    fits: Callable[[Architecture], bool],
    multiple: int,
) -> Architecture:
    """Widen single groups by one multiple each as long as the budgets hold, the most short-changed first."""
    groups = [group for group in teacher.trunk(architecture.removed).groups if group.shrinkable]

    def shortfall(group: ChannelGroup) -> float:
        return targets.get(group.name, 1.0) - architecture.width(group.name) / group.width

    for group in sorted(groups, key=shortfall, reverse=True):
        width = min(group.width, architecture.width(group.name) + multiple)
        if width > architecture.width(group.name):
            wider = architecture.resize(group.name, width)
            if fits(wider):
                architecture = wider
    return architecture


def rounded_width(group: ChannelGroup, ratio: float, multiple: int) -> int:
    """Return `ratio` of the group's width, rounded to the device's channel multiple and kept within 1 and full."""
    if ratio >= 1 or group.width <= multiple:
        least = min(group.width, multiple)
        return group.width if ratio >= 1 else max(1, min(group.width, max(round(ratio * group.width), least // 2)))
    return min(group.width, max(multiple, round(ratio * group.width / multiple) * multiple))


def _at_scale(
    teacher: Teacher, removed: frozenset[str], ratios: Mapping[str, float], scale: float, multiple: int
) -> Architecture:
    architecture = teacher.full.remove(*sorted(removed))
    for group in teacher.trunk(removed).groups:
        if group.shrinkable:
            width = rounded_width(group, min(1.0, ratios.get(group.name, 1.0) * scale), multiple)
            architecture = architecture.resize(group.name, min(width, architecture.width(group.name)))
    return architecture
