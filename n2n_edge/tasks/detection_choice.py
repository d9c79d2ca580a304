"""Choice of a detector's reader: by its outputs, by what it finds on some images, as recorded, or as asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.data.labels.values import Objects
from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.learned import with_learned_outputs
from n2n_edge.importing import function_by_name
from n2n_edge.tasks.average_precision import average_precision
from n2n_edge.tasks.detection import WORKING_SCORE, Detection
from n2n_edge.tasks.head import Head, Signature, signature_of
from n2n_edge.tasks.heads import HEAD_NAMES, fitting_heads
from n2n_edge.tasks.tail import Tail, has_image_axis, tail_of
from n2n_edge.tasks.task import Array

__all__ = ["choose_detection", "classes_of_detector"]

_LOOKED_AT = 16
_LEAST_EDGE = 2.0
"""Pixels: what is narrower is no object that a box was meant for."""

_LOOSE = ("end-to-end", "listed")
"""Heads whose outputs many other networks have, too."""


@dataclass(frozen=True)
class _Reader:
    signature: Signature
    head: Head
    tail: Tail | None

    @property
    def safe(self) -> bool:
        """Whether hardly anything but a detector ends so."""
        outputs = self.signature.outputs
        match self.head.name:
            case "yolov8-maps":
                return len(outputs) > 1
            case "fastestdet":
                return bool(outputs[0].parts)
        return self.head.name not in _LOOSE


def choose_detection(
    model: ir.Model, data: Data, *, asked: bool, decode: str | None = None, recorded: Mapping[str, object]
) -> tuple[Detection, str] | None:
    """Return the task of a detector, and why its outputs are read so; None where a model isn't taken for one.

    `asked` says that it is one. `decode` is a user's function, `recorded` what a file's metadata say of its task.

    Raises:
        InputError: it is asked for, and no reader fits; or a function that isn't there.
    """
    height, width = data.input_shape[1:]
    if decode is not None:
        function_by_name("‹decode›", decode)
        learned = _signature(with_learned_outputs(model), height, width).outputs
        signature = _signature(model, height, width)
        task = Detection(signature, decode, tail_of(model), data.class_names, learned)
        return _coded(task, model, data), f"read by {decode}"
    readers = _readers(model, height, width)
    labelled = data.validation.annotated(Objects) is not None
    name = recorded.get("reader") if recorded.get("task") == Detection.name else None
    if isinstance(name, str) and name not in HEAD_NAMES:
        code = printable(name)
        raise InputError(f"the model's metadata name code for its outputs, {code}: give ‹decode› {code} to use it")
    if name is not None:
        readers = [each for each in readers if each.head.name == name]
    elif not (asked or labelled):
        readers = [each for each in readers if each.safe]
    if not readers:
        if not asked and name is None:
            return None
        shapes = ", ".join(
            str(("N", *each.shape)).replace("'", "") for each in _signature(model, height, width).outputs
        )
        raise InputError(
            f"‹task› detection: the model gives {shapes}, and no head that is known ({', '.join(HEAD_NAMES)}) has such "
            "outputs; give ‹decode› package.module:function that reads boxes, scores and classes"
        )
    best, why = readers[0], "as its metadata record" if name is not None else "by the form of its outputs"
    if len(readers) > 1:
        best, why = _by_what_they_find(model, data, readers)
    classes = best.head.classes
    of = f" of {classes} class{'es' if classes > 1 else ''}" if classes else ""
    behind = ", behind the file's own selection" if best.tail is not None else ""
    learned = _signature(with_learned_outputs(model), height, width).outputs
    task = Detection(best.signature, best.head.name, best.tail, data.class_names, learned)
    return _coded(task, model, data), f"head {best.head.name}{of}{behind}; {why}"


def _coded(task: Detection, model: ir.Model, data: Data) -> Detection:
    """Return the task with how what it selects among is written, where labels may teach and that can be told."""
    if task.selected is None or data.train.annotated(Objects) is None:
        return task
    images = data.validation.take(np.arange(min(_LOOKED_AT, len(data.validation))))
    outputs = ImageSession.learned(model).run(data.inputs(np.asarray(images.images[:])))
    found = task.read(outputs)
    return replace(task, code=task.selected.code_of(outputs, found, data.input_shape[1:]))


def classes_of_detector(model: ir.Model, height: int, width: int) -> int | None:
    """Return how many classes a detector tells apart, None where its outputs don't say, or fit several heads."""
    counts = {each.head.classes for each in _readers(model, height, width)}
    return next(iter(counts)) or None if len(counts) == 1 else None


