"""Timing a model: `bench` in a fresh worker, `WarmWorker` for many models in a row."""

import base64
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from n2n_edge.errors import InputError
from n2n_edge.measure.environment import usable_cores
from n2n_edge.measure.measurement import Measurement, summarise
from n2n_edge.measure.process import WORKER_SCRIPT, Event, WorkerProcess

__all__ = ["WarmWorker", "bench"]

NOISY_RATIO = 1.5
BUSY_CORES = 0.3


def bench(
    model: Path | str,
    *,
    threads: int | None = None,
    batch: int = 1,
    providers: Sequence[str] | None = None,
    min_time_s: float = 1.0,
    max_time_s: float = 10.0,
    tolerance: float = 0.02,
    timeout_s: float = 600.0,
) -> Measurement:
    """Time an ONNX file on this machine, in a process of its own.

    Runs are repeated for at least `min_time_s`, until the 95% interval of the median lies within `tolerance` (a share)
    of the median, or `max_time_s` is up. `threads` defaults to the usable cores. `timeout_s` bounds the whole
    measurement, session creation and first run (which may build an engine) included.

    Raises:
        InputError: no such file, a model that onnxruntime refuses, an unknown provider, an option out of range.
        MeasurementError: the runtime crashed, hung, ran out of memory or failed.
    """
    with WarmWorker() as worker:
        return worker.measure(
            Path(model),
            threads=threads,
            batch=batch,
            providers=providers,
            min_time_s=min_time_s,
            max_time_s=max_time_s,
            tolerance=tolerance,
            timeout_s=timeout_s,
        )


class WarmWorker:
    """Times many models in one process, which is replaced when it dies or hangs.

    One model fails alone: its `measure` raises, the next one finds a new worker. For one thread at a time.

        with WarmWorker() as worker:
            for path in paths:
                print(worker.measure(path, threads=1).p50_ms)
    """

    def __init__(self, script: Path = WORKER_SCRIPT) -> None:
        self._script = script
        self._process: WorkerProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before the first model, and after a worker has died."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def measure(
        self,
        model: Path | bytes,
        *,
        threads: int | None = None,
        batch: int = 1,
        providers: Sequence[str] | None = None,
        min_time_s: float = 0.2,
        max_time_s: float = 2.0,
        tolerance: float = 0.02,
        timeout_s: float = 60.0,
        seed: int = 0,
    ) -> Measurement:
        """Time one model, a file or the bytes of one; see `bench`. The inputs are random by `seed`.

        Raises:
            InputError: no such file, a model that onnxruntime refuses, an unknown provider, an option out of range.
            MeasurementError: the runtime crashed, hung, ran out of memory or failed; the next call starts a new worker.
        """
        threads = usable_cores() if threads is None else threads
        _check_options(threads, batch, min_time_s, max_time_s, tolerance, timeout_s)
        request: dict[str, Any] = {
            "threads": threads,
            "batch": batch,
            "providers": list(providers or ()),
            "min_time_s": min_time_s,
            "max_time_s": max_time_s,
            "tolerance": tolerance,
            "seed": seed,
        }
        if isinstance(model, bytes):
            label = "model"
            request["model_base64"] = base64.b64encode(model).decode()
        else:
            label = str(model)
            if not model.is_file():
                raise InputError(f"{model}: no such file; give the path of an ONNX model")
            request["model_path"] = str(model.resolve())
        process = self._living()
        busy_s, start = _busy_s(), time.monotonic()
        try:
            event = process.measure(request, label, timeout_s)
        finally:
            if not process.alive:
                self.close()
        others = max(0.0, _busy_s() - busy_s - event["cpu_s"]) / (time.monotonic() - start)
        size_bytes = len(model) if isinstance(model, bytes) else file_size_bytes(model)
        return _measurement(event, process, threads, batch, size_bytes, max_time_s, others)

    def close(self) -> None:
        """Stop the worker; the next `measure` starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _living(self) -> WorkerProcess:
        if self._process is not None and not self._process.alive:
            self.close()
        if self._process is None:
            self._process = WorkerProcess(self._script)
        return self._process


def file_size_bytes(model: Path) -> int:
    """Return the bytes of an ONNX file and of the external data files that it names."""
    import onnx

    if model.suffix == ".ort":
        return model.stat().st_size
    from_outside: set[str] = {
        entry.value
        for tensor in onnx.load(model, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return model.stat().st_size + sum((model.parent / name).stat().st_size for name in from_outside)


def _measurement(
    event: Event, process: WorkerProcess, threads: int, batch: int, size_bytes: int, max_time_s: float, others: float
) -> Measurement:
    quantiles = summarise(event["samples_ms"])
    baseline, peak = process.ready["baseline_rss_bytes"], event["peak_rss_bytes"]
    known = baseline is not None and peak is not None and process.served == 1
    warnings = list(event["warnings"])
    if not event["converged"]:
        half_width = max(quantiles.p50_high_ms - quantiles.p50_ms, quantiles.p50_ms - quantiles.p50_low_ms)
        warnings.append(
            f"not settled after {max_time_s:g} s and {quantiles.n} runs: the median is known to "
            f"{100 * half_width / quantiles.p50_ms:.1f}%; allow more time or quieten the machine"
        )
    if quantiles.p90_ms > NOISY_RATIO * quantiles.p50_ms:
        ratio = quantiles.p90_ms / quantiles.p50_ms
        warnings.append(f"noisy: one run in ten took more than {ratio:.1f} times the median")
    if threads > usable_cores():
        warnings.append(f"{threads} threads share {usable_cores()} cores")
    elif others + threads > (psutil.cpu_count() or 1) + BUSY_CORES:
        warnings.append(
            f"the machine was busy: other programs used {others:.1f} of {psutil.cpu_count()} cores meanwhile"
        )
    return Measurement(
        **asdict(quantiles),
        first_run_ms=event["first_run_ms"],
        session_ms=event["session_ms"],
        file_size_bytes=size_bytes,
        rss_growth_bytes=max(0, peak - baseline) if known else None,
        threads=threads,
        batch=batch,
        providers=tuple(event["providers"]),
        runtime=str(process.ready["runtime"]),
        converged=bool(event["converged"]),
        warnings=tuple(warnings),
    )


def _check_options(
    threads: int, batch: int, min_time_s: float, max_time_s: float, tolerance: float, timeout_s: float
) -> None:
    for name, value in (("threads", threads), ("batch", batch)):
        if value < 1:
            raise InputError(f"{name} {value}: must be at least 1")
    for name, seconds in (("max_time_s", max_time_s), ("timeout_s", timeout_s), ("tolerance", tolerance)):
        if not seconds > 0:
            raise InputError(f"{name} {seconds:g}: must be more than 0")
    if not 0 <= min_time_s <= max_time_s:
        raise InputError(f"min_time_s {min_time_s:g}: must lie between 0 and max_time_s ({max_time_s:g})")


def _busy_s() -> float:
    """Return the seconds that all cores together have spent working since the machine started."""
    times = psutil.cpu_times()
    return float(times.user + times.system)
