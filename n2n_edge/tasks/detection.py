"""Detection: boxes of objects, read from raw outputs by a head, by a file's own tail, or by a user's function."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Objects
from n2n_edge.errors import InputError
from n2n_edge.importing import function_by_name, guarded, is_function_name
from n2n_edge.tasks.average_precision import AveragePrecision, Matches
from n2n_edge.tasks.boxes import Detections, Floats
from n2n_edge.tasks.head import Head, OutputForm, Signature
from n2n_edge.tasks.heads import fitting_heads
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.selected import Selected, selected_in
from n2n_edge.tasks.tail import Tail
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, SampledMeter, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean

__all__ = ["WORKING_SCORE", "Detection"]

WORKING_SCORE = 0.3
"""What a detector finds with at least this score counts as found, where agreement with it is measured."""

_LEAST_LEFT = 0.25
"""Part of an object's box that a crop has to leave of it for the object to be one."""

_MOST_INVERTED = 0.5
"""Part of an image's boxes that may end before they begin, as those of a poor student do."""


@dataclass(frozen=True)
class Detection(ScaledTask):
    """Boxes, scores and classes of objects.

    `reader` is the name of a head that fits `signature`, or the ``package.module:function`` of ``--decode``. `tail`
    turns what is learned into the file's outputs, where those are what the reader reads; `learned` are the forms of
    what goes into it, and `code` how its boxes are written (see `Selected.code_of`), None where that isn't told.
    `class_names` are those of the data.

    Fidelity is the average precision of a student's detections with those of the teacher, of `WORKING_SCORE` at least,
    as the objects that are there.
    """

    name = "detection"
    metric = "map"
    signature: Signature
    reader: str
    tail: Tail | None = None
    class_names: tuple[str, ...] = ()
    learned: tuple[OutputForm, ...] = ()
    code: str | None = None

    def __getstate__(self) -> dict[str, object]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)

    @cached_property
    def head(self) -> Head | None:
        """The head that reads the outputs; None where a user's function does."""
        if is_function_name(self.reader):
            return None
        return next(head for head in fitting_heads(self.signature) if head.name == self.reader)

    @cached_property
    def selected(self) -> "Selected | None":
        """What is known of values that a selection or a user's function reads; None where boxes aren't told."""
        raw = self.tail is None and self.head is not None and self.head.layouts
        return None if raw else selected_in(self.learned)

    @cached_property
    def _coded(self) -> Head | None:
        """What says how the learned values code boxes; None where nothing does."""
        if self.selected is not None and self.code is not None:
            return self.selected.coded(self.code, (self.signature.height, self.signature.width))
        if self.tail is not None or self.head is None or not self.head.layouts or self.head.boxes is None:
            return None
        return self.head

    @cached_property
    def _function(self) -> Callable[..., object]:
        return function_by_name("‹decode›", self.reader)

    def read(self, outputs: Outputs, most: int = 100) -> list[Detections]:
        """Return the detections of every image from what is learned, best first, `most` an image at most.

        Boxes end at the edges of the input, as labels do.

        Raises:
            InputError: a user's function failed, or gives something else.
        """
        arrays = [each.astype(np.float32, copy=False) for each in arrays_of(outputs)]
        if self.tail is not None:
            arrays = self.tail.run(arrays)
        if self.head is not None:
            return [self._within(found) for found in self.head.read(arrays, most=most)]
        what = f"‹decode› {self.reader}"
        with guarded(f"{what}: the function"):
            decoded = self._function(arrays)
        return [self._within(found) for found in _checked(what, decoded, len(arrays[0]), most)]

    def _within(self, found: Detections) -> Detections:
        frame = np.array([self.signature.width, self.signature.height] * 2, np.float32)
        return replace(found, boxes=np.clip(found.boxes, 0, frame))

    def labels(self, split: Split) -> Labels | None:
        """Return the objects of every image, in pixels of the network's input."""
        return split.annotated(Objects)

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return objects as rows (see `as_rows`); None where the reader doesn't say how outputs code them."""
        if labels is None or self._coded is None:
            return None
        from n2n_edge.tasks.detection_labels import as_rows

        return as_rows([each if isinstance(each, Objects) else None for each in labels]).to(device)

    def moved(
        self, label: Any, matrix: Floats | None, size: tuple[int, int], flip_index: Sequence[int] | None = None
    ) -> Any:
        """Return objects that followed their image; those of which little is left are neither there nor missing."""
        if not isinstance(label, Objects) or matrix is None:
            return None
        plain = Objects(label.boxes, np.arange(len(label)))
        left = super().moved(plain, matrix, size, flip_index)
        whole = np.abs(matrix[0, 0] * matrix[1, 1]) * _areas(label.boxes[left.classes])
        crowd = _areas(left.boxes) < _LEAST_LEFT * whole
        if label.crowd is not None:
            crowd |= label.crowd[left.classes].astype(bool)
        return Objects(left.boxes, label.classes[left.classes], crowd)

    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give the error at the raw outputs, weighted by what the teacher sees (see `detection_loss`).

        Of outputs of which the reader doesn't say where they hold what boxes and scores are told by their sizes (see
        `selected_in`), and where that can't be they are compared as values.
        """
        if self.selected is not None:
            from n2n_edge.tasks.selected_loss import selected_loss

            return selected_loss(self.selected, student, teacher, self.scales_for(teacher), mean)
        if self.head is None or self.tail is not None or not self.head.layouts:
            return super().divergence(student, teacher, settings, mean)
        from n2n_edge.tasks.detection_loss import detection_loss

        return detection_loss(student, teacher, self.head, self.scales_for(teacher), mean=mean)

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give what the anchors of labelled objects say wrongly (see `detection_by_labels`)."""
        assert self._coded is not None
        if self.selected is not None:
            from n2n_edge.tasks.selected_loss import selected_by_labels

            return selected_by_labels(self.selected, self._coded, student, teacher, labels, mean)
        from n2n_edge.tasks.detection_labels import detection_by_labels

        return detection_by_labels(student, teacher, labels, self._coded, mean)

    def meter(self) -> Meter:
        """Return what gathers detections."""
        return _Detected(self)

    def meter_of(self, reader: Task) -> Meter | None:
        """Return what gathers detections of another reader, brought to this input's size."""
        return _Detected(self, reader) if isinstance(reader, Detection) else None

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the boxes that count as found."""
        return [Marks.of_detections(found.above(WORKING_SCORE)) for found in self.read(outputs)]

    def to_json(self) -> Mapping[str, Any]:
        """Return what makes the reader again."""
        return {"task": self.name, "reader": self.reader}


class _Detected(SampledMeter):
    """Detections by image, with the labels and what the teacher found, each matched once for all samples."""

    def __init__(self, task: Detection, reader: Detection | None = None) -> None:
        super().__init__()
        self._task = task
        self._reader = task if reader is None else reader
        own, theirs = task.signature, self._reader.signature
        self._scale = np.array([own.width / theirs.width, own.height / theirs.height] * 2, np.float32)
        self._found: list[Detections] = []
        self._aims: list[Objects] = []
        self._labels: list[Objects | None] = []
        self._with_labels: tuple[Matches, dict[int, int]] | None = None
        self._with_teacher: Matches | None = None

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._with_labels = self._with_teacher = None
        found = self._reader.read(outputs)
        if self._reader is not self._task:
            found = [replace(each, boxes=each.boxes * self._scale) for each in found]
        self._found += found
        self.seen += len(found)
        if teacher is not None:
            self._aims += _READINGS.of(self._task, teacher)
        if labels is not None:
            self._labels += [each if isinstance(each, Objects) else None for each in labels]

    def scored(self, chosen: Sequence[int]) -> tuple[float | None, dict[str, float]]:
        told = self._told(chosen)
        if told is None or told.at_50 is None:
            return None, {}
        return told.value, {"ap50": told.at_50, **{f"ap:{self._name(k)}": v for k, v in told.by_class.items()}}

    def agreement(self, chosen: Sequence[int]) -> float | None:
        if not self._aims:
            return None
        met = self._met(chosen)
        if met.value is not None:
            return met.value
        seen = any(len(self._found[place].above(WORKING_SCORE)) for place in chosen)
        return 0.0 if seen else 1.0  # nothing is there to be found

    def of(self, chosen: Sequence[int]) -> Evaluation:
        labelled = any(label is not None for label in self._labels)
        told = self._told(chosen) if labelled else self._met(chosen) if self._aims else None
        curve = () if told is None or told.at_50 is None else tuple(told.precision.tolist())
        return replace(super().of(chosen), precision=curve)

    def _told(self, chosen: Sequence[int]) -> AveragePrecision | None:
        """Return what the labels of these images say, None where none has one."""
        if self._with_labels is None:
            objects = {place: each for place, each in enumerate(self._labels) if each is not None}
            matches = Matches([self._found[place] for place in objects], list(objects.values()))
            self._with_labels = matches, {place: index for index, place in enumerate(objects)}
        matches, places = self._with_labels
        labelled = [places[place] for place in chosen if place in places]
        return matches.average_precision(None if chosen == range(self.seen) else labelled) if labelled else None

    def _met(self, chosen: Sequence[int]) -> AveragePrecision:
        if self._with_teacher is None:
            self._with_teacher = Matches(self._found, self._aims)
        return self._with_teacher.average_precision(None if chosen == range(self.seen) else chosen)

    def _name(self, kind: int) -> str:
        names = self._task.class_names
        return names[kind] if kind < len(names) else str(kind)


class _Readings:
    """What a teacher found in batches that are looked at again and again, as candidates are evaluated."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[weakref.ref[Any], list[Objects]]] = {}

    def of(self, task: Detection, outputs: Outputs) -> list[Objects]:
        """Return the objects of a batch; a batch is the same while its first output is the same object."""
        key = (id(outputs[0]), task.reader)
        kept = self._kept.get(key)
        if kept is not None and kept[0]() is outputs[0]:
            return kept[1]
        objects = [_as_objects(found) for found in task.read(outputs)]
        self._kept = {name: pair for name, pair in self._kept.items() if pair[0]() is not None}
        self._kept[key] = weakref.ref(outputs[0]), objects
        return objects


