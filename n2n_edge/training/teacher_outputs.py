"""What the teacher says to every batch, worked out once where batches come back."""

import time
from collections.abc import Iterator, Mapping
from itertools import count

import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.training.batches import Batch, training_batches
from n2n_edge.training.compute import Engine
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.optimiser import Lesson, parts_of
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["Teaching", "affordable_epochs"]

_MOST_BYTES = 500_000_000
"""Teacher outputs that are kept; those beyond are worked out again."""

_LEAST_EPOCHS, _LEAST_IMAGES = 3, 16


def affordable_epochs(
    settings: DistillSettings,
    images: int,
    seconds: float,
    student_s: float,
    teacher_s: float,
    teacher_bytes: float,
    epoch_s: float = 0.0,
) -> tuple[int, int | None]:
    """Return the epochs that fit into `seconds`, at most those of `settings`, and the images of each, None for all.

    `student_s` and `teacher_s` are seconds per image, `teacher_bytes` what the teacher's outputs for one image take,
    `epoch_s` the seconds that every epoch takes beside its images. Where less than a few whole epochs fit, so many are
    made of fewer images: a schedule that warms up and comes to low rates needs some.
    """
    rounds = settings.rounds(images)
    kept = min(1.0, _MOST_BYTES / max(teacher_bytes * images * (rounds - 1), 1.0))
    epochs = seconds / (images * (student_s + teacher_s) + epoch_s)
    if epochs > rounds:
        once = rounds * kept * images * teacher_s
        epochs = (seconds - once) / (images * (student_s + (1.0 - kept) * teacher_s) + epoch_s)
    least = min(_LEAST_EPOCHS, settings.epochs)
    if epochs >= least:
        return min(settings.epochs, int(epochs)), None
    each = int((seconds / least - epoch_s) / (student_s + teacher_s))
    if each < _LEAST_IMAGES:  # hardly any time is left: one look at some images
        least, each = 1, max(_LEAST_IMAGES, int((seconds - epoch_s) / (student_s + teacher_s)))
    return least, min(images, each)


class Teaching:
    """Gives the batches of every epoch with what the teacher says to them.

    After ``settings.rounds()`` epochs the augmented batches come back in turn as they were, and the teacher's outputs
    with them: a teacher many times as large as its student would cost most of the time. Hints count until then.
    `waited_s` is what the images of the last epoch took to come, `images` how many of a batch this process takes.
    """

    def __init__(
        self, teacher: GraphModule, data: Data, settings: DistillSettings, hints: FeatureHints | None, engine: Engine
    ) -> None:
        self._teacher, self._data, self._settings, self._hints, self._engine = teacher, data, settings, hints, engine
        self.rounds = settings.rounds(len(data.train))
        self.waited_s = 0.0
        self._known: dict[tuple[int, int, int], tuple[Tensor, ...]] = {}
        self._bytes = 0

    def epoch(self, epoch: int) -> Iterator[tuple[int, Iterator[Lesson]]]:
        """Give the batches of an epoch, the first being 1: this process's images of each, and its lessons."""
        # the first isn't augmented and doesn't come back
        place = epoch if epoch <= self.rounds else 2 + (epoch - 2) % (self.rounds - 1)
        hints = self._hints if epoch <= self.rounds else None
        self.waited_s = 0.0
        share = (self._engine.rank, self._engine.processes)
        batches = iter(training_batches(self._data, self._settings, place, share))
        for index in count():
            start = time.monotonic()
            batch = next(batches, None)
            self.waited_s += time.monotonic() - start
            if batch is None:
                return
            yield len(batch.inputs), self._lessons(place, index, batch, hints)

    def _lessons(self, place: int, index: int, batch: Batch, hints: FeatureHints | None) -> Iterator[Lesson]:
        for part in parts_of(len(batch.inputs), self._settings.images_at_once):
            inputs = self._engine.moved(batch.inputs[part])
            labels = None if batch.labels is None else self._engine.moved(batch.labels[part])
            outputs = self._known.get((place, index, part.start))
            features: Mapping[str, Tensor] = {}
            if outputs is None or hints is not None:
                outputs, features = self._look(inputs, hints)
                self._keep((place, index, part.start), outputs)
            yield Lesson(inputs, labels, outputs, features)

    def _keep(self, key: tuple[int, int, int], outputs: tuple[Tensor, ...]) -> None:
        size = sum(output.numel() * output.element_size() for output in outputs)
        if key[0] > 1 and self.rounds < self._settings.epochs and self._bytes + size <= _MOST_BYTES:
            self._bytes += size
            self._known[key] = outputs

    def _look(self, inputs: Tensor, hints: FeatureHints | None) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        features: Mapping[str, Tensor] = {}
        with step("teacher's outputs for a batch"), torch.inference_mode(), self._engine.autocast():
            if hints is None:
                outputs = as_tuple(self._teacher(inputs))
            else:
                found, features = hints.run(self._teacher, inputs)
                outputs = as_tuple(found)
        # copies, which autograd may save
        return tuple(o.float().clone() for o in outputs), {name: f.float().clone() for name, f in features.items()}
