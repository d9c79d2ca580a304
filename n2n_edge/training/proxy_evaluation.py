"""Proxy evaluation of a candidate: a short distillation on a fixed set of images with cached teacher outputs."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.data.labels.values import Floats
from n2n_edge.tasks.choice import task_of
from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.tasks.paired import resampled_metrics
from n2n_edge.tasks.task import Meter, Tensors
from n2n_edge.training.augmentation import Augmenter, normalise
from n2n_edge.training.batches import as_bytes, evaluation_batches, subset, taught_labels, training_order
from n2n_edge.training.batchnorm import recalibrate, recalibrated_on
from n2n_edge.training.best import Validation, is_better
from n2n_edge.training.compute import Engine, default_format, deterministic, generator
from n2n_edge.training.distillation import training_engine
from n2n_edge.training.evaluation import Evaluation, batch_for, compare, finite_loss, outputs_of, outputs_on
from n2n_edge.training.executor import GraphModule, write_back
from n2n_edge.training.input_scale import MEASURED_IMAGES, grids_of, input_scales
from n2n_edge.training.optimiser import Lesson, Optimiser, parts_of
from n2n_edge.training.prefix import TeacherPrefix
from n2n_edge.training.reconstruct import FeatureTargets, Kept, reconstruct
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["ProxyResult", "ShortDistiller", "follows_few_steps"]

_BATCH = 256
_LEAST_PROFILED = 32
_LOOKED_THROUGH = 64
"""Training images, evenly chosen, that what ships of a candidate may be calibrated on."""

_FEW_STEPS = 8
"""Steps of training up to which a candidate may be better off without them."""


def follows_few_steps(images: int, settings: DistillSettings, passes: int = 1) -> bool:
    """Tell whether a candidate of so many images is validated as refitted, too, since few steps of training follow."""
    return 0 < passes * training_order(images, settings, 1).steps <= _FEW_STEPS


@dataclass(frozen=True)
class ProxyResult:
    """What a short distillation made of a candidate.

    `accuracy` is the validation metric in 0..1 (fidelity where there are no labels), `loss` the distillation loss on
    the validation images, `training_seconds` the part of the time that training took, `model` the trained candidate.
    `resampled` are the metrics on samples of the validation images, the same for every candidate (see
    `resampled_metrics`), where the distiller is told to.
    """

    accuracy: float
    loss: float
    seconds: float
    training_seconds: float
    model: ir.Model
    resampled: tuple[float | None, ...] = ()


class ShortDistiller:
    """Evaluates candidates on equal terms.

    A fixed set of training images is prepared once, with the teacher's outputs for them; each candidate gets
    `passes` passes over it (with none it is only refitted, on `feature_images` images) and is evaluated on a fixed
    part of the validation split, and on `resamples` samples of that. The result depends on the candidate and the seed
    alone, not on those evaluated before. `teacher` holds the teacher's own evaluation on the same images,
    `teacher_loss` its loss, `teaching_seconds` and `teaching_bytes` what its outputs for the training images took.
    With `profiling` candidates, which differ from the teacher in one place, begin where they differ (see
    `TeacherPrefix`), as long as they are in this process, and are refitted on few samples.
    """

    def __init__(
        self,
        teacher: ir.Model,
        data: Data,
        images: int,
        settings: DistillSettings,
        *,
        passes: int = 1,
        validation_images: int = 1000,
        feature_images: int = 512,
        resamples: int = 0,
        profiling: bool = False,
    ) -> None:
        task = task_of(teacher, data)
        self._data, self._passes, self._resamples = replace(data, task=task), passes, resamples
        self._settings = replace(settings, images_per_epoch=None, processes=1)
        self._engine = engine = Engine.of(settings)
        self._validation = subset(data.validation, validation_images, settings.seed)
        self._validation_labels = task.labels(self._validation)
        with deterministic(settings.threads):
            module = engine.module(teacher, "teacher")
            self._features = FeatureTargets(module, data, self._settings, engine, feature_images, few=profiling)
            self._images, self._labels = self._draw(images)
            start = time.monotonic()
            self._taught = self._teach(module, training_engine(settings, teacher, data))
            self.teaching_seconds = time.monotonic() - start
            self.teaching_bytes = sum(output.numel() * output.element_size() for output in self._taught)
            self._reference = list(outputs_of(module, data, self._validation, engine))
            self._prefix = self._shared(module) if profiling else None
        self._task = task.measured(lambda: self._reference)
        self.teacher = self._compare(self._reference)
        self.teacher_loss = self.teacher.error or 0.0

    @property
    def constant_loss(self) -> float:
        """The loss of who answers with the teacher's mean output to every image, on the validation images.

        Candidates' losses mean something beside it: units are those of the teacher's outputs, such as its logits.
        """
        with deterministic(self._settings.threads):
            sums = [sum(output.sum(dim=0) for output in part) for part in zip(*self._reference, strict=True)]
            constant = (
                tuple(
                    (total / len(self._validation)).expand_as(output) for total, output in zip(sums, own, strict=True)
                )
                for own in self._reference
            )
            return finite_loss(self._compare(constant).error)

    @classmethod
    def refitting(cls, teacher: ir.Model, data: Data, settings: DistillSettings) -> "ShortDistiller":
        """Return what refits without training, on few images: enough for a sensitivity profile.

        Of large images fewer are evaluated, so that a part of the profile takes about as long at any size of input.
        """
        images = max(_LEAST_PROFILED, batch_for(data))
        return cls(
            teacher, data, 1, settings, passes=0, validation_images=images, feature_images=images // 2,
            profiling=True,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to this process; images in files are taken along as pixels, as far as they are drawn.

        A copy that comes to itself elsewhere evaluates the same, on the same kind of device.
        """
        kind = self._engine.device.type
        drawn = recalibrated_on(self._data, self._settings).numpy()
        train = self._data.train
        train = train.held(np.concatenate([drawn, train.even_rows(_LOOKED_THROUGH), np.arange(min(2, len(train)))]))
        validation = self._validation.held()
        precision = self._settings.precision
        if precision == "auto" and default_format(precision, self._engine.device) == "fp32":
            precision = "fp32"  # the other machine may have instructions for more
        kept = {name: value for name, value in vars(self).items() if name != "_engine"}
        return {
            **kept,
            "_prefix": None,
            "_settings": replace(self._settings, device=kind, precision=precision),
            "_data": replace(self._data, train=train, validation=validation, test=validation),
            "_validation": validation,
            "_reference": [tuple(output.cpu() for output in outputs) for outputs in self._reference],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._engine = Engine.of(self._settings)
        self._reference = [self._engine.moved(outputs) for outputs in self._reference]
        self._features.put_on(self._engine)

    def _shared(self, teacher: GraphModule) -> TeacherPrefix:
        """Return what the teacher's first steps give for the images that refit and those that validate."""
        batches = evaluation_batches(self._data, self._validation, batch_for(self._data))
        return TeacherPrefix(teacher, [self._features.images, *(self._engine.moved(each.inputs) for each in batches)])

    def _draw(self, images: int) -> tuple[Tensor, Tensor | None]:
        """Draw the fixed set: each training image as it is, those that are drawn again augmented anew each time."""
        train, settings = self._data.train, self._settings
        randomness = generator(settings.seed, 2**32)
        rounds = -(-images // len(train))
        chosen = torch.cat([torch.randperm(len(train), generator=randomness) for _ in range(rounds)])[:images]
        drawn = as_bytes(train, chosen)
        moves: list[Floats | None] | None = None
        if settings.augments(rounds):
            augment = Augmenter(settings, self._data)
            new, again = drawn[: len(train)], drawn[len(train) :]
            parts, moves = [new], [np.eye(2, 3)] * len(new)
            for part in torch.split(again, _BATCH):
                changed, how = augment.moved(part, randomness)
                parts.append(changed)
                moves += how or [np.eye(2, 3)] * len(changed)
            drawn = torch.cat(parts)
        self._rounds = rounds
        return drawn, taught_labels(self._data, settings, train, chosen, moves)

    def _inputs(self, chosen: Tensor) -> Tensor:
        return self._engine.moved(normalise(self._images[chosen], self._data.preprocessing))

    def _teach(self, module: GraphModule, engine: Engine) -> tuple[Tensor, ...]:
        """Give the teacher's outputs for the whole fixed set, where there is most memory."""
        parts = []
        for chosen in torch.split(torch.arange(len(self._images)), batch_for(self._data, _BATCH)):
            with step("teacher's outputs for a batch"), torch.inference_mode(), engine.autocast():
                parts.append(as_tuple(module(self._inputs(chosen))))
        return tuple(torch.cat([output.float().cpu() for output in outputs]) for outputs in zip(*parts, strict=True))

    def evaluate(
        self,
        candidate: ir.Model,
        kept: Kept | None = None,
        *,
        seed: int,
        shipped: Callable[[ir.Model, Data], ir.Model] | None = None,
    ) -> ProxyResult:
        """Train a candidate shortly towards the teacher and evaluate it; the candidate stays as it is.

        `shipped` makes what is evaluated of what was trained, such as its quantized form calibrated on training images.

        With `kept` its layers are first refitted to the teacher's (see `reconstruct`), which is worth more than the
        training that follows; where that is a few steps alone, and they do harm, what was refitted counts.
        """
        start = time.monotonic()
        settings = replace(self._settings, seed=seed)
        with deterministic(settings.threads):
            module = self._engine.module(candidate, "candidate")
            halfway = None if self._prefix is None else self._prefix.halfway(module)[0]
            refitted = 0 if kept is None else reconstruct(module, self._features, kept, halfway)
            start_from = self._refitted(module) if refitted else None
            before_training = time.monotonic()
            if self._passes:
                self._train(module, settings, training_engine(settings, candidate, self._data))
            training_seconds = time.monotonic() - before_training
            if self._passes or not refitted:
                recalibrate(module, self._data, self._settings, self._rounds, self._engine)
            found = self._validated(module)
            if start_from is not None and not is_better(found, start_from[0], start_from[0].metric):
                found, learned = start_from
                module.load_learned(learned)
            trained = write_back(candidate, module)
            if shipped is not None:
                found = self._validated(self._engine.module(shipped(trained, self._data), "candidate").eval())
        seconds = time.monotonic() - start
        loss = found.loss if isfinite(found.loss) else 0.0
        resampled = resampled_metrics(found.meter, self._resamples)
        return ProxyResult(found.metric, loss, seconds, training_seconds, trained, resampled)

    def _validated(self, module: GraphModule) -> Validation:
        meter = self._task.meter()
        found = self._compare(self._outputs(module), meter)
        return Validation(found.metric, finite_loss(found.error), meter)

    def _outputs(self, module: GraphModule) -> Iterator[tuple[Tensor, ...]]:
        """Give the outputs on the validation images, batch by batch."""
        if self._prefix is None:
            yield from outputs_of(module, self._data, self._validation, self._engine)
            return
        module.eval()
        for inputs, halfway in zip(self._prefix.batches[1:], self._prefix.halfway(module)[1:], strict=True):
            yield outputs_on(module, inputs, self._engine, halfway)

    def loss_at(self, candidate: ir.Model, learning_rate: float | None) -> float:
        """Return a candidate's distillation loss after training at a peak rate, None: as it is.

        Infinite where the loss isn't a number.
        """
        with deterministic(self._settings.threads):
            module = self._engine.module(candidate, "candidate")
            if learning_rate is not None:
                settings = replace(self._settings, learning_rate=learning_rate)
                self._train(module, settings, training_engine(settings, candidate, self._data))
                recalibrate(module, self._data, settings, self._rounds, self._engine)
            return self._validated(module).loss

    def _refitted(self, module: GraphModule) -> tuple[Validation, dict[str, Tensor]] | None:
        """Return what refitting alone is worth, and its weights, where few steps follow, which may do harm."""
        if not follows_few_steps(len(self._images), self._settings, self._passes):
            return None
        return self._validated(module), {name: tensor.clone() for name, tensor in module.learned().items()}

    def _compare(self, outputs: Iterable[Tensors], meter: Meter | None = None) -> Evaluation:
        return compare(outputs, self._reference, self._validation_labels, self._task, self._settings, meter)

    def _train(self, module: GraphModule, settings: DistillSettings, engine: Engine) -> None:
        orders = [training_order(len(self._images), settings, epoch) for epoch in range(1, self._passes + 1)]
        steps = sum(order.steps for order in orders)
        first = self._inputs(torch.arange(min(MEASURED_IMAGES, len(self._images))))
        scales, grids = input_scales(module, first), grids_of(module, first)
        optimiser = Optimiser(module, settings, steps=steps, task=self._task, engine=engine, scales=scales, grids=grids)
        module.train()
        batches = (chosen for order in orders for chosen in order)
        for index, chosen in enumerate(batches):
            parts = parts_of(len(chosen), settings.images_at_once)
            optimiser.step(index, (self._lesson(chosen[part]) for part in parts), len(chosen))

    def _lesson(self, chosen: Tensor) -> Lesson:
        labels = None if self._labels is None else self._engine.moved(self._labels[chosen])
        return Lesson(self._inputs(chosen), labels, self._engine.moved(tuple(out[chosen] for out in self._taught)))
