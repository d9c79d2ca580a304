"""How the results of a bench are worded, the same in the terminal, in CSV and in Markdown."""

from n2n_edge.measure.bench import Throughput
from n2n_edge.measure.comparison import Comparison
from n2n_edge.measure.ratio import LEAST_ROUNDS
from n2n_edge.metrics.figures import MB, Figure
from n2n_edge.metrics.formats import format_interval, format_value
from n2n_edge.metrics.precisions import share_in_words
from n2n_edge.report.bench_document import Benched, timed_figures

__all__ = ["bench_cells", "comparison_words", "memory_words", "throughput_words"]

UNKNOWN = "not told"


def bench_cells(row: Benched) -> dict[str, str]:
    """Return label and text of everything that one model's column in a table says."""
    measured = row.entry.measurement
    assert measured is not None
    times, figures = measured.quantiles, timed_figures(row)
    cells = {
        "p50 ms (95% interval)": f"{times.p50_ms:.3f} ({times.p50_low_ms:.3f} to {times.p50_high_ms:.3f})",
        "p90, p99 ms": f"{times.p90_ms:.3f}, {times.p99_ms:.3f}",
        "min, max ms": f"{times.min_ms:.3f}, {times.max_ms:.3f}",
        "MAD ms, CV": f"{times.mad_ms:.3f}, {times.cv:.1%}",
        "runs": str(times.n),
        "first run, session ms": f"{measured.first_run_ms:.3f}, {measured.session_ms:.1f}",
    }
    if measured.engine_ms is not None:
        cells["engine build s"] = f"{measured.engine_ms / 1000:.1f}"
    if row.entry.throughput is not None:
        cells["throughput"] = throughput_words(row.entry.throughput)
    if measured.energy is not None:
        cells["energy mJ per run"] = f"{measured.energy.millijoules:.2f} ({measured.energy.source}, idle subtracted)"
    cells |= {
        "runtime": measured.runtime,
        "providers": ", ".join(name.removesuffix("ExecutionProvider") for name in measured.providers),
        "threads, batch": f"{measured.threads}, {measured.batch}",
        "size MB": f"{measured.file_size_bytes / MB:.3f}",
    }
    if row.entry.parity is not None:
        cells["converted"] = row.entry.parity.in_words
    if row.costs is not None:
        integers = share_in_words(row.costs.integer_macs, row.costs.macs)
        cells |= {
            "params": f"{row.costs.params:,}",
            "MACs": f"{row.costs.macs:,}" + (f" ({integers})" if integers else ""),
        }
        cells["memory bound MB"] = memory_words(figures.get("memory_bound_mb"))
    cells["arena MB (in use)"] = memory_words(figures.get("arena_mb"), figures.get("arena_in_use_mb"))
    cells["RSS growth MB"] = memory_words(figures.get("rss_growth_mb"))
    return cells


def memory_words(figure: Figure | None, part: Figure | None = None) -> str:
    """Return an amount of memory in MB, and a part of it in brackets."""
    if figure is None:
        return UNKNOWN
    text = f"{figure.value:.3f}"
    return text if part is None else f"{text} ({part.value:.3f})"


def comparison_words(name: str, first: str, found: Comparison) -> str:
    """Return one line that says how a model stands to the first, how sure that is, and what it rests on."""
    percent = f"{found.threshold:.1%}".replace(".0%", "%")
    ratio = f"{found.ratio:.3f} times {first} ({found.low:.3f} to {found.high:.3f})"
    verdicts = {
        "same": f"the same within {percent}",
        "slower": "slower",
        "faster": "faster",
        "inconclusive": f"inconclusive at {percent}: allow more time (--max-time) or quieten the machine",
    }
    if found.rounds < LEAST_ROUNDS and found.verdict == "inconclusive":
        return (
            f"{name}: about {found.ratio:.3f} times {first}; inconclusive, {found.rounds} of the {LEAST_ROUNDS} rounds "
            "that an interval takes fitted into the time: allow more (--max-time)"
        )
    return f"{name}: {ratio}, {verdicts[found.verdict]}; {found.level:.0%} interval from {found.rounds} rounds in turns"


def throughput_words(found: Throughput) -> str:
    """Return inferences per second with their range, and how long one takes meanwhile."""
    interval = format_interval(found.low, found.high, "/s")
    return (
        f"{format_value(found.per_second, '/s')} ({interval}) in {found.streams} streams, "
        f"p50 {found.p50_ms:.3f} ms, p99 {found.p99_ms:.3f} ms"
    )
