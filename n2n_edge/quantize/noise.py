"""Noise that rounding to 8 bits causes, as a function of the factors that channels are multiplied by, and its minimum.

Rounding to steps of size d adds noise of variance d^2/12. For a layer that reads x with weights w, where channel i of x
is multiplied by s_i and its weights are divided by it, the noise of its outputs in units of what they were before is

    N(s) = d_x(s)^2/12 * sum_i nonzero_i * sum_o w_oi^2 / s_i^2   +   sum_o d_o(s)^2/12 * sum_i E[x_i^2] * s_i^2
    d_x(s) = max_i(range(x_i) * s_i) / 255           d_o(s) = max_i(|w_oi| / s_i) / 127

since activations have one scale for all channels, and weights one for each output channel; a zero is rounded to itself.
Sums and the like read as a layer of weights 1 does, which aren't rounded. What is minimised is the sum over all readers
of N(s) by the mean square of what they give. Factors that equalise ranges, as s_i = sqrt(range(w_i) / range(x_i)), make
weights and activations of a channel equally fine; where ranges are even anyway, they cost more than they bring, and the
minimum is near 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.labels import LabelArray
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shape_run import Array, run_graph_each
from n2n_edge.quantize.scaling import Floats, Scalable, weight_plan

__all__ = ["ChannelStatistics", "Reader", "channel_statistics", "find_readers", "least_noise"]

_ACTIVATION_STEPS, _WEIGHT_STEPS = 255.0, 127.0
_SHARPNESS = 16.0
"""Exponent of the norm that stands for a maximum where its slope is taken."""

_STEPS, _RATE = 150, 0.15
_FIRST, _SECOND = 0.9, 0.99
_LARGEST = float(np.log(100.0))
"""Bound of the logarithm of a factor: a channel that is hardly ever used isn't blown up."""


@dataclass(frozen=True)
class ChannelStatistics:
    """Of each channel of a value: range (zero is within it), mean square, share of figures that aren't zero."""

    ranges: Floats
    squares: Floats
    nonzero: Floats


