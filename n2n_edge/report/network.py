"""The network layer by layer: what was removed, how wide layers are, what each of them takes, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass

from n2n_edge.metrics.figures import FigureJson
from n2n_edge.metrics.formats import PROVENANCE_WORDS, format_value
from n2n_edge.report.chart import Bar, Chart, Key, Tick, axis_ticks, x_range, y_range
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.document import LayerJson
from n2n_edge.report.scale import Scale

__all__ = ["LayerCell", "LayerRow", "layer_devices", "layer_rows", "network_charts"]

_TICKS = 12
_BEFORE_SHARE, _AFTER_SHARE = 0.84, 0.48
_LEAST_CROSS = 12.0


@dataclass(frozen=True)
class LayerCell:
    """The latency of one layer on one device in words, teacher and student."""

    before: str
    after: str
    predicted: bool


@dataclass(frozen=True)
class LayerRow:
    """One layer in words; `number` counts along the graph, None for what belongs to no layer.

    `precision` is that of the student's layer, empty where all of it is in float32.

    The shares are per cent of the widest layer; they are None where nobody noted the channels.
    """

    number: int | None
    name: str
    op_type: str
    removed: bool
    channels: str
    precision: str
    before_share: float | None
    after_share: float | None
    cells: tuple[LayerCell, ...]


def network_charts(layers: Sequence[LayerJson]) -> tuple[Chart, ...]:
    """Return a picture of the widths along the network, and one of the latencies for each device that tells them."""
    charts = [] if not any("channels" in layer for layer in layers) else [_channel_chart(layers)]
    return (*charts, *(_latency_chart(layers, device) for device in layer_devices(layers)))


def layer_devices(layers: Sequence[LayerJson]) -> tuple[str, ...]:
    """Return the devices that latencies of layers are known for."""
    found = {
        device: None
        for layer in layers
        for device, pair in layer["latency_ms"].items()
        if pair["teacher"] is not None or pair["student"] is not None
    }
    return tuple(found)


def layer_rows(layers: Sequence[LayerJson]) -> tuple[LayerRow, ...]:
    """Return the rows of the table of layers."""
    widest = max((layer["channels"]["before"] for layer in layers if "channels" in layer), default=1)
    devices = layer_devices(layers)
    rows = []
    for place, layer in enumerate(layers):
        before_share = after_share = None
        channels = layer.get("channels")
        if channels is not None:
            before_share = round(100 * channels["before"] / widest, 2)
            after_share = round(100 * (channels["after"] or 0) / widest, 2)
        rows.append(
            LayerRow(
                place + 1 if layer["op_type"] else None,
                layer["name"],
                layer["op_type"],
                layer["removed"],
                _channel_words(layer),
                layer.get("precision", ""),
                before_share,
                after_share,
                tuple(_cell(layer, device) for device in devices),
            )
        )
    return tuple(rows)


def _channel_chart(layers: Sequence[LayerJson]) -> Chart:
    shown = [layer for layer in layers if "channels" in layer]
    values = [(float(layer["channels"]["before"]), float(layer["channels"]["after"] or 0)) for layer in shown]
    removed = [str(place + 1) for place, layer in enumerate(shown) if layer["removed"]]
    narrowed = sum(0 < after < before for before, after in values)
    gone = f"{len(removed)} removed (number {', '.join(removed)})" if removed else "none removed"
    return _columns(
        "layers",
        "Channels along the network",
        f"{len(shown)} layers in the order of the graph: {gone}, {narrowed} narrower.",
        "Channels",
        shown,
        values,
        [_title(place, layer, _channel_words(layer) + " channels") for place, layer in enumerate(shown)],
        "Counted in the files of teacher and student.",
    )


def _latency_chart(layers: Sequence[LayerJson], device: str) -> Chart:
    pairs = [layer["latency_ms"].get(device, {"teacher": None, "student": None}) for layer in layers]
    values = [(_value(pair["teacher"]), _value(pair["student"])) for pair in pairs]
    figures = [figure_of(one) for pair in pairs for one in (pair["teacher"], pair["student"]) if one is not None]
    provenance = figures[0].provenance
    under = "" if figures[0].runtime is None else f" under {figures[0].runtime}"
    before, after = (sum(column) for column in zip(*values, strict=True))
    if figures[0].predicted:
        source = f"{PROVENANCE_WORDS[provenance].capitalize()}{under}; nothing was run on the device."
    else:
        source = (
            f"Measured{under} by the runtime's own profiler, what it adds taken off, in other runs than those timed "
            "above."
        )
    cells = [_cell(layer, device) for layer in layers]
    return _columns(
        f"layers-{device}",
        f"Latency of layers on {device}" + (", predicted" if figures[0].predicted else ""),
        f"All in all {format_value(before, 'ms')} in the teacher, {format_value(after, 'ms')} in the student."
        + ("" if layers[-1]["op_type"] else " The last bar is what belongs to no layer."),
        "Latency (ms), predicted" if figures[0].predicted else "Latency (ms)",
        layers,
        values,
        [
            _title(place, layer, f"{cell.before} → {cell.after}")
            for place, (layer, cell) in enumerate(zip(layers, cells, strict=True))
        ],
        source,
    )


def _columns(
    name: str,
    title: str,
    description: str,
    y_label: str,
    layers: Sequence[LayerJson],
    values: Sequence[tuple[float, float]],
    texts: Sequence[str],
    source: str,
) -> Chart:
    left, right = x_range()
    bottom, top = y_range()
    slot = (right - left) / len(layers)
    ys = Scale(0.0, 1.05 * max((max(pair) for pair in values), default=0.0) or 1.0, bottom, top)
    bars = []
    for place, (layer, (before, after)) in enumerate(zip(layers, values, strict=True)):
        middle = left + (place + 0.5) * slot
        bars.append(_bar(middle, _BEFORE_SHARE * slot, ys, before, "before", texts[place], struck=layer["removed"]))
        if not layer["removed"]:
            bars.append(_bar(middle, _AFTER_SHARE * slot, ys, after, "after", texts[place]))
    keys = [Key("before", "teacher"), Key("after", "student")]
    if any(layer["removed"] for layer in layers):
        keys.append(Key("removed", "removed"))
    return Chart(
        name=name,
        title=title,
        description=description,
        x_label="Layer, in the order of the graph",
        y_label=y_label,
        x_ticks=_numbers(layers, left, slot),
        y_ticks=axis_ticks(ys),
        bars=tuple(bars),
        keys=tuple(keys),
        source=source,
    )


def _bar(middle: float, width: float, ys: Scale, value: float, kind: str, text: str, *, struck: bool = False) -> Bar:
    height = ys.start - ys.place(value)
    if struck:
        height = max(height, _LEAST_CROSS)
    return Bar(
        round(middle - width / 2, 2), round(ys.start - height, 2), round(width, 2), round(height, 2), kind, text, struck
    )


def _numbers(layers: Sequence[LayerJson], left: float, slot: float) -> tuple[Tick, ...]:
    named = [place for place, layer in enumerate(layers) if layer["op_type"]]
    step = next((step for step in (1, 2, 5, 10, 20, 50, 100) if len(named) / step <= _TICKS), 200)
    ticks = [Tick(round(left + (place + 0.5) * slot, 2), str(place + 1)) for place in named if (place + 1) % step == 0]
    return tuple(ticks)


def _title(place: int, layer: LayerJson, text: str) -> str:
    if not layer["op_type"]:
        return f"what belongs to no layer; {text}"
    into = layer.get("merged_into")
    fate = "; removed" if layer["removed"] else "" if into is None else f"; merged into {into}"
    return f"{place + 1}: {layer['name']}, {layer['op_type']}; {text}{fate}"


def _channel_words(layer: LayerJson) -> str:
    channels = layer.get("channels")
    if channels is None:
        return ""
    after = "merged" if "merged_into" in layer else "–"
    return f"{channels['before']} → {after if channels['after'] is None else channels['after']}"


def _cell(layer: LayerJson, device: str) -> LayerCell:
    pair = layer["latency_ms"].get(device, {"teacher": None, "student": None})
    known = next((one for one in (pair["teacher"], pair["student"]) if one is not None), None)
    before, after = _words(pair["teacher"]), _words(pair["student"])
    if after != "–":
        before = before.removesuffix(" ms")
    return LayerCell(before, after, known is not None and figure_of(known).predicted)


def _words(figure: FigureJson | None) -> str:
    return "–" if figure is None else format_value(float(figure["value"]), "ms")


def _value(figure: FigureJson | None) -> float:
    return 0.0 if figure is None else float(figure["value"])
