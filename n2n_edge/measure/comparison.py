"""Comparison of several models: interleaved in balanced random order, with fresh workers, as ratios with an interval.

One process is not enough: where its memory happens to lie makes a run some per cent faster or slower for as long as it
lives. So there are rounds, each with a fresh worker per model; within a round the models take turns in short blocks,
in random order and then back again, so that a steady drift falls on all alike.
"""

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from n2n_edge.errors import N2NError
from n2n_edge.measure.bench import request_fields, runtime_of, to_measurement, twice
from n2n_edge.measure.board import refuse_throttled, state_warnings
from n2n_edge.measure.conversion import Converted
from n2n_edge.measure.measurement import ConnectionLostError, Measurement, alone_in_failing
from n2n_edge.measure.messages import BlockTimed, Measured, Opened, WorkerReady
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.process import WorkerProcess
from n2n_edge.measure.ratio import LEAST_ROUNDS, LEVEL, Comparison, ratio_interval, verdict_of
from n2n_edge.measure.target import Target
from n2n_edge.measure.worker.timing import median_ranks, within_tolerance
from n2n_edge.metrics.notices import Notice

__all__ = ["LEAST_ROUNDS", "Compared", "Comparison", "Settled", "Standing", "compare"]

NEXT_LOOK = 1.5
"""Rounds between two looks at the interval grow by this factor."""
CYCLES = 6
BLOCK_S, LEAST_RUNS_A_BLOCK = 0.02, 3
LOST_AT_MOST = 2
"""A model with which the connection is lost so often is what breaks it: the others go on without it."""


@dataclass(frozen=True)
class Compared:
    """Result of `compare`, in the order of the models; the first one's comparison is None.

    A model that couldn't be measured has an error instead. `noise_floor` is the first model against itself (None
    unless asked for, an error if it failed). `medians_ms` are as in `Standing`.
    """

    measurements: tuple[Measurement | N2NError, ...]
    comparisons: tuple[Comparison | None, ...]
    noise_floor: Comparison | N2NError | None
    medians_ms: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class Standing:
    """Comparisons so far, between two rounds, in the order of the models.

    `comparisons` are with the first model; its own is None, and so is that of a model that failed. `medians_ms` are the
    intervals of the medians at confidence `LEVEL`, from those of the rounds; None of a model that failed, and while
    rounds are too few. `floor` is the first model against itself where it is timed.
    """

    comparisons: tuple[Comparison | None, ...]
    medians_ms: tuple[tuple[float, float] | None, ...]
    floor: Comparison | None


Settled = Callable[[Standing], bool]
"""Tells whether the comparisons so far answer the question; asked after some rounds, not after each."""


def _all_certain(standing: Standing) -> bool:
    comparisons = [*standing.comparisons, standing.floor]
    return all(one.verdict != "inconclusive" for one in comparisons if one is not None)


def compare(
    models: Sequence[Path | Converted],
    options: BenchOptions,
    target: Target,
    *,
    threshold: float = 0.05,
    with_itself: bool = False,
    settled: Settled = _all_certain,
    seed: int = 0,
    watch: Callable[[int], None] = lambda rounds: None,
) -> Compared:
    """Time models interleaved and compare each with the first.

    Rounds go on until the question is `settled` (unless told otherwise: every verdict is certain), or the slowest model
    has been timed for `max_time_s`; every model for `min_time_s` at least. `with_itself` times the first model against
    itself as well: what is left there is noise. `watch` is told the rounds that are done.

    Raises:
        MeasurementError: the board was being throttled, or the connection to it is lost for good.
    """
    entries = [*models, models[0]] if with_itself else list(models)
    race = _Race(entries, options, target, random.Random(seed))
    before = twice(target, target.state)
    refuse_throttled(str(models[0]), target.name, before)

    def standing() -> Standing:
        return Standing(
            comparisons=(None, *(race.comparison(index, threshold) for index in range(1, len(models)))),
            medians_ms=tuple(race.median_ms(index) for index in range(len(models))),
            floor=race.comparison(len(models), threshold) if with_itself else None,
        )

    while not race.over(lambda: settled(standing())):
        race.round()
        watch(race.rounds)
    after = twice(target, target.state)
    refuse_throttled(str(models[0]), target.name, after, before)
    warnings = state_warnings(before, after, race.clocks)
    measurements = tuple(race.measurement(index, warnings) for index in range(len(models)))
    last, floor_failure = standing(), race.failures.get(len(models))  # the first model stands there once more
    return Compared(measurements, last.comparisons, floor_failure or last.floor, last.medians_ms)


