"""Evaluation of a model's file by ONNX Runtime and numpy alone, as a CI job without torch does it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, Split
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.foreign import printable
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.shape_run import Array
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, Meter, Outputs, Task, meter_between

__all__ = ["MeanOutputs", "constant_meter", "evaluate_file", "file_meter", "file_meters", "outputs_by_image"]

_BATCH = 256
_PIXELS = _BATCH * 96 * 96


def evaluate_file(
    path: Path | str, split: Split, data: Data, *, teacher: Path | str | None = None, threads: int = 0
) -> Evaluation:
    """Evaluate a file exactly as it ships (see `file_meter`)."""
    return file_meter(path, split, data, teacher=teacher, threads=threads).evaluation()


def file_meter(
    path: Path | str,
    split: Split,
    data: Data,
    *,
    teacher: Path | str | None = None,
    teacher_data: Data | None = None,
    threads: int = 0,
) -> Meter:
    """Return the task's meter with all that a file gives for a split; `threads` 0 lets the runtime choose.

    `teacher` is a file too; without it there is no fidelity. `teacher_data` are the test images as it wants them, where
    it wants them otherwise. A file with a fixed batch size is fed batches of that size. Fidelity of outputs that are
    compared as numbers is worked out by torch.

    Raises:
        UnsuitableEnvironmentError: ONNX Runtime can't run a file, or torch is needed and missing.
    """
    task = data.task or _task(path, data)
    other = None
    if teacher_data is not None and teacher_data.input_shape != data.input_shape and teacher_data.task is not None:
        other = teacher_data.task.meter_of(task)
    meter = task.meter() if other is None else other
    theirs = None
    if teacher is not None and (teacher_data is None or teacher_data is data):
        theirs = outputs_by_image(teacher, data, split, threads)
    elif teacher is not None and teacher_data is not None:
        theirs = outputs_by_image(teacher, teacher_data, teacher_data.test, threads)
    for outputs, told in _with_labels(outputs_by_image(path, data, split, threads), task.labels(split)):
        _add(meter, outputs, None if theirs is None else next(theirs), told)
    return meter


def file_meters(
    teacher: Path | str,
    student: Path | str,
    split: Split,
    data: Data,
    *,
    fidelity: tuple[bool, bool],
    threads: int = 0,
    watch: Callable[[tuple[Array, ...], tuple[Array, ...]], None] = lambda teacher, student: None,
    own: tuple[Split, Data] | None = None,
) -> tuple[Meter, Meter]:
    """Return the meters of a teacher's and a student's file, each of which is run once on every image.

    `fidelity` says of which its agreement with the teacher is worked out, and `watch` is given both files' outputs for
    each image; `own` are the same images as the student takes them, where that is otherwise (see `Task.meter_of`). The
    rest is as for `file_meter`.
    """
    task = data.task or _task(teacher, data)
    theirs, student_data = (split, data) if own is None else own
    between = meter_between(task, student_data.task or task)
    if between is None:
        raise InputError(f"outputs of two sizes can't be compared as task {task.name}; give files of one size")
    meters = task.meter(), between
    outputs = outputs_by_image(teacher, data, split, threads), outputs_by_image(student, student_data, theirs, threads)
    files = zip(*outputs, strict=True)
    for pair, told in _with_labels(files, task.labels(split)):
        watch(*pair)
        for meter, given, compared in zip(meters, pair, fidelity, strict=True):
            _add(meter, given, pair[0] if compared else None, told)
    return meters


_Given = TypeVar("_Given")


def _with_labels(outputs: Iterable[_Given], labels: Labels | None) -> Iterator[tuple[_Given, Labels | None]]:
    """Give what comes image by image with the image's label."""
    for place, each in enumerate(outputs):
        told = None if labels is None else labels[place : place + 1]
        yield each, list(told) if isinstance(told, Annotations) else told  # a mask is decoded once


def _add(meter: Meter, outputs: Outputs, teacher: Outputs | None, labels: Labels | None) -> None:
    try:
        meter.add(outputs, teacher, labels)
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            "fidelity of outputs that are compared as numbers needs torch, which is not installed; "
            'run: pip install "n2n-edge[compress]"'
        ) from error


class MeanOutputs:
    """The average of a file's outputs over images."""

    def __init__(self) -> None:
        self._sums: list[NDArray[np.float64]] | None = []
        self._kinds: list[np.dtype[Any]] = []
        self._count = 0

    def add(self, outputs: tuple[Array, ...]) -> None:
        """Take in the outputs for one image, ``(1, ...)`` each."""
        if self._count == 0:
            self._sums, self._kinds = [np.zeros(each.shape) for each in outputs], [each.dtype for each in outputs]
        self._count += 1
        if self._sums is None or any(
            each.shape != total.shape or each.dtype.kind != "f" for each, total in zip(outputs, self._sums, strict=True)
        ):
            self._sums = None
            return
        for total, each in zip(self._sums, outputs, strict=True):
            total += each

    @property
    def answer(self) -> tuple[Array, ...] | None:
        """The average, None where outputs are whole numbers or of various shapes."""
        if not self._sums:
            return None
        pairs = zip(self._sums, self._kinds, strict=True)
        found = tuple((total / self._count).astype(kind) for total, kind in pairs)
        return found if all(np.isfinite(each).all() for each in found) else None


def constant_meter(answer: tuple[Array, ...], task: Task, data: Data, *, teacher: Path | str | None = None) -> Meter:
    """Return the meter of one answer for every test image; `teacher` is as for `file_meter`."""
    meter = task.meter()
    theirs = None if teacher is None else outputs_by_image(teacher, data, data.test)
    for own, told in _with_labels(repeat(answer, len(data.test)), task.labels(data.test)):
        meter.add(own, None if theirs is None else next(theirs), told)
    return meter


def _task(path: Path | str, data: Data) -> Task:
    with _running(path):
        return task_of(ir.load(path), data)


@contextmanager
def _running(path: Path | str) -> Iterator[None]:
    """Say in one line what is wrong with a file that can't be run."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # the runtime raises types of its own
        text = printable(" ".join(str(error).split()))[:200]
        raise UnsuitableEnvironmentError(f"{path}: ONNX Runtime can't run it on images ({text})") from error


def outputs_by_image(path: Path | str, data: Data, split: Split, threads: int = 0) -> Iterator[tuple[Array, ...]]:
    """Give a file's outputs image by image, since two files may have different batch sizes."""
    with _running(path):
        session = ImageSession.learned(path, threads=threads)
        _, height, width = data.input_shape
        size = session.batch or min(_BATCH, max(1, _PIXELS // (height * width)))
        for start in range(0, len(split), size):
            outputs = session.run(data.inputs(np.asarray(split.images[start : start + size])))
            for place in range(len(outputs[0])):
                yield tuple(output[place : place + 1] for output in outputs)
