"""Segmentation: a map of classes, compared pixel by pixel."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Mask, MaskFile
from n2n_edge.errors import InputError
from n2n_edge.tasks.maps import ClassMap, Counts, class_maps, overlap_of, resized_classes, tallies
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import OutputKind
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, Task, Tensors, arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.tasks.channels import ChannelScale
    from n2n_edge.tasks.losses import Mean

__all__ = ["Segmentation"]


@dataclass(frozen=True)
class Segmentation(Task):
    """A class for every pixel, read from the first output by `form`; further outputs are compared as values.

    `independent` says that a Sigmoid ends the graph, `probabilities` that a Softmax does; else the output is logits.
    A map that is smaller than the network's input is enlarged to the mask's size, each pixel taking the nearest class,
    before it is compared with a mask. Fidelity is the mean intersection over union with the teacher's map.
    """

    name = "segmentation"
    metric = "miou"
    form: ClassMap
    independent: bool = False
    probabilities: bool = False
    class_names: tuple[str, ...] = ()
    scales: "tuple[ChannelScale, ...] | None" = field(default=None, compare=False)

    def labels(self, split: Split) -> Labels | None:
        """Return masks in pixels of the network's input, by image."""
        annotations = split.annotations
        if annotations is None:
            return None
        kinds = getattr(annotations, "kinds", None) or {type(each) for each in annotations}
        return annotations if kinds & {Mask, MaskFile} else None

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the tempered divergence from the teacher's distribution at each pixel, averaged over the pixels.

        It is the KL over the classes, or, of a single channel and of channels that end in a Sigmoid, that of each
        number being there or not. Further outputs add the error of values.
        """
        from n2n_edge.tasks.channels import channel_scales
        from n2n_edge.tasks.losses import as_logits, binary_kl, tempered_kl, values_loss

        own, theirs = student[0], teacher[0]
        if self.independent or self.form.axis == 0 or own.shape[self.form.axis] == 1:
            found = binary_kl(own, theirs, settings.temperature, probabilities=self.independent)
        else:
            kind: OutputKind = "probabilities" if self.probabilities else "logits"
            rows = [
                as_logits(each, kind).movedim(self.form.axis, -1).reshape(-1, each.shape[self.form.axis])
                for each in (own, theirs)
            ]
            found = tempered_kl(rows[0], rows[1], settings.temperature)
        if len(student) > 1:
            scales = self.scales or channel_scales([teacher[1:]])
            found = found + values_loss(student[1:], teacher[1:], scales, mean)
        return found

    def meter(self) -> Meter:
        """Return counts of pixels by class."""
        return _Segmented(self)

    def measured(self, teacher: Callable[[], Iterable[Tensors]]) -> "Task":
        """Return the task with the scales of the channels of further outputs."""
        from n2n_edge.tasks.channels import channel_scales

        batches = iter(teacher())
        first = next(batches, None)
        if first is None or len(first) == 1:
            return self
        further = [first[1:], *(each[1:] for each in batches)]
        return replace(self, scales=channel_scales(further))

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the maps."""
        return [Marks(area=each) for each in class_maps(arrays_of(outputs[:1])[0], self.form)]

    def to_json(self) -> Mapping[str, Any]:
        """Return the name; how the output is read follows from the graph."""
        return {"task": self.name}


class _Segmented(Meter):
    """Pixels by class of every image, against its mask and against the teacher's map."""

    def __init__(self, task: Segmentation) -> None:
        self._task, self._seen = task, 0
        self._labelled: list[Counts] = []
        self._agreeing: list[Counts] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        form = self._task.form
        found = class_maps(arrays_of(outputs[:1])[0], form)
        self._seen += len(found)
        if teacher is not None:
            self._agreeing += list(tallies(found, class_maps(arrays_of(teacher[:1])[0], form), form.classes))
        if labels is not None:
            self._labelled += [self._against(own, label) for own, label in zip(found, labels, strict=True)]

    def _against(self, found: NDArray[np.uint8], label: object) -> Counts:
        """Return the counts of an image, which are nought without a mask."""
        classes = self._task.form.classes
        mask = label.read() if isinstance(label, MaskFile) else label
        if not isinstance(mask, Mask):
            return np.zeros((3, classes), np.int64)
        beyond = mask.pixels[(mask.pixels >= classes) & (mask.pixels != 255)]
        if beyond.size:
            raise InputError(f"a mask holds class {beyond[0]}, but the model has {classes} classes, from 0")
        height, width = mask.pixels.shape
        counts: Counts = tallies(resized_classes(found[None], height, width), mask.pixels[None], classes)[0]
        return counts

    def evaluation(self) -> Evaluation:
        return self.resampled(np.arange(self._seen))

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation:
        score, details = None, {}
        if self._labelled:
            counts = _summed(self._labelled, chosen, self._task.form.classes)
            told = overlap_of(counts)
            score = told.iou
            if told.dice is not None:
                right = float(counts[0].sum() / counts[1].sum())
                by_class = {f"iou:{self._name(kind)}": value for kind, value in told.iou_by_class.items()}
                details = {"dice": told.dice, "pixel_accuracy": right, **by_class}
        agreement = None
        if self._agreeing:
            agreement = overlap_of(_summed(self._agreeing, chosen, self._task.form.classes)).iou
        return Evaluation(score, agreement, len(chosen), details=details)

    def _name(self, kind: int) -> str:
        names = self._task.class_names
        return names[kind] if kind < len(names) else str(kind)


def _summed(counts: list[Counts], chosen: NDArray[np.intp], classes: int) -> Counts:
    total = np.zeros((3, classes), np.int64)
    for image, times in zip(*np.unique(chosen, return_counts=True), strict=True):
        total += counts[image] * times
    return total
