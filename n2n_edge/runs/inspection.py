"""Inspection of a model: layers, channel groups, what compression can't take and why, costs on a device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import IncompressibleError, InputError
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.bind import Binding, bound_where_named, parse_bindings
from n2n_edge.graph.bind import bind as bind_inputs
from n2n_edge.graph.costs import total_costs
from n2n_edge.graph.input_shape import leaves_size_free, recorded_shape, with_input_shape
from n2n_edge.graph.load import load_model, size_of
from n2n_edge.graph.model_file import file_size_bytes
from n2n_edge.graph.quantized import Precisions, precision_table
from n2n_edge.graph.shape_run import analysing
from n2n_edge.graph.shapes import batch_of
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import model_figures, static_figures
from n2n_edge.latency.model import LatencyModel
from n2n_edge.metrics.figures import SCHEMA_VERSION, Figure
from n2n_edge.runs.readiness import Obstacle, obstacles

if TYPE_CHECKING:
    from n2n_edge.graph.groups import ChannelGroup
    from n2n_edge.graph.layers import Layer
from n2n_edge.search.merging import PricedMerge, offered_merges

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """What a model is made of, what it costs, and what `compress` would refuse of it.

    `teacher` is None for a model that has no layers to remove or shrink, such as a quantized one: the only one of
    `obstacles` says why. `figures` are costs by name, the latency on `device`; `merges` are those of layers that lower
    it, the disjoint ones that save most. `batch` is the number of images that the model takes at a time.
    `input_assumed`: the model leaves its input's sizes free, and nothing gives any. `precisions` tells what is
    calculated in which number format.
    """

    device: str
    figures: Mapping[str, Figure]
    obstacles: tuple[Obstacle, ...]
    batch: int
    teacher: Teacher | None
    precisions: Precisions
    input_assumed: bool = False
    merges: tuple[PricedMerge, ...] = ()

    @property
    def layers(self) -> "tuple[Layer, ...]":
        """The layers in the graph's order."""
        return () if self.teacher is None else self.teacher.layers

    @property
    def groups(self) -> "tuple[ChannelGroup, ...]":
        """The channel groups."""
        return () if self.teacher is None else self.teacher.groups

    @property
    def input_sizes(self) -> tuple[int | None, ...]:
        """Sizes of the first input that the figures hold for, without its batch."""
        inputs = () if self.teacher is None else self.teacher.model.graph.inputs
        shape = list(inputs[0].shape or ()) if inputs else []
        return tuple(size if isinstance(size, int) else None for size in shape[1:])

    def to_json(self) -> dict[str, object]:
        """Return the document that ``n2n-edge inspect --json`` prints."""
        touchable = None if self.teacher is None else self.teacher.touchable
        whole = () if self.teacher is None else self.teacher.branches
        branches = {name: branch.layers for branch in reversed(whole) for name in branch.layers}
        document: dict[str, object] = {
            "schema_version": SCHEMA_VERSION,
            "layers": [
                {
                    "name": layer.name,
                    "op_type": layer.op_type,
                    "removable": layer.removable,
                    "branch": list(branches.get(layer.name, ())),
                    "reason": layer.reason,
                    "in_channels": layer.in_channels,
                    "out_channels": layer.out_channels,
                    "kernel": list(layer.kernel),
                    "stride": list(layer.stride),
                    "groups": layer.groups,
                    "params": layer.params,
                    "macs": layer.macs,
                }
                for layer in self.layers
            ],
            "groups": [
                {
                    "name": group.name,
                    "width": group.width,
                    "shrinkable": group.shrinkable,
                    "reason": group.reason,
                    "layers": list(group.layers),
                }
                for group in self.groups
            ],
            "merges": [
                {
                    "layers": list(priced.merge.layers),
                    "exact_borders": priced.merge.exact_borders,
                    "saved_ms": priced.saved_ms,
                }
                for priced in self.merges
            ],
            "costs": {name: figure.to_json() for name, figure in self.figures.items()},
            "precisions": self.precisions.to_json(),
            "touchable": {
                "params_share": 0.0 if touchable is None else touchable.params_share,
                "macs_share": 0.0 if touchable is None else touchable.macs_share,
            },
            "input": {"sizes": list(self.input_sizes), "assumed": self.input_assumed},
            "obstacles": [{"code": item.code, "text": item.text} for item in self.obstacles],
        }
        if self.teacher is None:
            document["reason"] = self.obstacles[0].text
        return document


