"""Equalisation of channels' ranges by factors that leave a float graph's function as it is.

Without images as in Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV
2019), section 4.1, where weights have one scale each: a factor s_i is chosen so that channel i has the same range in
the weight that gives it and in the one that reads it, s_i = sqrt(r_read_i / r_given_i). Here a channel may be given
and read by several layers, so log s_i is the least squares solution of "every tensor's ranges, in logarithms, are
even", which for one of each is the same.

Where weights have a scale per output channel, an even range of the weights that *give* a channel is worth nothing, that
of its activations, which share one scale, much: with images, factors are those of least noise (`noise.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.labels import NO_LABEL, LabelArray
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.noise import find_readers, least_noise
from n2n_edge.quantize.scaling import Floats, Scalable, multiplied, multiply, scalable

__all__ = ["Equalised", "equalise", "equalised"]

_MOST_ROUNDS = 50
_ENOUGH = 1e-3
_LARGEST = 1e3
"""Bound of a factor and of its inverse."""


@dataclass(frozen=True)
class _Ranges:
    """Logarithms of the range of each label within one tensor; `sign` is +1 where a factor makes them larger."""

    labels: LabelArray
    logs: Floats
    sign: int


@dataclass(frozen=True)
class Equalised:
    """A network whose channels were multiplied, and the names of the values of which any were."""

    model: ir.Model
    changed: frozenset[str]


def equalise(model: ir.Model, batches: Iterable[Mapping[str, Array]] | None = None) -> ir.Model:
    """Return a copy of `model`, a float graph, that loses less by quantization; what it computes stays the same.

    With `batches`, inputs by name, ``(N, C, H, W)`` each, for weights that are quantized per output channel; without,
    for those that are quantized as a whole. BatchNormalizations are folded first. Where nothing can be multiplied the
    copy is as `model`.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.

    >>> even = equalise(model, [{"input": images}])
    """
    return equalised(model, batches).model


def equalised(model: ir.Model, batches: Iterable[Mapping[str, Array]] | None = None) -> Equalised:
    """Return what `equalise` does, with the values that it changed; raises what that does."""
    model = fold_batchnorm(model)
    parts = scalable(model)
    if not parts.any:
        return Equalised(model, frozenset())
    if batches is None:
        factors = _of_even_weights(model, parts)
    else:
        factors = least_noise(find_readers(model, parts, batches), parts.free)
    multiply(model, parts, factors)
    moved = parts.free & (factors != 1)
    return Equalised(model, frozenset(name for name, row in parts.values.items() if moved[row].any()))


def _of_even_weights(model: ir.Model, parts: Scalable) -> Floats:
    """Return the factors that make the ranges of weights even, what gives a channel and what reads it."""
    total = np.zeros(len(parts.free))
    for _ in range(_MOST_ROUNDS):
        step = _step(_of_weights(model, parts, total), parts.free)
        bounded = np.clip(total + step, -np.log(_LARGEST), np.log(_LARGEST))
        step, total = bounded - total, bounded
        if np.abs(step).max(initial=0) < _ENOUGH:
            break
    return np.exp(total)


def _step(ranges: Iterable[_Ranges], free: NDArray[np.bool_]) -> Floats:
    """Return by how much to move the logarithm of each factor, the means of all tensors staying as they are."""
    total, count = np.zeros(len(free)), np.zeros(len(free))
    for item in ranges:
        total[item.labels] -= item.sign * (item.logs - item.logs.mean())
        count[item.labels] += 1
    return np.where(free & (count > 0), total / np.maximum(count, 1), 0.0)


def _of_weights(model: ir.Model, parts: Scalable, logs: Floats) -> list[_Ranges]:
    """Return the ranges of rows and columns of weights, as factors ``exp(logs)`` leave them."""
    weights = {name for name, _ in parts.divided}
    found = []
    for table, sign in ((parts.multiplied, 1), (parts.divided, -1)):
        for (name, axis), row in table.items():
            if name in weights and parts.free[row].any():
                ranges = _largest(_magnitudes(model, name, parts, logs), axis, row)
                found.append(_of_labels(row.ravel(), ranges, parts.free, sign))
    return [item for item in found if item is not None]


def _of_labels(row: LabelArray, ranges: Floats, free: NDArray[np.bool_], sign: int) -> _Ranges | None:
    """Return the largest range of each label along a row; None where none of them can be multiplied.

    Channels without a label count for how even a tensor is, too, but nothing of them can be changed.
    """
    live = (ranges > 0) & np.isfinite(ranges) & (row != NO_LABEL)
    row, ranges = row[live], ranges[live]
    if not free[row].any() or len(np.unique(row)) < 2:
        return None
    labels, index = np.unique(row, return_inverse=True)
    largest = np.zeros(len(labels))
    np.maximum.at(largest, index.ravel(), ranges)
    return _Ranges(labels, np.log(largest), sign)


def _magnitudes(model: ir.Model, name: str, parts: Scalable, logs: Floats) -> Floats:
    """Return the magnitudes of a constant as factors ``exp(logs)`` leave them."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return np.abs(multiplied(tensor.numpy().astype(np.float64), name, parts, np.exp(logs)))


def _largest(array: Floats, axis: int, row: LabelArray) -> Floats:
    """Return the largest element for each of `row`, along `axis`, block by block of axis 0 where it has several."""
    blocks = np.split(array, len(row) if row.ndim > 1 else 1)
    rest = tuple(i for i in range(array.ndim) if i != axis)
    return np.concatenate([block.max(axis=rest) if rest else block for block in blocks])
