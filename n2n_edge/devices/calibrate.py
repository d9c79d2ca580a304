"""Calibrating a device: time a pack of models on it, fit its rates, and say how much better it is known."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from n2n_edge.devices.data_sheet import data_sheet_rates
from n2n_edge.devices.fitting import fit_rates, half_width, leave_out
from n2n_edge.devices.kernels import TERMS, kernels_of
from n2n_edge.devices.pack import calibration_pack
from n2n_edge.devices.prediction import latency_basis
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.errors import InputError
from n2n_edge.graph import serialize
from n2n_edge.measure import BenchOptions, ConnectionLostError, MeasurementError, Target, WarmWorker

__all__ = ["CalibrationRun", "Timed", "calibrate", "with_new"]

_PASSES = 2
"""How often every model is timed, far apart; the lesser median counts, since other programs only make it longer."""

_LEAST_MODELS = 20
_SESSION_S = 0.5
"""What starting a session takes of a model's share of the time, roughly."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Timed:
    """One model of the pack: measured ms, predicted ms by the profile as it was, and by a fit without this model."""

    name: str
    threads: int
    measured_ms: float
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class CalibrationRun:
    """What a calibration found: one `Calibration` per number of threads, each model's times, models that failed."""

    calibrations: tuple[Calibration, ...]
    timed: tuple[Timed, ...]
    failures: tuple[str, ...]

    def errors(self, threads: int) -> tuple[float, float]:
        """Return the median error, as a fraction, of the profile as it was and of the fit, for so many threads."""
        rows = [row for row in self.timed if row.threads == threads]
        before = [abs(row.before_ms / row.measured_ms - 1) for row in rows]
        return float(np.median(before)), float(np.median([abs(row.after_ms / row.measured_ms - 1) for row in rows]))


def calibrate(
    target: Target,
    profile: Profile,
    threads: Sequence[int],
    *,
    minutes: float = 4.5,
    say: Callable[[str], None] = lambda _: None,
) -> CalibrationRun:
    """Time the pack on `target` with each number of `threads` and fit the rates of `profile`.

    Takes `minutes` at most, but for models that a slow board can't run in their share of it.

    Raises:
        InputError: threads that the profile doesn't have.
        MeasurementError: the board can't be reached, throttles, or runs too few of the models.
    """
    for count in threads:
        if not 1 <= count <= profile.cores:
            raise InputError(f"--threads {count}: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}")
    models = list(calibration_pack())
    end = time.monotonic() + minutes * 60
    medians: dict[tuple[str, int], float] = {}
    runtime, failures = "onnxruntime", {}
    jobs = [(name, model, count) for name, model in models for count in threads]
    left = len(jobs) * _PASSES
    with WarmWorker(target) as worker:
        for round_ in range(_PASSES):
            random.Random(round_).shuffle(jobs)
            for name, model, count in jobs:
                share = max((end - time.monotonic()) / left - _SESSION_S, 0.2)
                left -= 1
                if (name, count) in failures:
                    continue
                say(f"{name}, {count} threads ({len(jobs) * _PASSES - left} of {len(jobs) * _PASSES})")
                options = BenchOptions(
                    threads=count, providers=profile.providers if profile.compute_unit == "gpu" else (),
                    min_time_s=min(0.2, share), max_time_s=min(share, 3.0), timeout_s=120.0,
                )  # fmt: skip
                try:
                    measurement = worker.measure(serialize(model), options)
                except ConnectionLostError:
                    raise
                except (MeasurementError, InputError) as error:
                    failures[name, count] = f"{name}: {error}"
                    continue
                runtime = measurement.runtime
                known = medians.get((name, count), measurement.p50_ms)
                medians[name, count] = min(known, measurement.p50_ms)
    calibrations, rows = [], []
    for count in threads:
        found, timed = _fitted(profile, count, runtime, {n: medians[n, c] for n, c in medians if c == count}, failures)
        calibrations.append(found)
        rows += timed
    return CalibrationRun(tuple(calibrations), tuple(rows), tuple(failures.values()))


def with_new(profile: Profile, found: Sequence[Calibration]) -> tuple[Calibration, ...]:
    """Return a profile's calibrations, those of the same runtime, threads and precision replaced by `found`."""

    def subject(each: Calibration) -> tuple[object, ...]:
        return each.quantity, each.runtime.split()[0], each.threads, each.precisions, each.measured_on

    replaced = {subject(each) for each in found}
    return (*found, *(each for each in profile.calibrations if subject(each) not in replaced))


def _fitted(
    profile: Profile, threads: int, runtime: str, medians: dict[str, float], failures: dict[tuple[str, int], str]
) -> tuple[Calibration, list[Timed]]:
    if len(medians) < _LEAST_MODELS:
        first = next(iter(failures.values()), "no model was timed")
        raise MeasurementError(
            f"{profile.name}: only {len(medians)} models ran with {threads} threads, {_LEAST_MODELS} are needed; "
            f"{first}"
        )
    graphs = {name: model for name, model in calibration_pack() if name in medians}
    costed = {name: kernels_of(model, profile.block) for name, model in graphs.items()}
    terms = np.stack([kernels.terms(amounts)[:, 0] for kernels, amounts in costed.values()])
    times = np.array([medians[name] for name in costed]) * 1e6
    basis = latency_basis(profile, threads)
    sheet = data_sheet_rates(profile, threads)
    guess = np.array([basis.rates.get(term, sheet[term]) for term in TERMS])
    before = terms @ np.array([basis.rates.get(term, 0.0) for term in TERMS])
    errors = leave_out(terms, times, guess)
    rates = fit_rates(terms, times, guess).rates
    off = np.abs(np.exp(errors) - 1)
    width = half_width(errors)
    macs = [float(amounts.macs[0]) for _, amounts in costed.values()]
    calibration = Calibration(
        measured_on=profile.name,
        runtime=runtime,
        threads=threads,
        precisions=("fp32",),
        models=len(times),
        median_error=round(float(np.median(off)), 3),
        p90_error=round(float(np.quantile(off, 0.9)), 3),
        low_ratio=float(np.exp(-width)),
        high_ratio=float(np.exp(width)),
        macs=(min(macs), max(macs)),
        input_pixels=(28.0**2, 224.0**2),
        source=f"n2n-edge device calibrate, {time.strftime('%Y-%m-%d')}",
        rates=dict(zip(TERMS, rates.tolist(), strict=True)),
    )
    after = times * np.exp(errors)
    return calibration, [
        Timed(name, threads, float(ns) / 1e6, float(then) / 1e6, float(now) / 1e6)
        for name, ns, then, now in zip(costed, times, before, after, strict=True)
    ]
