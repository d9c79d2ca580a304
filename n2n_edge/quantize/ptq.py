"""Post-training quantization: how ranges are set, and which layers stay float, by what validation images say."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.costs import counted
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.bias_correction import bias_shifts, with_biases
from n2n_edge.quantize.calibrate import METHODS, Calibration, Method
from n2n_edge.quantize.equalise import equalised
from n2n_edge.quantize.gates import equalised_gates
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import activations, folded, with_qdq
from n2n_edge.quantize.ranges import with_ranges
from n2n_edge.quantize.sensitivity import measure_sensitivity, to_float
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.task import Meter, Task, Tensors

if TYPE_CHECKING:
    from n2n_edge.training.best import Validation as Shown

__all__ = [
    "Quantized",
    "Validation",
    "calibrated",
    "image_batches",
    "lost_in_words",
    "post_train",
    "quantize",
    "quantized",
]

_BATCH, _PIXELS = 64, 64 * 96 * 96
_VALUES_BYTES = 400_000_000
"""What all values of a network together may take for a batch of which they are looked at."""
_FEW, _LEAST_FEW, _FEW_PIXELS = 64, 4, 32 * 224 * 224
"""Images that channels are equalised, biases corrected and layers compared by, and pixels that these may have."""

AllOutputs = Sequence[Sequence[Array]]
"""Outputs ``(N, ...)`` by batch."""


def image_batches(data: Data, split: Split, most: int, at_once: int = _BATCH) -> Iterator[Array]:
    """Give at most `most` images of a split as inputs ``(N, C, H, W)``, evenly chosen, in batches that fit memory.

    A batch has no more than `at_once`.
    """
    chosen = split.take(split.even_rows(most))
    _, height, width = data.input_shape
    size = max(1, min(at_once, _PIXELS // (height * width)))
    for start in range(0, len(chosen), size):
        part = chosen.take(np.arange(start, min(start + size, len(chosen))))
        yield data.inputs(np.asarray(part.images[np.arange(len(part))]))


class Validation:
    """Validation images with the float network's outputs: loss and score of what is held against it.

    `loss` is the task's distillation loss, without labels. `drop` is in points of a hundred, below the score of the
    float `twin` of what is quantized (by default the float network itself): of the score where images are labelled,
    else of fidelity.
    """

    def __init__(
        self, model: ir.Model, data: Data, split: Split, most: int, threads: int = 0, *, twin: ir.Model | None = None
    ) -> None:
        from n2n_edge.training.settings import DistillSettings

        self._threads, self._settings = threads, DistillSettings()
        self._names = [str(value.name) for value in learned_outputs(model)]
        chosen = split.take(split.even_rows(most))
        self._batches = list(image_batches(data, chosen, most))
        self._teacher = self.run(model)
        task = task_of(model, data)
        self._task: Task = task.measured(lambda: (_tensors(each) for each in self._teacher))
        self._labels = task.labels(chosen)
        self._twin = self.meter_of(self._teacher if twin is None else self.run(twin)).evaluation()

    def run(self, model: ir.Model) -> AllOutputs:
        """Return what a network gives for the images, batch by batch."""
        session = self._session(model)
        return [session.run(batch) for batch in self._batches]

    def loss(self, model: ir.Model) -> float:
        """Return the mean loss of a network on the images; infinite where it gives what isn't finite."""
        return self.loss_of(self.run(model))

    def loss_of(self, outputs: AllOutputs) -> float:
        """Return the mean loss of what a network gave; infinite where that isn't finite."""
        if not all(np.isfinite(each).all() for batch in outputs for each in batch if each.dtype.kind == "f"):
            return float("inf")
        losses = [self.compare(teacher, own) for teacher, own in zip(self._teacher, outputs, strict=True)]
        return float(np.average(losses, weights=[len(batch) for batch in self._batches]))

    def compare(self, reference: Sequence[Array], outputs: Sequence[Array]) -> float:
        """Return the distillation loss of a batch's outputs with others as the teacher's."""
        return float(self._task.loss(_tensors(outputs), _tensors(reference), None, self._settings))

    def drop(self, model: ir.Model) -> float:
        """Return the points by which a network's score lies below the float twin's."""
        return self.drop_of(self.run(model))

    def drop_of(self, outputs: AllOutputs) -> float:
        """Return the points by which the score of what a network gave lies below the float twin's."""
        return self.points_below_twin(self.meter_of(outputs).evaluation().metric)

    def shown_by(self, model: ir.Model) -> "Shown":
        """Return metric, loss and meter of a network, for a choice between two (see `is_better`)."""
        from n2n_edge.training.best import Validation as Shown

        outputs = self.run(model)
        meter = self.meter_of(outputs)
        return Shown(meter.evaluation().metric, self.loss_of(outputs), meter)

    def points_below_twin(self, metric: float) -> float:
        """Return the points by which a metric lies below the float twin's."""
        return 100 * (self._twin.metric - metric)

    def meter_of(self, outputs: AllOutputs) -> Meter:
        """Return a meter of the task that has seen what a network gave."""
        meter: Meter = self._task.meter()
        start = 0
        for own, teacher in zip(outputs, self._teacher, strict=True):
            end = start + len(own[0])
            labels = None if self._labels is None else self._labels[start:end]
            meter.add(own, teacher if labels is None else None, labels)
            start = end
        return meter

    def _session(self, model: ir.Model) -> ImageSession:
        clone = model.clone()
        values = {str(value.name): value for node in clone.graph for value in node.outputs}
        names = [_read_as(values[name]) for name in self._names]
        if names != [str(value.name) for value in clone.graph.outputs]:
            clone.graph.outputs[:] = [values[name] for name in names]
            for value in clone.graph.outputs:
                value.dtype = value.dtype or ir.DataType.FLOAT
        return ImageSession(clone, threads=self._threads)


