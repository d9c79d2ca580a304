"""Importance of channels by data: how little the layers that read them lose when they make up for what is gone.

A layer that gives W x loses, without some of its inputs x_S and with its other weights refitted, the square of
W_S (H^-1)_SS^-1/2 with H = E[x x'], the mean over inputs (Hassibi and Stork, Optimal Brain Surgeon, 1993; for whole
structures Kurtic et al., ZipLM, 2023). The units of a channel group are given up one after the other, always those that
cost the layers that read them least, and what was lost when a unit went is its importance.

Errors of layers compare by what they do to the distillation loss, which is least at the teacher and so of second order
around it: an error e of one output adds E[g^2] e^2 / 2 with g the slope of the loss by it (see `output_slopes`). Within
a layer all outputs count alike, by the mean over them: few images tell no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.teacher import Teacher
from n2n_edge.tasks.choice import task_of
from n2n_edge.training.augmentation import normalise
from n2n_edge.training.batches import as_bytes
from n2n_edge.training.compute import Engine, deterministic, generator
from n2n_edge.training.evaluation import batch_for
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.output_slopes import output_slopes
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["MOST_IMAGES", "data_importance"]

MOST_IMAGES = 128
"""Training images that are looked at, at most."""

_SAMPLES = 16_384
_MOST_INPUTS = 4096
"""Inputs of a layer beyond which it has no say: its matrix would take hundreds of megabytes."""

_RIDGE = 0.01
"""Share of the mean squared input that is added to each: what few images can't tell apart isn't made up for exactly."""

_ROUNDS = 128
"""Rounds in which the units of a group go, so many at a time."""

_GONE, _APART = 1e30, 1e-9
_STREAM = 2**36
"""Tells this use of the seed from others."""

_Matrix = NDArray[np.float64]


@dataclass
class _Reader:
    """A layer's `weights` by its inputs ``(outputs, inputs)``, and the inverse of the mean product of these.

    Weights are in units in which errors are rises of the loss. `axis` is that of the inputs in the graph's own weight.
    """

    axis: int
    weights: _Matrix
    inverse: _Matrix

    @classmethod
    def of(cls, axis: int, weights: _Matrix, products: _Matrix) -> "_Reader":
        """Return the layer, what few images can't tell apart added to its products."""
        size = len(products)
        products = products + _RIDGE * np.trace(products) / size * np.eye(size)
        return cls(axis, weights, np.linalg.inv(products).astype(np.float64, copy=False))


def data_importance(
    teacher: Teacher, data: Data, settings: DistillSettings, *, images: int = MOST_IMAGES
) -> NDArray[np.float64]:
    """Return the importance of every label of the teacher's units; NaN for those of groups that no plain layer reads.

    `images` training images are looked at, at most; the seed of `settings` decides which. The units of one group
    compare with each other, and so do those of several: the importance is the rise of the distillation loss that the
    error of the layers that read them stands for, or where the loss has no slope a share of what they give.
    """
    found = np.full(teacher.labels.count, np.nan)
    with deterministic(settings.threads):
        engine = Engine.of(settings)
        module = engine.module(teacher.model, "teacher").eval()
        chosen = torch.randperm(len(data.train), generator=generator(settings.seed, _STREAM))[:images]
        slopes = output_slopes(module, task_of(teacher.model, data), data, chosen, settings, engine)
        readers = _readers(module, data, chosen, engine, slopes)
    for group in teacher.groups:
        if group.shrinkable:
            order, losses = _given_up(group, list(_own_readers(group, teacher, readers)))
            found[np.array(group.units)[order]] = losses
    return found


def _readers(
    module: GraphModule, data: Data, order: Tensor, engine: Engine, slopes: Mapping[str, Tensor]
) -> dict[str, _Reader]:
    look = _Look(module, len(order))
    for part in torch.split(order, batch_for(data)):
        inputs = engine.moved(normalise(as_bytes(data.train, part), data.preprocessing))
        with step("importance of channels"), torch.no_grad():
            module.visit(look, inputs)
    return look.readers(slopes)


