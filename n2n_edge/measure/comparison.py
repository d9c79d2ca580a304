"""Several models side by side: interleaved in balanced random order, with fresh workers, as ratios with an interval.

One process is not enough: where its memory happens to lie makes a run some per cent faster or slower for as long as it
lives. So there are rounds, each with a fresh worker per model; within a round the models take turns in short blocks,
in random order and then back again, so that a steady drift falls on all alike.
"""

import contextlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist, median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from n2n_edge.errors import N2NError
from n2n_edge.measure.bench import request_fields, to_measurement, twice
from n2n_edge.measure.doubts import doubts_of_state, refuse_throttled
from n2n_edge.measure.measurement import ConnectionLostError, Measurement
from n2n_edge.measure.messages import BlockTimed, Measured, Opened, WorkerReady
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.process import WorkerProcess
from n2n_edge.measure.target import Target
from n2n_edge.measure.worker import median_ranks, within_tolerance

__all__ = ["Compared", "Comparison", "Settled", "Standing", "Verdict", "compare", "ratio_interval", "verdict_of"]

LEVEL = 0.99
"""Confidence of one interval. It is looked at a few times, which a 95% interval wouldn't stand."""
LEAST_ROUNDS = 8
"""Fewer can't give such an interval: that all lie on one side of the truth happens to 8 rounds in 0.8% of cases."""
NEXT_LOOK = 1.5
"""Rounds between two looks at the interval grow by this factor."""
CYCLES, SLOW_CYCLES = 6, 2
BLOCK_S, LEAST_RUNS_A_BLOCK, SLOW_MS = 0.02, 3, 200.0
RESAMPLES = 2000

Verdict = Literal["same", "slower", "faster", "inconclusive"]


@dataclass(frozen=True)
class Comparison:
    """One model against the first: the ratio of their medians with its interval at confidence `level`.

    `verdict`: ``slower`` or ``faster`` if the interval leaves out 1 and reaches beyond `threshold` (a share) to that
    side, ``same`` if all of it lies within the threshold, else ``inconclusive``; as are all while rounds are too few.
    """

    ratio: float
    low: float
    high: float
    level: float
    rounds: int
    threshold: float
    verdict: Verdict


@dataclass(frozen=True)
class Compared:
    """What `compare` found, in the order of the models; the first one's comparison is None.

    A model that couldn't be measured has the error in its place. `noise_floor` is the first model against itself (None
    unless asked for, an error if it failed). `medians_ms` are as in `Standing`.
    """

    measurements: tuple[Measurement | N2NError, ...]
    comparisons: tuple[Comparison | None, ...]
    noise_floor: Comparison | N2NError | None
    medians_ms: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class Standing:
    """What is known between two rounds, in the order of the models.

    `comparisons` are with the first model; its own is None, and so is that of a model that failed. `medians_ms` are the
    intervals of the medians at confidence `LEVEL`, from those of the rounds; None of a model that failed, and while
    rounds are too few. `floor` is the first model against itself where it is timed.
    """

    comparisons: tuple[Comparison | None, ...]
    medians_ms: tuple[tuple[float, float] | None, ...]
    floor: Comparison | None


Settled = Callable[[Standing], bool]
"""Tells whether what is known answers the question; asked after some rounds, not after each."""


def _all_certain(standing: Standing) -> bool:
    found = [*standing.comparisons[1:], standing.floor]
    return all(one.verdict != "inconclusive" for one in found if one is not None)


