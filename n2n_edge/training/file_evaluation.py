"""Evaluation of a model's file by ONNX Runtime and numpy alone, as a CI job without torch does it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from n2n_edge.data.annotations import Annotations
from n2n_edge.data.dataset import Data, Split
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.foreign import printable
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.shape_run import Array
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Labels, Meter, Outputs, Task

__all__ = ["evaluate_file", "file_meter", "file_meters", "outputs_by_image"]

_BATCH = 256
_PIXELS = _BATCH * 96 * 96


def evaluate_file(
    path: Path | str, split: Split, data: Data, *, teacher: Path | str | None = None, threads: int = 0
) -> Evaluation:
    """Evaluate a file exactly as it ships (see `file_meter`)."""
    return file_meter(path, split, data, teacher=teacher, threads=threads).evaluation()


def file_meter(
    path: Path | str, split: Split, data: Data, *, teacher: Path | str | None = None, threads: int = 0
) -> Meter:
    """Return the task's meter with all that a file gives for a split; `threads` 0 lets the runtime choose.

    `teacher` is a file too; without it there is no fidelity. A file with a fixed batch size is fed batches of that
    size. Fidelity of outputs that are compared as numbers is worked out by torch.

    Raises:
        UnsuitableEnvironmentError: ONNX Runtime can't run a file, or torch is needed and missing.
    """
    task = data.task or _task(path, data)
    meter = task.meter()
    theirs = None if teacher is None else outputs_by_image(teacher, data, split, threads)
    for outputs, told in _with_labels(outputs_by_image(path, data, split, threads), task.labels(split)):
        _add(meter, outputs, None if theirs is None else next(theirs), told)
    return meter


def file_meters(
    teacher: Path | str, student: Path | str, split: Split, data: Data, *, fidelity: tuple[bool, bool], threads: int = 0
) -> tuple[Meter, Meter]:
    """Return the meters of a teacher's and a student's file, each of which is run once on every image.

    `fidelity` says of which its agreement with the teacher is worked out; the rest is as for `file_meter`.
    """
    task = data.task or _task(teacher, data)
    meters = task.meter(), task.meter()
    files = zip(*(outputs_by_image(path, data, split, threads) for path in (teacher, student)), strict=True)
    for outputs, told in _with_labels(files, task.labels(split)):
        for meter, own, compared in zip(meters, outputs, fidelity, strict=True):
            _add(meter, own, outputs[0] if compared else None, told)
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
