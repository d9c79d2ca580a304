"""What became of each of the teacher's layers: gone or not, how wide, how long it takes on each device."""

from collections.abc import Iterable, Mapping

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import N2NError
from n2n_edge.graph.costs import counted
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.graph.merging import made_merges
from n2n_edge.graph.quantized import precision_table
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.measure.bench import bench
from n2n_edge.measure.options import BenchOptions
from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.metrics.precisions import Precision
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.report.document import LayerJson, LayerLatencyJson

__all__ = ["layer_rows"]

_PROFILE_S = 0.5
"""Seconds that a model is timed for before its layers are: the model's own latency has been found by then."""

_Latencies = Mapping[str, FigureJson]
"""Latency by layer; '' is what belongs to none."""


def layer_rows(
    teacher: Teacher,
    removed: frozenset[str],
    teacher_file: ModelFile,
    student_file: ModelFile,
    devices: Iterable[Profile],
    linear: frozenset[str] = frozenset(),
) -> list[LayerJson]:
    """Return the teacher's layers in the order of the graph, with what each costs before and after.

    `linear` are those that are merged with what reads them: the last layer of a merge has the costs of all.

    On this host that is ONNX Runtime's own profile; for other devices it is predicted. Where a device can't tell, since
    another runtime has no profile, say, its latencies are left out. What belongs to no layer is summed in a last row
    called ``other``, of no op type.
    """
    times = {
        profile.name: (before, after)
        for profile in devices
        if (before := _by_layer(teacher_file, profile)) is not None
        and (after := _by_layer(student_file, profile)) is not None
    }
    widths, precisions = _student_layers(student_file)
    names = {layer.name for layer in teacher.layers}
    runs = made_merges(teacher.links, names - removed, linear)
    merged = {name: run[-1] for run in runs for name in run[:-1]}
    rows: list[LayerJson] = []
    for layer in teacher.layers:
        row: LayerJson = {
            "name": layer.name,
            "op_type": layer.op_type,
            "removed": layer.name in removed,
            "channels": {"before": layer.out_channels, "after": widths.get(layer.name)},
            "latency_ms": {
                device: {"teacher": before.get(layer.name), "student": after.get(layer.name)}
                for device, (before, after) in times.items()
            },
        }
        if layer.name in merged:
            row["merged_into"] = merged[layer.name]
        if set(precisions.values()) - {"fp32"} and layer.name in precisions:
            row["precision"] = precisions[layer.name]
        rows.append(row)
    others = {device: _others(before, after, names) for device, (before, after) in times.items()}
    if any(any(pair.values()) for pair in others.values()):
        rows.append({"name": "other", "op_type": "", "removed": False, "latency_ms": others})
    return rows


def _student_layers(file: ModelFile) -> tuple[Mapping[str, int], Mapping[str, Precision]]:
    """Return how many channels each layer of a file gives, and what it is calculated in, by the layer's name."""
    precisions = {layer.name: layer.precision for layer in precision_table(file.model).layers}
    if set(precisions.values()) <= {"fp32"}:
        return {layer.name: layer.out_channels for layer in Teacher(file.model).layers}, precisions
    found = counted(file.model)
    channels = {node.name: int(found.amounts.node_channels[index, 0]) for index, node in enumerate(found.nodes)}
    layers = {node: layer for node, layer in layers_by_name(file.model).items() if node in channels}
    return {layer: channels[node] for node, layer in layers.items() if channels[node]}, precisions


def _by_layer(file: ModelFile, device: Profile) -> _Latencies | None:
    """Return the latency of each layer of a model on a device; None where that can't be told."""
    try:
        if device.is_host:
            return _measured(file, device) if device.runtime == ONNXRUNTIME else None
        estimate = file.estimate(device)
        return _figures(estimate.by_layer(), estimate.figure)
    except N2NError:
        return None  # the run is good without


def _measured(file: ModelFile, host: Profile) -> _Latencies | None:
    options = BenchOptions(
        threads=host.default_threads,
        providers=host.providers,
        min_time_s=_PROFILE_S,
        max_time_s=_PROFILE_S,
        input_shape=file.input_shape,
    )
    timed = bench(file.path, options, profiled=True)
    if timed.profile is None:
        return None
    sums: dict[str, float] = {}
    for kernel in timed.profile.kernels:
        sums[kernel.layer] = sums.get(kernel.layer, 0.0) + kernel.latency_ms
    return _figures(sums, timed.measurement.latency())


def _figures(latencies: Mapping[str, float], whole: Figure) -> _Latencies:
    """Return the parts of a `whole` as figures that say the same of where they come from."""
    return {name: Figure(ms, "ms", whole.provenance, runtime=whole.runtime).to_json() for name, ms in latencies.items()}


def _others(before: _Latencies, after: _Latencies, names: set[str]) -> LayerLatencyJson:
    return {"teacher": _sum(before, names), "student": _sum(after, names)}


def _sum(latencies: _Latencies, names: set[str]) -> FigureJson | None:
    rest = [figure for name, figure in latencies.items() if name not in names]
    return {**rest[0], "value": sum(float(figure["value"]) for figure in rest)} if rest else None
