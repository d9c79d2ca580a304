"""Choice of segmentation, keypoints or independent classes: by the labels, and by the form of the outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data
from n2n_edge.data.labels.masks import too_high
from n2n_edge.data.labels.values import Mask, Points, highest_class
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.tasks.keypoints import Keypoints
from n2n_edge.tasks.maps import map_form
from n2n_edge.tasks.multilabel import Multilabel
from n2n_edge.tasks.outputs import last_op_of
from n2n_edge.tasks.points import point_form
from n2n_edge.tasks.segmentation import Segmentation
from n2n_edge.tasks.task import Task

__all__ = ["choose_by_form", "labelled_for_form"]

_ENDS = ("Sigmoid", "HardSigmoid", "Softmax")
_DECISIONS = ("Sigmoid", "HardSigmoid")
_IMAGE_CHANNELS = 3
_MOST_CLASSES = 255
_LARGEST_SHARE = 2.0
"""Coordinates up to this are shares of the image, larger ones pixels."""


def choose_by_form(
    model: ir.Model, data: Data, wanted: str | None, recorded: Mapping[str, object] = MappingProxyType({})
) -> tuple[Task, str] | None:
    """Return the task of a model whose outputs are maps, points or independent classes, and why; None for any other.

    `wanted` names the task; without it labels decide, and for maps, where there are none, the form of the output: one
    that ends in a Sigmoid or Softmax, or has a channel for each class. Pictures (three channels), maps of a quantity
    (one channel without an end) and heatmaps aren't taken for maps of classes. `recorded` is what a file's metadata
    say of its task.

    Raises:
        InputError: what is wanted has outputs of another form.
    """
    shapes = [_shape(output) for output in learned_outputs(model)]
    if wanted == "segmentation" or (wanted is None and data.validation.annotated(Mask) is not None):
        return _segmentation(model, data, shapes, asked=wanted is not None)
    if wanted == "keypoints" or (wanted is None and data.validation.annotated(Points) is not None):
        told = recorded.get("points") if recorded.get("task") == "keypoints" else None
        count = told if isinstance(told, int) else _numbers_of(data)
        return _keypoints(model, data, shapes, count, asked=wanted is not None)
    if wanted == "multilabel" or (wanted is None and _rows_of_decisions(data, shapes, model)):
        return _multilabel(model, data, shapes)
    return _segmentation(model, data, shapes, asked=False, unlabelled=True) if wanted is None else None


def _numbers_of(data: Data) -> int | None:
    """Return how many points labels are of that are rows of coordinates."""
    targets = data.validation.targets
    return None if targets is None or targets.shape[1] % 2 else targets.shape[1] // 2


def labelled_for_form(data: Data) -> bool:
    """Tell whether the labels are masks or points, which go before what outputs look like."""
    return any(data.validation.annotated(kind) is not None for kind in (Mask, Points))


def _segmentation(
    model: ir.Model, data: Data, shapes: Sequence[tuple[int, ...]], *, asked: bool, unlabelled: bool = False
) -> tuple[Task, str] | None:
    height, width = data.input_shape[1:]
    for place, (output, shape) in enumerate(zip(learned_outputs(model), shapes, strict=True)):
        last = last_op_of(output)
        form = map_form(shape, height, width, bounded=last in _ENDS) if shape else None
        if form is None or (unlabelled and not _surely_classes(shape, form.axis, last, (height, width), len(shapes))):
            continue
        _check_classes(data, form.classes, str(output.name))
        if last in _DECISIONS and _channels(shape, form.axis) > 1:
            form = replace(form, independent=True)
        task = Segmentation(form, (height, width), last in _ENDS, place, data.class_names)
        what = "foreground and background" if form.classes == 2 and _channels(shape, form.axis) == 1 else (
            f"{form.classes} classes{' that may overlap' if form.independent else ''}"
        )  # fmt: skip
        return task, f"output '{output.name}' is a map of {what}" + (
            f", it ends in {last}" if last in _ENDS else "; for anything else give --task regression"
        )
    if not asked:
        return None
    raise InputError(
        f"‹task› segmentation: no output is a map of the image, {height} by {width} or smaller by 2, 4 or 8; the model "
        f"gives {_words(shapes)}"
    )


def _check_classes(data: Data, classes: int, output: str) -> None:
    """Raise InputError where a mask holds a class that the map hasn't."""
    if len(data.class_names) <= classes:
        return
    for split in (data.train, data.validation, data.test):
        labels = split.annotated(Mask) or ()
        for place, label in enumerate(labels):
            most = highest_class(label)
            if most >= classes:
                where = printable(labels.names[place]) if isinstance(labels, Annotations) else f"image {place}"
                raise too_high(
                    f"the mask of {where}", most, f"output '{output}' is a map of {classes} classes, 0 to {classes - 1}"
                )


