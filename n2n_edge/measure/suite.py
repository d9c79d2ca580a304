"""Suite of measurements: everything that the command `bench` tells of some models on one target."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_edge.errors import N2NError
from n2n_edge.measure.bench import Throughput, bench, refuse_unbound, run_throughput, threads_on, twice, with_profile
from n2n_edge.measure.board import BoardState
from n2n_edge.measure.comparison import Comparison, compare
from n2n_edge.measure.measurement import Measurement, alone_in_failing
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.target import Target
from n2n_edge.metrics.notices import Notice
from n2n_edge.names import names_of

__all__ = ["Entry", "Suite", "run_suite"]


@dataclass(frozen=True)
class Entry:
    """One model: its measurement, its profile, how it compares with the first, its throughput; or why not."""

    path: Path
    measurement: Measurement | None = None
    profile: OpProfile | None = None
    comparison: Comparison | None = None
    throughput: Throughput | None = None
    error: N2NError | None = None


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
    watch: Callable[[str], None] = lambda stage: None,
) -> Suite:
    """Time one model alone, or several interleaved; profile each; with `streams`, find its throughput too.

    A model that fails is reported in its entry, the others go on. `watch` is told what is being done.

    Raises:
        InputError: threads or streams that the target can't have, or an input to be bound that no model has.
        MeasurementError: the target can't be reached.
    """
    noise_floor: Comparison | N2NError | None = None
    refuse_unbound(paths, options)
    twice(
        target, lambda: threads_on(target, options, streams or 1)
    )  # refuse what can't be had before anything is timed
    if len(paths) == 1 and not with_itself:
        watch(f"timing {names_of(paths)[0]}")
        entries = [_completed(Entry(paths[0]), lambda entry: _benched(entry, options, target))]
    else:
        names = "the models" if len(paths) > 1 else f"{names_of(paths)[0]} against itself"
        compared = compare(
            paths,
            options,
            target,
            threshold=threshold,
            with_itself=with_itself,
            watch=lambda rounds: watch(f"timing {names} in turns, {rounds} rounds done"),
        )
        noise_floor = compared.noise_floor
        entries = []
        for name, path, measured, comparison in zip(
            names_of(paths), paths, compared.measurements, compared.comparisons, strict=True
        ):
            if isinstance(measured, N2NError):
                entries.append(Entry(path, error=measured))
                continue
            watch(f"profiling {name}")
            entry = Entry(path, measured, comparison=comparison)
            entries.append(_completed(entry, lambda entry: _profiled(entry, options, target)))
    if streams is not None:
        entries = [_streamed(entry, options, target, streams, watch) for entry in entries]
    return Suite(tuple(entries), noise_floor, twice(target, target.state))


def _completed(entry: Entry, action: Callable[[Entry], Entry]) -> Entry:
    """Return what an action makes of an entry; where it fails, an entry with nothing but the error."""
    try:
        with alone_in_failing(str(entry.path)):
            return action(entry)
    except N2NError as error:
        return Entry(entry.path, error=error)


def _benched(entry: Entry, options: BenchOptions, target: Target) -> Entry:
    result = bench(entry.path, options, target=target)
    return replace(entry, measurement=result.measurement, profile=result.profile)


def _profiled(entry: Entry, options: BenchOptions, target: Target) -> Entry:
    assert entry.measurement is not None
    profile, measurement = with_profile(entry.measurement, entry.path, options, target)
    return replace(entry, profile=profile, measurement=measurement)


def _streamed(entry: Entry, options: BenchOptions, target: Target, streams: int, watch: Callable[[str], None]) -> Entry:
    if entry.measurement is None:
        return entry
    watch(f"running {names_of([entry.path])[0]} in {streams} streams")
    try:
        with alone_in_failing(str(entry.path)):
            throughput = run_throughput(entry.path, options, target, streams)
    except N2NError as error:
        warning = Notice("no-throughput", f"no throughput: {error.on_command_line()}")
        return replace(entry, measurement=entry.measurement.warned(warning))
    return replace(entry, throughput=throughput)
