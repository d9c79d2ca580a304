"""The results of a bench on a terminal."""

import math
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from n2n_edge.measure.comparison import Comparison
from n2n_edge.measure.measurement import Measurement
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.suite import Suite
from n2n_edge.measure.target import Target
from n2n_edge.metrics.figures import MB
from n2n_edge.report.bench_document import Benched
from n2n_edge.report.bench_words import bench_cells, comparison_words
from n2n_edge.report.histogram import histogram_of

__all__ = ["bench_on_terminal", "histogram", "per_op_tables"]

MODELS_A_TABLE = 2
BINS, BAR = 12, 40
LAYERS_SHOWN = 25


def bench_on_terminal(suite: Suite, rows: Sequence[Benched], target: Target, per_op: bool) -> Iterator[RenderableType]:
    """Yield what is printed, in order: tables, comparisons, histograms, warnings, predictions."""
    good = [row for row in rows if row.entry.measurement is not None]
    for first in range(0, len(good), MODELS_A_TABLE):
        part = good[first : first + MODELS_A_TABLE]
        yield _table(part, target)
    for row in good:
        assert row.entry.measurement is not None
        yield from histogram(row.name, row.entry.measurement)
    yield from _comparisons(suite, rows)
    if per_op:
        for row in good:
            if row.entry.profile is not None:
                yield from per_op_tables(row.name, row.entry.profile)
    if target.limit is not None:
        how = (
            "enforced by a control group"
            if target.limit.enforced
            else "only watched: this system allows no control group"
        )
        yield Text(
            f"memory limit of each worker, Python and runtime included, pages of shared files not: "
            f"{target.limit.limit_bytes / MB:g} MB, {how}"
        )
    for row in good:
        assert row.entry.measurement is not None
        for warning in row.entry.measurement.warnings:
            yield Text(f"{row.name}: warning: {warning}")
    predicted = [row for row in good if row.predicted is not None]
    if predicted:
        yield _predictions(predicted)


def histogram(name: str, measured: Measurement) -> Iterator[Text]:
    """Yield the distribution of a sample as bars; times beyond three times the middle half's width are one bar."""
    found = histogram_of(measured.samples_ms, BINS)
    digits = max(0, 3 - math.floor(math.log10(max(found.low_ms, 1e-9))))
    yield Text(f"{name}: {measured.n} runs, ms")
    most = max(*found.counts, found.beyond)
    for index, count in enumerate(found.counts):
        yield Text(f"{found.low_ms + index * found.bin_ms:>12.{digits}f} {_bar(count, most)} {count}")
    if found.beyond:
        last = max(measured.samples_ms)
        yield Text(f"{'later':>12} {_bar(found.beyond, most)} {found.beyond} (up to {last:.{digits}f})")
    yield Text()


def per_op_tables(name: str, profile: OpProfile) -> Iterator[RenderableType]:
    """Yield where the time of a run goes: by kind of operator, and by layer."""
    yield Text(
        f"{name}: operators take {profile.accounted:.0%} of a run of {profile.plain_ms:.3f} ms "
        f"({profile.run_ms:.3f} ms under the profiler, of which {profile.overhead_us:.1f} us a kernel were taken off)"
    )
    total_ms = sum(kernel.latency_ms for kernel in profile.kernels)
    kinds = Table("op type", "kernels", "share", "ms")
    for kind, (count, share) in profile.by_op_type().items():
        kinds.add_row(Text(kind), str(count), f"{share:.1%}", f"{share * total_ms:.4f}")
    yield kinds
    layers = Table("layer", "kernels", "share", "ms")
    found = list(profile.by_layer().items())
    for layer, (count, share) in found[:LAYERS_SHOWN]:
        layers.add_row(Text(layer or "outside the layers"), str(count), f"{share:.1%}", f"{share * total_ms:.4f}")
    if len(found) > LAYERS_SHOWN:
        rest = [part for _, part in found[LAYERS_SHOWN:]]
        share = sum(part for _, part in rest)
        layers.add_row(
            f"{len(rest)} more (all in --json)", str(sum(count for count, _ in rest)), f"{share:.1%}",
            f"{share * total_ms:.4f}",
        )  # fmt: skip
    yield layers


def _table(rows: Sequence[Benched], target: Target) -> Table:
    title = "measured on this host" if target.name == "host" else f"{target.provenance} on {target.name}"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for row in rows:
        table.add_column(Text(row.name), justify="right", overflow="fold")
    cells = [bench_cells(row) for row in rows]
    labels = dict.fromkeys(label for cell in cells for label in cell)
    for label in labels:
        table.add_row(label, *(Text(cell.get(label, "")) for cell in cells))
    return table


def _comparisons(suite: Suite, rows: Sequence[Benched]) -> Iterator[RenderableType]:
    first = rows[0].name
    if isinstance(suite.noise_floor, Comparison):
        yield Text(comparison_words(f"noise floor, {first} again", "itself", suite.noise_floor))
    for row in rows:
        if row.entry.comparison is not None:
            yield Text(comparison_words(row.name, first, row.entry.comparison), style="bold")


def _predictions(rows: Sequence[Benched]) -> Table:
    table = Table("model", "device", "with", "latency ms (interval)", "provenance", title="predicted, not measured")
    for row in rows:
        figure = row.predicted
        assert figure is not None
        interval = f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"
        table.add_row(Text(row.name), row.device, row.told_for, interval, figure.provenance)
    return table


def _bar(count: int, most: int) -> str:
    return "█" * round(BAR * count / most) if most else ""
