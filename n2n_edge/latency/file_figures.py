"""The figures of one model file that budgets are held against."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.foreign import foreign_file
from n2n_edge.graph.costs import Costs, costs, inferred_costs
from n2n_edge.graph.input_shape import recorded_shape, with_input_shape
from n2n_edge.graph.load import load_model
from n2n_edge.graph.model_file import file_size_bytes
from n2n_edge.metrics.costs import STATIC_COSTS
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.notices import Notice

if TYPE_CHECKING:
    from n2n_edge.devices.profile import Profile
    from n2n_edge.latency.estimate import Estimate

__all__ = [
    "Latency",
    "ModelFile",
    "file_figures",
    "inferred_figures",
    "model_figures",
    "predicted_latency",
    "static_figures",
]


def static_figures(costs: Costs) -> dict[str, Figure]:
    """Return what follows from the graph (size_mb, params, macs, memory_bound_mb) as ``computed`` figures.

    Of a quantized model there is integer_macs, too: those of the macs that are calculated in 8-bit integers.
    """
    figures: dict[str, Figure] = {}
    for row in STATIC_COSTS:
        amount = getattr(costs, str(row.attribute))
        figures[row.key] = Figure(amount if row.divisor == 1 else amount / row.divisor, row.unit, "computed")
    if costs.integer_macs:
        figures["integer_macs"] = Figure(costs.integer_macs, "MACs", "computed")
    return figures


def file_figures(path: Path, input_shape: tuple[int, ...] | None = None) -> dict[str, Figure]:
    """Return the static figures of an ONNX file; its size is that on disk, external data included.

    `input_shape` gives the sizes that the first input leaves free. A model whose shapes can't be inferred is run once,
    in a process of its own.

    Raises:
        InputError: a file that isn't a model, or that ONNX Runtime can't run where it has to.
    """
    return ModelFile(path, input_shape).figures()


def model_figures(model: ir.Model, path: Path) -> dict[str, Figure]:
    """Return the static figures of a model that was read from `path`; see `file_figures`."""
    with foreign_file(path):
        return static_figures(costs(model, file_size_bytes(path)))


def inferred_figures(model: ir.Model, path: Path) -> dict[str, Figure]:
    """Return what `model_figures` does without running anything: no MACs and memory where shapes can't be inferred."""
    with foreign_file(path):
        found, complete = inferred_costs(model, file_size_bytes(path))
    figures = static_figures(found)
    if not complete:
        for cost in ("macs", "integer_macs", "memory_bound_mb"):
            figures.pop(cost, None)
    return figures


@dataclass(frozen=True)
class Latency:
    """The latency of one inference; `notes` say what it rests on, `warnings` what makes it doubtful."""

    figure: Figure
    notes: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()


class ModelFile:
    """A model's file, read once and predicted once for each device; `input_shape` as for `file_figures`."""

    def __init__(self, path: Path, input_shape: tuple[int, ...] | None = None) -> None:
        self.path = path
        self._asked = input_shape
        self._estimates: dict[str, Estimate] = {}

    @cached_property
    def input_shape(self) -> tuple[int, ...] | None:
        """Sizes of the input that the file leaves free, as they were given or are recorded; None for the usual."""
        return recorded_shape(load_model(self.path)) if self._asked is None else self._asked

    @cached_property
    def model(self) -> ir.Model:
        """The graph at the size of input that it is counted and timed at; raises InputError where there is none."""
        return with_input_shape(load_model(self.path), self.input_shape, self.path.name)

    def figures(self) -> dict[str, Figure]:
        """Return the static figures; see `file_figures`."""
        return model_figures(self.model, self.path)

    def estimate(self, profile: "Profile") -> "Estimate":
        """Return what one inference is predicted to cost on a device."""
        from n2n_edge.latency.model import LatencyModel  # profiles take as long to import as the rest of a static gate

        if profile.name not in self._estimates:
            self._estimates[profile.name] = LatencyModel(profile).estimate(self.model)
        return self._estimates[profile.name]

    def latency(self, profile: "Profile", samples: Path | None = None) -> Latency:
        """Return the latency of one inference: measured, each time, if the device is this host; predicted otherwise.

        Under another runtime than ONNX Runtime what the file is converted to is timed, once it gives the same on
        `samples`, an .npz file of inputs ``in0``, or on random ones.

        Raises:
            ConversionError: it can't be converted, or gives something else.
        """
        if not profile.is_host:
            return _predicted(self.estimate(profile))
        from n2n_edge.measure.bench import bench
        from n2n_edge.measure.conversion import read_by
        from n2n_edge.measure.options import BenchOptions

        options = BenchOptions(
            threads=profile.default_threads, providers=profile.providers, input_shape=self.input_shape
        )
        with read_by(profile.runtime, self.path, options, samples) as made:
            measurement = bench(made, options, profiled=False).measurement
        return Latency(measurement.latency(), warnings=measurement.warnings)


def predicted_latency(model: ir.Model, profile: "Profile", threads: int | None = None) -> Latency:
    """Return the predicted latency of one inference on a device."""
    from n2n_edge.latency.model import LatencyModel

    return _predicted(LatencyModel(profile, threads).estimate(model))


def _predicted(estimate: "Estimate") -> Latency:
    text = f"latency on {estimate.profile.name} is predicted, not measured: bench the model on the device"
    return Latency(estimate.figure, (Notice("predicted", text), *estimate.evidence), estimate.warnings)
