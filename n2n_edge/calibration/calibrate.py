"""Calibrating a device: time a pack of models on it, fit its rates, and say how much better it is known."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.calibration.fitting import fit_rates, interval, leave_out
from n2n_edge.calibration.pack import calibration_pack
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.terms import TERMS
from n2n_edge.errors import InputError
from n2n_edge.graph.load import serialize
from n2n_edge.latency.data_sheet import data_sheet_rates
from n2n_edge.latency.kernels import kernels_of
from n2n_edge.latency.model import LatencyModel, input_pixels
from n2n_edge.measure.bench import WarmWorker, twice
from n2n_edge.measure.board import refuse_throttled
from n2n_edge.measure.measurement import ConnectionLostError, MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.target import Target

__all__ = ["CalibrationRun", "Timed", "calibrate", "calibration_of", "with_new"]

_PASSES = 3
"""How often every model is timed, far apart; the median of the medians counts."""

_LEAST_MODELS = 20
_MOST_FAILURES = 8
"""After so many models that failed, something is wrong with the board, and no more is tried."""

_TIMEOUT_S = 60.0
_SESSION_S = 0.5
"""What starting a session takes of a model's share of the time, roughly."""

Floats = NDArray[np.float64]
_Job = tuple[str, ir.Model, int]


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

    Takes `minutes`, and somewhat more on a board that has not run enough models by then.

    Raises:
        InputError: threads that the profile doesn't have.
        MeasurementError: the board can't be reached, throttles, or runs too few of the models.
    """
    for count in threads:
        if not 1 <= count <= profile.cores:
            raise InputError(f"‹threads› {count}: {profile.name} has {profile.cores} cores; give 1 to {profile.cores}")
    before = target.state()
    refuse_throttled("device calibrate", target.name, before)
    timer = _Timer(target, profile, time.monotonic() + minutes * 60, say)
    models = dict(calibration_pack())
    timer.run([(name, model, count) for name, model in models.items() for count in threads])
    refuse_throttled("device calibrate", target.name, target.state(), before)
    failures, runtime = timer.failures, timer.runtime
    calibrations, rows = [], []
    for count in threads:
        found, timed = _fitted(profile, count, runtime, models, timer.medians(count), failures)
        calibrations.append(found)
        rows += timed
    return CalibrationRun(tuple(calibrations), tuple(rows), tuple(failures.values()))


class _Timer:
    """Times models one by one until the time is up, each several times far apart."""

    def __init__(self, target: Target, profile: Profile, end: float, say: Callable[[str], None]) -> None:
        self._medians: dict[tuple[str, int], list[float]] = {}
        self.failures: dict[tuple[str, int], str] = {}
        self.runtime = "onnxruntime"
        self._target, self._profile, self._end, self._say = target, profile, end, say

    def run(self, jobs: list[_Job]) -> None:
        """Time every job, in another order in every pass; a pass that begins too late is cut short."""
        left = len(jobs) * _PASSES
        with WarmWorker(self._target) as worker:
            for pass_ in range(_PASSES):
                random.Random(pass_).shuffle(jobs)
                for name, model, count in jobs:
                    share = max((self._end - time.monotonic()) / left - _SESSION_S, 0.1)
                    left -= 1
                    if (name, count) in self.failures or self._enough(count):
                        continue
                    done = len(jobs) * _PASSES - left
                    self._say(f"{name}, {count} threads ({done} of {len(jobs) * _PASSES})")
                    self._time(worker, name, model, count, share)

    def _enough(self, threads: int) -> bool:
        """Tell whether the time is up and this number of threads has the models that a fit needs."""
        if time.monotonic() < self._end:
            return False
        return sum(count == threads for _, count in self._medians) >= _LEAST_MODELS

    def _time(self, worker: WarmWorker, name: str, model: ir.Model, threads: int, seconds: float) -> None:
        options = BenchOptions(
            threads=threads,
            providers=self._profile.providers if self._profile.compute_unit == "gpu" else (),
            min_time_s=min(0.2, seconds),
            max_time_s=min(seconds, 3.0),
            timeout_s=_TIMEOUT_S,
        )
        data = serialize(model)
        try:
            measurement = twice(self._target, lambda: worker.measure(data, options))
        except ConnectionLostError:
            raise
        except (MeasurementError, InputError) as error:
            self.failures[name, threads] = f"{name}: {error}"
            self._medians.pop((name, threads), None)
            if len(self.failures) > _MOST_FAILURES:
                raise MeasurementError(
                    f"{self._target.name}: {len(self.failures)} models failed, the last one by: {error}"
                ) from error
            return
        self.runtime = measurement.runtime
        self._medians.setdefault((name, threads), []).append(measurement.p50_ms)

    def medians(self, threads: int) -> dict[str, float]:
        """Return the ms of every model that ran with so many threads."""
        return {name: statistics.median(each) for (name, count), each in self._medians.items() if count == threads}


def calibration_of(
    rates: Floats,
    errors: Floats,
    macs: Sequence[float],
    pixels: Sequence[float],
    usual: NDArray[np.bool_] | None = None,
    **facts: Any,
) -> Calibration:
    """Return fitted `rates` `(terms,)`, nought for terms that aren't used, with their evidence.

    `facts` are the fields that say what was timed and where.
    `errors` `(models,)` are predicted over measured, as logarithms, of models that their fits hadn't seen; `macs` and
    `pixels` are the models'. `usual` `(models,)` tells of which the interval is: all, unless given.
    """
    off, (low, high) = np.abs(np.exp(errors) - 1), interval(errors if usual is None else errors[usual])
    return Calibration(
        models=len(errors),
        median_error=round(float(np.median(off)), 3),
        p90_error=round(float(np.quantile(off, 0.9)), 3),
        low_ratio=low,
        high_ratio=high,
        macs=(min(macs), max(macs)),
        input_pixels=(min(pixels), max(pixels)),
        rates={term: rate for term, rate in zip(TERMS, rates.tolist(), strict=True) if rate > 0},
        **facts,
    )


def with_new(profile: Profile, found: Sequence[Calibration]) -> tuple[Calibration, ...]:
    """Return a profile's calibrations, those of the same runtime, threads and precision replaced by `found`."""

    def subject(each: Calibration) -> tuple[object, ...]:
        return each.quantity, each.runtime.split()[0], each.threads, each.precisions, each.measured_on

    replaced = {subject(each) for each in found}
    return (*found, *(each for each in profile.calibrations if subject(each) not in replaced))


