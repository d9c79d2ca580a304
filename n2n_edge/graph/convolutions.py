"""Convolutions as linear maps: two in a row as one, and two side by side as one, worked out in double precision.

With the first convolution's kernel `k1`, stride `s1` and dilation `d1`, and the second one's `k2`, `s2` and `d2`, the
two in a row are one of stride ``s1 s2`` whose taps lie at ``a d1 + j s1 d2``; without dilation that is a kernel of
``k1 + (k2 - 1) s1`` (Fu et al., DepthShrinker, ICML 2022; Kim et al., Efficient Latency-Aware CNN Depth Compression via
Two-Stage Dynamic Programming, ICML 2023).
"""

from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.shapes import is_constant

__all__ = ["Convolution", "beside", "composed", "identity", "in_a_row", "outlined", "read_convolution", "read_outline"]

Numbers = NDArray[np.float64]
Ints = tuple[int, ...]
Index = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Convolution:
    """One convolution: `weight` ``(O, I / groups, *kernel)``, `bias` ``(O,)``, and along every axis of positions the
    rest; `pads` are (before, after) of each.
    """

    weight: Numbers
    bias: Numbers
    strides: Ints
    dilations: Ints
    pads: tuple[tuple[int, int], ...]
    groups: int = 1

    @property
    def kernel(self) -> Ints:
        """Its taps along every axis."""
        return self.weight.shape[2:]

    @property
    def reach(self) -> Ints:
        """From its first tap to its last, in positions, along every axis."""
        return tuple((taps - 1) * step for taps, step in zip(self.kernel, self.dilations, strict=True))

    @property
    def in_channels(self) -> int:
        """How many channels it reads."""
        return int(self.weight.shape[1]) * self.groups

    @property
    def out_channels(self) -> int:
        """How many channels it gives."""
        return len(self.weight)

    @property
    def padded(self) -> bool:
        """Whether it pads at all."""
        return any(amount for pair in self.pads for amount in pair)

    def sizes(self, given: Ints) -> Ints:
        """Return the sizes of the map that it makes of one of sizes `given`."""
        return tuple(
            (size + sum(pads) - reach - 1) // stride + 1
            for size, pads, reach, stride in zip(given, self.pads, self.reach, self.strides, strict=True)
        )

    def unpadded(self) -> "Convolution":
        """Return the same without padding."""
        return replace(self, pads=((0, 0),) * len(self.pads))

    def padded_for(self, second: "Convolution") -> "Convolution":
        """Return the same with the padding of `second`, which reads it, moved to its own front.

        It then gives as many positions more as `second` padded, which are what it calculates beyond the border instead
        of noughts.
        """
        moved = tuple(
            (own[0] + stride * more[0], own[1] + stride * more[1])
            for own, stride, more in zip(self.pads, self.strides, second.pads, strict=True)
        )
        return replace(self, pads=moved)

    def pads_alike(self, second: "Convolution", given: Ints) -> bool:
        """Tell whether moving the padding of `second` to the front of this one changes nothing on maps of size `given`.

        So it is if there is none, or if this convolution gives nought wherever it sees nothing but padding, and sees
        nothing else at the positions that are added: without a bias, and with a kernel of one tap or full padding.
        """
        if not second.padded:
            return True
        if self.bias.any():
            return False
        axes = zip(
            given, self.sizes(given), self.pads, self.reach, self.strides, second.pads, strict=True
        )  # the last position before the map has its last tap at ``reach - before - stride``
        return all(
            (not more[0] or reach - own[0] - stride < 0) and (not more[1] or made * stride - own[0] >= size)
            for size, made, own, reach, stride, more in axes
        )


def in_a_row(first: Convolution, second: Convolution) -> bool:
    """Tell whether two convolutions fit behind one another: channels and axes."""
    return first.out_channels == second.in_channels and len(first.kernel) == len(second.kernel)


