"""Timing of a model: `bench` in a fresh worker, `WarmWorker` for many models in a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import onnx_ir as ir

from n2n_edge.closing import ClosedAtExit
from n2n_edge.errors import InputError, N2NError
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.layers import layers_by_name, quantized_weights
from n2n_edge.graph.load import load_model
from n2n_edge.graph.model_file import file_size_bytes, is_ort
from n2n_edge.graph.op import counted_op
from n2n_edge.graph.subgraphs import flattened
from n2n_edge.measure.board import BoardState, refuse_throttled, state_warnings
from n2n_edge.measure.conversion import Converted
from n2n_edge.measure.measurement import (
    ConnectionLostError,
    Energy,
    Measurement,
    MeasurementError,
    alone_in_failing,
    load_warnings,
    sample_warnings,
    summarise,
)
from n2n_edge.measure.messages import (
    TEXT_LETTERS,
    EnergySpent,
    Measured,
    Opened,
    Profiled,
    StreamsRun,
    WorkerReady,
    one_line,
)
from n2n_edge.measure.options import BenchOptions, refuse_threads
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.process import WorkerProcess
from n2n_edge.measure.target import HostTarget, Target
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.runtimes import ONNXRUNTIME

__all__ = [
    "Bench",
    "Throughput",
    "WarmWorker",
    "bench",
    "refuse_unbound",
    "run_throughput",
    "runtime_of",
    "twice",
    "with_profile",
]

IDLE_S = 1.0
"""How long the board's power is watched at rest before a measurement, where it tells of it."""
WARM = BenchOptions(min_time_s=0.2, max_time_s=2.0, timeout_s=60.0)

T = TypeVar("T")


@dataclass(frozen=True)
class Bench:
    """Result of `bench`: the measurement, the profile by operator (None if it wasn't made), and the board's state."""

    measurement: Measurement
    profile: OpProfile | None
    before: BoardState
    after: BoardState


@dataclass(frozen=True)
class Throughput:
    """Inferences per second of several streams at once; `low` to `high` is the range over ten windows of the time.

    `threads` is the pool that the streams share.
    """

    streams: int
    threads: int
    per_second: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float
    n: int


def bench(
    model: Path | str | Converted,
    options: BenchOptions | None = None,
    *,
    target: Target | None = None,
    profiled: bool = True,
) -> Bench:
    """Time an ONNX file in a process of its own, on this machine or another target.

    With `profiled` it runs under the runtime's profiler afterwards, for the memory of its arena and the time of each
    operator; with other providers than the CPU's it always does, to see that they took part. A connection that is
    lost is made once more.

    Raises:
        InputError: no such file, a model that onnxruntime refuses, an unknown provider.
        MeasurementError: the runtime crashed, hung, ran out of memory or failed; a provider that was asked for did
            nothing; the board was being throttled.
        MemoryLimitError: the worker went over the target's memory limit.

    >>> options = n2n_edge.BenchOptions(threads=1, min_time_s=0.05, max_time_s=0.1)
    >>> n2n_edge.bench(example_teacher, options, profiled=False).measurement.latency().provenance
    'measured'
    """
    options = BenchOptions() if options is None else options
    target = HostTarget() if target is None else target
    path = Path(model) if isinstance(model, str) else model
    if isinstance(path, Path):
        refuse_unbound([path], options)
    return twice(target, lambda: _bench(path, options, target, profiled))


def run_throughput(model: Path, options: BenchOptions, target: Target, streams: int) -> Throughput:
    """Run a model in several streams at once, each a thread that takes part in one pool, for `max_time_s` at most.

    Raises:
        InputError, MeasurementError, MemoryLimitError: as `bench`.
    """
    threads_on(target, options, streams)
    # the streams share one pool, and each works in a thread of its own besides
    threads = options.threads or max(1, target.cores - streams + 1)
    options = replace(options, threads=threads)

    def run() -> Throughput:
        label = str(model)
        with target.start() as process:
            process.request(Opened, label, options.timeout_s, **request_fields(target, model, options))
            seconds = min(max(options.min_time_s, 2.0), options.max_time_s)
            event = process.request(
                StreamsRun, label, options.timeout_s, options.timed_s, streams=streams, seconds=seconds
            )
        if not event.samples_ms:
            raise MeasurementError(f"{label}: not one run ended within {seconds:g} s; allow more time (‹max_time_s›)")
        rates = [count / (event.seconds / len(event.window_counts)) for count in event.window_counts]
        quantiles = summarise(event.samples_ms)
        per_second = sum(event.window_counts) / event.seconds
        return Throughput(
            streams, threads, per_second, min(rates), max(rates), quantiles.p50_ms, quantiles.p99_ms, quantiles.n
        )

    return twice(target, run)


