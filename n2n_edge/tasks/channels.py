"""Channels of a model's outputs: how far each one varies, and errors in units of that.

An output mixes what is of unlike size: pixels and probabilities, or classes that are common and rare. So errors are
normalised by channel, and all channels of an output count alike.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ChannelErrors", "ChannelScale", "channel_axis", "channel_errors", "channel_scales"]

_FEW_ELEMENTS = 512
"""An output of at most so many elements an image has a channel for each, such as the coordinates of key points."""

_CLEARLY = 2.0
"""Another axis than the usual one holds the channels where variances differ this many times as much along it."""

_ROUNDING = 1e-6
"""Changes of a channel smaller than this part of its magnitude are rounding, no signal."""

_NOTHING = 1e-9
"""Changes smaller than this part of an output's magnitude (at most 1) are no signal either."""


@dataclass(frozen=True)
class ChannelScale:
    """How far the channels of one output vary over images.

    `variance` has length one along every axis but `axis`, the channels', counted without that of the images
    (``(C, 1, 1)``);
    where `axis` is None each element of an image is a channel of its own.
    """

    axis: int | None
    variance: Tensor

    @property
    def spread(self) -> float:
        """The largest standard deviation of a channel in units of the smallest."""
        return math.sqrt(float(self.variance.max()) / float(self.variance.min()))

    def errors(self, squared: Tensor) -> Tensor:
        """Return each channel's error in units of its variance from the mean squared error of every element."""
        return (_by_channel(squared, self.axis) / self.variance.to(squared)).flatten()


def channel_axis(shape: Sequence[int], along: Sequence[Tensor]) -> int | None:
    """Tell which axis of an output holds its channels; `shape` and axes are without that of the images.

    None: each element is a channel. By form it is the first axis of a map `(C, H, W)`, the last of `(H, W, C)`, and the
    shorter of two. Where variances differ far more `along` another axis, that one tells unlike quantities apart.
    """
    if math.prod(shape) <= _FEW_ELEMENTS or len(shape) < 2:
        return None
    if len(shape) == 2:
        usual = 0 if shape[0] <= shape[1] else 1
    else:
        usual = len(shape) - 1 if shape[-2] == shape[-3] != shape[-1] else 0
    differences = [_difference(variances) for variances in along]
    most = max(range(len(shape)), key=lambda axis: differences[axis])
    return most if differences[most] > _CLEARLY * max(differences[usual], 1.0) else usual


def _difference(variances: Tensor) -> float:
    """Return the standard deviation of the logarithm of variances."""
    alive = variances[variances > 0]
    return float(alive.log().std(correction=0)) if alive.numel() > 1 else 0.0


class ChannelErrors:
    """Squared errors and variances of one output, summed over batches in float64."""

    def __init__(self) -> None:
        nothing = torch.zeros((), dtype=torch.float64)
        self._count = 0
        self._first, self._sum, self._squares, self._errors = nothing, nothing, nothing, nothing

    def add(self, teacher: Tensor, student: Tensor | None = None) -> None:
        """Take in the outputs for further images `(N, ...)`."""
        teacher = _double(teacher)
        if self._count == 0:
            self._first = teacher[0].clone()
            self._sum = self._squares = self._errors = torch.zeros_like(self._first)
        self._count += len(teacher)
        shifted = teacher - self._first  # sums of squares lose digits far from nought
        self._sum = self._sum + shifted.sum(0)
        self._squares = self._squares + shifted.square().sum(0)
        if student is not None:
            self._errors = self._errors + (_double(student) - teacher).square().sum(0)

    def _variances(self, axis: int | None) -> Tensor:
        """Return the variance of every channel: of its elements over images, or over a single image."""
        if self._count > 1:
            each = (self._squares - self._sum.square() / self._count) / (self._count - 1)
            return _by_channel(each.clamp_min(0.0), axis)
        if axis is None:
            return self._first.square()
        others = [other for other in range(self._first.dim()) if other != axis]
        return self._first.var(others, correction=0, keepdim=True)

    def scale(self) -> ChannelScale:
        """Return the channels' variances; one that never changes has that of the quietest that does."""
        shape = self._first.shape
        axis = channel_axis(shape, [self._variances(place) for place in range(len(shape))])
        variance = self._variances(axis)
        squares = _by_channel((self._first + self._sum / self._count).square(), axis) + variance
        least = torch.maximum(_ROUNDING**2 * squares, _NOTHING**2 * squares.max().clamp(1e-24, 1.0))
        alive = variance[variance > least]
        quietest = alive.min() if alive.numel() else (1e-3**2 * squares.max()).clamp_min(1e-24)
        return ChannelScale(axis, torch.where(variance > least, variance, quietest))

    def shares(self) -> Tensor:
        """Return each channel's squared error in units of its variance: 0 is equal, 1 as bad as always the mean."""
        return self.scale().errors(self._errors / self._count)


def _double(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, which Apple's GPUs lack."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def _by_channel(values: Tensor, axis: int | None) -> Tensor:
    others = [] if axis is None else [other for other in range(values.dim()) if other != axis]
    return values.mean(others, keepdim=True) if others else values


def channel_scales(outputs: Iterable[Sequence[Tensor]]) -> tuple[ChannelScale, ...]:
    """Return the scale of every output of a teacher from what it gives for some images, batch by batch."""
    sums: list[ChannelErrors] = []
    for batch in outputs:
        sums = sums or [ChannelErrors() for _ in batch]
        for each, output in zip(sums, batch, strict=True):
            each.add(output)
    return tuple(each.scale() for each in sums)


def channel_errors(
    student: Tensor, teacher: Tensor, scale: ChannelScale, mean: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return each channel's mean squared error in units of its variance, as a vector; `mean` is over processes."""
    squared = (student.float() - teacher.float()).square().mean(0)
    return scale.errors(squared if mean is None else mean(squared))