def inspect(
    model: Path | str,
    *,
    weights: Path | str | None = None,
    device: str | Path | Profile = "cpu",
    input_shape: tuple[int, ...] | None = None,
    bind: Sequence[str] | None = None,
    trust_pt2: bool = False,
) -> Inspection:
    """Look into an ONNX file or a torch network (as for `compress`): what can be removed or shrunk, and what it costs.

    >>> inspection = n2n_edge.inspect(example_teacher, device="raspberry-pi-4")
    >>> len(inspection.layers), inspection.obstacles, inspection.figures["params"].value > 100_000
    (16, (), True)

    Raises:
        InputError: no such file, network or device, or a model that ONNX Runtime can't run.
    """
    profile = device if isinstance(device, Profile) else load_profile(device)
    path, weights_text = Path(model), None if weights is None else str(weights)
    try:
        teacher = _load(str(model), weights_text, input_shape, parse_bindings(bind or ()), trust_pt2)
    except IncompressibleError as error:
        (loaded,) = bound_where_named([load_model(path)], bind or ())
        assumed = input_shape is None and leaves_size_free(loaded)
        loaded = with_input_shape(loaded, input_shape, path.name)
        figures = model_figures(loaded, path)
        with foreign_file(path):
            figures["latency_ms"] = LatencyModel(profile).estimate(loaded).figure
            reason = Obstacle("incompressible", str(error))
            table = precision_table(loaded)
        return Inspection(profile.name, figures, (reason,), batch_of(loaded), None, table, input_assumed=assumed)
    with foreign_file(model):
        return Inspection(
            profile.name,
            _figures(path, teacher, profile, input_shape),
            obstacles(teacher),
            batch_of(teacher.model),
            teacher,
            precision_table(teacher.model),
            input_assumed=input_shape is None
            and leaves_size_free(teacher.source)
            and recorded_shape(teacher.source) is None,
            merges=offered_merges(teacher, profile),
        )


def _load(
    model: str,
    weights: str | None,
    input_shape: tuple[int, ...] | None,
    bindings: Sequence[Binding],
    trust_pt2: bool,
) -> Teacher:
    if Path(model).suffix != ".pt2" and (":" not in model or Path(model).exists()):
        if weights is not None:
            raise InputError(f"‹weights› {weights}: an ONNX file holds its weights; leave it out")
        if not bindings:
            return Teacher.load(model, input_shape)
        bound = bind_inputs(load_model(model), bindings)
        with foreign_file(model), analysing(bound):
            return Teacher(bound, input_shape)
    from n2n_edge.runs.run import require_training_packages

    require_training_packages()
    from n2n_edge.training.torch_teachers import is_torch_teacher, torch_teacher

    if not is_torch_teacher(model):
        raise InputError(f"{model}: no such file; give an ONNX model or a torch network")
    return Teacher(torch_teacher(model, weights, input_shape, trust_pt2=trust_pt2), input_shape)


def _figures(path: Path, teacher: Teacher, profile: Profile, input_shape: tuple[int, ...] | None) -> dict[str, Figure]:
    """Return what the model costs; the latency is that of the file as it is, where there is one."""
    if path.is_file() and path.suffix != ".pt2":
        size_bytes = file_size_bytes(path)
        free = leaves_size_free(teacher.source)
        model = with_input_shape(teacher.source.clone() if free else teacher.source, input_shape, path.name)
    else:
        size_bytes, model = size_of(teacher.model), teacher.model
    return {
        **static_figures(total_costs(teacher.amounts, size_bytes)),
        "latency_ms": LatencyModel(profile).estimate(model).figure,
    }