_READINGS = _Readings()


def _areas(boxes: Floats) -> Floats:
    areas: Floats = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _as_objects(found: Detections) -> Objects:
    sure = found.above(WORKING_SCORE)
    return Objects(sure.boxes, sure.classes)


def _checked(what: str, decoded: object, images: int, most: int) -> list[Detections]:
    """Return what a user's function gave as detections; raises InputError where it isn't boxes, scores and classes."""
    wanted = "it must give boxes (N, M, 4), scores (N, M) and classes (N, M), or lists of N arrays (M, 4), (M), (M)"
    if not isinstance(decoded, tuple | list) or len(decoded) != 3:
        raise InputError(f"{what} gave {type(decoded).__name__} instead of three things: {wanted}")
    parts: list[Sequence[Floats]] = []
    for name, part in zip(("boxes", "scores", "classes"), decoded, strict=True):
        try:
            arrays = [np.asarray(each, np.float32) for each in part]
        except (TypeError, ValueError) as error:
            raise InputError(f"{what}: its {name} are no numbers; {wanted}") from error
        if len(arrays) != images:
            raise InputError(f"{what}: gave {name} of {len(arrays)} images for {images}; {wanted}")
        parts.append(arrays)
    found = []
    for boxes, scores, classes in zip(*parts, strict=True):
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        count = len(boxes)
        if boxes.shape != (count, 4) or scores.shape != (count,) or classes.shape != (count,):
            shapes = ", ".join(str(tuple(each.shape)) for each in (boxes, scores, classes))
            raise InputError(f"{what}: gave {shapes} for one image; {wanted}")
        if count and (classes.min() < 0 or (classes != np.round(classes)).any()):
            raise InputError(f"{what}: classes must be whole numbers from 0; {wanted}")
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise InputError(f"{what}: gave numbers that aren't finite")
        if count and (boxes[:, 2:] < boxes[:, :2]).any(axis=1).mean() > _MOST_INVERTED:
            raise InputError(
                f"{what}: boxes end before they begin; give left, top, right, bottom, not centres and sizes"
            )
        best = np.argsort(-scores, kind="stable")[:most]
        found.append(Detections(boxes[best], scores[best], classes[best].astype(np.int64)))
    return found