@dataclass(frozen=True)
class Reader:
    """What reads a value whose channels can be multiplied.

    `labels` say which factor each channel has. Per block (group of a convolution) and channel: `energy`, the sum of
    squares of its weights, and `squares`, its mean square for each weight; `logs` ``(blocks, outputs, channels)``,
    logarithms of the largest weights, None where they aren't rounded. `signal` is the sum of the mean squares of what
    is given.
    """

    labels: LabelArray
    ranges: Floats
    energy: Floats
    squares: Floats
    logs: Floats | None
    signal: float

    def noise(self, factors: Floats) -> float:
        """Return the noise as a share of the signal, `factors` being logarithms."""
        own = factors[self.labels]
        total = self._activations(own)
        if self.logs is not None:
            total += float((self._rows(own) * self._inputs(own)[:, None]).sum())
        return total / self.signal

    def slope(self, factors: Floats) -> Floats:
        """Return the derivatives of a smooth form of `noise` by the factors of its channels."""
        own = factors[self.labels]
        share = _softmax(np.log(self.ranges) + own)
        energy = self.energy * np.exp(-2 * own)
        step = self._step(own)
        slope = 2 * step * (energy.sum() * share - energy)
        if self.logs is not None:
            blocks = len(self.logs)
            rows, inputs = self._rows(own), self._inputs(own)
            each = self.squares * np.exp(2 * own)
            slope += 2 * each * np.repeat(rows.sum(axis=1), len(own) // blocks)
            shares = _softmax(self.logs - own.reshape(blocks, 1, -1))
            slope -= 2 * np.einsum("bo,b,boi->bi", rows, inputs, shares).ravel()
        return np.asarray(slope / self.signal)

    def _step(self, own: Floats) -> float:
        return float(np.exp(2 * (np.log(self.ranges) + own).max()) / _ACTIVATION_STEPS**2 / 12)

    def _activations(self, own: Floats) -> float:
        return self._step(own) * float((self.energy * np.exp(-2 * own)).sum())

    def _rows(self, own: Floats) -> Floats:
        """Return the squared step of each row of the weight, over twelve: ``(blocks, outputs)``."""
        assert self.logs is not None
        largest = (self.logs - own.reshape(len(self.logs), 1, -1)).max(axis=2)
        return np.asarray(np.exp(2 * largest) / _WEIGHT_STEPS**2 / 12)

    def _inputs(self, own: Floats) -> Floats:
        assert self.logs is not None
        return np.asarray((self.squares * np.exp(2 * own)).reshape(len(self.logs), -1).sum(axis=1))


def least_noise(readers: Sequence[Reader], free: NDArray[np.bool_]) -> Floats:
    """Return the factors, for each label, of least noise over all readers: 1 where nothing is won.

    Gradient descent (Adam) over their logarithms from 0 on; the best point on the way counts.
    """
    factors, best = np.zeros(len(free)), np.zeros(len(free))
    first, second = np.zeros(len(free)), np.zeros(len(free))
    least = _total(readers, factors)
    for step in range(1, _STEPS + 1):
        slope = np.zeros(len(free))
        for reader in readers:
            np.add.at(slope, reader.labels, reader.slope(factors))
        slope[~free] = 0
        first = _FIRST * first + (1 - _FIRST) * slope
        second = _SECOND * second + (1 - _SECOND) * slope**2
        speed = np.sqrt(second / (1 - _SECOND**step)) + 1e-12 * max(least, 1e-12)
        rate = _RATE * 0.5 * (1 + np.cos(np.pi * step / _STEPS))
        factors = np.clip(factors - rate * first / (1 - _FIRST**step) / speed, -_LARGEST, _LARGEST)
        total = _total(readers, factors)
        if total < least:
            least, best = total, factors.copy()
    return np.exp(best)


def find_readers(model: ir.Model, parts: Scalable, batches: Iterable[Mapping[str, Array]]) -> tuple[Reader, ...]:
    """Return the readers of values of which a channel can be multiplied, measured on `batches` of inputs by name.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.
    """
    plans = {}
    axes: dict[str, int] = {}
    for node in model.graph:
        plan = weight_plan(node, parts.shapes)
        source = node.inputs[0] if plan is not None else None
        if plan is not None and source is not None and parts.is_free(source):
            plans[node] = plan
            axes |= {str(source.name): plan.channels, str(node.outputs[0].name): plan.channels}
    others = []
    gates = {id(node) for gate in parts.gates.values() for node in (gate.sigmoid, gate.product)}
    for gate in parts.gates.values():
        axis = parts.channel_axis(gate.source)
        if axis is not None and parts.is_free(gate.source):
            axes |= {str(value.name): axis for value in (gate.source, gate.product.outputs[0])}
    for node in model.graph:
        row = op_of(node)
        if id(node) in gates:
            continue
        for value in node.inputs if row.weight is None and row.integer and not row.form else ():
            axis = None if value is None else parts.channel_axis(value)
            if value is not None and axis is not None and parts.is_free(value):
                axes.setdefault(str(value.name), axis)
                others.append(str(value.name))
    seen = channel_statistics(model, batches, axes)
    readers = [_weighted(node, plan.into, plan.out, parts, seen) for node, plan in plans.items()]
    readers += [_plain(parts.values[name].ravel(), seen[name]) for name in others if name in seen]
    for gate in parts.gates.values():
        name, product = str(gate.source.name), gate.product.outputs[0]
        behind = [node for node in plans if node.inputs[0] is product]
        if name in seen:
            found = [_weighted(node, plans[node].into, plans[node].out, parts, seen) for node in behind]
            readers += [_before(reader, seen[name]) for reader in found if reader is not None]
            readers += [_plain(parts.values[name].ravel(), seen[name])] if not behind else []
    return tuple(reader for reader in readers if reader is not None)


def channel_statistics(
    model: ir.Model, batches: Iterable[Mapping[str, Array]], axes: Mapping[str, int]
) -> dict[str, ChannelStatistics]:
    """Return statistics of the channels of values over all batches; `axes` says which, and where their channels lie.

    Raises:
        InputError: ONNX Runtime can't run the model on a batch.
    """
    low: dict[str, Floats] = {}
    high: dict[str, Floats] = {}
    sums: dict[str, Floats] = {}
    given = {str(value.name) for value in model.graph.inputs}
    count: dict[str, int] = {}
    for seen in run_graph_each(model, batches, set(axes) - given):
        for name, array in seen.items():
            channels = np.moveaxis(array, axes[name], 0).reshape(array.shape[axes[name]], -1)
            low[name] = np.minimum(low.get(name, 0.0), channels.min(axis=1, initial=0).astype(np.float64))
            high[name] = np.maximum(high.get(name, 0.0), channels.max(axis=1, initial=0).astype(np.float64))
            squares = np.einsum("ij,ij->i", channels, channels, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + np.stack([squares, np.count_nonzero(channels, axis=1)])
            count[name] = count.get(name, 0) + channels.shape[1]
    return {name: ChannelStatistics(high[name] - low[name], *(sums[name] / max(count[name], 1))) for name in low}


def _weighted(
    node: ir.Node, into: int, out: int, parts: Scalable, seen: Mapping[str, ChannelStatistics]
) -> Reader | None:
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None
    assert weight is not None
    assert weight.const_value is not None
    read, signal = seen[str(source.name)], float(seen[str(node.outputs[0].name)].squares.sum())
    array = np.abs(weight.const_value.numpy().astype(np.float64))
    groups = node.attributes.get_int("group", 1) or 1
    # (blocks, outputs, channels, taps)
    apart = array.reshape(groups, array.shape[0] // groups, array.shape[1], -1)
    apart = apart if out == 0 else apart.swapaxes(1, 2)
    taps = apart.shape[3]
    row = np.broadcast_to(parts.values[str(source.name)].ravel(), read.ranges.shape)
    energy = np.square(apart).sum(axis=(1, 3)).ravel() * read.nonzero
    logs = np.log(np.maximum(apart.max(axis=3), np.finfo(np.float32).tiny))
    if not signal > 0:
        return None
    return Reader(row, _positive(read.ranges), energy, read.squares * taps, logs, signal)


def _before(reader: Reader, read: ChannelStatistics) -> Reader:
    """Return what reads the source of a gate as `reader` reads its product: a slope of a swish is about one."""
    return replace(reader, ranges=_positive(read.ranges), squares=np.zeros_like(reader.squares), logs=None)


def _plain(row: LabelArray, read: ChannelStatistics) -> Reader | None:
    signal = float(read.squares.sum())
    row = np.broadcast_to(row, read.ranges.shape)
    return Reader(row, _positive(read.ranges), read.nonzero, read.squares, None, signal) if signal > 0 else None


def _positive(ranges: Floats) -> Floats:
    """Return ranges of which those of dead channels are far below any other, but no zero."""
    return np.maximum(ranges, max(float(ranges.max(initial=0)), 1e-30) * 1e-9)


def _softmax(logs: Floats) -> Floats:
    """Return the slopes of the norm of high order that stands for the maximum along the last axis."""
    raised = np.exp(_SHARPNESS * (logs - logs.max(axis=-1, keepdims=True)))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _total(readers: Sequence[Reader], factors: Floats) -> float:
    return sum(reader.noise(factors) for reader in readers)
