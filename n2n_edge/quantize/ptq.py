"""Post-training quantization: how ranges are set, and which layers stay float, by what validation images say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.calibrate import METHODS, Calibration, Method
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import activations, folded, weighted_nodes, with_qdq
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Meter, Task, Tensors

__all__ = ["Quantized", "Validation", "calibrated", "image_batches", "quantize", "quantized"]

_BATCH, _PIXELS = 64, 64 * 96 * 96


def image_batches(data: Data, split: Split, most: int) -> Iterator[Array]:
    """Give at most `most` images of a split as inputs ``(N, C, H, W)``, evenly chosen, in batches that fit memory."""
    chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64))
    _, height, width = data.input_shape
    size = max(1, min(_BATCH, _PIXELS // (height * width)))
    for start in range(0, len(chosen), size):
        part = split.take(chosen[start : start + size])
        yield data.inputs(np.asarray(part.images[np.arange(len(part))]))


class Validation:
    """Validation images with the float network's outputs: loss and score of what is held against it.

    `loss` is the task's distillation loss, without labels. `drop` is in points of a hundred: of the score where images
    are labelled, else what fidelity lacks.
    """

    def __init__(self, model: ir.Model, data: Data, split: Split, most: int, threads: int = 0) -> None:
        from n2n_edge.training.settings import DistillSettings

        self._threads, self._settings = threads, DistillSettings()
        self._names = [str(value.name) for value in learned_outputs(model)]
        chosen = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64))
        self._split = split.take(chosen)
        self._batches = list(image_batches(data, self._split, most))
        self._teacher = [self._session(model).run(batch) for batch in self._batches]
        task = task_of(model, data)
        self._task: Task = task.measured(lambda: (_tensors(each) for each in self._teacher))
        self._labels = task.labels(self._split)
        self._own = self._evaluated(self._teacher)

    def loss(self, model: ir.Model) -> float:
        """Return the mean loss of a network on the images; infinite where it gives what isn't finite."""
        session = self._session(model)
        total, count = 0.0, 0
        for batch, teacher in zip(self._batches, self._teacher, strict=True):
            outputs = session.run(batch)
            if not all(np.isfinite(each).all() for each in outputs if each.dtype.kind == "f"):
                return float("inf")
            found = self._task.loss(_tensors(outputs), _tensors(teacher), None, self._settings)
            total, count = total + float(found) * len(batch), count + len(batch)
        return total / count

    def drop(self, model: ir.Model) -> float:
        """Return the points by which a network's score lies below the float one's."""
        session = self._session(model)
        found = self._evaluated([session.run(batch) for batch in self._batches])
        return 100 * (self._own.metric - found.metric)

    def _evaluated(self, outputs: Sequence[Sequence[Array]]) -> Evaluation:
        meter: Meter = self._task.meter()
        start = 0
        for own, teacher in zip(outputs, self._teacher, strict=True):
            end = start + len(own[0])
            labels = None if self._labels is None else self._labels[start:end]
            meter.add(own, teacher if labels is None else None, labels)
            start = end
        return meter.evaluation()

    def _session(self, model: ir.Model) -> ImageSession:
        clone = model.clone()
        values = {str(value.name): value for node in clone.graph for value in node.outputs}
        # what reads a quantized value reads it dequantized
        names = [each if (each := f"{name}_DequantizeLinear_Output") in values else name for name in self._names]
        if names != [str(value.name) for value in clone.graph.outputs]:
            clone.graph.outputs[:] = [values[name] for name in names]
            for value in clone.graph.outputs:
                value.dtype = value.dtype or ir.DataType.FLOAT
        return ImageSession(clone, threads=self._threads)


@dataclass(frozen=True)
class Quantized:
    """A network as it would ship, and how it came about.

    `losses` are the distillation losses on validation images by way of finding ranges; `drop` is the loss of score
    there; `returned` are the layers that went back to float for it, the most harmful first, each with the loss that
    this saves.
    """

    model: ir.Model
    plan: QuantizationPlan
    method: Method
    ranges: Mapping[str, tuple[float, float]]
    losses: Mapping[Method, float]
    drop: float
    returned: tuple[tuple[str, float], ...] = ()


def calibrated(model: ir.Model, plan: QuantizationPlan, data: Data, images: int) -> Calibration:
    """Return histograms of the values that a plan quantizes, over at most so many training images."""
    name = str(model.graph.inputs[0].name)
    layout = _layout(model)
    batches = ({name: layout(each)} for each in image_batches(data, data.train, images))
    return Calibration.of(model, activations(model, plan), batches)


def quantized(model: ir.Model, ranges: Mapping[str, tuple[float, float]], plan: QuantizationPlan) -> ir.Model:
    """Return `model`, a normalised float network with its norms folded, as it ships by a plan."""
    return folded(with_qdq(model, ranges, plan))


def quantize(
    model: ir.Model,
    calibration: Calibration,
    validation: Validation,
    plan: QuantizationPlan,
    *,
    methods: Sequence[Method] = METHODS,
    max_drop: float | None = None,
    watch: Callable[[str], None] = lambda text: None,
) -> Quantized:
    """Quantize with the ranges of least loss; layers go back to float until the score falls by at most `max_drop`.

    `max_drop` is in points of a hundred; None leaves the plan as it is. Which layers hurt most is measured once, and as
    many go back as it takes, which a binary search finds.
    """
    ranges = {method: calibration.ranges(method) for method in methods}
    models = {method: quantized(model, ranges[method], plan) for method in methods}
    losses = {method: validation.loss(models[method]) for method in methods}
    method = min(losses, key=losses.__getitem__)
    drop = validation.drop(models[method])
    words = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
    watch(f"ranges by {method} (distillation loss on validation images: {words}); {drop:+.2f} points lost there")
    found = Quantized(models[method], plan, method, ranges[method], losses, drop)
    if max_drop is None or drop <= max_drop:
        return found
    watch(f"more than {max_drop:g} points are lost: measuring what each layer does")
    saved = sensitivity(model, found, validation)
    order = sorted(saved, key=saved.__getitem__, reverse=True)
    least, most = 0, len(order)
    best: Quantized | None = None
    while least < most:  # so many layers are enough, or more: smaller numbers are tried first
        count = min(2 * least + 1, (least + most) // 2)
        chosen = plan.keeping(*order[:count])
        trial = quantized(model, ranges[method], chosen)
        drop = validation.drop(trial)
        watch(f"{count} of {len(order)} layers back in float: {drop:+.2f} points lost")
        if drop <= max_drop:
            most = count
            best = Quantized(
                trial,
                chosen,
                method,
                ranges[method],
                losses,
                drop,
                tuple((name, saved[name]) for name in order[:count]),
            )
        else:
            least = count + 1
    return found if best is None else best


def sensitivity(model: ir.Model, found: Quantized, validation: Validation) -> dict[str, float]:
    """Return by how much the loss falls when each quantized layer alone goes back to float."""
    whole = found.losses[found.method]
    names = [name for name in weighted_nodes(model) if name not in found.plan.float_nodes]
    return {name: whole - validation.loss(quantized(model, found.ranges, found.plan.keeping(name))) for name in names}


def _layout(model: ir.Model) -> Callable[[Array], Array]:
    from n2n_edge.graph.input_shape import in_layout, input_layout

    layout = input_layout(model)
    return lambda images: in_layout(images, layout)


def _tensors(outputs: Sequence[Array]) -> Tensors:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(each)) for each in outputs]
