"""Suite of measurements: everything that the command `bench` tells of some models on one target."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_edge.errors import N2NError
from n2n_edge.measure.bench import Throughput, bench, refuse_unbound, run_throughput, threads_on, twice, with_profile
from n2n_edge.measure.board import BoardState
from n2n_edge.measure.comparison import Comparison, compare
from n2n_edge.measure.conversion import Converted, Parity, Reference, converted, reference
from n2n_edge.measure.measurement import Measurement, alone_in_failing
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.target import Target
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.names import names_of

__all__ = ["Entry", "Suite", "names_of_runs", "run_suite"]


@dataclass(frozen=True)
class Entry:
    """One model under one runtime: its measurement, its profile, how it compares with the first, its throughput; or why
    not.

    `parity` is how near a converted model comes to what ONNX Runtime gives; None for the file as it is.
    """

    path: Path
    measurement: Measurement | None = None
    runtime: str = ONNXRUNTIME
    parity: Parity | None = None
    profile: OpProfile | None = None
    comparison: Comparison | None = None
    throughput: Throughput | None = None
    error: N2NError | None = None


def names_of_runs(runs: Sequence[tuple[Path, str]]) -> tuple[str, ...]:
    """Return a name for each model under a runtime: the file's, and the runtime's where there are several."""
    if len({runtime for _, runtime in runs}) == 1:
        return names_of([path for path, _ in runs])
    files = list(dict.fromkeys(path for path, _ in runs))
    short = dict(zip(files, names_of(files), strict=True))
    return names_of([f"{short[path]} ({runtime})" for path, runtime in runs])


@dataclass(frozen=True)
class Suite:
    """Models in the order in which they were given.

    `noise_floor` is the first against itself, if it was asked for: an error if that failed.
    """

    entries: tuple[Entry, ...]
    noise_floor: Comparison | N2NError | None
    state: BoardState


def run_suite(
    paths: Sequence[Path],
    options: BenchOptions,
    target: Target,
    *,
    threshold: float = 0.05,
    with_itself: bool = False,
    streams: int | None = None,
    runtimes: Sequence[str] = (ONNXRUNTIME,),
    samples: Path | None = None,
    watch: Callable[[str], None] = lambda stage: None,
) -> Suite:
    """Time one model alone, or several interleaved; profile each; with `streams`, find its throughput too.

    With several `runtimes` each model is timed under each of them. For any but ONNX Runtime it is converted first, on
    this host, and not timed unless it gives what it gives under ONNX Runtime; `samples`, an .npz file of arrays ``in0``
    ``(samples, ...)``, are inputs to try instead of random ones.

    A model that fails is reported in its entry, the others go on. `watch` is told what is being done.

    Raises:
        InputError: threads or streams that the target can't have, or an input to be bound that no model has.
        MeasurementError: the target can't be reached.
    """
    refuse_unbound(paths, options)
    twice(
        target, lambda: threads_on(target, options, streams or 1)
    )  # refuse what can't be had before anything is timed
    with ExitStack() as stack:
        runs = _runs(paths, options, runtimes, samples, stack, watch)
        names = names_of_runs([(run.path, run.runtime) for run in runs])
        entries, noise_floor = _timed(runs, names, options, target, threshold, with_itself, watch)
        if streams is not None:
            entries = [_streamed(entry, options, target, streams, watch) for entry in entries]
    return Suite(tuple(entries), noise_floor, twice(target, target.state))


@dataclass(frozen=True)
class _Run:
    """One model under one runtime, before it is timed: what is timed, or why it can't be."""

    path: Path
    runtime: str
    model: Path | Converted
    error: N2NError | None = None

    @property
    def entry(self) -> Entry:
        parity = self.model.parity if isinstance(self.model, Converted) else None
        return Entry(self.path, runtime=self.runtime, parity=parity, error=self.error)


