"""Segmentation: the class of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import Mask, MaskFile, highest_class
from n2n_edge.tasks.maps import ClassMap, Overlap, channel_sums, class_maps, confusion, overlap_of_sums
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import OutputKind
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, SampledMeter, Tensors, arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from n2n_edge.tasks.losses import Mean

__all__ = ["Segmentation"]

_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True)
class Segmentation(ScaledTask):
    """A map of classes, read from output number `output` as `form` says.

    `bounded`: it holds probabilities, else logits. `size` is the input's (height, width): maps of another size take the
    nearest pixel, so that they are compared as large as the image. Further outputs are compared as values.
    Fidelity is the intersection over union with the teacher's map, of independent channels with what is at least a half
    in the teacher's.
    """

    name = "segmentation"
    metric = "miou"
    form: ClassMap
    size: tuple[int, int]
    bounded: bool = False
    output: int = 0
    class_names: tuple[str, ...] = ()

    def read(self, outputs: Outputs) -> NDArray[np.uint8]:
        """Return the class of every pixel of the input, ``(N, H, W)``."""
        (scores,) = arrays_of(outputs[self.output : self.output + 1])
        return self._as_image(class_maps(scores, self.form))

    def _as_image(self, maps: NDArray[_Kind]) -> NDArray[_Kind]:
        """Return maps ``(N, h, w)`` as large as the input."""
        rows, columns = (
            ((np.arange(wanted) + 0.5) * own / wanted).astype(np.int64)
            for wanted, own in zip(self.size, maps.shape[1:], strict=True)
        )
        return maps[:, rows[:, None], columns]

    def labels(self, split: Split) -> Labels | None:
        """Return the masks of every image, as large as the network's input."""
        return split.annotated(Mask)

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the mean over pixels of the tempered divergence from the teacher's classes, and the error of the rest.

        Of a single channel it is that of foreground and background, of independent ones that of each.
        """
        from n2n_edge.tasks.losses import as_logits, binary_kl, tempered_kl, values_loss

        own, theirs = student[self.output], teacher[self.output]
        if self.form.axis == 0 or self.form.independent or own.shape[self.form.axis] == 1:
            total = binary_kl(own, theirs, settings.temperature, bounded=self.bounded)
        else:
            kind: OutputKind = "probabilities" if self.bounded else "logits"
            first, second = (as_logits(each.movedim(self.form.axis, -1).flatten(0, -2), kind) for each in (own, theirs))
            total = tempered_kl(first, second, settings.temperature)
        rest = [place for place in range(len(student)) if place != self.output]
        if rest:
            scales = self.scales_for(teacher)
            further = [student[place] for place in rest], [teacher[place] for place in rest]
            total = total + values_loss(*further, [scales[place] for place in rest], mean)
        return total

    def meter(self) -> Meter:
        """Return sums of pixels by class."""
        return _Mapped(self)

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the maps; where no independent channel has its class, nothing is drawn."""
        maps = self.read(outputs)
        if self.form.independent:
            (scores,) = arrays_of(outputs[self.output : self.output + 1])
            none = scores.max(axis=self.form.axis) < self.form.threshold
            maps = np.where(self._as_image(none), np.uint8(0), maps)
        return [Marks(area=area) for area in maps]


_Sums = NDArray[np.int64]
"""Pixels by class ``(3, classes)``: hit, there, and given."""


class _Mapped(SampledMeter):
    def __init__(self, task: Segmentation) -> None:
        super().__init__()
        self._task = task
        self._aims: list[_Sums] = []
        self._labels: list[_Sums] = []

    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        maps = self._task.read(outputs)
        self.seen += len(maps)
        if teacher is not None and self._task.form.independent:
            own, theirs = (arrays_of(each[self._task.output :][:1])[0] for each in (outputs, teacher))
            self._aims += list(channel_sums(own, theirs, self._task.form))
        elif teacher is not None:
            self._aims += _sums(maps, self._task.read(teacher), self._task.form.classes)
        if labels is not None:
            for own, label in zip(maps, labels, strict=True):
                if label is None:
                    self._labels.append(np.zeros((3, self._task.form.classes), np.int64))
                    continue
                aim = _pixels(label)
                classes = max(self._task.form.classes, 1 + highest_class(Mask(aim)))
                self._labels += _sums(own[None], aim[None], classes)

    def of(self, chosen: Sequence[int]) -> Evaluation:
        score, details = None, {}
        if self._labels:
            told, pixels = _overlap(self._labels, chosen)
            score = told.iou
            if told.dice is not None:
                names = self._task.class_names
                by_class = told.iou_by_class.items()
                details = {
                    "dice": told.dice,
                    "pixel_accuracy": pixels,
                    **{f"iou:{names[kind] if kind < len(names) else kind}": value for kind, value in by_class},
                }
        fidelity = None
        if self._aims:
            met = _overlap(self._aims, chosen)[0].iou
            fidelity = float(len(chosen) > 0) if met is None else met  # both see nothing, or there is nothing to see
        return Evaluation(score, fidelity, len(chosen), details=details)


def _pixels(label: Any) -> NDArray[np.uint8]:
    if isinstance(label, MaskFile):
        label = label.read()
    if not isinstance(label, Mask):
        raise ValueError(f"an image to be scored has no mask but {type(label).__name__}")
    return label.pixels


def _sums(own: NDArray[np.uint8], aim: NDArray[np.uint8], classes: int) -> list[_Sums]:
    """Return the sums of each image."""
    counts = confusion(own, aim, classes)
    return [np.stack([np.diagonal(each), each.sum(axis=1), each.sum(axis=0)]) for each in counts]


def _overlap(sums: Sequence[_Sums], chosen: Sequence[int]) -> tuple[Overlap, float]:
    """Return the overlap of some images together, and the share of pixels that are right."""
    classes = max(each.shape[1] for each in sums)
    total = np.zeros((3, classes), np.int64)
    for place in chosen:
        each = sums[place]
        total[:, : each.shape[1]] += each
    return overlap_of_sums(*total), float(total[0].sum() / max(1, total[1].sum()))
