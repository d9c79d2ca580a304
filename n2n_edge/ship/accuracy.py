"""How right a model file is on the test images of a data set, as it would ship."""

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from n2n_edge.distill import Data, class_count, evaluate_onnx, load_data, metric_name
from n2n_edge.errors import InputError
from n2n_edge.figures import Figure
from n2n_edge.graph import load_model
from n2n_edge.ship.normalisation import Normalisation, choose_normalisation, metadata_normalisation
from n2n_edge.ship.outputs import OUTPUTS_KEY, as_outputs_name, read_outputs

__all__ = ["file_accuracy"]


def file_accuracy(
    path: Path,
    spec: str,
    *,
    baseline: Path | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> tuple[str, Figure, Figure | None, tuple[str, ...]]:
    """Return the metric's name, the figure of `path`, that of `baseline` on the same images, and what was assumed.

    The images are the test split of the data `spec`, the same that `compress` judges a student on. Where there are no
    labels the metric is fidelity to the baseline. Normalisation is given, or stands in the file's metadata, or is found
    by trying the usual ones.

    Raises:
        InputError: a model that takes no images, data that doesn't fit it, no labels and no baseline.
    """
    model = load_model(path)
    data, note = _data(model, path, spec, mean, std)
    notes: tuple[str, ...] = (f"{path.name}: normalisation {note}",) if note else ()
    if metric_name(model, data) == "accuracy":
        other = None
        if baseline is not None:  # the same images, as the baseline wants them
            wanted, note = _data(load_model(baseline), baseline, spec, mean, std)
            other = _figure(baseline, wanted, None)
            notes += (f"{baseline.name}: normalisation {note}",) if note else ()
        return "accuracy", _figure(path, data, None), other, notes
    if baseline is None:
        raise InputError(
            f"{path}: {spec} tells no class that it could be held against (outputs: {data.outputs}); give "
            "--baseline MODEL to hold its fidelity to that"
        )
    return "fidelity", _figure(path, data, baseline), None, notes


def _figure(path: Path, data: Data, teacher: Path | None) -> Figure:
    found = evaluate_onnx(path, data.test, data, teacher=teacher)
    return Figure(found.metric, "fraction", "measured", n=found.n)


def _data(
    model: ir.Model, path: Path, spec: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Data, str]:
    """Return the images as a model wants them, and how that was found out where the model doesn't say."""
    shape = _image_shape(model, path)
    wanted = as_outputs_name(model.metadata_props.get(OUTPUTS_KEY))
    classes = class_count(model, wanted)
    data = load_data(spec, input_shape=shape, classes=classes, mean=mean, std=std, may_be_values=True)
    data, _ = read_outputs(model, data, wanted)
    if mean is not None and std is not None:
        return data, ""
    known = metadata_normalisation(model.metadata_props, shape[0])
    chosen = known or _tried(model, path, data)
    return replace(data, mean=chosen.mean, std=chosen.std), "" if known else chosen.note


def _tried(model: ir.Model, path: Path, data: Data) -> Normalisation:
    try:
        return choose_normalisation(model, data)
    except InputError as error:
        raise InputError(
            f"{path}: says nothing of its normalisation, and trying the usual ones failed ({error}); "
            "give --mean and --std"
        ) from error


def _image_shape(model: ir.Model, path: Path) -> tuple[int, int, int]:
    given = model.graph.inputs[0]
    sizes = [size for size in list(given.shape or ())[1:] if isinstance(size, int) and size > 0]
    if len(sizes) != 3 or given.dtype != ir.DataType.FLOAT:
        raise InputError(
            f"{path}: input '{given.name}' is {given.dtype} {given.shape}; images need float "
            "(N, channels, height, width)"
        )
    return sizes[0], sizes[1], sizes[2]