def _fitted(
    profile: Profile,
    threads: int,
    runtime: str,
    models: dict[str, ir.Model],
    medians: dict[str, float],
    failures: dict[tuple[str, int], str],
) -> tuple[Calibration, list[Timed]]:
    if len(medians) < _LEAST_MODELS:
        first = next(iter(failures.values()), "no model was timed")
        raise MeasurementError(
            f"{profile.name}: only {len(medians)} models ran with {threads} threads, {_LEAST_MODELS} are needed; "
            f"{first}"
        )
    graphs = {name: model for name, model in models.items() if name in medians}
    costed = {name: kernels_of(model, profile.block) for name, model in graphs.items()}
    terms = np.stack([kernels.terms(amounts)[:, 0] for kernels, amounts in costed.values()])
    times = np.array([medians[name] for name in costed]) * 1e6
    sheet = data_sheet_rates(profile, threads)
    try:
        known = LatencyModel(profile, threads).basis().rates
    except InputError:  # a relative of the user's own that has no calibration
        known = sheet
    guess = np.array([known.get(term, sheet[term]) for term in TERMS])
    before = terms @ np.array([known.get(term, 0.0) for term in TERMS])
    errors = leave_out(terms, times, guess)
    rates = fit_rates(terms, times, guess).rates
    calibration = calibration_of(
        rates,
        errors,
        [float(amounts.macs[0]) for _, amounts in costed.values()],
        [input_pixels(model) for model in graphs.values()],
        measured_on=profile.name,
        runtime=runtime,
        threads=threads,
        precisions=("fp32",),
        source=f"n2n-edge device calibrate, {time.strftime('%Y-%m-%d')}",
    )
    after = times * np.exp(errors)
    return calibration, [
        Timed(name, threads, float(ns) / 1e6, float(then) / 1e6, float(now) / 1e6)
        for name, ns, then, now in zip(costed, times, before, after, strict=True)
    ]
