"""Timing what a gate asks for: a model alone or beside its baseline, in rounds until the question is settled."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import N2NError
from n2n_edge.gating.latency_ratio import LatencyRatio, ratio_is_settled
from n2n_edge.gating.settings import GateSettings
from n2n_edge.latency.device_target import open_place, running_on
from n2n_edge.measure.bench import with_profile
from n2n_edge.measure.comparison import LEAST_ROUNDS, Standing, compare
from n2n_edge.measure.conversion import Converted, read_by
from n2n_edge.measure.measurement import Measurement
from n2n_edge.measure.options import BenchOptions, parse_providers
from n2n_edge.measure.runtimes import require
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.names import names_of

__all__ = ["Timed", "time_models"]


@dataclass(frozen=True)
class Timed:
    """What timing a model on a target gave.

    `latency` has the interval of the median over rounds of fresh processes, at the same confidence as ratios have; None
    where rounds were too few for one. `ratio` is that to the baseline's latency, None without a baseline.
    """

    latency: Figure | None
    ratio: LatencyRatio | None
    target: str
    rounds: int
    rss_growth_bytes: int | None
    warnings: tuple[Notice, ...]

    @property
    def too_few_rounds(self) -> str:
        """How many rounds fitted into the time, and how many it takes."""
        return f"{self.rounds} of the {LEAST_ROUNDS} rounds that an interval takes fitted into the time"


def time_models(
    model: Path,
    settings: GateSettings,
    profile: Profile | None,
    limit_ms: float | None,
    max_growth: float,
    watch: Callable[[str], None],
) -> Timed:
    """Time a model, in turns with its baseline if it has one, until limit and growth are decided or the time is up.

    Every round has fresh processes, and the baseline is timed against itself beside it. Under another runtime than
    ONNX Runtime both are converted first, on this host.

    Raises:
        InputError: a target that doesn't exist, or a model that the runtime refuses.
        ConversionError: a model can't be converted for the runtime, or isn't the same there.
        N2NError: the models can't be run here, or the board can't be reached.
    """
    baseline = settings.baseline
    models = [model] if baseline is None else [baseline, model]
    where = settings.target or "host"
    described = profile or load_profile("cpu").under(settings.runtime)
    require(described.runtime)
    options = _options(settings, where, described)

    def settled(standing: Standing) -> bool:
        interval = standing.medians_ms[-1]
        open_limit = limit_ms is not None and (interval is None or interval[0] <= limit_ms < interval[1])
        return not open_limit and ratio_is_settled(standing, max_growth)

    rounds = 0

    def told(done: int) -> None:
        nonlocal rounds
        rounds = done
        watch(f"timing {' and '.join(names_of(models))}, {done} rounds done")

    with ExitStack() as stack, open_place(where, described, settings.threads) as target:
        timed: list[Path | Converted] = []
        for path, short in zip(models, names_of(models), strict=True):
            if described.runtime != ONNXRUNTIME:
                watch(f"converting {short} for {described.runtime}")
            timed.append(stack.enter_context(read_by(described.runtime, path, options)))
        found = compare(
            timed,
            options,
            target,
            threshold=max_growth or 0.01,
            with_itself=baseline is not None,
            settled=settled,
            watch=told,
        )
        measured = [_good(one) for one in found.measurements]
        if not options.only_cpu:  # whether the providers that were asked for took part
            measured = [with_profile(one, path, options, target)[1] for one, path in zip(measured, models, strict=True)]
        name = target.name
    warnings = tuple(
        each.prefixed(own) for own, one in zip(names_of(models), measured, strict=True) for each in one.warnings
    )
    if isinstance(found.noise_floor, N2NError):  # without it nobody knows what a ratio is worth
        raise found.noise_floor
    plain, interval = measured[-1].latency(), found.medians_ms[-1]
    comparison, ratio = found.comparisons[-1], None
    if comparison is not None:
        ratio = LatencyRatio(comparison, found.noise_floor, max_growth, measured[0].latency(), plain, name)
    latency = None if interval is None else replace(plain, low=interval[0], high=interval[1])
    return Timed(latency, ratio, name, rounds, measured[-1].rss_growth_bytes, warnings)


def _good(found: Measurement | N2NError) -> Measurement:
    if isinstance(found, N2NError):
        raise found
    return found


def _options(settings: GateSettings, target: str, profile: Profile) -> BenchOptions:
    named = parse_providers(settings.providers)[0] if settings.providers is not None else ()
    threads, providers = running_on(target, profile, settings.threads, named)
    if profile.runtime != ONNXRUNTIME:  # they are ONNX Runtime's own
        providers = ()
    # rounds end when limit and growth are decided: how well the median itself is known doesn't matter
    return BenchOptions(
        threads=threads,
        providers=providers,
        min_time_s=0.0,
        max_time_s=settings.max_time,
        tolerance=1.0,
        input_shape=settings.input_shape,
        bind=settings.bind,
    )
