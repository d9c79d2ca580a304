"""Choice of segmentation, keypoints and independent classes: by labels, by the form of outputs, or as asked for."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.data.labels.values import Label, Mask, MaskFile, Objects, Points
from n2n_edge.errors import InputError
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.maps import map_form
from n2n_edge.tasks.multilabel import Multilabel
from n2n_edge.tasks.outputs import described, last_op, output_size
from n2n_edge.tasks.points import point_form
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import Task

__all__ = ["choose_dense"]

_NAMES = ("segmentation", "keypoints", "multilabel")
_SIGMOID = ("Sigmoid", "HardSigmoid")
_LOOKED_AT = 8
_LARGEST_SHARE = 2.0
"""Numbers of points are shares of the image up to here, since some lie a little outside, and pixels beyond."""

Choice = tuple[Task, str]


def choose_dense(model: ir.Model, data: Data, wanted: str | None, recorded: Mapping[str, object]) -> Choice | None:
    """Return the task of a segmenter, of a network that finds points, or of one of independent classes, and why.

    None where a model is taken for none of them. `wanted` is the task's name, asked for or recorded; without it labels
    decide, and where there are none the form of the outputs, by which nothing is taken for points.

    Raises:
        InputError: one of them is wanted, and the outputs or the labels don't fit it.
    """
    if wanted in _NAMES:
        asked = "as its metadata record" if recorded.get("task") == wanted else "as asked"
        if wanted == "segmentation":
            return _maps(model, data, asked, wanted=True)
        if wanted == "keypoints":
            return _points(model, data, asked, recorded if recorded.get("task") == wanted else {})
        return _independent(model, data, asked)
    if wanted is not None:
        return None
    labels = _some_labels(data)
    if any(isinstance(each, Mask | MaskFile) for each in labels):
        return _maps(model, data, "the labels are masks", wanted=True)
    if any(isinstance(each, Points) for each in labels):
        return _points(model, data, "the labels are points", {})
    if any(isinstance(each, Objects) for each in labels):
        return None
    targets = data.train.targets
    if targets is not None:
        rows = targets.ndim == 2 and targets.shape[1] > 1 and bool(np.isin(targets, (0, 1)).all())
        if rows and last_op(model) in _SIGMOID and output_size(model) == targets.shape[1]:
            return _independent(model, data, "the labels are rows of noughts and ones, and the graph ends in Sigmoid")
        return None
    return None if data.labelled else _maps(model, data, "", wanted=False)


def _some_labels(data: Data) -> Sequence[Label | None]:
    annotations = data.validation.annotations
    return [] if annotations is None else [annotations[place] for place in range(min(_LOOKED_AT, len(annotations)))]


def _shape(model: ir.Model, data: Data) -> tuple[tuple[int, ...], int]:
    """Return the sizes of the first output with an axis for the image, and how many outputs there are."""
    outputs = ImageSession.learned(model).run(np.zeros((1, *data.input_shape), np.float32))
    return tuple(outputs[0].shape), len(outputs)


def _maps(model: ir.Model, data: Data, reason: str, *, wanted: bool) -> Choice | None:
    channels, height, width = data.input_shape
    shape, _ = _shape(model, data)
    end = last_op(model)
    form = map_form(shape, height, width, bounded=end in _SIGMOID)
    if form is None:
        if not wanted:
            return None
        raise InputError(
            f"‹task› segmentation ({reason}): the model gives {described(model)}, not (N, classes, {height}, {width}) "
            "or that made smaller by 2, 4 or 8; give the ‹task› that it does"
        )
    planes = 1 if form.axis == 0 else shape[form.axis]
    if planes > 255:
        raise InputError(f"‹task› segmentation: the model gives {planes} classes a pixel, and 255 is the most")
    if not wanted:
        full = math.prod(shape) == planes * height * width
        image_like = planes in (3, channels)  # enhancement, super-resolution
        if not full or (end != "Softmax" and (image_like or (planes == 1 and end not in _SIGMOID))):
            return None
        reason = f"the first output is a map of the image's size with {planes} channel{'s' if planes > 1 else ''}"
        reason += f", and the graph ends in {end}" if end in (*_SIGMOID, "Softmax") else ""
        reason += "; for numbers of another kind give --task regression"
    return Segmentation(form, end in _SIGMOID, end == "Softmax", data.class_names), reason


def _points(model: ir.Model, data: Data, reason: str, recorded: Mapping[str, object]) -> Choice:
    _, height, width = data.input_shape
    shape, _ = _shape(model, data)
    labels = next((len(each.points) for each in _some_labels(data) if isinstance(each, Points)), None)
    targets = data.train.targets
    if labels is None and targets is not None and targets.shape[1] % 2 == 0:
        labels = targets.shape[1] // 2
    noted = recorded.get("points")
    count = noted if isinstance(noted, int) else labels
    form = point_form(shape, height, width, count)
    if form is None:
        of = "" if count is None else f" of {count} points"
        raise InputError(
            f"‹task› keypoints ({reason}): the model gives {described(model)}, neither coordinates{of} (N, 2K), "
            "(N, K, 2) or (N, 3K) nor heatmaps (N, K, height, width); give the ‹task› that it does"
        )
    shares, of_labels = recorded.get("shares"), recorded.get("label_shares")
    if not isinstance(shares, bool):
        shares = form.maps or _are_shares(_outputs(model, data).reshape(-1, form.numbers)[:, :2])
    if not isinstance(of_labels, bool):
        of_labels = targets is not None and _are_shares(targets)
    form = type(form)(form.count, form.maps, form.channels_last, shares, form.numbers)
    how = "as heatmaps" if form.maps else f"in {'shares of the image' if shares else 'pixels'}"
    reason = f"{reason}: {form.count} points {how}"
    if targets is not None:
        reason += f", labels in {'shares of the image' if of_labels else 'pixels'}"
    return Keypoints(form, height, width, of_labels), reason


def _outputs(model: ir.Model, data: Data) -> np.ndarray:
    images = np.asarray(data.validation.images[: min(_LOOKED_AT, len(data.validation))])
    return np.asarray(ImageSession.learned(model).run(data.inputs(images))[0])


def _are_shares(numbers: np.ndarray) -> bool:
    finite = numbers[np.isfinite(numbers)]
    return bool(finite.size) and float(np.abs(finite).max()) <= _LARGEST_SHARE


def _independent(model: ir.Model, data: Data, reason: str) -> Choice:
    size, end = output_size(model), last_op(model)
    if size is None or size < 2 or end == "Softmax":
        ends = ", and the graph ends in Softmax" if end == "Softmax" else ""
        raise InputError(
            f"‹task› multilabel: the model gives {described(model)}{ends}, not scores (N, classes) that are independent"
        )
    targets = data.train.targets
    if targets is not None and targets.shape[1] != size:
        raise InputError(f"‹task› multilabel: labels of {targets.shape[1]} classes, but the model gives {size}")
    if targets is not None and not np.isin(targets, (0, 1)).all():
        raise InputError("‹task› multilabel: labels must be rows of noughts and ones, one for each class")
    return Multilabel(end in _SIGMOID, data.class_names), reason
