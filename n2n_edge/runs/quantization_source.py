"""What is quantized: the float file, its graph in normal form, its data, and which of its nodes by default."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.data.loading import Loading
from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.foreign import foreign_file, printable
from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.bind import bind as bind_inputs
from n2n_edge.graph.bind import parse_bindings
from n2n_edge.graph.layers import layers_by_name
from n2n_edge.graph.load import save_model
from n2n_edge.graph.teacher import Teacher
from n2n_edge.metrics.notices import Notice
from n2n_edge.quantize.device_plan import plan_for
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import output_nodes
from n2n_edge.runs.prepare import data_of
from n2n_edge.runs.quantize_settings import Order, QuantizeSettings
from n2n_edge.runs.readiness import obstacles
from n2n_edge.tasks.choice import task_of
from n2n_edge.training.compute import Engine
from n2n_edge.training.settings import DistillSettings

__all__ = ["BOUND", "Source", "default_plan", "source_of"]

_WHOLE_CLASSES = ("classification", "multilabel")
"""Tasks whose last layer is quantized like any other."""
BOUND = "bound.onnx"
"""The file's copy whose inputs are bound."""
_HARMLESS, _OF_TRAINING = ("untouchable",), ("operator", "integer_outputs")
"""Obstacles to compressing that keep a network neither from being quantized nor trained, and not from the former."""


@dataclass(frozen=True)
class Source:
    """The float file, its graph in normal form with its norms folded, and its data."""

    path: Path
    teacher: Teacher
    graph: ir.Model
    data: Data
    notes: tuple[Notice, ...]


def source_of(order: Order, settings: QuantizeSettings, folder: Path, say: Callable[[str], None]) -> Source:
    """Return what is quantized; `folder` takes a copy of a file whose inputs are bound.

    Raises:
        InputError: a file that can't be quantized, or whose data don't fit; layers that don't exist.
    """
    model, how = order.model, settings.of_data
    assert how.data is not None
    path = model
    if how.bind:
        path = folder / BOUND
        save_model(bind_inputs(order.loaded, parse_bindings(how.bind)), path)
    teacher = Teacher.load(path, how.input_shape)
    harmless = _HARMLESS if settings.distils else (*_HARMLESS, *_OF_TRAINING)
    obstacle = next((each for each in obstacles(teacher) if each.code not in harmless), None)
    if obstacle is not None:
        raise InputError(f"{model}: {obstacle.text}")
    with foreign_file(model):
        graph = fold_batchnorm(teacher.model)
    _named(graph, settings.keep_float)  # a wrong name is told before images are read
    loading = Loading(how.data_workers, 0.0, how.strict_data)
    engine = Engine.of(DistillSettings(device="cpu"))
    data, _, notes = data_of(teacher, how, how.data, loading, engine, say)
    return Source(path, teacher, graph, data, notes)


def default_plan(source: Source, profile: Profile, settings: QuantizeSettings) -> QuantizationPlan:
    """Return what is quantized by default on a device, less what is to stay float."""
    kept = _named(source.graph, settings.keep_float)
    if task_of(source.graph, source.data).name not in _WHOLE_CLASSES:
        kept |= set(output_nodes(source.graph))
    return plan_for(profile, kept)


def _named(graph: ir.Model, patterns: Sequence[str]) -> set[str]:
    """Return the nodes that names or patterns of nodes or layers mean; InputError where one means none."""
    layers = layers_by_name(graph)
    found: set[str] = set()
    for pattern in patterns:
        meant = {
            str(node.name)
            for node in graph.graph
            if any(name and fnmatch.fnmatchcase(name, pattern) for name in (node.name, layers.get(str(node.name))))
        }
        if not meant:
            some = ", ".join(printable(name) for name in list(dict.fromkeys(layers.values()))[:3])
            raise InputError(
                f"‹keep_float› {pattern}: no layer or node is called so; `n2n-edge inspect` lists them, such as {some}"
            )
        found |= meant
    return found
