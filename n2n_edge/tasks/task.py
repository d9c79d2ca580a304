"""What a network does: how its outputs are read, compared, taught and scored, as one object."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from n2n_edge.data.dataset import Split
from n2n_edge.data.labels.geometry import moved_label
from n2n_edge.data.labels.values import Floats, Label
from n2n_edge.tasks.metrics import Evaluation, LabelMetric

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from n2n_edge.tasks.losses import LabelLoss, Mean
    from n2n_edge.tasks.marks import Marks

__all__ = [
    "Array",
    "JoinedTask",
    "Labels",
    "LossSettings",
    "Meter",
    "Outputs",
    "SampledMeter",
    "Task",
    "Tensors",
    "arrays_of",
    "meter_between",
]

Array = NDArray[np.generic]

Tensors = Sequence["Tensor"]
"""What a network gives for a batch in training: its outputs, each ``(N, ...)``."""

Outputs = Sequence["Tensor | NDArray[Any]"]
"""The same, of torch or of ONNX Runtime."""

Labels = Sequence[Any] | NDArray[Any]
"""What images are labelled with, by image; a slice gives those of some."""


class LossSettings(Protocol):
    """What a loss wants to know of `DistillSettings`."""

    @property
    def temperature(self) -> float:
        """The temperature at which distributions of classes are compared."""

    @property
    def kd_weight(self) -> float:
        """What the teacher counts where an image is labelled, the rest being the labels' share."""

    @property
    def label_smoothing(self) -> float:
        """The share of a label that goes to all classes alike."""