def composed(first: Convolution, second: Convolution) -> Convolution:
    """Return the one convolution that calculates `second` of `first`; `second` mustn't pad (see `padded_for`).

    Of groups as many are left as both have in common, ``gcd(g1, g2)``: a depthwise convolution and a pointwise one give
    a dense one, two depthwise ones a depthwise one.

    Raises:
        ValueError: they don't fit behind one another, or `second` pads.
    """
    groups, spread, steps, kernel = _geometry(first, second)
    depthwise = second.groups == second.in_channels == second.out_channels
    before, after = _in_groups(first, groups), second.weight if depthwise else _in_groups(second, groups)
    outputs, inputs = second.out_channels // groups, before.shape[2]
    merged = np.zeros((groups, outputs, inputs, *kernel))
    within = [
        step // unit if taps > 1 else 1 for taps, step, unit in zip(first.kernel, first.dilations, steps, strict=True)
    ]
    for tap in product(*map(range, second.kernel)):
        offset = [at * step // unit for at, step, unit in zip(tap, spread, steps, strict=True)]
        spaced = zip(offset, first.kernel, within, strict=True)
        places: Index = (..., *(slice(start, start + (taps - 1) * by + 1, by) for start, taps, by in spaced))
        own: Index = (..., *tap)
        if depthwise:
            weighed = after[own].reshape(groups, outputs, *(1,) * (before.ndim - 2)) * before
        else:
            rows = before.reshape(*before.shape[:2], -1)
            weighed = (after[own] @ rows).reshape(groups, outputs, *before.shape[2:])
        merged[places] += weighed
    summed = after.reshape(*after.shape[: 2 if depthwise else 3], -1).sum(axis=-1)
    carried = summed.ravel() * first.bias if depthwise else (summed @ first.bias.reshape(groups, -1, 1)).ravel()
    bias = carried + second.bias
    return Convolution(
        merged.reshape(second.out_channels, inputs, *kernel),
        bias,
        tuple(a * b for a, b in zip(first.strides, second.strides, strict=True)),
        steps,
        first.pads,
        groups,
    )


def outlined(first: Convolution, second: Convolution) -> Convolution:
    """Return `composed` with noughts for numbers: its shapes and settings, at no expense.

    Raises:
        ValueError: as in `composed`.
    """
    groups, _, steps, kernel = _geometry(first, second)
    shape = (second.out_channels, first.in_channels // groups, *kernel)
    strides = tuple(a * b for a, b in zip(first.strides, second.strides, strict=True))
    return Convolution(_noughts(shape), _noughts(shape[:1]), strides, steps, first.pads, groups)


def _geometry(first: Convolution, second: Convolution) -> tuple[int, Ints, Ints, Ints]:
    """Return the groups of two in a row, the first one's taps between two of the second, dilations, and the kernel."""
    if not in_a_row(first, second) or second.padded:
        raise ValueError(
            f"a convolution of {first.out_channels} channels and one that reads {second.in_channels} can't be merged"
            + (": the second one pads" if second.padded else "")
        )
    groups = gcd(first.groups, second.groups)
    spread = tuple(stride * step for stride, step in zip(first.strides, second.dilations, strict=True))
    steps = tuple(
        (gcd(own if taps > 1 else 0, step if more > 1 else 0) or 1)
        for own, taps, step, more in zip(first.dilations, first.kernel, spread, second.kernel, strict=True)
    )
    reach = tuple(own + (more - 1) * step for own, more, step in zip(first.reach, second.kernel, spread, strict=True))
    kernel = tuple(far // step + 1 for far, step in zip(reach, steps, strict=True))
    return groups, spread, steps, kernel


def identity(like: Convolution) -> Convolution:
    """Return the convolution that gives what it is given, of the channels, groups and axes of `like`.

    Raises:
        ValueError: `like` has other channels behind it than before it.
    """
    if like.in_channels != like.out_channels:
        raise ValueError(f"no identity leads from {like.in_channels} channels to {like.out_channels}")
    axes = len(like.kernel)
    within = like.in_channels // like.groups
    weight = np.tile(np.eye(within), (like.groups, 1)).reshape(like.out_channels, within, *(1,) * axes)
    return Convolution(weight, np.zeros(like.out_channels), (1,) * axes, (1,) * axes, ((0, 0),) * axes, like.groups)


def beside(first: Convolution, second: Convolution) -> Convolution | None:
    """Return the one convolution that calculates the sum of both of the same map; None where there is none.

    Strides have to be equal, and the taps of the one to lie among those of the other when both are seen from the same
    position, as with a 1x1 kernel and a padded 3x3 one.
    """
    fits = (first.in_channels, first.out_channels, first.strides) == (
        second.in_channels, second.out_channels, second.strides,
    )  # fmt: skip
    if not fits:
        return None
    large, small = sorted((first, second), key=lambda each: -prod(each.kernel))
    places: list[slice] = []
    pads = []
    for axis, taps in enumerate(small.kernel):
        step, own = large.dilations[axis], small.dilations[axis] if taps > 1 else large.dilations[axis]
        start = large.pads[axis][0] - small.pads[axis][0]
        end = large.pads[axis][1] - small.pads[axis][1]
        far = large.reach[axis] - small.reach[axis]
        # the larger one may see further at either end, by as much as it is padded more
        if start + end != far or min(start, end) < 0 or start % step or own % step:
            return None
        places.append(slice(start // step, start // step + (taps - 1) * (own // step) + 1, own // step))
        pads.append(large.pads[axis])
    groups = gcd(large.groups, small.groups)
    weight = _in_groups(large, groups).copy()
    at: Index = (..., *places)
    weight[at] += _in_groups(small, groups)
    return replace(
        large,
        weight=weight.reshape(large.out_channels, -1, *large.kernel),
        bias=large.bias + small.bias,
        groups=groups,
    )


def _in_groups(convolution: Convolution, groups: int) -> Numbers:
    """Return the weight as ``(groups, O / groups, I / groups, *kernel)`` of fewer groups, with noughts between."""
    weight, parts = convolution.weight, convolution.groups // groups
    outputs, inputs = convolution.out_channels // convolution.groups, weight.shape[1]
    apart = weight.reshape(groups, parts, outputs, inputs, *convolution.kernel)
    whole = np.zeros((groups, parts, outputs, parts, inputs, *convolution.kernel))
    for part in range(parts):
        whole[:, part, :, part] = apart[:, part]
    return whole.reshape(groups, parts * outputs, parts * inputs, *convolution.kernel)


def read_convolution(node: ir.Node) -> Convolution | None:
    """Return what a Conv node calculates; None where `read_outline` is."""
    outline = read_outline(node)
    if outline is None:
        return None
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    shift = outline.bias if bias is None else _numbers(bias)
    return replace(outline, weight=_numbers(weight), bias=shift)


def read_outline(node: ir.Node) -> Convolution | None:
    """Return the shapes and settings of a Conv node, its numbers nought.

    None where it isn't one, a weight isn't constant, or padding isn't fixed: ``SAME`` padding of strides other than one
    depends on the size of the map.
    """
    weight = node.inputs[1] if node.op_type == "Conv" and node.domain in ("", "ai.onnx") else None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or not is_constant(weight) or (bias is not None and not is_constant(bias)):
        return None
    assert weight.const_value is not None
    shape = tuple(weight.const_value.shape.numpy())
    axes = len(shape) - 2
    attributes = node.attributes
    strides = tuple(attributes.get_ints("strides") or (1,) * axes)
    dilations = tuple(attributes.get_ints("dilations") or (1,) * axes)
    reach = [(taps - 1) * step for taps, step in zip(shape[2:], dilations, strict=True)]
    automatic = attributes.get_string("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        if any(stride > 1 for stride in strides):
            return None
        half = [(far // 2, far - far // 2) for far in reach]
        pads = tuple(pair if automatic == "SAME_UPPER" else pair[::-1] for pair in half)
    else:
        given = list(attributes.get_ints("pads") or (0,) * 2 * axes) if automatic != "VALID" else [0] * 2 * axes
        pads = tuple(zip(given[:axes], given[axes:], strict=True))
    if any(amount < 0 for pair in pads for amount in pair):
        return None
    groups = attributes.get_int("group", 1) or 1
    return Convolution(_noughts(shape), _noughts(shape[:1]), strides, dilations, pads, groups)


def _noughts(shape: Ints) -> Numbers:
    return np.broadcast_to(np.zeros(()), shape)


def _numbers(value: ir.Value | None) -> Numbers:
    assert value is not None
    assert value.const_value is not None
    found: Numbers = value.const_value.numpy().astype(np.float64)
    return found
