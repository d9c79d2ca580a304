"""Prediction of a file's costs on a device that isn't at hand."""

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.foreign import foreign_file
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.input_shape import with_input_shape
from n2n_edge.graph.load import load_model
from n2n_edge.latency.estimate import Estimate
from n2n_edge.latency.model import LatencyModel
from n2n_edge.metrics.precisions import Precision

__all__ = ["predict"]


def predict(
    model: Path | str | ir.Model,
    device: str | Path | Profile = "cpu",
    *,
    threads: int | None = None,
    precision: Precision | None = None,
    runtime: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    bind: Sequence[str] = (),
    name: str | None = None,
) -> Estimate:
    """Predict latency, energy and memory of one inference on a device, with an interval and the evidence for it.

    >>> estimate = n2n_edge.predict(example_teacher, "raspberry-pi-4")
    >>> estimate.figure.unit, estimate.figure.provenance, estimate.fits
    ('ms', 'calibrated', True)

    `device` is a name, a profile's file or a `Profile`; `threads` and `runtime` are the profile's by default.
    `precision` is what float32 operators are run in: what the file itself quantizes, or holds in float16, counts so;
    by default fp32, but for ncnn on cores with arithmetic in float16. `input_shape` (without batch) fills the sizes
    that a model leaves free, `bind` gives further inputs values (``scale=1.0``), `name` is what errors call it: by
    default its path.

    Raises:
        InputError: no such file, device or runtime, more threads than it has cores, or no input to bind of that name.
    """
    profile = (device if isinstance(device, Profile) else load_profile(device)).under(runtime)
    latency = LatencyModel(profile, threads, precision)
    where = name or ("the model" if isinstance(model, ir.Model) else str(model))
    (loaded,) = bound_where_named([model if isinstance(model, ir.Model) else load_model(model)], bind)
    with foreign_file(where):
        return latency.estimate(with_input_shape(loaded, input_shape, where))
