"""Segmentation: the class of every pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.values import IGNORED, Mask, MaskFile, highest_class
from n2n_edge.tasks.maps import ClassMap, Overlap, as_large_as, channel_sums, class_maps, confusion, overlap_of_sums
from n2n_edge.tasks.marks import Marks
from n2n_edge.tasks.outputs import OutputKind
from n2n_edge.tasks.scaled import ScaledTask
from n2n_edge.tasks.task import Labels, LossSettings, Meter, Outputs, SampledMeter, Task, Tensors, arrays_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean

__all__ = ["Segmentation"]


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
        return as_large_as(class_maps(scores, self.form), self.size)

    def labels(self, split: Split) -> Labels | None:
        """Return the masks of every image, as large as the network's input."""
        return split.annotated(Mask)

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return masks ``(N, H, W)`` as bytes, ignored throughout where an image has none."""
        import torch

        if labels is None:
            return None
        nothing = np.full(self.size, IGNORED, np.uint8)
        masks = [nothing if label is None else _pixels(label) for label in labels]
        return torch.from_numpy(np.stack(masks)).to(device)

    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give the cross entropy of every pixel plus the Dice loss (see `maps_by_labels`)."""
        from n2n_edge.tasks.label_losses import maps_by_labels
        from n2n_edge.tasks.losses import as_logits, binary_logits

        own = self._channels(student[self.output])
        if self._single(own):
            return maps_by_labels(binary_logits(own, bounded=self.bounded), labels, mean, independent=True)
        return maps_by_labels(as_logits(own, "probabilities" if self.bounded else "logits"), labels, mean)

    def _channels(self, output: "Tensor") -> "Tensor":
        """Return the maps as ``(N, C, h, w)``."""
        return output[:, None] if self.form.axis == 0 else output.movedim(self.form.axis, 1)

    def _single(self, maps: "Tensor") -> bool:
        """Tell whether each channel says for itself whether its class is there."""
        return self.form.independent or maps.shape[1] == 1

    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give the tempered divergence from the teacher's classes as a mean over pixels, and by class (Dice).

        Of a single channel it is that of foreground and background, of independent ones that of each. Further outputs
        add their error.
        """
        from n2n_edge.tasks.losses import (
            DICE_WEIGHT,
            as_logits,
            binary_kl,
            binary_logits,
            dice_divergence,
            tempered_kl,
            values_loss,
        )

        own, theirs = (self._channels(each[self.output]) for each in (student, teacher))
        if self._single(own):
            total = binary_kl(own, theirs, settings.temperature, bounded=self.bounded)
            shares = [binary_logits(each, bounded=self.bounded).sigmoid() for each in (own, theirs)]
        else:
            kind: OutputKind = "probabilities" if self.bounded else "logits"
            logits = [as_logits(each, kind) for each in (own, theirs)]
            first, second = (each.movedim(1, -1).flatten(0, -2) for each in logits)
            total = tempered_kl(first, second, settings.temperature)
            shares = [each.softmax(1) for each in logits]
        total = total + DICE_WEIGHT * dice_divergence(shares[0], shares[1], mean)
        rest = [place for place in range(len(student)) if place != self.output]
        if rest:
            scales = self.scales_for(teacher)
            further = [student[place] for place in rest], [teacher[place] for place in rest]
            total = total + values_loss(*further, [scales[place] for place in rest], mean)
        return total

    def meter(self) -> Meter:
        """Return sums of pixels by class."""
        return _Mapped(self)

    def meter_of(self, reader: Task) -> Meter | None:
        """Return the same: maps of any size are brought to that of the image; None where classes are independent."""
        alike = isinstance(reader, Segmentation) and reader.form == self.form and not self.form.independent
        return self.meter() if alike else None

    def marks(self, outputs: Outputs) -> list[Marks]:
        """Return the maps; where no independent channel has its class, nothing is drawn."""
        maps = self.read(outputs)
        if self.form.independent:
            (scores,) = arrays_of(outputs[self.output : self.output + 1])
            none = scores.max(axis=self.form.axis) < self.form.threshold
            maps = np.where(as_large_as(none, self.size), np.uint8(0), maps)
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

    def scored(self, chosen: Sequence[int]) -> tuple[float | None, dict[str, float]]:
        if not self._labels:
            return None, {}
        told, pixels = _overlap(self._labels, chosen)
        if told.dice is None:
            return told.iou, {}
        names = self._task.class_names
        by_class = {
            f"iou:{names[kind] if kind < len(names) else kind}": value for kind, value in told.iou_by_class.items()
        }
        return told.iou, {"dice": told.dice, "pixel_accuracy": pixels, **by_class}

    def agreement(self, chosen: Sequence[int]) -> float | None:
        if not self._aims:
            return None
        met = _overlap(self._aims, chosen)[0].iou
        return float(len(chosen) > 0) if met is None else met  # both see nothing, or there is nothing to see


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