def compare(
    models: Sequence[Path],
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
    while not race.over(lambda: settled(_standing(race, len(models), with_itself, threshold))):
        race.round()
        watch(race.rounds)
    after = twice(target, target.state)
    refuse_throttled(str(models[0]), target.name, after, before)
    doubts = doubts_of_state(before, after, race.clocks)
    comparisons = (None, *(race.comparison(index, threshold) for index in range(1, len(models))))
    measurements = tuple(race.measurement(index, doubts) for index in range(len(models)))
    again = len(models)  # where the first model stands once more
    floor = (race.failure(again) or race.comparison(again, threshold)) if with_itself else None
    return Compared(measurements, comparisons, floor, tuple(race.median_ms(index) for index in range(len(models))))


def _standing(race: "_Race", count: int, with_itself: bool, threshold: float) -> Standing:
    return Standing(
        comparisons=(None, *(race.comparison(index, threshold) for index in range(1, count))),
        medians_ms=tuple(race.median_ms(index) for index in range(count)),
        floor=race.comparison(count, threshold) if with_itself else None,
    )


def ratio_interval(log_ratios: NDArray[np.float64], level: float = LEVEL, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio and its interval from logarithms `(rounds, cycles)` of ratios of block medians.

    The estimate is the median over all cycles. The interval is a bootstrap's that draws rounds, then cycles within
    them, since cycles of one round share a process; percentiles are taken further out by as much as Student's t exceeds
    the normal for so few rounds (the expanded percentile interval of Hesterberg 2015, "What Teachers Should Know About
    the Bootstrap", section 4.3).
    """
    rounds, cycles = log_ratios.shape
    estimate = float(np.median(log_ratios))
    if rounds < 2:
        return math.exp(estimate), 0.0, math.inf
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, rounds, (RESAMPLES, rounds, 1))
    within = generator.integers(0, cycles, (RESAMPLES, rounds, cycles))
    medians = np.median(log_ratios[drawn, within], axis=(1, 2))
    tail = NormalDist().cdf(-math.sqrt(rounds / (rounds - 1)) * student_t(0.5 + level / 2, rounds - 1))
    low, high = np.quantile(medians, [tail, 1 - tail])
    return math.exp(estimate), math.exp(low), math.exp(high)


def verdict_of(low: float, high: float, threshold: float) -> Verdict:
    """Return what an interval of a ratio says at a threshold; see `Comparison`."""
    if 1 / (1 + threshold) < low and high < 1 + threshold:
        return "same"
    if low > 1:
        return "slower"
    if high < 1:
        return "faster"
    return "inconclusive"


def student_t(p: float, degrees: int) -> float:
    """Return the `p` quantile of Student's t, from three degrees on by its expansion (Abramowitz and Stegun 26.7.5).

    Within 2% of the tables at the probabilities used here.
    """
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, v = NormalDist().inv_cdf(p), degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / v ** (power + 1) for power, term in enumerate(terms))


class _Race:
    """The rounds of one comparison and what they gave."""

    def __init__(self, entries: Sequence[Path], options: BenchOptions, target: Target, order: random.Random) -> None:
        self._entries = entries
        self._options = options
        self._target = target
        self._order = order
        self._samples: list[list[float]] = [[] for _ in entries]
        self._cycles: list[list[list[float]]] = [[] for _ in entries]  # per entry: log medians (rounds, cycles)
        self._measured: list[tuple[Opened, WorkerReady] | None] = [None] * len(entries)
        self._failures: dict[int, N2NError] = {}
        self._others: list[float] = []
        self.clocks: list[float | None] = []
        self.rounds = 0
        self._next_look = LEAST_ROUNDS
        self._cycles_a_round: int | None = None

    def failure(self, index: int) -> N2NError | None:
        """Return what kept an entry from being measured."""
        return self._failures.get(index)

    def over(self, settled: Callable[[], bool]) -> bool:
        """Whether enough is known, or the time is up."""
        alive = [index for index in range(len(self._entries)) if index not in self._failures]
        spent_s = [sum(self._samples[index]) / 1000 for index in alive]
        if not alive or max(spent_s) >= self._options.max_time_s:
            return True
        if 0 in self._failures:  # nothing to compare with: times alone are wanted
            return self.rounds >= 1 and min(spent_s) >= self._options.min_time_s
        if self.rounds < self._next_look or min(spent_s) < self._options.min_time_s:
            return False
        self._next_look = math.ceil(self.rounds * NEXT_LOOK)
        return settled()

    def round(self) -> None:
        """Time every model in a fresh worker, taking turns."""
        alive = [index for index in range(len(self._entries)) if index not in self._failures]
        twice(self._target, lambda: self._round(alive))
        self.rounds += 1

    def comparison(self, index: int, threshold: float) -> Comparison | None:
        """Return how a model stands to the first; None where one of them failed."""
        if index in self._failures or 0 in self._failures:
            return None
        differences = np.array(self._cycles[index]) - np.array(self._cycles[0])
        ratio, low, high = ratio_interval(differences)
        certain = self.rounds >= LEAST_ROUNDS
        verdict = verdict_of(low, high, threshold) if certain else "inconclusive"
        return Comparison(ratio, low, high, LEVEL, self.rounds, threshold, verdict)

    def measurement(self, index: int, doubts: Sequence[str]) -> Measurement | N2NError:
        """Return all times of one model as a measurement, or what kept it from being one."""
        if index in self._failures:
            return self._failures[index]
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
        found = to_measurement(whole, ready, self._target, self._entries[index], self._options, fresh=True)
        # processes differ: the median and its interval are those of the rounds' medians
        low, high = median_ranks(len(rounds_ms)) or (0, len(rounds_ms) - 1)
        quantiles = replace(
            found.quantiles, p50_ms=median(rounds_ms), p50_low_ms=rounds_ms[low], p50_high_ms=rounds_ms[high]
        )
        return replace(found, quantiles=quantiles, warnings=(*found.warnings, *doubts))

    def median_ms(self, index: int) -> tuple[float, float] | None:
        """Return the interval of one model's median so far, at confidence `LEVEL`; see `Standing`."""
        rounds_ms = self._rounds_ms(index)
        ranks = median_ranks(len(rounds_ms), 1 - LEVEL)
        return None if index in self._failures or ranks is None else (rounds_ms[ranks[0]], rounds_ms[ranks[1]])

    def _rounds_ms(self, index: int) -> list[float]:
        """Return the median of each round, the smallest first."""
        return sorted(math.exp(median(cycles)) for cycles in self._cycles[index])

    def _round(self, alive: Sequence[int]) -> None:
        with contextlib.ExitStack() as stack:
            workers: dict[int, WorkerProcess] = {}
            for index in self._order.sample(list(alive), len(alive)):
                try:
                    workers[index] = self._open(index, stack)
                except N2NError as error:
                    self._fail(index, error)
            slowest_ms = self._warm(workers)
            if self._cycles_a_round is None:
                self._cycles_a_round = SLOW_CYCLES if slowest_ms > SLOW_MS else CYCLES
            found: dict[int, list[float]] = {index: [] for index in workers}
            samples: dict[int, list[float]] = {index: [] for index in workers}
            for _ in range(self._cycles_a_round):
                order = self._order.sample(list(workers), len(workers))
                blocks: dict[int, list[float]] = {index: [] for index in workers}
                for index in (*order, *reversed(order)):
                    if index in self._failures:
                        continue
                    try:
                        blocks[index] += self._block(workers[index], index)
                    except N2NError as error:
                        self._fail(index, error)
                for index, times in blocks.items():
                    if index not in self._failures:
                        found[index].append(math.log(median(times)))
                        samples[index] += times
        for index in found:
            if index not in self._failures:
                self._cycles[index].append(found[index])
                self._samples[index] += samples[index]

    def _open(self, index: int, stack: contextlib.ExitStack) -> WorkerProcess:
        process = stack.enter_context(self._target.start())
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
        slow = self._cycles_a_round == SLOW_CYCLES
        event = process.request(
            BlockTimed,
            str(self._entries[index]),
            self._options.timeout_s,
            self._options.timed_s,
            seconds=BLOCK_S,
            least=1 if slow or self._cycles_a_round is None else LEAST_RUNS_A_BLOCK,
        )
        if event.others_cores is not None:
            self._others.append(event.others_cores)
        self.clocks.append(event.clock_mhz)
        return event.samples_ms

    def _fail(self, index: int, error: N2NError) -> None:
        if isinstance(error, ConnectionLostError):
            raise error
        self._failures[index] = error