class WarmWorker(ClosedAtExit):
    """Times many models in one process, which is replaced when it dies or hangs, and for a model of another runtime.

    One model fails alone: its `measure` raises, the next one finds a new worker. For one thread at a time.

        with WarmWorker() as worker:
            for path in paths:
                print(worker.measure(path).p50_ms)
    """

    def __init__(self, target: Target | None = None) -> None:
        self._target = HostTarget() if target is None else target
        self._process: WorkerProcess | None = None
        self._runtime: str = ONNXRUNTIME

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None before the first model, and after a worker has died."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def measure(self, model: Path | bytes | Converted, options: BenchOptions = WARM) -> Measurement:
        """Time one model, a file, the bytes of one, or what one was converted to; see `bench`.

        Raises:
            InputError: no such file, a model that onnxruntime refuses, an unknown provider.
            MeasurementError: the runtime crashed, hung, ran out of memory or failed; the next call starts a new worker.
        """
        process = self._living(runtime_of(model))
        try:
            label = "model" if isinstance(model, bytes) else str(model)
            fields = request_fields(self._target, model, options)
            event = process.request(Measured, label, options.timeout_s, options.timed_s, **fields)
            return to_measurement(event, process.ready, self._target, model, options, fresh=process.served == 1)
        finally:
            if not process.alive:
                self.close()

    def close(self) -> None:
        """Stop the worker; the next `measure` starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _living(self, runtime: str) -> WorkerProcess:
        if self._process is not None and not (self._process.alive and self._runtime == runtime):
            self.close()
        if self._process is None:
            self._process, self._runtime = self._target.start(runtime=runtime), runtime
        return self._process


def refuse_unbound(paths: Sequence[Path], options: BenchOptions) -> None:
    """Raise `InputError` for an input that is to be bound and that none of the models has, where all can be read."""
    if not options.bind or any(is_ort(path) for path in paths if path.is_file()):
        return
    models = []
    for path in paths:
        try:
            models.append(load_model(path))
        except InputError:  # the worker says why, or isn't as strict
            return
    bound_where_named(models, options.bind)


def twice(target: Target, action: Callable[[], T]) -> T:
    """Return what an action gives; if the connection to the target is lost meanwhile, it is tried once more."""
    try:
        return action()
    except ConnectionLostError:
        target.reconnect()
        return action()


def threads_on(target: Target, options: BenchOptions, streams: int = 1) -> int:
    """Return the threads that a model is run with: those asked for, or the target's cores.

    Raises:
        InputError: far more of them, or of streams, than the target has processors.
    """
    logical_cpus = int(target.describe()["logical_cpus"])
    refuse_threads("streams", streams, logical_cpus, target.name)
    if options.threads is None:
        return target.cores
    refuse_threads("threads", options.threads, logical_cpus, target.name)
    return options.threads


def runtime_of(model: Path | bytes | Converted) -> str:
    """Return the runtime that a model is for."""
    return model.runtime if isinstance(model, Converted) else ONNXRUNTIME


def request_fields(target: Target, model: Path | bytes | Converted, options: BenchOptions) -> dict[str, Any]:
    """Return the fields of a worker's request for one model."""
    if isinstance(model, Converted):
        return {
            **options.request(threads_on(target, options)),
            "runtime": model.runtime,
            "files": [target.put_file(file) for file in model.files],
            "samples_path": target.put_file(model.samples),
            "affinity": target.affinity,
        }
    fields: dict[str, Any] = {
        **options.request(threads_on(target, options)),
        **target.put(model),
        "affinity": target.affinity,
    }
    if options.builds_engines:
        fields["engine_cache"] = target.scratch()
    if target.sends_models:
        fields["scratch"] = target.scratch()
    return fields


def to_measurement(
    event: Measured,
    ready: WorkerReady,
    target: Target,
    model: Path | bytes | Converted,
    options: BenchOptions,
    *,
    fresh: bool,
) -> Measurement:
    """Turn what a worker answered into a measurement, with what is doubtful about it.

    `ready` is what it said when it was started, `fresh` whether it had run no other model before.
    """
    threads = threads_on(target, options)
    quantiles = summarise(event.samples_ms)
    baseline, peak = ready.baseline_rss_bytes, event.peak_rss_bytes
    grown = max(0, peak - baseline) if baseline is not None and peak is not None and fresh else None
    machine = target.describe()
    warnings = (
        *(Notice("input-shape", text) for text in event.warnings),
        *sample_warnings(event.samples_ms, quantiles, event.converged, options.max_time_s),
        *load_warnings(event.others_cores, threads, target.cores, int(machine["logical_cpus"])),
    )
    return Measurement(
        quantiles=quantiles,
        samples_ms=tuple(event.samples_ms),
        first_run_ms=event.first_run_ms,
        session_ms=event.session_ms,
        engine_ms=event.engine_ms,
        file_size_bytes=_size_bytes(model),
        arena_bytes=None,
        arena_in_use_bytes=None,
        rss_growth_bytes=grown,
        energy=_energy(event.energy),
        threads=threads,
        batch=options.batch,
        providers=tuple(event.providers),
        runtime=ready.runtime,
        target=target.name,
        converged=event.converged,
        provenance=target.provenance,
        warnings=warnings,
    )


