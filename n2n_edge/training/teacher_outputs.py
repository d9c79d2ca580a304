"""What the teacher says to every batch, worked out once where batches come back."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.training.batches import Batch, training_batches
from n2n_edge.training.compute import autocast
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["Lesson", "Teaching", "affordable_epochs"]

_MOST_BYTES = 500_000_000
"""Teacher outputs that are kept; those beyond are worked out again."""


def affordable_epochs(
    settings: DistillSettings, images: int, seconds: float, student_s: float, teacher_s: float, teacher_bytes: float
) -> int:
    """Return the epochs over so many images that fit into `seconds`, at most those of `settings`, one at least.

    `student_s` and `teacher_s` are seconds per image, `teacher_bytes` what the teacher's outputs for one image take.
    """
    rounds = settings.rounds(images)
    kept = min(1.0, _MOST_BYTES / max(teacher_bytes * images * (rounds - 1), 1.0))
    epochs = seconds / (images * (student_s + teacher_s))
    if epochs > rounds:
        epochs = (seconds / images - rounds * kept * teacher_s) / (student_s + (1.0 - kept) * teacher_s)
    return max(1, min(settings.epochs, int(epochs)))


Lesson = tuple[Batch, tuple[Tensor, ...], Mapping[str, Tensor]]
"""A batch, the teacher's outputs for it, and its feature maps where hints count."""


class Teaching:
    """Gives the batches of every epoch with what the teacher says to them.

    After ``settings.rounds()`` epochs the augmented batches come back in turn as they were, and the teacher's outputs
    with them: a teacher many times as large as its student would cost most of the time. Hints count until then.
    """

    def __init__(
        self, teacher: GraphModule, data: Data, settings: DistillSettings, hints: FeatureHints | None, *, bf16: bool
    ) -> None:
        self._teacher, self._data, self._settings, self._hints, self._bf16 = teacher, data, settings, hints, bf16
        self.rounds = settings.rounds(len(data.train))
        self._known: dict[tuple[int, int], tuple[Tensor, ...]] = {}
        self._bytes = 0

    def epoch(self, epoch: int) -> Iterator[Lesson]:
        """Give the lessons of an epoch, the first being 1."""
        # the first isn't augmented and doesn't come back
        place = epoch if epoch <= self.rounds else 2 + (epoch - 2) % (self.rounds - 1)
        for index, batch in enumerate(training_batches(self._data, self._settings, place)):
            hints = self._hints if epoch <= self.rounds else None
            outputs = self._known.get((place, index))
            if outputs is None or hints is not None:
                outputs, features = self._look(batch.inputs, hints)
                self._keep(place, index, outputs)
                yield batch, outputs, features
            else:
                yield batch, outputs, {}

    def _keep(self, place: int, index: int, outputs: tuple[Tensor, ...]) -> None:
        size = sum(output.numel() * output.element_size() for output in outputs)
        if place > 1 and self.rounds < self._settings.epochs and self._bytes + size <= _MOST_BYTES:
            self._bytes += size
            self._known[place, index] = outputs

    def _look(self, inputs: Tensor, hints: FeatureHints | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        features: Mapping[str, Tensor] = {}
        with step("teacher's outputs for a batch"), torch.inference_mode(), autocast(self._bf16):
            if hints is None:
                outputs = as_tuple(self._teacher(inputs))
            else:
                found, features = hints.run(self._teacher, inputs)
                outputs = as_tuple(found)
        # copies, which autograd may save
        return tuple(o.float().clone() for o in outputs), {name: f.float().clone() for name, f in features.items()}
