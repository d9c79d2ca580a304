"""A handful of timings of somebody's board: what they change about its rates, and how much they narrow the interval.

The rates that a profile gives are a prior: their common factor and the deviation of each term are normal, as
logarithms, and so is the error of one network. The timings make a posterior of it: its mode gives the rates, its
variance, linearised there, the interval (MacKay 2003, chapter 27).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.calibration.calibrate import with_new
from n2n_edge.calibration.fitting import fit_rates
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.terms import TERMS
from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.input_shape import with_input_shape
from n2n_edge.graph.load import load_model
from n2n_edge.latency.basis import Basis
from n2n_edge.latency.kernels import kernels_of
from n2n_edge.latency.model import LatencyModel, input_pixels
from n2n_edge.latency.pooled import POOLED, reference_terms
from n2n_edge.metrics.precisions import Precision

__all__ = ["Posterior", "Timing", "parse_timing", "posterior", "prior_deviations", "with_timings"]

_NINE_OF_TEN = 1.645
"""Standard deviations on either side of a normal that hold nine of ten."""

_NETWORK = {"cpu": 0.15, "gpu": 0.24}
"""Standard deviation, as a logarithm, of one network's own error: within a board, on boards that were left out."""

_TERM = 0.35
"""The same, of a single term's rate between boards with the same core."""

_SAME_BOARD = 0.25
"""The same, of the common factor between a board whose calibration is known and another of its kind: clock, operating
system, runtime."""

_TIMING = re.compile(r"(?P<file>.+)=(?P<value>[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?P<unit>us|ms|s)")
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Timing:
    """A model and how long one inference of it takes on the board, in ms.

    >>> n2n_edge.Timing(n2n_edge.Teacher.load(example_teacher).model, 3.2).ms
    3.2
    """

    model: ir.Model
    ms: float
    name: str = "the model"


@dataclass(frozen=True)
class Posterior:
    """Rates `(terms,)` after some timings, and the standard deviation of a further network's logarithm."""

    rates: Floats
    deviation: float


def parse_timing(text: str) -> Timing:
    """Return the timing that ``model.onnx=12.3ms`` gives; us and s are taken, too.

    >>> n2n_edge.parse_timing(f"{example_teacher}=3.2 ms").ms
    3.2

    Raises:
        InputError: not of that form, no such file, or not a time above nought.
    """
    found = _TIMING.fullmatch(text.strip())
    if found is None:
        raise InputError(f"‹measured› {text}: not a model and its time; give such as model.onnx=12.3ms")
    try:
        ms = float(found["value"]) * _MS[found["unit"]]
    except ValueError:
        ms = 0.0
    if not (ms > 0 and math.isfinite(ms)):
        raise InputError(f"‹measured› {text}: the time must be a number above 0")
    path = Path(found["file"])
    with foreign_file(str(path)):
        model = with_input_shape(load_model(path), None, str(path))
    return Timing(model, ms, str(path))


def posterior(
    terms: Floats, times: Floats, guess: Floats, references: Floats, *, network: float, common: float
) -> Posterior:
    """Return what timings of models with these `terms` `(models, terms)`, `times` in ns, make of the rates `guess`.

    `network` and `common` are the standard deviations of a network's error and of the common factor; `references`
    `(networks, terms)` are the networks over which the deviation is taken.
    """
    rates = fit_rates(terms, times, guess, (network / _TERM) ** 2, (network / common) ** 2).rates

    def design(of: Floats) -> Floats:
        parts = of * rates
        shares = parts / parts.sum(axis=1, keepdims=True)
        return np.concatenate([np.ones((len(of), 1)), shares], axis=1)

    prior = np.concatenate([[common], np.full(terms.shape[1], _TERM)])
    known = design(terms)
    spread = np.linalg.inv(known.T @ known / network**2 + np.diag(prior**-2.0))
    asked = design(references)
    variances = np.einsum("np,pq,nq->n", asked, spread, asked)
    return Posterior(rates, math.sqrt(float(variances.mean()) + network**2))


def with_timings(
    profile: Profile, timings: Sequence[Timing], threads: int | None = None, precision: Precision | None = None
) -> Profile:
    """Return a profile that knows `timings` of its board, with so many threads, in this precision, under its runtime.

    >>> timing = n2n_edge.parse_timing(f"{example_teacher}=3.2ms")
    >>> n2n_edge.with_timings(n2n_edge.load_profile("raspberry-pi-4"), [timing]).calibrations[0].models
    1

    What it says of other threads and precisions follows from these timings, too, less certainly.

    Raises:
        InputError: no timings, or what `LatencyModel` raises.
    """
    if not timings:
        raise InputError("‹measured›: no timing is given")
    latency = LatencyModel(profile, threads, precision)
    basis = latency.basis()
    costed = []
    for timing in timings:
        with foreign_file(timing.name):
            costed.append(kernels_of(timing.model, profile.block))
    terms = np.stack([kernels.terms(amounts)[:, 0] for kernels, amounts in costed])
    guess = np.array([max(basis.rates.get(term, 0.0), 1e-9) for term in TERMS])
    network, common = _deviations(profile, basis)
    times = np.array([timing.ms for timing in timings]) * 1e6
    found = posterior(terms, times, guess, reference_terms(), network=network, common=common)
    pixels = [each for each in (input_pixels(timing.model) for timing in timings) if each > 0]
    macs = [float(max(amounts.macs[0], 1.0)) for _, amounts in costed]
    known = basis.evidence
    calibration = Calibration(
        measured_on=profile.name,
        runtime=f"{profile.runtime} as given",
        threads=latency.threads,
        precisions=(latency.precision,),
        models=len(timings),
        median_error=round(math.expm1(0.6745 * found.deviation), 3),
        p90_error=round(math.expm1(_NINE_OF_TEN * found.deviation), 3),
        low_ratio=math.exp(-_NINE_OF_TEN * found.deviation),
        high_ratio=math.exp(_NINE_OF_TEN * found.deviation),
        macs=(min(*macs, known.macs[0]), max(*macs, known.macs[1])),
        input_pixels=(min(*pixels, known.input_pixels[0]), max(*pixels, known.input_pixels[1])),
        source=f"timings given with --measured, which corrected: {known.source}",
        rates=dict(zip(TERMS, found.rates.tolist(), strict=True)),
    )
    return profile.model_copy(update={"calibrations": with_new(profile, [calibration])})


def prior_deviations(compute_unit: str, half_width: float) -> tuple[float, float]:
    """Return the standard deviations of a network's error and of the common factor that a pooled interval stands for.

    `half_width` is that of the interval that holds nine of ten, as a logarithm.
    """
    network, whole = _NETWORK[compute_unit], half_width / _NINE_OF_TEN
    return network, max(math.sqrt(max(whole**2 - network**2, 0.0)), _SAME_BOARD)


def _deviations(profile: Profile, basis: Basis) -> tuple[float, float]:
    half = math.log(basis.high_ratio / basis.low_ratio) / 2
    if basis.measured_here and basis.evidence.measured_on != POOLED:
        return max(min(half / _NINE_OF_TEN, _NETWORK[profile.compute_unit]), 0.05), _SAME_BOARD
    return prior_deviations(profile.compute_unit, half)
