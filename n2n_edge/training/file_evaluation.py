"""Evaluation of a model's file by ONNX Runtime and numpy alone, as a CI job without torch does it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.data.dataset import Data, Split
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.foreign import printable
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.outputs import output_kind

__all__ = ["evaluate_file"]

_BATCH = 256


def evaluate_file(
    model: ir.Model, path: Path, split: Split, data: Data, *, teacher: Path | None = None, threads: int = 0
) -> Evaluation:
    """Evaluate the file at `path`, of which `model` is the graph, exactly as it ships.

    `teacher` is a file too; without it there is no fidelity. A file with a fixed batch size is fed batches of that
    size. Fidelity of outputs that aren't scores of classes is worked out by torch.

    Raises:
        UnsuitableEnvironmentError: ONNX Runtime can't run a file, or torch is needed and missing.
    """
    if output_kind(model, data.outputs) == "other":
        return _of_values(path, split, data, teacher, threads)
    correct = agreeing = seen = 0
    theirs = None if teacher is None else _chosen_classes(teacher, data, split, threads)
    for chosen in _chosen_classes(path, data, split, threads):
        if split.labels is not None:
            correct += int(chosen == split.labels[seen])
        if theirs is not None:
            agreeing += int(chosen == next(theirs))
        seen += 1
    accuracy = None if split.labels is None else correct / seen
    return Evaluation(accuracy, None if theirs is None else agreeing / seen, seen)


def _of_values(path: Path, split: Split, data: Data, teacher: Path | None, threads: int) -> Evaluation:
    if teacher is not None:
        try:
            from n2n_edge.training.evaluation import evaluate_onnx
        except ImportError as error:
            raise UnsuitableEnvironmentError(
                "fidelity of outputs that aren't classes needs torch, which is not installed; "
                'run: pip install "n2n-edge[compress]"'
            ) from error
        return evaluate_onnx(path, split, data, teacher=teacher, threads=threads)
    distance, seen = 0.0, 0
    for outputs in _outputs(path, data, split, threads):
        count = len(outputs[0])
        if split.targets is not None:
            values = outputs[0].reshape(count, -1).astype(np.float64)
            distance += float(np.abs(values - split.targets[seen : seen + count]).sum())
        seen += count
    return Evaluation(None, None, seen, label_error=None if split.targets is None else distance / split.targets.size)


def _chosen_classes(path: Path, data: Data, split: Split, threads: int) -> Iterator[int]:
    """Give the class with the highest score for one image after the other: files may have different batch sizes."""
    for outputs in _outputs(path, data, split, threads):
        yield from (int(each) for each in outputs[0].reshape(len(outputs[0]), -1).argmax(axis=1))


def _outputs(path: Path, data: Data, split: Split, threads: int) -> Iterator[list[NDArray[np.generic]]]:
    """Give a file's outputs for the images of a split, batch by batch, in as large batches as it allows."""
    try:
        session = ImageSession.learned(path, threads=threads)
        size = session.batch or _BATCH
        for start in range(0, len(split), size):
            yield session.run(data.inputs(np.asarray(split.images[start : start + size])))
    except Exception as error:  # the runtime raises types of its own
        text = printable(" ".join(str(error).split()))[:200]
        raise UnsuitableEnvironmentError(f"{path}: ONNX Runtime can't run it on images ({text})") from error