def _size_bytes(model: Path | bytes | Converted) -> int:
    if isinstance(model, Converted):
        return model.size_bytes
    return len(model) if isinstance(model, bytes) else file_size_bytes(model)


def _bench(path: Path | Converted, options: BenchOptions, target: Target, profiled: bool) -> Bench:
    before = target.state()
    refuse_throttled(str(path), target.name, before)
    with target.start(runtime=runtime_of(path)) as process:
        fields = request_fields(target, path, options)
        event = process.request(Measured, str(path), options.timeout_s, options.timed_s, **fields, idle_s=IDLE_S)
    measurement = to_measurement(event, process.ready, target, path, options, fresh=True)
    after = target.state()
    refuse_throttled(str(path), target.name, after, before)
    profile = None
    if isinstance(path, Path) and (profiled or not options.only_cpu):
        profile, measurement = with_profile(measurement, path, options, target)
    measurement = measurement.warned(*state_warnings(before, after, event.clock_mhz))
    return Bench(measurement, profile, before, after)


def with_profile(
    measurement: Measurement, path: Path, options: BenchOptions, target: Target
) -> tuple[OpProfile | None, Measurement]:
    """Return the profile of a model in a fresh worker, and its measurement with what the profile says of memory.

    A profile needs more memory than a run does: no limit holds for it. If it fails, the measurement says so and stays
    good, unless other providers than the CPU's were asked for: then nobody knows whether they took part.
    """

    def run() -> Profiled:
        fields = request_fields(target, path, options)
        with target.start(unlimited=True) as process:
            return process.request(Profiled, str(path), options.timeout_s, **fields)

    try:
        with alone_in_failing(str(path)):
            raw = twice(target, run)
            profile = OpProfile.read(raw, _layer_names(path))
            in_float = _float_warnings(profile, path)
    except N2NError as error:
        if not options.only_cpu:
            raise
        return None, measurement.warned(Notice("not-profiled", f"not profiled: {error.on_command_line()}"))
    measurement = replace(measurement, arena_bytes=raw.arena_bytes, arena_in_use_bytes=raw.arena_in_use_bytes)
    return profile, measurement.warned(*_provider_warnings(profile, options), *in_float)


def _float_warnings(profile: OpProfile, path: Path) -> list[Notice]:
    """Return how many layers that the file quantizes the runtime has calculated in float all the same."""
    if is_ort(path):
        return []
    quantized = {layer.name for layer in quantized_weights(flattened(load_model(path)))}
    in_float = {
        kernel.layer
        for kernel in profile.kernels
        if kernel.layer in quantized and (row := counted_op(kernel.op_type)).macs is not None and not row.quantized
    }
    if not in_float:
        return []
    text = f"{len(in_float)} of {len(quantized)} layers whose weights are quantized ran in float"
    remedy = (
        "ONNX Runtime calculates in integers where activations before and behind are quantized, on x86 to uint8 alone"
    )
    return [Notice("ran-in-float", text, remedy)]


def _provider_warnings(profile: OpProfile, options: BenchOptions) -> list[Notice]:
    """Return what part of the work other providers did than the first that was asked for."""
    if options.only_cpu:
        return []
    shares: dict[str, float] = {}
    for kernel in profile.kernels:
        shares[kernel.provider] = shares.get(kernel.provider, 0.0) + kernel.share
    others = {name: share for name, share in shares.items() if name != options.providers[0]}
    if not others:
        return []
    words = ", ".join(f"{share:.0%} on {name.removesuffix('ExecutionProvider')}" for name, share in others.items())
    first = options.providers[0].removesuffix("ExecutionProvider")
    text = f"not all operators ran on {first}: {words} of the time"
    return [Notice("other-providers", text)]


def _layer_names(path: Path) -> dict[str, str]:
    if is_ort(path):
        return {}
    # kernels' names come through messages, where they are made fit to be shown
    return {one_line(node, TEXT_LETTERS): layer for node, layer in layers_by_name(ir.load(path)).items()}


def _energy(spent: EnergySpent | None) -> Energy | None:
    """Return the energy of one inference; None where no sensor tells it, or the idle level isn't known."""
    if spent is None or spent.idle_watts is None:
        return None
    joules = spent.joules - spent.idle_watts * spent.seconds
    return Energy(1000 * max(0.0, joules) / spent.runs, spent.idle_watts, spent.source)
