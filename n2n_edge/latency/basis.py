"""What a prediction rests on: which of a profile's calibrations speak for a model, and how far they can be trusted."""

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.devices.profile import Calibration, Precision, Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.devices.terms import Rates
from n2n_edge.errors import InputError
from n2n_edge.graph.costs import Amounts
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE
from n2n_edge.latency.data_sheet import BYTES
from n2n_edge.latency.kernels import Kernels
from n2n_edge.metrics.figures import Figure

__all__ = ["Basis", "basis_for_model", "energy_basis", "input_pixels", "latency_basis", "threads_in_words"]

NEAREST = {"cpu": "raspberry-pi-4", "gpu": "jetson-orin-nano"}
"""Whose rates a device borrows that has neither measurements nor a `relative`."""

_BORROWED = 1.6
"""By how much an interval is widened, on both sides, where the rates come from another device."""

_OTHER_THREADS = 1.2
_OTHER_PRECISION = 1.5
"""The same, where nothing was timed with these threads, or in this precision."""

_FAR = 8.0
"""How many times smaller or larger an input may be than all that were timed with the device's own runtime."""

_SMALL_PIXELS = 64.0**2

_UNCOUNTED = 10.0
"""By how much an interval is widened where operators multiply that nobody counts, such as an LSTM."""

_QUANTIZED = 4.0
"""The same, but on its lower side alone, for a file that is quantized, predicted from timings of float ones."""

_OPEN_WEIGHTS = 3.0
"""The same, where weights are graph inputs: ONNX Runtime was three times slower on such a file than predicted."""

_PER_DOUBLING = 0.1
"""The same, for every doubling by which the model lies outside of what was timed."""