def _plan(slowest_s: float, max_time_s: float) -> tuple[int, int]:
    """Return the most work of a round that leaves room in the time for as many rounds as an interval takes.

    That is how often the models take turns, there and back, and how often each runs at least in a block.
    """
    round_s = max_time_s / LEAST_ROUNDS
    cycles = 0
    for runs in (LEAST_RUNS_A_BLOCK, 1):
        block_s = max(BLOCK_S + slowest_s, runs * slowest_s)
        cycles = int(round_s / (2 * block_s))
        if cycles >= CYCLES:
            return CYCLES, runs
    return max(1, cycles), 1


class _Race:
    """The rounds of one comparison and what they gave."""

    def __init__(
        self, entries: Sequence[Path | Converted], options: BenchOptions, target: Target, order: random.Random
    ) -> None:
        self._entries = entries
        self._options = options
        self._target = target
        self._order = order
        self._samples: list[list[float]] = [[] for _ in entries]
        self._cycles: list[list[list[float]]] = [[] for _ in entries]  # per entry: log medians (rounds, cycles)
        self._measured: list[tuple[Opened, WorkerReady] | None] = [None] * len(entries)
        self.failures: dict[int, N2NError] = {}
        self._lost: Counter[int] = Counter()
        self._others: list[float] = []
        self.clocks: list[float | None] = []
        self.rounds = 0
        self._next_look = LEAST_ROUNDS
        self._plan: tuple[int, int] | None = None

    def over(self, settled: Callable[[], bool]) -> bool:
        """Whether the question is settled, or the time is up."""
        alive = [index for index in range(len(self._entries)) if index not in self.failures]
        spent_s = [sum(self._samples[index]) / 1000 for index in alive]
        if not alive or max(spent_s) >= self._options.max_time_s:
            return True
        if 0 in self.failures:  # nothing to compare with: times alone are wanted
            return self.rounds >= 1 and min(spent_s) >= self._options.min_time_s
        if self.rounds < self._next_look or min(spent_s) < self._options.min_time_s:
            return False
        self._next_look = math.ceil(self.rounds * NEXT_LOOK)
        return settled()

    def round(self) -> None:
        """Time every model in a fresh worker, taking turns."""
        alive = [index for index in range(len(self._entries)) if index not in self.failures]
        twice(self._target, lambda: self._round(alive))
        self.rounds += 1

    def comparison(self, index: int, threshold: float) -> Comparison | None:
        """Return how a model stands to the first; None where one of them failed."""
        if index in self.failures or 0 in self.failures:
            return None
        differences = np.array(self._cycles[index]) - np.array(self._cycles[0])
        ratio, low, high = ratio_interval(differences)
        return Comparison(ratio, low, high, LEVEL, self.rounds, threshold, verdict_of(low, high, threshold))

    def measurement(self, index: int, warnings: Sequence[Notice]) -> Measurement | N2NError:
        """Return all times of one model as a measurement, or what kept it from being one."""
        if index in self.failures:
            return self.failures[index]
        first = self._measured[index]
        assert first is not None
        event, ready = first
        rounds_ms = self._rounds_ms(index)
        whole = Measured.model_construct(
            **dict(event),
            samples_ms=self._samples[index],
            others_cores=median(self._others) if self._others else None,
            converged=within_tolerance(rounds_ms, self._options.tolerance),
            clock_mhz=self.clocks,
            energy=None,
        )
        try:
            with alone_in_failing(str(self._entries[index])):
                measured = to_measurement(whole, ready, self._target, self._entries[index], self._options, fresh=True)
        except N2NError as error:
            return error
        # processes differ: the median and its interval are those of the rounds' medians
        low, high = median_ranks(len(rounds_ms)) or (0, len(rounds_ms) - 1)
        quantiles = replace(
            measured.quantiles, p50_ms=median(rounds_ms), p50_low_ms=rounds_ms[low], p50_high_ms=rounds_ms[high]
        )
        return replace(measured, quantiles=quantiles).warned(*warnings)

    def median_ms(self, index: int) -> tuple[float, float] | None:
        """Return the interval of one model's median so far, at confidence `LEVEL`; see `Standing`."""
        rounds_ms = self._rounds_ms(index)
        ranks = median_ranks(len(rounds_ms), 1 - LEVEL)
        return None if index in self.failures or ranks is None else (rounds_ms[ranks[0]], rounds_ms[ranks[1]])

    def _rounds_ms(self, index: int) -> list[float]:
        """Return the median of each round, the smallest first."""
        return sorted(math.exp(median(cycles)) for cycles in self._cycles[index])

    def _round(self, alive: Sequence[int]) -> None:
        with contextlib.ExitStack() as stack:
            workers: dict[int, WorkerProcess] = {}
            for index in self._order.sample(list(alive), len(alive)):
                try:
                    with alone_in_failing(str(self._entries[index])):
                        workers[index] = self._open(index, stack)
                except N2NError as error:
                    self._fail(index, error)
            slowest_ms = self._warm(workers)
            if self._plan is None:
                self._plan = _plan(slowest_ms / 1000, self._options.max_time_s)
            cycles: dict[int, list[float]] = {index: [] for index in workers}
            samples: dict[int, list[float]] = {index: [] for index in workers}
            for _ in range(self._plan[0]):
                order = self._order.sample(list(workers), len(workers))
                blocks: dict[int, list[float]] = {index: [] for index in workers}
                for index in (*order, *reversed(order)):
                    if index in self.failures:
                        continue
                    try:
                        blocks[index] += self._block(workers[index], index)
                    except N2NError as error:
                        self._fail(index, error)
                for index, times in blocks.items():
                    if index not in self.failures:
                        cycles[index].append(math.log(median(times)))
                        samples[index] += times
        for index in cycles:
            if index not in self.failures:
                self._cycles[index].append(cycles[index])
                self._samples[index] += samples[index]

    def _open(self, index: int, stack: contextlib.ExitStack) -> WorkerProcess:
        process = stack.enter_context(self._target.start(runtime=runtime_of(self._entries[index])))
        label = str(self._entries[index])
        fields = request_fields(self._target, self._entries[index], self._options)
        event = process.request(Opened, label, self._options.timeout_s, **fields)
        if self._measured[index] is None:
            self._measured[index] = (event, process.ready)
        return process

    def _warm(self, workers: dict[int, WorkerProcess]) -> float:
        """One block each that isn't counted: the workers that were opened first have been idle since.

        Returns how long a run of the slowest takes, in ms.
        """
        slowest_ms = 0.0
        for index, process in workers.items():
            try:
                slowest_ms = max(slowest_ms, median(self._block(process, index)))
            except N2NError as error:
                self._fail(index, error)
        return slowest_ms

    def _block(self, process: WorkerProcess, index: int) -> list[float]:
        event = process.request(
            BlockTimed,
            str(self._entries[index]),
            self._options.timeout_s,
            self._options.timed_s,
            seconds=BLOCK_S,
            least=1 if self._plan is None else self._plan[1],
        )
        if event.others_cores is not None:
            self._others.append(event.others_cores)
        self.clocks.append(event.clock_mhz)
        return event.samples_ms

    def _fail(self, index: int, error: N2NError) -> None:
        if isinstance(error, ConnectionLostError):
            self._lost[index] += 1
            if self._lost[index] < LOST_AT_MOST or len(self._entries) == 1:
                raise error
        self.failures[index] = error