class _Look:
    """Gathers, while the teacher runs, what its plain layers read."""

    def __init__(self, module: GraphModule, images: int) -> None:
        self._weights, self._images = module.learned(), images
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}
        self._axes: dict[str, int] = {}
        self._random = generator(0)

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Add the products of a layer's inputs to those of other images."""
        name = str(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] is not None else ""
        weight, given = self._weights.get(name), inputs[0] if inputs else None
        if weight is None or given is None:
            return
        axis = _input_axis(node, weight)
        if axis is None or weight.shape[axis] > _MOST_INPUTS:
            return
        rows = given.flatten(2).transpose(1, 2) if node.op_type in ("Conv", "ConvTranspose") else given
        rows = rows.reshape(len(given), -1, weight.shape[axis])
        each = -(-_SAMPLES // self._images)
        if rows.shape[1] > each:
            chosen = torch.randperm(rows.shape[1], generator=self._random)[:each]
            rows = rows[:, chosen.to(rows.device)]
        rows = rows.reshape(-1, rows.shape[2]).double()
        products, total, count = self._sums.get(name, (0.0, 0.0, 0))
        self._sums[name] = (products + rows.t() @ rows, total + rows.sum(dim=0), count + len(rows))
        self._axes[name] = axis

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Ignore the outputs."""

    def readers(self, slopes: Mapping[str, Tensor]) -> dict[str, _Reader]:
        """Return the layers by the names of their weights; means don't count, since constants make up for them.

        A layer without `slopes` counts as much as others do on average.
        """
        found: dict[str, _Reader] = {}
        counts: dict[str, float] = {}
        for name, (products, total, count) in self._sums.items():
            mean = total / count
            centred = (products / count - mean[:, None] * mean).cpu().numpy()
            axis, weight = self._axes[name], self._weights[name].double()
            by_output = weight.movedim(axis, -1)  # (outputs, ..., inputs)
            weights = by_output.reshape(-1, weight.shape[axis]).cpu().numpy()
            given = np.einsum("oi,ij,oj->o", weights, centred, weights, optimize=True)
            if not given.sum() > 0:
                continue
            found[name] = _Reader.of(axis, weights / np.sqrt(given.sum()), centred)
            if name in slopes:
                each = slopes[name].double().repeat_interleave(len(given) // len(slopes[name])).cpu().numpy()
                counts[name] = float(given @ each) / 2
        whole = fsum(counts.values())
        for name, reader in found.items():
            reader.weights *= np.sqrt(counts.get(name, whole / len(counts)) if whole > 0 else 1.0)
        return found


def _input_axis(node: ir.Node, weight: Tensor) -> int | None:
    """Return the axis of a layer's weight along which its inputs lie; None for what isn't a plain layer."""
    grouped = node.attributes.get_int("group", 1) != 1
    if node.op_type == "Conv" and not grouped:
        return 1
    if node.op_type == "ConvTranspose" and not grouped:
        return 0
    if node.op_type == "Gemm" and not node.attributes.get_int("transA", 0):
        return 1 if node.attributes.get_int("transB", 0) else 0
    return 0 if node.op_type == "MatMul" and weight.dim() == len(("inputs", "outputs")) else None


@dataclass
class _Share:
    """What one layer has to say of a group: `places` are, for each of its inputs, the unit's position or -1."""

    weights: _Matrix
    inverse: _Matrix
    places: NDArray[np.intp]

    def losses(self, units: int) -> _Matrix:
        """Return what giving up each unit would cost, as a share of what the layer gives."""
        own = np.flatnonzero(self.places >= 0)
        each = np.square(self.weights[:, own]).sum(axis=0) / np.diagonal(self.inverse)[own]
        return np.bincount(self.places[own], weights=each, minlength=units).astype(np.float64, copy=False)

    def give_up(self, units: NDArray[np.intp]) -> None:
        """Take units away and let the other inputs make up for them."""
        gone = np.flatnonzero(np.isin(self.places, units))
        if not len(gone):
            return
        made_up = np.linalg.solve(self.inverse[np.ix_(gone, gone)], self.inverse[gone])
        self.weights = self.weights - self.weights[:, gone] @ made_up
        self.inverse = self.inverse - self.inverse[:, gone] @ made_up
        self.weights[:, gone] = 0.0
        self.inverse[gone], self.inverse[:, gone] = 0.0, 0.0
        self.inverse[gone, gone] = _GONE


def _own_readers(group: ChannelGroup, teacher: Teacher, readers: dict[str, _Reader]) -> Iterator[_Share]:
    """Give the plain layers that read a group."""
    position = {unit: place for place, unit in enumerate(group.units)}
    for name, axis in group.dims:
        reader, row = readers.get(name), teacher.labels.dims[name, axis]
        if reader is not None and axis == reader.axis and row.shape == reader.inverse.shape[:1]:
            yield _Share(reader.weights, reader.inverse, np.array([position.get(int(label), -1) for label in row]))


def _given_up(group: ChannelGroup, shares: Sequence[_Share]) -> tuple[NDArray[np.intp], _Matrix]:
    """Return the positions of a group's units in the order in which they go, and what was lost as each went."""
    count = len(group.units)
    if not shares:
        return np.arange(count), np.full(count, np.nan)
    left, order, losses = np.ones(count, bool), [], []
    at_once = max(1, count // _ROUNDS)
    while left.any():
        cost = np.where(left, sum(share.losses(count) for share in shares), np.inf)
        going = np.argsort(cost, kind="stable")[: min(at_once, int(left.sum()))]
        order.append(going)
        losses.append(cost[going])
        left[going] = False
        for share in shares:
            share.give_up(going)
    rising = np.maximum.accumulate(np.concatenate(losses))
    return np.concatenate(order), rising * (1 + _APART * np.arange(count))