def _surely_classes(shape: tuple[int, ...], axis: int, last: str, size: tuple[int, int], outputs: int) -> bool:
    """Tell whether a map is one of classes though no label says so."""
    channels = _channels(shape, axis)
    area = shape[1:] if axis == 0 else shape[2:] if axis == 1 else shape[1:3]
    if outputs > 1 or channels > _MOST_CLASSES:
        return False
    if channels == 1:
        return last in _DECISIONS and tuple(area) == size
    return last == "Softmax" or (last not in _ENDS and tuple(area) == size and channels != _IMAGE_CHANNELS)


def _keypoints(
    model: ir.Model, data: Data, shapes: Sequence[tuple[int, ...]], told: int | None, *, asked: bool
) -> tuple[Task, str] | None:
    height, width = data.input_shape[1:]
    count = next((len(each.points) for each in data.validation.annotations or () if isinstance(each, Points)), told)
    for place, shape in enumerate(shapes):
        form = point_form(shape, height, width, count) if shape else None
        if form is None or (count is not None and form.count != count):
            continue
        task = Keypoints(form, (height, width), place)
        kind = "maps"
        if not form.maps:
            shares = _largest(model, data, task) <= _LARGEST_SHARE
            task = replace(task, form=replace(form, shares=shares))
            kind = "shares of the image" if shares else "pixels"
            kind += ", with a score or visibility each" if form.numbers == 3 else ""
        return task, f"{form.count} points as {kind}"
    if not asked:
        return None
    of = "" if count is None else f" of the {count} that are labelled"
    raise InputError(
        f"‹task› keypoints: no output holds points{of}, as (N, 2 K), (N, 3 K), (N, K, 2), (N, K, 3) or maps "
        f"(N, K, height, width); the model gives {_words(shapes)}"
    )


def _largest(model: ir.Model, data: Data, task: Keypoints) -> float:
    """Return the largest coordinate on a few images, read as pixels."""
    images = data.validation.take(np.arange(min(8, len(data.validation))))
    outputs = ImageSession.learned(model).run(data.inputs(np.asarray(images.images[:])))
    return float(np.abs(replace(task, form=replace(task.form, shares=False)).read(outputs)).max())


def _multilabel(model: ir.Model, data: Data, shapes: Sequence[tuple[int, ...]]) -> tuple[Task, str]:
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise InputError(f"‹task› multilabel: one output (N, classes) is needed; the model gives {_words(shapes)}")
    last = last_op_of(learned_outputs(model)[0])
    return Multilabel(last in _ENDS, data.class_names), (
        f"{shapes[0][1]} independent classes" + (f", the graph ends in {last}" if last in _ENDS else " as logits")
    )


def _rows_of_decisions(data: Data, shapes: Sequence[tuple[int, ...]], model: ir.Model) -> bool:
    """Tell whether labels are rows of 0 and 1 for an output that ends in a Sigmoid."""
    targets = data.train.targets
    if targets is None or len(shapes) != 1 or len(shapes[0]) != 2 or targets.shape[1] != shapes[0][1]:
        return False
    decided = bool(np.isin(targets[~np.isnan(targets)], (0.0, 1.0)).all())
    return decided and targets.shape[1] > 1 and last_op_of(learned_outputs(model)[0]) in _DECISIONS


def _channels(shape: tuple[int, ...], axis: int) -> int:
    return 1 if axis == 0 else shape[axis]


def _shape(output: ir.Value) -> tuple[int, ...]:
    """Return the sizes of an output with 1 for the images, () where they aren't known."""
    sizes = [1, *list(output.shape or ())[1:]]
    whole = tuple(size for size in sizes if isinstance(size, int))
    return whole if output.shape is not None and len(whole) == len(sizes) else ()


def _words(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(f"({', '.join(map(str, ('N', *shape[1:])))})" if shape else "an unknown shape" for shape in shapes)