@dataclass(frozen=True)
class Basis:
    """What a prediction rests on: rates in ns a unit, the interval of measured over predicted, and the evidence.

    `notes` say what makes it less certain than the evidence: another device, other threads, another precision.
    """

    rates: Rates
    measured_here: bool
    low_ratio: float
    high_ratio: float
    evidence: Calibration
    notes: tuple[str, ...] = ()
    by_input: float = 1.0
    """By how much the interval has been widened for the size of the input."""

    def widened(self, factor: float, note: str) -> "Basis":
        """Return the same with a wider interval and one more note."""
        return replace(
            self, low_ratio=self.low_ratio / factor, high_ratio=self.high_ratio * factor, notes=(*self.notes, note)
        )

    def outside(self, macs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return by how much the interval widens for models of so many MACs: 1 within what was timed."""
        least, most = self.evidence.macs
        macs = np.maximum(macs, 1.0)
        doublings = np.maximum(np.log2(least / macs), np.log2(macs / most))
        wider = 1 + _PER_DOUBLING * np.maximum(doublings, 0.0)
        beyond: NDArray[np.float64] = np.maximum(wider / self.by_input, 1.0)  # small inputs make for few of them
        return beyond

    def upper_ms(self, kernels: Kernels, amounts: Amounts) -> NDArray[np.float64]:
        """Return the upper bounds of `latencies_ms`."""
        return self.latencies_ms(kernels, amounts) * self.high_ratio * self.outside(amounts.macs)

    def latency(self, kernels: Kernels, amounts: Amounts) -> Figure:
        """Return the latency of one candidate, in ms, with its interval."""
        return self.within(float(amounts.macs[0])).figure(float(self.latencies_ms(kernels, amounts)[0]), "ms")

    def energy(self, kernels: Kernels, amounts: Amounts) -> Figure:
        """Return the energy of one candidate, in mJ, where the rates are nJ a unit."""
        millijoules = float(kernels.total_ns(amounts, self.rates)[0]) / 1e6
        return self.within(float(amounts.macs[0])).figure(millijoules, "mJ")

    def within(self, macs: float) -> "Basis":
        """Return the basis for a model of so many MACs: less certain outside of what was timed."""
        factor = float(self.outside(np.array([macs]))[0])
        if factor == 1:
            return self
        least, most = self.evidence.macs
        span = f"{least / 1e6:,.0f}M to {most / 1e6:,.0f}M"
        return self.widened(factor, f"models of {span} MACs were timed, this has {macs / 1e6:,.1f}M")

    def words(self) -> tuple[str, ...]:
        """Return in lines what the prediction rests on, and then what makes it less certain."""
        return (*self.evidence_words(), *self.warnings())

    def warnings(self) -> tuple[str, ...]:
        """Return what makes the prediction less certain, and has widened its interval."""
        return tuple(f"less certain: {note}" for note in self.notes)

    def evidence_words(self) -> tuple[str, ...]:
        """Return in lines what the prediction rests on."""
        evidence = self.evidence
        return (
            f"evidence: {evidence.models} models timed with {evidence.runtime} on {evidence.measured_on}, "
            f"{threads_in_words(evidence.threads)}, "
            f"{'/'.join(evidence.precisions)}; left out one by one they were off by {evidence.median_error:.0%} "
            f"(median) and {evidence.p90_error:.0%} (nine of ten)",
            f"source: {evidence.source}",
        )

    def to_json(self) -> dict[str, object]:
        """Return the evidence as a JSON object."""
        kept = self.evidence.model_dump(
            mode="json",
            include={
                "measured_on",
                "runtime",
                "threads",
                "precisions",
                "models",
                "median_error",
                "p90_error",
                "source",
            },
        )
        return {**kept, "notes": list(self.notes)}

    def figure(self, value: float, unit: str) -> Figure:
        """Return a predicted value with its interval and provenance."""
        return Figure(
            value, unit, "calibrated" if self.measured_here else "analytic",
            low=value * self.low_ratio, high=value * self.high_ratio, n=self.evidence.models,
        )  # fmt: skip

    def latencies_ms(self, kernels: Kernels, amounts: Amounts) -> NDArray[np.float64]:
        """Return the latencies of N candidates of one graph, `(N,)`."""
        return kernels.total_ns(amounts, self.rates) / 1e6


def threads_in_words(threads: int) -> str:
    """Return ``1 thread``, ``4 threads``."""
    return f"{threads} thread{'s' * (threads != 1)}"


def input_pixels(model: ir.Model) -> float:
    """Return height times width of the largest input that is an image, channels first or last; 0 where none is.

    Free sizes count as what costs assume for them.
    """
    sizes = [0]
    for value in model.graph.inputs:
        dims = [] if value.shape is None else [_known(size) for size in value.shape]
        if len(dims) == 4 and value.name not in model.graph.initializers:
            sizes.append(math.prod(sorted(dims[1:])[1:]))  # of three axes the channels are rarely the longest
    return float(max(sizes))


def _known(size: object) -> int:
    return size if isinstance(size, int) else DEFAULT_SPATIAL_SIZE


def latency_basis(
    profile: Profile,
    threads: int | None = None,
    precision: Precision = "fp32",
    pixels: float = 224.0**2,
    relative: Profile | None = None,
) -> Basis:
    """Return what the latency of a model with an input of so many `pixels` is predicted from.

    The device's own calibration for these threads and this precision; else one made of its others; else its relative's,
    scaled by what the data sheets say of both. `relative` stands in for the one that the profile names.

    Raises:
        InputError: more threads than the device has cores, or fewer than one.
    """
    threads = profile.default_threads if threads is None else threads
    if not 1 <= threads <= profile.cores:
        raise InputError(f"{threads} threads: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}")
    own = _basis_of(profile, "latency", threads, precision, pixels)
    if own is not None:
        return own
    return _borrowed(profile, relative or _relative(profile), threads, precision, pixels)


def energy_basis(profile: Profile, threads: int | None, precision: Precision, pixels: float) -> Basis | None:
    """Return what a model's energy is predicted from; None where nobody measured it so."""
    threads = profile.default_threads if threads is None else threads
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
    outside = _outside(chosen.evidence, pixels) / math.log(4)  # doublings of a side
    if outside >= 1:
        least, most = (f"{each**0.5:.0f}" for each in chosen.evidence.input_pixels)
        told = f"inputs of {least} to {most} pixels a side were timed, this has {pixels**0.5:.0f}"
        factor = 1 + _PER_DOUBLING * outside
        chosen = replace(chosen.widened(factor, told), by_input=factor)
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
        if each.runtime.split()[0] == best.runtime.split()[0]:  # runtimes are not mixed
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
        both = [term for term in low if term in high]
        rates: Rates = {term: low[term] ** (1 - weight) * high[term] ** weight for term in both}
        nearest = by_threads[more]
        told = f"timed with {fewer} and {more} threads"
    else:
        nearest = by_threads[fewer if fewer is not None else more]  # type: ignore[index]
        faster = threads / nearest.threads
        rates = _scaled(nearest.rates, mac=1 / faster)
        told = f"timed with {threads_in_words(nearest.threads)}"
    return replace(_basis(profile, nearest, rates), measured_here=False).widened(_OTHER_THREADS, told)


def _unlike(calibration: Calibration, profile: Profile, pixels: float) -> tuple[bool, bool, float, bool, int]:
    """Return how little a calibration has to do with a model; the least is taken.

    The device's own runtime comes first, unless inputs are far from what was timed with it; then those that span the
    input's size; then, where no image tells, networks of images as large as most, and more models.
    """
    outside = _outside(calibration, pixels)
    other_runtime = not calibration.runtime.lower().startswith(profile.runtime)
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
    return basis if here else basis.widened(_BORROWED, f"timed on {calibration.measured_on}")


def _in_precision(profile: Profile, basis: Basis, precision: Precision) -> Basis:
    """Return a basis for another precision than was timed: peaks and widths of numbers say how it differs."""
    timed = min(basis.evidence.precisions, key=lambda each: abs(BYTES[each] - BYTES[precision]))
    arithmetic = profile.peak(timed) / profile.peak(precision)
    bytes_ = BYTES[precision] / BYTES[timed]
    return replace(basis, rates=_scaled(basis.rates, arithmetic, bytes_), measured_here=False).widened(
        _OTHER_PRECISION, f"timed in {timed}"
    )


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
        _BORROWED, note
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


def basis_for_model(basis: Basis, model: ir.Model, amounts: Amounts) -> Basis:
    """Widen the interval for what is unusual about a model: its size, and weights that a caller may replace."""
    basis = basis.within(float(amounts.macs[0]))
    open_weights = [value.name for value in model.graph.inputs if value.name in model.graph.initializers]
    if open_weights:
        note = f"{len(open_weights)} weights are graph inputs, so none can be fused or packed: make them constants"
        basis = basis.widened(_OPEN_WEIGHTS, note)
    uncounted = sorted({node.op_type for node in model.graph if _is_uncounted(node)})
    quantized = any(counted_op(node.op_type, node.domain).quantized for node in model.graph)
    if quantized:  # what is quantized is rarely slower, and often several times faster
        note = "the file is quantized, and what was timed is float"
        basis = replace(basis, low_ratio=basis.low_ratio / _QUANTIZED, notes=(*basis.notes, note))
    if uncounted:
        note = f"what {', '.join(uncounted)} multiply is not counted"
        basis = replace(basis.widened(_UNCOUNTED, note), measured_here=False)
    return basis


def _is_uncounted(node: ir.Node) -> bool:
    """Tell whether a node does work that isn't counted: recurrent ones, products by letters, fused ones, subgraphs."""
    subgraphs = any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values())
    row = counted_op(node.op_type, node.domain)
    return subgraphs or (node.domain.startswith("com.microsoft") and not row.quantized) or row.uncounted
