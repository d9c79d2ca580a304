"""Codes of boxes: how the numbers at an anchor become a box, in arrays of numpy and tensors of torch alike."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from n2n_edge.tasks.boxes import Floats

__all__ = ["BoxCode", "ScoreCode", "around", "expected", "exponential", "from_centres", "like", "sigmoid", "tanh"]

_LARGEST_POWER = 20.0


@dataclass(frozen=True)
class BoxCode:
    """How a head writes boxes.

    `decode` turns the box's channels of every anchor, ``(N, A, 4)`` or distributions ``(N, A, 4 * bins)``, into left,
    top, right and bottom in pixels ``(N, A, 4)``. `centres` ``(A, 2)`` are the pixels that anchors stand for, `strides`
    ``(A, 1)`` those between them; None where outputs don't tell.
    """

    decode: Callable[[Any], Any]
    centres: Floats | None = None
    strides: Floats | None = None


@dataclass(frozen=True)
class ScoreCode:
    """How an anchor's channels of scores, in the order of the layouts, become the scores of its classes.

    Channel number `objectness` to the power of the first of `powers` times each class to that of the second; None where
    classes stand alone. `background`: the first channel of a softmax is that nothing is there.
    """

    objectness: int | None = None
    powers: tuple[float, float] = (1.0, 1.0)
    background: bool = False


def _library(values: Any) -> Any:
    return np if isinstance(values, np.ndarray) else sys.modules["torch"]


def like(constant: Floats, values: Any) -> Any:
    """Return constants in the form of other values."""
    return constant if isinstance(values, np.ndarray) else _library(values).as_tensor(constant).to(values)


def _joined(parts: list[Any]) -> Any:
    return np.concatenate(parts, axis=-1) if isinstance(parts[0], np.ndarray) else _library(parts[0]).cat(parts, -1)


def exponential(values: Any) -> Any:
    """Return e to the power of values, which are at most 20 and at least -20."""
    library = _library(values)
    return library.exp(library.clip(values, -_LARGEST_POWER, _LARGEST_POWER))


def sigmoid(values: Any) -> Any:
    """Return shares from logits."""
    library = _library(values)
    return 1 / (1 + library.exp(-library.clip(values, -60, 60)))


def tanh(values: Any) -> Any:
    """Return the hyperbolic tangent."""
    return _library(values).tanh(values)


def expected(distributions: Any) -> Any:
    """Return the mean of four discrete distributions ``(..., 4 * bins)``: generalised focal loss, Li et al. 2020."""
    four = distributions.reshape(*distributions.shape[:-1], 4, -1)
    bins = like(np.arange(four.shape[-1], dtype=np.float32), four)
    if isinstance(four, np.ndarray):
        powers = np.exp(four - four.max(axis=-1, keepdims=True))
        return (powers / powers.sum(axis=-1, keepdims=True)) @ bins
    return four.softmax(-1) @ bins


def around(centres: Any, distances: Any) -> Any:
    """Return boxes from centres and the distances of their left, top, right and bottom edges."""
    return _joined([centres - distances[..., :2], centres + distances[..., 2:]])


def from_centres(centres: Any, sizes: Any) -> Any:
    """Return boxes ``(..., 4)`` from their centres ``(..., 2)`` and sizes ``(..., 2)``."""
    return _joined([centres - sizes / 2, centres + sizes / 2])