@dataclass(frozen=True)
class Quantized:
    """A network as it would ship, and how it came about.

    `losses` are the distillation losses on validation images by way of finding ranges; `drop` is the loss of score
    there; `returned` are the layers that went back to float for it, the most harmful first, each with the loss of
    quantizing it alone. `graph` is the float network that was quantized, equalised or not; `steps` are losses by step,
    `drops` those of score; `training` is the training form of `model`: float weights behind pairs.
    """

    model: ir.Model
    plan: QuantizationPlan
    method: Method
    ranges: Mapping[str, tuple[float, float]]
    losses: Mapping[Method, float]
    drop: float
    graph: ir.Model
    training: ir.Model
    steps: Mapping[str, float] = field(default_factory=dict)
    drops: Mapping[str, float] = field(default_factory=dict)
    returned: tuple[tuple[str, float], ...] = ()


def calibrated(
    model: ir.Model,
    plan: QuantizationPlan,
    data: Data,
    images: int,
    *,
    known: Calibration | None = None,
    changed: Collection[str] = (),
) -> Calibration:
    """Return histograms of the values that a plan quantizes, over at most so many training images.

    Of a network that differs from one that is `known` in some values alone, only those `changed` are taken anew.
    """
    names = activations(model, plan)
    if known is None:
        return Calibration.of(model, names, _fed(model, data, images))
    anew = [name for name in names if name in changed or name not in known.names]
    return known.updated(Calibration.of(model, anew, _fed(model, data, images))) if anew else known


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
    watch: Callable[[str], None] = lambda text: None,
) -> Quantized:
    """Quantize with the ranges of least loss on validation images."""
    ranges = {method: calibration.ranges(method) for method in methods}
    first = with_qdq(model, ranges[methods[0]], plan)
    losses: dict[Method, float] = {}
    best: tuple[Method, ir.Model, ir.Model, AllOutputs] | None = None
    for method in methods:
        form = first if method == methods[0] else with_ranges(first, ranges[method], plan)
        shipped = folded(form)
        outputs = validation.run(shipped)
        losses[method] = validation.loss_of(outputs)
        if best is None or losses[method] < losses[best[0]]:
            best = method, form, shipped, outputs
    assert best is not None
    method, form, shipped, outputs = best
    drop = validation.drop_of(outputs)
    words = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
    watch(f"ranges by {method} (distillation loss on validation images: {words}); {lost_in_words(drop)} there")
    return Quantized(shipped, plan, method, ranges[method], losses, drop, model, form)