class Meter(ABC):
    """Adds up how good outputs are, batch by batch; works on arrays, so that a board or CI job needs no torch."""

    @abstractmethod
    def add(self, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
        """Take in the outputs for further images.

        With the teacher's and the labels where there are any: for all images or for none. A label may be None.
        """

    @abstractmethod
    def evaluation(self) -> Evaluation:
        """Return what all images showed."""

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation | None:
        """Return what these images would have shown, by number in the order they came, some of them several times.

        None where a meter keeps too little to tell.
        """
        return None

    def score_of(self, chosen: NDArray[np.intp]) -> float | None:
        """Return the score alone of what `resampled` gives; a meter that needn't compare with the teacher for it may.

        None where there is none.
        """
        found = self.resampled(chosen)
        return None if found is None else found.score


class SampledMeter(Meter):
    """A meter that keeps what it needs of every image, `seen` so far, and tells of any of them alike.

    Of these, by number in the order they came, some may be chosen several times.
    """

    def __init__(self) -> None:
        self.seen = 0

    @abstractmethod
    def scored(self, chosen: Sequence[int]) -> tuple[float | None, Mapping[str, float]]:
        """Return the score of these images, None without labels, and the details."""

    @abstractmethod
    def agreement(self, chosen: Sequence[int]) -> float | None:
        """Return the fidelity of these images, None without a teacher."""

    def of(self, chosen: Sequence[int]) -> Evaluation:
        """Return what these images show."""
        score, details = self.scored(chosen)
        return Evaluation(score, self.agreement(chosen), len(chosen), details=details)

    def evaluation(self) -> Evaluation:
        """Return what all images showed."""
        return self.of(range(self.seen))

    def resampled(self, chosen: NDArray[np.intp]) -> Evaluation:
        """Return what these images would have shown."""
        return self.of(chosen.tolist())

    def score_of(self, chosen: NDArray[np.intp]) -> float | None:
        """Return the score alone."""
        return self.scored(chosen.tolist())[0]


class Task(ABC):
    """What a network does.

    `name` is what `--task` calls it, `metric` what its labels are scored by. `meter_tells_loss` says that
    ``Evaluation.error`` is the loss of all images by the teacher's outputs alone, which elsewhere is the mean of their
    batches'. A task is a value: it
    is sent to other processes, and `to_json` is recorded in what ships. Importing one imports no torch; `loss` does.
    """

    name: ClassVar[str]
    metric: ClassVar[LabelMetric]
    meter_tells_loss: ClassVar[bool] = False

    @abstractmethod
    def labels(self, split: Split) -> Labels | None:
        """Return what outputs are scored by, None where a split has no such labels."""

    @abstractmethod
    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give the loss of one batch, a scalar.

        Where processes share a batch, `mean` is that over all of them, and the mean of what each returns is the loss.
        """

    def taught(self, labels: Labels | None, device: "torch.device") -> "Tensor | None":
        """Return labels of a batch as the loss takes them, a row for each image, None where it takes none."""
        return None

    def moved(
        self, label: Any, matrix: "Floats | None", size: tuple[int, int], flip_index: Sequence[int] | None = None
    ) -> Any:
        """Return an image's label after augmentation changed the image, None where it has none any more.

        `matrix` moves pixels of the image within its frame of `size` (see `transformed`), None where that isn't known;
        `flip_index` says which point each becomes in a mirrored image. Boxes, points and masks follow, and anything
        else, such as the number of a class, stays.
        """
        return moved_label(label, matrix, size, flip_index) if isinstance(label, Label) else label

    @abstractmethod
    def meter(self) -> Meter:
        """Return what measures outputs, with nothing in it."""

    def meter_of(self, reader: "Task") -> Meter | None:
        """Return a meter of outputs that `reader` reads, the same task of the same network at another input size.

        Labels and the teacher's outputs are those of this task, and so is the frame that places are compared in. None
        where outputs of two sizes can't be compared, which is so unless a task says otherwise.
        """
        return None

    def measured(self, teacher: Callable[[], Iterable[Tensors]]) -> "Task":
        """Return the task with what its loss wants to know of the teacher's outputs for many images."""
        return self

    def marks(self, outputs: Outputs) -> "Sequence[Marks] | None":
        """Return what can be drawn over each image of a batch, None where outputs have no place in it."""
        return None

    def to_json(self) -> Mapping[str, Any]:
        """Return what tells the task again beside a model (see `recorded_task`): its name, and choices of its own."""
        return {"task": self.name}


class JoinedTask(Task):
    """A task whose loss is the divergence from the teacher, joined with a loss by labels where there are any."""

    def loss(
        self,
        student: Tensors,
        teacher: Tensors,
        labels: "Tensor | None",
        settings: LossSettings,
        mean: "Mean | None" = None,
    ) -> "Tensor":
        """Give ``kd_weight`` times the divergence plus the rest times the loss by labels, or the divergence alone.

        Of a batch of which some images are labelled, in proportion (see `joined_loss`).
        """
        from n2n_edge.tasks.losses import joined_loss

        divergence = self.divergence(student, teacher, settings, mean)
        if labels is None:
            return divergence
        return joined_loss(divergence, self.by_labels(student, teacher, labels, settings, mean), settings.kd_weight)

    @abstractmethod
    def divergence(
        self, student: Tensors, teacher: Tensors, settings: LossSettings, mean: "Mean | None" = None
    ) -> "Tensor":
        """Give how far the student's outputs are from the teacher's, a scalar."""

    @abstractmethod
    def by_labels(
        self, student: Tensors, teacher: Tensors, labels: "Tensor", settings: LossSettings, mean: "Mean | None" = None
    ) -> "LabelLoss":
        """Give how far the student's outputs are from what `labels` say, as `taught` gives them."""


def meter_between(task: Task, reader: Task) -> Meter | None:
    """Return what measures, in the terms of `task`, what `reader` reads; None where that can't be compared."""
    return task.meter() if reader == task else task.meter_of(reader)


def arrays_of(outputs: Outputs) -> tuple[NDArray[Any], ...]:
    """Return outputs as arrays, those of torch copied from where they are."""
    return tuple(each if isinstance(each, np.ndarray) else each.detach().cpu().numpy() for each in outputs)
