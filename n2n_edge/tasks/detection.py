"""Detection: boxes of objects, read from raw outputs by a head, by a file's own tail, or by a user's function."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Objects
from n2n_edge.errors import InputError
from n2n_edge.importing import function_by_name, guarded, is_function_name
from n2n_edge.tasks.average_precision import Matches
from n2n_edge.tasks.boxes import Detections, Floats
from n2n_edge.tasks.head import Head, Signature
from n2n_edge.tasks.heads import fitting_heads
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.tail import Tail
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Tensors, arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.tasks.losses import Mean

__all__ = ["WORKING_SCORE", "Detection"]

WORKING_SCORE = 0.3
"""What a detector finds with at least this score counts as found, where agreement with it is measured."""

_MOST_INVERTED = 0.5
"""Part of an image's boxes that may end before they begin, as those of a poor student do."""


@dataclass(frozen=True)
class Detection(ScaledTask):
    """Boxes, scores and classes of objects.

    `reader` is the name of a head that fits `signature`, or the ``package.module:function`` of ``--decode``. `tail`
    turns what is learned into the file's outputs, where those are what the reader reads. `class_names` are those of
    the data.

    Fidelity is the average precision of a student's detections with those of the teacher, of `WORKING_SCORE` at least,
    as the objects that are there.
    """

    name = "detection"
    metric = "map"
    signature: Signature
    reader: str
    tail: Tail | None = None
    class_names: tuple[str, ...] = ()

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

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the error at the raw outputs, weighted by what the teacher sees (see `detection_loss`).

        Outputs of which the reader doesn't say where they hold what are compared as values.
        """
        if self.head is None or self.tail is not None or not self.head.layouts:
            return super().loss(student, teacher, labels, settings, mean)
        from n2n_edge.tasks.detection_loss import detection_loss

        return detection_loss(student, teacher, self.head, self.scales_for(teacher), mean=mean)

    def meter(self) -> Meter:
        """Return what gathers detections."""
        return _Detected(self)

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the boxes that count as found."""
        return [Marks.of_detections(found.above(WORKING_SCORE)) for found in self.read(outputs)]

    def to_json(self) -> Mapping[str, Any]:
        """Return what makes the reader again."""
        return {"task": self.name, "reader": self.reader}


class _Detected(Meter):
    """Detections by image, with the labels and what the teacher found."""

    def __init__(self, task: Detection) -> None:
        self._task = task
        self._found: list[Detections] = []
        self._aims: list[Objects] = []
        self._labels: list[Objects | None] = []
        self._labelled: list[int] = []
        self._matches: tuple[Matches, Matches | None] | None = None

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        self._matches = None
        found = self._task.read(outputs)
        self._found += found
        if teacher is not None:
            self._aims += _READINGS.of(self._task, teacher)
        if labels is not None:
            self._labels += [each if isinstance(each, Objects) else None for each in labels]

    def evaluation(self) -> Evaluation:
        return self._of(None)

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation | None:
        return self._of(chosen.tolist())

    def _of(self, chosen: Sequence[int] | None) -> Evaluation:
        if self._matches is None:  # once for all samples
            self._labelled = [place for place, label in enumerate(self._labels) if label is not None]
            objects = [self._labels[place] or _NOTHING for place in self._labelled]
            self._matches = (
                Matches([self._found[place] for place in self._labelled], objects),
                Matches(self._found, self._aims) if self._aims else None,
            )
        with_labels, with_teacher = self._matches
        score, details, precision = None, {}, None
        places = {place: index for index, place in enumerate(self._labelled)}
        labelled = None if chosen is None else [places[place] for place in chosen if place in places]
        if self._labelled and labelled != []:
            told = with_labels.average_precision(labelled)
            score = told.value
            if told.at_50 is not None:
                precision = told.precision
                details = {"ap50": told.at_50, **{f"ap:{self._name(k)}": v for k, v in told.by_class.items()}}
        agreement = None
        if with_teacher is not None:
            met = with_teacher.average_precision(chosen)
            agreement = met.value if met.value is not None else self._silence(chosen)
            if not self._labelled and met.at_50 is not None:
                precision = met.precision
        count = len(self._found if chosen is None else chosen)
        curve = () if precision is None else tuple(precision.tolist())
        return Evaluation(score, agreement, count, details=details, precision=curve)

    def _silence(self, chosen: Sequence[int] | None) -> float:
        """Return the agreement with a teacher that sees nothing in any image."""
        own = self._found if chosen is None else [self._found[place] for place in chosen]
        return 0.0 if any(len(found.above(WORKING_SCORE)) for found in own) else 1.0

    def _name(self, kind: int) -> str:
        names = self._task.class_names
        return names[kind] if kind < len(names) else str(kind)


_NOTHING = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))


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