def post_train(
    model: ir.Model,
    data: Data,
    validation: Validation,
    plan: QuantizationPlan,
    *,
    images: int,
    methods: Sequence[Method] = METHODS,
    max_drop: float = 1.0,
    watch: Callable[[str], None] = lambda text: None,
) -> Quantized:
    """Quantize by all that helps without training, each step kept where it lowers the loss on validation images.

    Channels are equalised (through gates, too, where rounding drowns them), ranges set by the best way, biases
    corrected. Where the score still falls by more than
    `max_drop` (points of a hundred), the layers that hurt most go back to float, as few as it takes. `model` is a
    normalised float network with its norms folded; `images` are those that ranges are set by.

    Raises:
        InputError: ONNX Runtime can't run the network.
    """
    _, height, width = data.input_shape
    few = max(_LEAST_FEW, min(_FEW, images, _FEW_PIXELS // (height * width)))
    batches = list(_fed(model, data, few))
    first = calibrated(model, plan, data, images)
    found = quantize(model, first, validation, plan, methods=methods, watch=watch)
    steps = {"calibrated": found.losses[found.method]}
    drops = {"calibrated": found.drop}
    steps["equalised"], drops["equalised"] = steps["calibrated"], drops["calibrated"]
    even = equalised(model, batches)
    if even.changed:
        calibration = calibrated(even.model, plan, data, images, known=first, changed=even.changed)
        trial = quantize(even.model, calibration, validation, plan, methods=methods, watch=watch)
        steps["equalised"], drops["equalised"] = trial.losses[trial.method], trial.drop
        if steps["equalised"] < steps["calibrated"]:
            found = trial
    gated = equalised_gates(model, batches)
    if gated.float_nodes:
        watch(f"channels of {len(gated.float_nodes) // 2} gates equalised, their Sigmoids in float")
        partly = plan.keeping(*gated.float_nodes)
        calibration = calibrated(gated.model, partly, data, images, known=first, changed=gated.changed)
        trial = quantize(gated.model, calibration, validation, partly, methods=methods, watch=watch)
        steps["gates"], drops["gates"] = trial.losses[trial.method], trial.drop
        if steps["gates"] < found.losses[found.method]:
            found, plan = trial, partly
    graph, ranges = found.graph, found.ranges
    uncorrected = found.training
    shifts = bias_shifts(uncorrected, graph, batches)
    corrected_training = with_biases(uncorrected, shifts)
    corrected = folded(corrected_training)
    outputs = validation.run(corrected)
    steps["corrected"], drops["corrected"] = validation.loss_of(outputs), validation.drop_of(outputs)
    corrects = steps["corrected"] < found.losses[found.method]
    if corrects:
        found = replace(found, model=corrected, training=corrected_training, drop=drops["corrected"])
    words = ", ".join(f"{step} {loss:.3g}" for step, loss in steps.items())
    watch(f"loss by step: {words}; {lost_in_words(found.drop)}")
    found = replace(found, steps=steps, drops=drops)
    if found.drop <= max_drop:
        return found

    def made(nodes: frozenset[str]) -> ir.Model:
        paired = with_qdq(graph, ranges, plan.keeping(*nodes))
        return with_biases(paired, shifts) if corrects else paired

    watch(f"more than {max_drop:g} points are lost: measuring what each layer does")
    sensitivity = measure_sensitivity(graph, uncorrected, batches, validation.compare)
    choice = to_float(sensitivity, lambda nodes: validation.drop(folded(made(nodes))), max_drop)
    harm = {each.layer: each.error for each in sensitivity.layers}
    watch(f"{len(choice.layers)} of {len(harm)} layers back in float: {lost_in_words(choice.drop)}")
    kept = made(choice.nodes)
    shipped = folded(kept)
    return replace(
        found,
        model=shipped,
        plan=plan.keeping(*choice.nodes),
        drop=choice.drop,
        steps={**steps, "returned": validation.loss(shipped)},
        drops={**drops, "returned": choice.drop},
        training=kept,
        returned=tuple((layer, harm[layer]) for layer in choice.layers),
    )


def lost_in_words(drop: float) -> str:
    """Return a loss of score, in points, in words: a gain where it is negative."""
    return f"{abs(drop):.2f} points {'gained on' if drop < 0 else 'lost to'} the float twin"


def _fed(model: ir.Model, data: Data, most: int) -> Iterator[dict[str, Array]]:
    """Give training images as a network takes them, in its layout, one by one where its batch is fixed at one.

    A batch is small enough for all of the network's values to be kept.
    """
    name, layout = str(model.graph.inputs[0].name), input_layout(model)
    alone = takes_one_image(model)
    each = float(counted(model).amounts.node_output_bytes[:, 0].sum())
    at_once = min(_BATCH, int(_VALUES_BYTES / max(each, 1.0)))
    for batch in image_batches(data, data.train, most, at_once):
        images = in_layout(batch, layout)
        for part in np.split(images, len(images)) if alone else [images]:
            yield {name: part}


def _read_as(value: ir.Value) -> str:
    """Return the name under which a value is read: that of what dequantizes it where it is quantized."""
    readers = [use.node for use in value.uses()]
    if value.is_graph_output() or len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return str(value.name)
    return str(next(use.node for use in readers[0].outputs[0].uses()).outputs[0].name)


def _tensors(outputs: Sequence[Array]) -> Tensors:
    import torch

    return [torch.from_numpy(np.ascontiguousarray(each)) for each in outputs]
