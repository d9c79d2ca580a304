"""Post-training quantization: how ranges are set, and which layers stay float, by what validation images say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data, Split
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.image_session import ImageSession
from n2n_edge.graph.input_shape import in_layout, input_layout
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.shape_run import Array
from n2n_edge.quantize.bias_correction import correct_biases
from n2n_edge.quantize.calibrate import METHODS, Calibration, Method
from n2n_edge.quantize.equalise import equalise
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import activations, folded, with_qdq
from n2n_edge.quantize.sensitivity import measure_sensitivity, to_float
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.metrics import Evaluation
from n2n_edge.tasks.task import Meter, Task, Tensors

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
_FEW, _LEAST_FEW, _FEW_PIXELS = 64, 4, 32 * 224 * 224
"""Images that channels are equalised, biases corrected and layers compared by, and pixels that these may have."""


def image_batches(data: Data, split: Split, most: int) -> Iterator[Array]:
    """Give at most `most` images of a split as inputs ``(N, C, H, W)``, evenly chosen, in batches that fit memory."""
    chosen = _evenly(split, most)
    _, height, width = data.input_shape
    size = max(1, min(_BATCH, _PIXELS // (height * width)))
    for start in range(0, len(chosen), size):
        part = chosen.take(np.arange(start, min(start + size, len(chosen))))
        yield data.inputs(np.asarray(part.images[np.arange(len(part))]))


def _evenly(split: Split, most: int) -> Split:
    """Return at most `most` images of a split, evenly chosen."""
    return split.take(np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(np.int64)))


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
        chosen = _evenly(split, most)
        self._batches = list(image_batches(data, chosen, most))
        self._teacher = [self._session(model).run(batch) for batch in self._batches]
        task = task_of(model, data)
        self._task: Task = task.measured(lambda: (_tensors(each) for each in self._teacher))
        self._labels = task.labels(chosen)
        self._twin = self._evaluated(self._teacher if twin is None else self._outputs(twin))

    def loss(self, model: ir.Model) -> float:
        """Return the mean loss of a network on the images; infinite where it gives what isn't finite."""
        session = self._session(model)
        total, count = 0.0, 0
        for batch, teacher in zip(self._batches, self._teacher, strict=True):
            outputs = session.run(batch)
            if not all(np.isfinite(each).all() for each in outputs if each.dtype.kind == "f"):
                return float("inf")
            total, count = total + self.compare(teacher, outputs) * len(batch), count + len(batch)
        return total / count

    def compare(self, reference: Sequence[Array], outputs: Sequence[Array]) -> float:
        """Return the distillation loss of a batch's outputs with others as the teacher's."""
        return float(self._task.loss(_tensors(outputs), _tensors(reference), None, self._settings))

    def drop(self, model: ir.Model) -> float:
        """Return the points by which a network's score lies below the float twin's."""
        return 100 * (self._twin.metric - self._evaluated(self._outputs(model)).metric)

    def _outputs(self, model: ir.Model) -> list[Sequence[Array]]:
        session = self._session(model)
        return [session.run(batch) for batch in self._batches]

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


def calibrated(model: ir.Model, plan: QuantizationPlan, data: Data, images: int) -> Calibration:
    """Return histograms of the values that a plan quantizes, over at most so many training images."""
    return Calibration.of(model, activations(model, plan), _fed(model, data, images))


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
    forms = {method: with_qdq(model, ranges[method], plan) for method in methods}
    models = {method: folded(form) for method, form in forms.items()}
    losses = {method: validation.loss(models[method]) for method in methods}
    method = min(losses, key=losses.__getitem__)
    drop = validation.drop(models[method])
    words = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
    watch(f"ranges by {method} (distillation loss on validation images: {words}); {lost_in_words(drop)} there")
    return Quantized(models[method], plan, method, ranges[method], losses, drop, model, forms[method])


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

    Channels are equalised, ranges set by the best way, biases corrected. Where the score still falls by more than
    `max_drop` (points of a hundred), the layers that hurt most go back to float, as few as it takes. `model` is a
    normalised float network with its norms folded; `images` are those that ranges are set by.

    Raises:
        InputError: ONNX Runtime can't run the network.
    """
    _, height, width = data.input_shape
    few = max(_LEAST_FEW, min(_FEW, images, _FEW_PIXELS // (height * width)))
    batches = list(_fed(model, data, few))
    steps: dict[str, float] = {}
    drops: dict[str, float] = {}
    found: Quantized | None = None
    for step, graph in (("calibrated", model), ("equalised", equalise(model, batches))):
        calibration = calibrated(graph, plan, data, images)
        trial = quantize(graph, calibration, validation, plan, methods=methods, watch=watch)
        steps[step], drops[step] = trial.losses[trial.method], trial.drop
        if found is None or steps[step] < found.losses[found.method]:
            found = trial
    assert found is not None
    graph, ranges = found.graph, found.ranges
    uncorrected = found.training
    corrected_training = correct_biases(uncorrected, graph, batches)
    corrected = folded(corrected_training)
    steps["corrected"], drops["corrected"] = validation.loss(corrected), validation.drop(corrected)
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
        return correct_biases(paired, graph, batches) if corrects else paired

    watch(f"more than {max_drop:g} points are lost: measuring what each layer does")
    sensitivity = measure_sensitivity(graph, uncorrected, batches, validation.compare)
    choice = to_float(sensitivity, lambda nodes: validation.drop(folded(made(nodes))), max_drop)
    harm = {each.layer: each.error for each in sensitivity.layers}
    watch(f"{len(choice.layers)} of {len(harm)} layers back in float: {lost_in_words(choice.drop)}")
    kept = made(choice.nodes)
    model = folded(kept)
    return replace(
        found,
        model=model,
        plan=plan.keeping(*choice.nodes),
        drop=choice.drop,
        steps={**steps, "returned": validation.loss(model)},
        drops={**drops, "returned": choice.drop},
        training=kept,
        returned=tuple((layer, harm[layer]) for layer in choice.layers),
    )


def lost_in_words(drop: float) -> str:
    """Return a loss of score, in points, in words: a gain where it is negative."""
    return f"{abs(drop):.2f} points {'gained on' if drop < 0 else 'lost to'} the float twin"


def _fed(model: ir.Model, data: Data, most: int) -> Iterator[dict[str, Array]]:
    """Give training images as a network takes them, in its layout, one by one where its batch is fixed at one."""
    name, layout = str(model.graph.inputs[0].name), input_layout(model)
    alone = takes_one_image(model)
    for batch in image_batches(data, data.train, most):
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