def _readers(model: ir.Model, height: int, width: int) -> list[_Reader]:
    """Return what may read a model's outputs: heads of what is learned, and of its own outputs behind a tail."""
    signature = _signature(with_learned_outputs(model), height, width)
    readers = [_Reader(signature, head, None) for head in fitting_heads(signature)]
    tail = tail_of(model)
    if tail is not None:
        whole = _signature(model, height, width)
        readers += [_Reader(whole, head, tail) for head in fitting_heads(whole)]
    return readers


def _signature(model: ir.Model, height: int, width: int) -> Signature:
    shapes = [_sizes(output, model) for output in model.graph.outputs]
    if any(shape is None for shape in shapes):
        image = np.zeros((1, _channels(model), height, width), np.float32)
        shapes = [tuple(output.shape) for output in ImageSession(model).run(image)]
    return signature_of(model, height, width, [shape for shape in shapes if shape is not None])


def _channels(model: ir.Model) -> int:
    from n2n_edge.graph.input_shape import image_shape

    return image_shape(model)[0]


def _sizes(output: ir.Value, model: ir.Model) -> tuple[int, ...] | None:
    """Return the sizes of an output for one image, with the axis for it, None where they aren't noted."""
    if output.shape is None or not len(output.shape):
        return None
    sizes = [1, *list(output.shape)[1 if has_image_axis(output, model) else 0 :]]
    return tuple(size for size in sizes if isinstance(size, int)) if all(isinstance(s, int) for s in sizes) else None


def _by_what_they_find(model: ir.Model, data: Data, readers: Sequence[_Reader]) -> tuple[_Reader, str]:
    """Return the reader that agrees best with labels, or finds the most that may be objects, and why."""
    images = data.validation.take(np.arange(min(_LOOKED_AT, len(data.validation))))
    session = ImageSession.learned(model)
    outputs = session.run(data.inputs(np.asarray(images.images[:])))
    labels = list(images.annotations or ())
    labelled = [place for place, each in enumerate(labels) if isinstance(each, Objects)]
    objects = [each for each in labels if isinstance(each, Objects)]
    if labelled:  # only those say which reader is right
        outputs = [output[labelled] for output in outputs]
    value = partial(_precision, objects) if labelled else partial(_sensible, data.input_shape[1:])
    best = max(readers, key=lambda each: _value(each, outputs, value))
    others = ", ".join(sorted({each.head.name for each in readers} - {best.head.name}))
    how = "finds the labels best" if labelled else "finds the most that looks like objects"
    return best, f"of the heads that fit ({others} too) it {how} on {len(outputs[0])} images"


def _value(reader: _Reader, outputs: Sequence[Array], value: "Callable[[Detection, Sequence[Array]], float]") -> float:
    try:
        return value(Detection(reader.signature, reader.head.name, reader.tail), outputs)
    except (ValueError, IndexError):  # what looked like its outputs isn't
        return -1.0


def _precision(objects: Sequence[Objects], task: Detection, outputs: Sequence[Array]) -> float:
    return average_precision(task.read(outputs), objects).value or 0.0


def _sensible(size: tuple[int, int], task: Detection, outputs: Sequence[Array]) -> float:
    """Return the share of detections whose boxes have an area and lie in the image, times that of images with any."""
    height, width = size
    found = [each.above(WORKING_SCORE) for each in task.read(outputs)]
    boxes = np.concatenate([each.boxes for each in found])
    if not len(boxes):
        return 0.0
    edges = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    within = (edges >= _LEAST_EDGE).all(axis=1) & (edges <= 1.2 * np.array([width, height])).all(axis=1)
    within &= ((centres >= 0) & (centres <= (width, height))).all(axis=1)
    return float(within.mean()) * sum(0 < len(each) < 100 for each in found) / len(found)