def _runs(
    paths: Sequence[Path],
    options: BenchOptions,
    runtimes: Sequence[str],
    samples: Path | None,
    stack: ExitStack,
    watch: Callable[[str], None],
) -> list[_Run]:
    """Return every model under every runtime; what was converted stays until the end of `stack`."""
    runs = []
    for path in paths:
        made: Reference | N2NError | None = None
        for runtime in runtimes:
            if runtime == ONNXRUNTIME:
                runs.append(_Run(path, runtime, path))
                continue
            watch(f"converting {names_of([path])[0]} for {runtime}")
            try:
                if made is None:
                    made = stack.enter_context(reference(path, options, samples))
                if isinstance(made, N2NError):
                    raise made
                runs.append(_Run(path, runtime, converted(made, runtime)))
            except N2NError as error:
                made = error if made is None else made
                runs.append(_Run(path, runtime, path, error))
    return runs


def _timed(
    runs: Sequence[_Run],
    names: Sequence[str],
    options: BenchOptions,
    target: Target,
    threshold: float,
    with_itself: bool,
    watch: Callable[[str], None],
) -> tuple[list[Entry], Comparison | N2NError | None]:
    """Time what can be timed, and return an entry for each run, and the first against itself if that is asked for."""
    entries = [run.entry for run in runs]
    able = [index for index, run in enumerate(runs) if run.error is None]
    if not able:
        return entries, None
    if len(able) == 1 and not with_itself:
        watch(f"timing {names[able[0]]}")
        model = runs[able[0]].model
        entries[able[0]] = _completed(entries[able[0]], lambda entry: _benched(entry, model, options, target))
        return entries, None
    what = "the models" if len(able) > 1 else f"{names[able[0]]} against itself"
    compared = compare(
        [runs[index].model for index in able],
        options,
        target,
        threshold=threshold,
        with_itself=with_itself,
        watch=lambda rounds: watch(f"timing {what} in turns, {rounds} rounds done"),
    )
    for index, measured, comparison in zip(able, compared.measurements, compared.comparisons, strict=True):
        if isinstance(measured, N2NError):
            entries[index] = Entry(runs[index].path, runtime=runs[index].runtime, error=measured)
            continue
        against = comparison if able[0] == 0 else None  # else what stands first wasn't timed
        entry = replace(entries[index], measurement=measured, comparison=against)
        if runs[index].runtime == ONNXRUNTIME:
            watch(f"profiling {names[index]}")
            entry = _completed(entry, lambda entry: _profiled(entry, options, target))
        entries[index] = entry
    return entries, compared.noise_floor


def _completed(entry: Entry, action: Callable[[Entry], Entry]) -> Entry:
    """Return what an action makes of an entry; where it fails, an entry with nothing but the error."""
    try:
        with alone_in_failing(str(entry.path)):
            return action(entry)
    except N2NError as error:
        return Entry(entry.path, runtime=entry.runtime, error=error)


def _benched(entry: Entry, model: Path | Converted, options: BenchOptions, target: Target) -> Entry:
    result = bench(model, options, target=target)
    return replace(entry, measurement=result.measurement, profile=result.profile)


def _profiled(entry: Entry, options: BenchOptions, target: Target) -> Entry:
    assert entry.measurement is not None
    profile, measurement = with_profile(entry.measurement, entry.path, options, target)
    return replace(entry, profile=profile, measurement=measurement)


def _streamed(entry: Entry, options: BenchOptions, target: Target, streams: int, watch: Callable[[str], None]) -> Entry:
    if entry.measurement is None:
        return entry
    if entry.runtime != ONNXRUNTIME:
        text = "no throughput: streams are run with ONNX Runtime alone"
        return replace(entry, measurement=entry.measurement.warned(Notice("no-throughput", text)))
    watch(f"running {names_of([entry.path])[0]} in {streams} streams")
    try:
        with alone_in_failing(str(entry.path)):
            throughput = run_throughput(entry.path, options, target, streams)
    except N2NError as error:
        warning = Notice("no-throughput", f"no throughput: {error.on_command_line()}")
        return replace(entry, measurement=entry.measurement.warned(warning))
    return replace(entry, throughput=throughput)
