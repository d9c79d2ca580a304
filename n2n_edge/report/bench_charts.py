"""The pictures of a bench: medians with their intervals, ratios to the first model, distributions of times."""

from collections.abc import Mapping, Sequence
from typing import Any

from n2n_edge.measure.comparison import Comparison
from n2n_edge.metrics.formats import format_value
from n2n_edge.report.bench_document import BenchJson, names_of_rows
from n2n_edge.report.bench_words import comparison_words
from n2n_edge.report.chart import Bar, Chart, Key, Label, Line, Point, Rule, axis_ticks, x_range, y_range
from n2n_edge.report.scale import Scale, fit_scale

__all__ = ["bench_charts", "comparison_of", "comparisons_of", "named_models"]

_ROW = 46
_LEFT, _TOP, _BELOW = 16, 34, 54
_NAME_LETTERS = 26


def bench_charts(document: BenchJson) -> tuple[Chart, ...]:
    """Return every picture that the document has the figures for."""
    models = [model for model in named_models(document) if "p50_ms" in model]
    if not models:
        return ()
    words = "measured" if document["target"]["provenance"] == "measured" else "measured within the profile's limits"
    source = f"{words[0].upper()}{words[1:]} on {document['target']['name']}."
    compared = comparisons_of(document)
    charts = [_medians(models, source)]
    if compared:
        charts.append(_ratios(models[0], compared, source))
    return (*charts, *(_histogram(place, model, source) for place, model in enumerate(models) if "histogram" in model))


def comparisons_of(document: BenchJson) -> tuple[tuple[str, Comparison], ...]:
    """Return the comparisons with the first model by the other's name, the noise floor first where it was measured."""
    found = []
    if document["noise_floor"] is not None:
        found.append(("noise floor", comparison_of(document["noise_floor"])))
    for model in named_models(document):
        if "against_first" in model:
            found.append((model["name"], comparison_of(model["against_first"])))
    return tuple(found)


def comparison_of(document: Mapping[str, Any]) -> Comparison:
    """Return the comparison that a JSON document holds."""
    ratio = document["ratio"]
    return Comparison(
        ratio=float(ratio["value"]),
        low=float(ratio["low"]),
        high=float(ratio["high"]),
        level=float(document["level"]),
        rounds=int(document["rounds"]),
        threshold=float(document["threshold"]),
        verdict=document["verdict"],
    )


def named_models(document: BenchJson) -> list[dict[str, Any]]:
    """Return the document's models, each with a "name" that tells it from the others."""
    names = names_of_rows(document)
    return [{**model, "name": name} for name, model in zip(names, document["models"], strict=True)]


def _medians(models: Sequence[Mapping[str, Any]], source: str) -> Chart:
    figures = [(model["p50_ms"], float(model["min_ms"]["value"]), float(model["p90_ms"]["value"])) for model in models]
    ends = [value for p50, low, high in figures for value in (low, high, float(p50["low"]), float(p50["high"]))]
    xs, chart = _rows("latency", fit_scale(ends, *_across(), may_be_log=True), len(models))
    points, lines, labels = [], [], []
    for place, (model, (p50, low, high)) in enumerate(zip(models, figures, strict=True)):
        y = _row_y(place)
        text = (
            f"{model['name']}: median {_ms(p50['value'])} ({_ms(p50['low'])} to {_ms(p50['high'])}), "
            f"fastest {_ms(low)}, p90 {_ms(high)}"
        )
        lines.append(Line(((xs.place(low), y), (xs.place(high), y)), "range"))
        lines.append(Line(((xs.place(float(p50["low"])), y), (xs.place(float(p50["high"])), y)), "interval"))
        points.append(Point(xs.place(float(p50["value"])), y, "median", text))
        labels.append(Label(_LEFT, y - 14, f"{_short(model['name'])}: {_ms(p50['value'])}"))
    return Chart(
        **chart,
        title="Median time of a run",
        description=" ".join(f"{point.text}." for point in points),
        x_label="ms, log scale" if xs.logarithmic else "ms",
        points=tuple(points),
        lines=tuple(lines),
        labels=tuple(labels),
        keys=(Key("median", "median"), Key("interval", "its 95% interval"), Key("range", "fastest run to p90")),
        source=source,
    )


