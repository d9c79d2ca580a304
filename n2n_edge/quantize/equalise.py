"""Cross-layer equalisation: channels of even range, by factors that leave a float graph's function as it is.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.1. There a
factor s_i is chosen so that channel i has the same range in what gives it and in what reads it:
s_i = sqrt(r_read_i / r_given_i). Here a channel may be given and read by several layers, so log s_i is the least
squares solution of "every tensor's ranges, in logarithms, are even", which for one of each is the same.

Weights are quantized per output channel, so an even range of the *weights* that give a channel is worth nothing, that
of its *activations*, which share one scale, everything: with images, what is given is measured on these (as in
SmoothQuant, Xiao et al., ICML 2023, with alpha 0.5), and what is read counts within each row of the weight. A depthwise
convolution's rows have one input, so it takes any factor.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.batchnorm import fold_batchnorm
from n2n_edge.graph.labels import NO_LABEL, LabelArray
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.quantize.scaling import Floats, Scalable, multiplied, multiply, scalable

__all__ = ["channel_ranges", "equalise"]

_MOST_ROUNDS = 50
_ENOUGH = 1e-3
_LARGEST = 1e3
"""Bound of a factor and of its inverse: a channel that is hardly ever used isn't blown up."""


@dataclass(frozen=True)
class _Ranges:
    """Logarithms of the range of each label within one tensor; `sign` is +1 where a factor makes them larger."""

    labels: LabelArray
    logs: Floats
    sign: int


def equalise(model: ir.Model, batches: Iterable[Mapping[str, Array]] | None = None) -> ir.Model:
    """Return a copy of `model`, a float graph, with channels of more even range; what it computes stays the same.

    `batches` are inputs by name, ``(N, C, H, W)`` each: activations are measured on them, which is right where weights
    are quantized per channel. Without, the ranges of weights alone count, as in the paper. BatchNormalizations are
    folded first. Where nothing can be multiplied the copy is as `model`.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.

    >>> even = equalise(model, [{"input": images}])
    """
    model = fold_batchnorm(model)
    parts = scalable(model)
    if not parts.any:
        return model
    given = None if batches is None else _of_activations(model, parts, batches)
    total = np.zeros(len(parts.free))
    for _ in range(_MOST_ROUNDS):
        if given is None:
            ranges = [*_of_weights(model, parts, total), *_of_readers(model, parts, total, by_row=False)]
        else:
            ranges = [_Ranges(item.labels, item.logs + total[item.labels], 1) for item in given]
            ranges += _of_readers(model, parts, total, by_row=True)
        step = _step(ranges, parts.free)
        bounded = np.clip(total + step, -np.log(_LARGEST), np.log(_LARGEST))
        step, total = bounded - total, bounded
        if np.abs(step).max(initial=0) < _ENOUGH:
            break
    multiply(model, parts, np.exp(total))
    return model


def channel_ranges(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], axes: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """Return the range (largest less smallest figure, zero among them) of each channel of values over all batches.

    `axes` says which values, and along which axis their channels lie.
    """
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    for seen in run_graph_each(model, batches, set(axes)):
        for name, array in seen.items():
            channels = np.moveaxis(array, axes[name], 0).reshape(array.shape[axes[name]], -1).astype(np.float64)
            low[name] = np.minimum(low.get(name, 0.0), channels.min(axis=1, initial=0))
            high[name] = np.maximum(high.get(name, 0.0), channels.max(axis=1, initial=0))
    return {name: high[name] - low[name] for name in low}


def _step(ranges: Iterable[_Ranges], free: NDArray[np.bool_]) -> Floats:
    """Return by how much to move the logarithm of each factor, the means of all tensors staying as they are."""
    total, count = np.zeros(len(free)), np.zeros(len(free))
    for item in ranges:
        total[item.labels] -= item.sign * (item.logs - item.logs.mean())
        count[item.labels] += 1
    return np.where(free & (count > 0), total / np.maximum(count, 1), 0.0)


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


def _of_activations(model: ir.Model, parts: Scalable, batches: Iterable[Mapping[str, Array]]) -> list[_Ranges]:
    """Return the ranges of what will be quantized: values that something else than an activation reads."""
    axes = {}
    for node in model.graph:
        for value in node.outputs:
            labels = parts.values.get(str(value.name))
            varying = [] if labels is None else [axis for axis, size in enumerate(labels.shape) if size > 1]
            if labels is not None and len(varying) == 1 and parts.free[labels].any() and _is_kept(value):
                axes[str(value.name)] = varying[0]
    seen = channel_ranges(model, batches, axes)
    found = [_of_labels(parts.values[name].ravel(), ranges, parts.free, 1) for name, ranges in seen.items()]
    return [item for item in found if item is not None]


def _is_kept(value: ir.Value) -> bool:
    """Tell whether a value stands by itself in a quantized graph: it isn't activated within the same kernel."""
    readers = [use.node for use in value.uses()]
    moves = value.producer()
    if moves is not None and op_of(moves).form in ("same", "reshaped", "permuted"):
        return False
    return any(not (op_of(node).activation and op_of(node).homogeneous) for node in readers)


def _of_weights(model: ir.Model, parts: Scalable, logs: Floats) -> list[_Ranges]:
    """Return the ranges of the rows of weights, the largest figure of each output channel."""
    weights = {name for name, _ in parts.divided}
    found = []
    for (name, axis), row in parts.multiplied.items():
        if name in weights and parts.free[row].any():
            ranges = _largest(_magnitudes(model, name, parts, logs), axis, row)
            found.append(_of_labels(row.ravel(), ranges, parts.free, 1))
    return [item for item in found if item is not None]


def _of_readers(model: ir.Model, parts: Scalable, logs: Floats, *, by_row: bool) -> list[_Ranges]:
    """Return the ranges of the columns of weights, `by_row` as shares of the largest figure of each row."""
    found = []
    for (name, axis), row in parts.divided.items():
        outputs = [(at, labels) for (key, at), labels in parts.multiplied.items() if key == name and at != axis]
        if not parts.free[row].any():
            continue
        array = _magnitudes(model, name, parts, logs)
        if by_row:
            if not outputs or _is_depthwise(row, outputs[0][1]):
                continue
            at, out = outputs[0]
            # a ConvTranspose with groups has rows of each group; they count together here
            rest = tuple(i for i in range(array.ndim) if i != at or out.ndim > 1)
            largest = array.max(axis=rest, keepdims=True)
            array = np.divide(array, largest, out=np.zeros_like(array), where=largest > 0)
        found.append(_of_labels(row.ravel(), _largest(array, axis, row), parts.free, -1))
    return [item for item in found if item is not None]


def _is_depthwise(row: LabelArray, out: LabelArray) -> bool:
    """Tell whether each output is made of one input."""
    groups = max(len(row) if row.ndim > 1 else 1, len(out) if out.ndim > 1 else 1)
    return row.size == groups


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
