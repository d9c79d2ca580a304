"""Timing what a gate asks for: a model alone or beside its baseline, in rounds until the question is settled."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.devices import Profile, load_profile, open_place, running_on
from n2n_edge.errors import N2NError
from n2n_edge.figures import Figure
from n2n_edge.gate.latency_ratio import LatencyRatio, ratio_is_settled
from n2n_edge.gate.settings import GateSettings
from n2n_edge.measure import (
    BenchOptions,
    Comparison,
    Measurement,
    Standing,
    compare,
    parse_providers,
    with_profile,
)

__all__ = ["Timed", "time_models"]


@dataclass(frozen=True)
class Timed:
    """A model's latency on a target, its ratio to the baseline's (None without one), and what is doubtful."""

    latency: Figure
    ratio: LatencyRatio | None
    rss_growth_bytes: int | None
    warnings: tuple[str, ...]


def time_models(
    model: Path,
    settings: GateSettings,
    profile: Profile | None,
    limit_ms: float | None,
    max_growth: float,
    watch: Callable[[str], None],
) -> Timed:
    """Time a model, in turns with its baseline if it has one, until limit and growth are decided or the time is up.

    Every round has fresh processes, and the baseline is timed against itself beside it.

    Raises:
        InputError: a target that doesn't exist, or a model that the runtime refuses.
        N2NError: the models can't be run here, or the board can't be reached.
    """
    baseline = settings.baseline
    models = [model] if baseline is None else [baseline, model]
    where = settings.target or "host"
    described = profile or load_profile("cpu")
    options = _options(settings, where, described)

    def settled(standing: Standing) -> bool:
        interval = standing.medians_ms[-1]
        open_limit = limit_ms is not None and interval is not None and interval[0] <= limit_ms < interval[1]
        return not open_limit and ratio_is_settled(standing, [max_growth] * (len(models) - 1))

    with open_place(where, described, settings.threads) as target:
        found = compare(
            models,
            options,
            target,
            threshold=max_growth or 0.01,
            with_itself=baseline is not None,
            settled=settled,
            watch=lambda rounds: watch(
                f"timing {' and '.join(one.name for one in models)} in turns, {rounds} rounds done"
            ),
        )
        measured = [_good(one) for one in found.measurements]
        if not options.only_cpu:  # whether the providers that were asked for took part
            measured = [with_profile(one, path, options, target)[1] for one, path in zip(measured, models, strict=True)]
        name = target.name
    warnings = tuple(
        f"{path.name}: {text}" for path, one in zip(models, measured, strict=True) for text in one.warnings
    )
    comparison = found.comparisons[-1]
    ratio = None
    if comparison is not None:
        floor = found.noise_floor if isinstance(found.noise_floor, Comparison) else None
        ratio = LatencyRatio(comparison, floor, max_growth, measured[0].latency(), measured[-1].latency(), name)
    return Timed(measured[-1].latency(), ratio, measured[-1].rss_growth_bytes, warnings)


def _good(found: Measurement | N2NError) -> Measurement:
    if isinstance(found, N2NError):
        raise found
    return found


def _options(settings: GateSettings, target: str, profile: Profile) -> BenchOptions:
    named = parse_providers(settings.providers)[0] if settings.providers is not None else ()
    threads, providers = running_on(target, profile, settings.threads, named)
    # rounds end when limit and growth are decided: how well the median itself is known doesn't matter
    return BenchOptions(
        threads=threads, providers=providers, min_time_s=0.0, max_time_s=settings.max_time, tolerance=1.0
    )
