"""Evidence of a prediction: the calibrations of a profile that speak for a model, and the interval that they leave."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.devices.terms import Rates
from n2n_edge.errors import InputError
from n2n_edge.latency.pooled import POOLED, pooled
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice, texts_of
from n2n_edge.metrics.precisions import BYTES, Precision
from n2n_edge.metrics.runtimes import runtime_family

__all__ = ["Basis", "energy_basis", "latency_basis", "lender_of", "threads_in_words"]

NEAREST = {"cpu": "raspberry-pi-4", "gpu": "jetson-orin-nano"}
"""Whose rates a device borrows whose relatives have neither measurements nor a `relative`."""

_BORROWED = 1.6
"""By how much an interval is widened, on both sides, where the rates come from another device."""

_OTHER_THREADS = 1.2
"""The same, where nothing was timed with these threads."""

_OTHER_PRECISION = 1.6
"""By how much a prediction may be off besides where nothing was timed in this precision. Where fp32 is told by fp16, as
on a Raspberry Pi 5, arithmetic and bytes count twice, launches once: nearly twice in all. Two networks on a Snapdragon
855 took 1.8 times as long in fp32 under ncnn (its issue 2703). Under ONNX Runtime in fp32, detectors on a Pi 5 took as
much longer than under ncnn in fp16: YOLO11n 1.9 times (Ultralytics' guide); in a comparison of many
(visionanalysis.org) from 1.25 times, of the smallest, such as PicoDet and YOLOX-nano, to 2.9, of those of 30 GMACs and
more. Both ends are about 1.6 times off what is told."""

_INT8_SLOWER = 2.4
_INT8_FASTER = 3.0
"""The same, where int8 is told by float rates, upwards and downwards. Of 806 pairs of ncnn's table, on the CPUs of 66
boards, nine of ten are between 2.4 times slower and 1.8 times faster in int8; where runtimes use instructions that are
made for it, up to three times."""

_OTHER_RUNTIME = 1.4
"""By how much a prediction may be off besides where only another runtime was timed. On a Raspberry Pi
4 the slowest of ncnn, ArmNN and TFLite takes 1.41 times as long for MobileNet as the fastest. On an x86 host ten plain
networks took 0.85 to 1.73 times as long under ncnn as under ONNX Runtime, nine of ten within 1.47 times of their mean
(benchmarks/runtimes)."""

_FAR = 8.0
"""How many times smaller or larger an input may be than all that were timed with the device's own runtime."""

_SMALL_PIXELS = 64.0**2

_PER_DOUBLING = 0.1
"""By how much an interval is widened for every doubling by which the model lies outside of what was timed."""


@dataclass(frozen=True)
class Basis:
    """What a prediction rests on: rates in ns a unit, the interval of measured over predicted, and the evidence.

    `warnings` say what makes it less certain than the evidence: another device, other threads, another precision.
    """

    rates: Rates
    measured_here: bool
    low_ratio: float
    high_ratio: float
    evidence: Calibration
    warnings: tuple[Notice, ...] = ()
    by_input: float = 1.0
    """By how much the interval has been widened for the size of the input."""

    def widened(self, warning: Notice, high: float, low: float | None = None) -> "Basis":
        """Return the same with a wider interval, upwards and (by as much unless given) downwards, and the reason."""
        return replace(
            self,
            low_ratio=self.low_ratio / (high if low is None else low),
            high_ratio=self.high_ratio * high,
            warnings=(*self.warnings, warning),
        )

    def blurred(self, warning: Notice, factor: float) -> "Basis":
        """Return the same with an interval that counts in a further error, independent of the others, and the reason.

        Logarithms add up by their squares.
        """
        low, high = (
            math.exp(side * math.hypot(math.log(ratio), math.log(factor)))
            for side, ratio in ((-1, self.low_ratio), (1, self.high_ratio))
        )
        return replace(self, low_ratio=low, high_ratio=high, warnings=(*self.warnings, warning))

    def outside(self, macs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much the interval widens for models of so many MACs: 1 within what was timed."""
        least, most = self.evidence.macs
        macs = np.maximum(macs, 1.0)
        doublings = np.maximum(np.log2(least / macs), np.log2(macs / most))
        wider = 1 + _PER_DOUBLING * np.maximum(doublings, 0.0)
        beyond: NDArray[np.float64] = np.maximum(wider / self.by_input, 1.0)  # small inputs make for few of them
        return beyond

    def unmeasured(self) -> "Basis":
        """Return the same as ``analytic``: not of what was timed on the device."""
        return replace(self, measured_here=False)

    def within(self, macs: float) -> "Basis":
        """Return the basis for a model of so many MACs: less certain outside of what was timed."""
        factor = float(self.outside(np.array([macs]))[0])
        if factor == 1:
            return self
        least, most = self.evidence.macs
        span = f"{least / 1e6:,.0f}M to {most / 1e6:,.0f}M"
        text = f"models of {span} MACs were timed, this has {macs / 1e6:,.1f}M"
        return self.widened(Notice("model-size", text), factor)

    def figure(self, value: float, unit: str) -> Figure:
        """Return a predicted value with its interval and provenance."""
        return Figure(
            value, unit, "calibrated" if self.measured_here else "analytic",
            low=value * self.low_ratio, high=value * self.high_ratio, n=self.evidence.models,
        )  # fmt: skip

    def notes(self) -> tuple[Notice, ...]:
        """Return what the prediction rests on."""
        evidence = self.evidence
        if evidence.measured_on == POOLED:
            text = (
                f"evidence: one fit to {evidence.models} timings with {evidence.runtime} on many boards; "
                f"boards that it had not seen were off by {evidence.median_error:.0%} (median) and "
                f"{evidence.p90_error:.0%} (nine of ten)"
            )
            return (Notice("latency-evidence", text), Notice("latency-source", f"source: {evidence.source}"))
        text = (
            f"evidence: {evidence.models} models timed with {evidence.runtime} on {evidence.measured_on}, "
            f"{threads_in_words(evidence.threads)}, "
            f"{'/'.join(evidence.precisions)}; left out one by one they were off by {evidence.median_error:.0%} "
            f"(median) and {evidence.p90_error:.0%} (nine of ten)"
        )
        return (
            Notice("latency-evidence", text),
            Notice("latency-source", f"source: {evidence.source}"),
        )

    def to_json(self) -> dict[str, object]:
        """Return the evidence as a JSON object."""
        fields = {"measured_on", "runtime", "threads", "precisions", "models", "median_error", "p90_error", "source"}
        kept = self.evidence.model_dump(mode="json", include=fields)
        return {**kept, "notes": list(texts_of(self.warnings))}


def threads_in_words(threads: int) -> str:
    """Return ``1 thread``, ``4 threads``."""
    return f"{threads} thread{'s' * (threads != 1)}"


def latency_basis(
    profile: Profile, threads: int, precision: Precision, pixels: float, relative: Profile | None = None
) -> Basis:
    """Return what the latency of a model with an input of so many `pixels` is predicted from.

    The device's own calibration for these threads and this precision; else one made of its others; else its relative's,
    scaled by what the data sheets say of both, or what all boards say of its core and data sheet (`lender_of`).
    `relative` stands in for the one that the profile names.

    Raises:
        InputError: the device has no calibration, and none of its relatives has.
    """
    own = _basis_of(profile, "latency", threads, precision, pixels)
    if own is not None:
        return own
    lender = relative or lender_of(profile)
    if lender is None:
        return _pooled(profile, threads, precision)
    return _borrowed(profile, lender.under(profile.runtime), threads, precision, pixels)


def lender_of(profile: Profile) -> Profile | None:
    """Return the relative that a device borrows of, None where the pool of all boards speaks for it.

    A relative of the same core, clock and bandwidth is nearer than the pool, and so is any where no core is named.
    """
    if profile.relative is None:
        return None
    relative = _relative(profile)
    same = ("family", "core", "clock_mhz", "bandwidth_gb_s", "peak_gflops")
    if profile.core is None or all(getattr(profile, each) == getattr(relative, each) for each in same):
        return relative
    return None


def _pooled(profile: Profile, threads: int, precision: Precision) -> Basis:
    """Return a basis from the fit over all boards."""
    found = pooled(profile, threads, precision)
    told = f"{profile.name} has no measurements: all boards' together, by core and data sheet"
    if not found.core_known:
        told += f"; none of them has its core ({profile.core or 'not named'})"
    if profile.is_host:
        told += " (mend it with `n2n-edge device calibrate --host`)"
    evidence = found.evidence
    basis = Basis(found.rates, False, evidence.low_ratio, evidence.high_ratio, evidence, (Notice("pooled", told),))
    exact = precision in evidence.precisions or (precision == "fp16" and profile.peak_fp16_gflops is None)
    basis = basis if exact else _in_precision(profile, basis, precision)
    return _under_runtime(profile, basis, exact)


def energy_basis(profile: Profile, threads: int, precision: Precision, pixels: float) -> Basis | None:
    """Return what a model's energy is predicted from; None where nobody measured it so."""
    known = [each for each in profile.calibrations if each.quantity == "energy" and precision in each.precisions]
    known = [each for each in known if each.threads == threads or profile.compute_unit == "gpu"]
    only = profile.model_copy(update={"calibrations": tuple(known)})
    return _basis_of(only, "energy", threads, precision, pixels) if known else None


def _basis_of(profile: Profile, quantity: str, threads: int, precision: Precision, pixels: float) -> Basis | None:
    """Return the basis that a profile's own calibrations give, or None where it has none."""
    known = [each for each in profile.calibrations if each.quantity == quantity]
    if not known:
        return None
    exact = [each for each in known if precision in each.precisions]
    chosen = _at_threads(profile, exact or _widest(known), threads, pixels)
    if not exact:
        chosen = _in_precision(profile, chosen, precision)
    if quantity == "latency":
        chosen = _under_runtime(profile, chosen, bool(exact))
    outside = _outside(chosen.evidence, pixels) / math.log(4)  # doublings of a side
    if outside >= 1:
        least, most = (f"{each**0.5:.0f}" for each in chosen.evidence.input_pixels)
        told = f"inputs of {least} to {most} pixels a side were timed, this has {pixels**0.5:.0f}"
        factor = 1 + _PER_DOUBLING * outside
        chosen = replace(chosen.widened(Notice("input-size", told), factor), by_input=factor)
    return chosen


def _widest(known: list[Calibration]) -> list[Calibration]:
    """Return those in the widest precision that any was timed in."""
    widest = max((precision for each in known for precision in each.precisions), key=lambda each: BYTES[each])
    return [each for each in known if widest in each.precisions]


def _at_threads(profile: Profile, known: list[Calibration], threads: int, pixels: float) -> Basis:
    """Return the basis for so many threads: as timed, or between what was timed with fewer and with more."""
    best = min(known, key=lambda each: _unlike(each, profile, pixels))
    if profile.compute_unit == "gpu":  # threads feed it, no more
        return _basis(profile, best, best.rates)
    by_threads: dict[int, Calibration] = {}
    for each in sorted(known, key=lambda each: _unlike(each, profile, pixels), reverse=True):
        if runtime_family(each.runtime) == runtime_family(best.runtime):  # runtimes are not mixed
            by_threads[each.threads] = each
    if threads in by_threads:
        return _basis(profile, by_threads[threads], by_threads[threads].rates)
    fewer, more = (
        max((t for t in by_threads if t < threads), default=None),
        min((t for t in by_threads if t > threads), default=None),
    )
    if fewer is not None and more is not None:
        weight = math.log(threads / fewer) / math.log(more / fewer)
        low, high = by_threads[fewer].rates, by_threads[more].rates
        rates: Rates = {term: _between(low.get(term), high.get(term), weight) for term in {**low, **high}}
        nearest = by_threads[more]
        told = f"timed with {fewer} and {more} threads"
    else:
        nearest = by_threads[fewer if fewer is not None else more]  # type: ignore[index]
        faster = threads / nearest.threads
        rates = _scaled(nearest.rates, mac=1 / faster)
        told = f"timed with {threads_in_words(nearest.threads)}"
    return replace(_basis(profile, nearest, rates), measured_here=False).widened(
        Notice("other-threads", told), _OTHER_THREADS
    )


def _between(low: float | None, high: float | None, weight: float) -> float:
    """Return the rate between two, the geometric mean with `weight` on `high`; a term that one lacks fades out."""
    if low is None or high is None:
        return (low or 0.0) * (1 - weight) + (high or 0.0) * weight
    rate: float = low ** (1 - weight) * high**weight
    return rate


def _unlike(calibration: Calibration, profile: Profile, pixels: float) -> tuple[bool, bool, float, bool, int]:
    """Return how little a calibration has to do with a model; the least is taken.

    The device's own runtime comes first, unless inputs are far from what was timed with it; then those that span the
    input's size; then, where no image tells, networks of images as large as most, and more models.
    """
    outside = _outside(calibration, pixels)
    other_runtime = runtime_family(calibration.runtime) != profile.runtime
    elsewhere = calibration.measured_on != profile.name
    small = pixels <= 0 and calibration.input_pixels[1] < _SMALL_PIXELS
    return (elsewhere, other_runtime or outside > math.log(_FAR), outside, small, -calibration.models)


def _outside(calibration: Calibration, pixels: float) -> float:
    """Return by what factor, as a logarithm, an input is smaller or larger than all that were timed."""
    if pixels <= 0:
        return 0.0
    least, most = calibration.input_pixels
    return max(math.log(least / pixels), math.log(pixels / most), 0.0)


def _basis(profile: Profile, calibration: Calibration, rates: Rates) -> Basis:
    here = calibration.measured_on == profile.name
    basis = Basis(rates, here, calibration.low_ratio, calibration.high_ratio, calibration)
    return basis if here else basis.widened(Notice("other-device", f"timed on {calibration.measured_on}"), _BORROWED)


def _in_precision(profile: Profile, basis: Basis, precision: Precision) -> Basis:
    """Return a basis for another precision than was timed: peaks and widths of numbers say how it differs.

    Whether int8 is faster than float hangs on kernels more than on peaks, so there rates stay as they are.
    """
    timed = min(basis.evidence.precisions, key=lambda each: abs(BYTES[each] - BYTES[precision]))
    if precision == "int8":
        told = f"int8 was not timed on {basis.evidence.measured_on}: it may be faster or slower than {timed}, which was"
        return replace(basis, measured_here=False).widened(Notice("quantized", told), _INT8_SLOWER, _INT8_FASTER)
    arithmetic = profile.peak(timed) / profile.peak(precision)
    bytes_ = BYTES[precision] / BYTES[timed]
    return replace(basis, rates=_scaled(basis.rates, arithmetic, bytes_), measured_here=False).blurred(
        Notice("other-precision", f"timed in {timed}, told by peaks and widths of numbers"), _OTHER_PRECISION
    )


def _under_runtime(profile: Profile, basis: Basis, same_precision: bool) -> Basis:
    """Return a basis for the profile's runtime: less certain where another one was timed.

    Where the precision is another, too, what that adds holds both: it was found between runtimes.
    """
    timed = runtime_family(basis.evidence.runtime)
    if timed == profile.runtime:
        return basis
    notice = Notice("other-runtime", f"timed with {timed}, told for {profile.runtime}")
    return basis.blurred(notice, _OTHER_RUNTIME if same_precision else 1.0)


def _borrowed(profile: Profile, relative: Profile, threads: int, precision: Precision, pixels: float) -> Basis:
    """Return the relative's basis, scaled by peaks, bandwidths and clocks."""
    there = min(threads, relative.cores)
    basis = _basis_of(relative, "latency", there, precision, pixels)
    assert basis is not None
    arithmetic = _peak_at(relative, there, precision) / _peak_at(profile, threads, precision)
    moving = relative.bandwidth_gb_s / profile.bandwidth_gb_s
    clock = relative.clock_mhz / profile.clock_mhz
    note = f"{profile.name} has no measurements: {relative.name}'s, scaled by data sheets"
    if profile.is_host:
        note += " (mend it with `n2n-edge device calibrate --host`)"
    return replace(basis, rates=_scaled(basis.rates, arithmetic, moving, clock), measured_here=False).widened(
        Notice("borrowed", note), _BORROWED
    )


def _scaled(rates: Rates, mac: float, byte: float = 1.0, other: float = 1.0) -> Rates:
    """Return rates of which those of multiply-accumulates, of bytes, and all others are multiplied by a factor."""
    factors = {"mac": mac, "byte": byte}
    return {term: rate * factors.get(term.split("_")[0], other) for term, rate in rates.items()}


def _peak_at(profile: Profile, threads: int, precision: Precision) -> float:
    whole = profile.peak(precision)
    return whole if profile.compute_unit == "gpu" else whole * threads / profile.default_threads


def _relative(profile: Profile) -> Profile:
    """Return the nearest relative that has calibrations, by way of relatives that have none."""
    name = profile.relative or NEAREST[profile.compute_unit]
    passed = [profile.name]
    while True:
        relative = load_profile(name)
        if relative.compute_unit != profile.compute_unit:
            raise InputError(
                f"{profile.name}: field 'relative': {name} computes on its {relative.compute_unit}, not its "
                f"{profile.compute_unit}; name another device"
            )
        if any(each.quantity == "latency" for each in relative.calibrations):
            return relative
        passed.append(relative.name)
        name = relative.relative or NEAREST[profile.compute_unit]
        if name in passed:
            raise InputError(
                f"{profile.name}: none of its relatives ({', '.join(passed[1:])}) has a calibration; name one that has "
                "(see `n2n-edge profiles list`), or calibrate the device"
            )