def _ratios(first: Mapping[str, Any], compared: Sequence[tuple[str, Comparison]], source: str) -> Chart:
    name = first["name"]
    ends = [1.0] + [value for _, found in compared for value in (found.ratio, found.low, min(found.high, 100.0))]
    threshold = compared[0][1].threshold
    xs, chart = _rows(
        "ratios", fit_scale([*ends, 1 - threshold, 1 + threshold], *_across(), may_be_log=True), len(compared)
    )
    points, lines, labels = [], [], []
    for place, (other, found) in enumerate(compared):
        y = _row_y(place)
        lines.append(Line(((xs.place(found.low), y), (xs.place(found.high), y)), "interval"))
        points.append(Point(xs.place(found.ratio), y, "median", comparison_words(other, name, found)))
        labels.append(Label(_LEFT, y - 14, f"{_short(other)}: {found.ratio:.3f}, {found.verdict}"))
    left, right = xs.place(1 - threshold), xs.place(1 + threshold)
    height = float(chart["bottom"] - _TOP)
    band = Bar(left, _TOP, round(right - left, 2), height, "allowed", f"within {threshold:.1%} of {name}")
    return Chart(
        **chart,
        title=f"Ratios to {_short(name)}",
        description=" ".join(f"{other}: {found.ratio:.3f}, {found.verdict}." for other, found in compared),
        x_label="Ratio of medians; below 1 is faster" + (", log scale" if xs.logarithmic else ""),
        points=tuple(points),
        lines=tuple(lines),
        labels=tuple(labels),
        bars=(band,),
        rules=(Rule("", "one", x=xs.place(1.0)),),
        keys=(
            Key("median", "ratio"),
            Key("interval", f"its {compared[0][1].level:.0%} interval"),
            Key("allowed", f"no difference that matters: {threshold:.1%}"),
        ),
        source=source + " Models took turns, in rounds of fresh processes.",
    )


def _histogram(place: int, model: Mapping[str, Any], source: str) -> Chart:
    found = model["histogram"]
    low, width, counts = float(found["low_ms"]), float(found["bin_ms"]), [int(count) for count in found["counts"]]
    left, right = x_range()
    bottom, top = y_range()
    xs = Scale(low, low + width * len(counts), left, right)
    ys = Scale(0.0, 1.05 * max([*counts, 1]), bottom, top)
    bars = []
    for index, count in enumerate(counts):
        start, end = xs.place(low + index * width), xs.place(low + (index + 1) * width)
        text = f"{_ms(low + index * width)} to {_ms(low + (index + 1) * width)}: {count} runs"
        y = ys.place(count)
        bars.append(Bar(start, y, round(max(end - start - 1, 0.5), 2), round(bottom - y, 2), "count", text))
    beyond = int(found["beyond"])
    later = f" {beyond} more took longer, up to {_ms(model['max_ms']['value'])}." if beyond else ""
    return Chart(
        name=f"times-{place + 1}",
        title=f"Times of {_short(model['name'])}",
        description=f"{model['n']} runs, median {_ms(model['p50_ms']['value'])}.{later}",
        x_label="ms",
        y_label="Runs",
        x_ticks=axis_ticks(xs),
        y_ticks=axis_ticks(ys),
        bars=tuple(bars),
        rules=(Rule("median", "stage", x=xs.place(float(model["p50_ms"]["value"]))),),
        source=source,
    )


def _rows(name: str, xs: Scale, count: int) -> tuple[Scale, dict[str, Any]]:
    """Return what charts with a row for each of `count` models have in common."""
    bottom = _TOP + count * _ROW
    fields = {
        "name": name,
        "y_label": "",
        "x_ticks": axis_ticks(xs),
        "y_ticks": (),
        "left": _LEFT,
        "top": _TOP,
        "bottom": bottom,
        "height": bottom + _BELOW,
    }
    return xs, fields


def _across() -> tuple[float, float]:
    return float(_LEFT), x_range()[1]


def _row_y(place: int) -> float:
    return float(_TOP + place * _ROW + 32)


def _ms(value: float) -> str:
    return format_value(float(value), "ms")


def _short(name: str) -> str:
    half = _NAME_LETTERS // 2
    return name if len(name) <= _NAME_LETTERS else f"{name[: half - 1]}…{name[-half:]}"
