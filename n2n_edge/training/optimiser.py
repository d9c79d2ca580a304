"""One step of stochastic gradient descent towards the teacher, and the schedule of its learning rate."""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from n2n_edge.tasks.outputs import as_tuple
from n2n_edge.tasks.task import Task
from n2n_edge.training.compute import Engine
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.input_scale import Grid
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step as watched_step

__all__ = ["Lesson", "Optimiser", "learning_rate", "parts_of", "trains_in"]

_WARM_UP_SHARE = 0.05
_LEAST_SCALE = 1 / 16
"""What of its first value the scale of a quantizer keeps at least."""


def learning_rate(step: float, steps: int, peak: float) -> float:
    """Give the rate of `step` of `steps`: rising linearly over the first twentieth, then along a cosine to zero."""
    warm_up = math.ceil(_WARM_UP_SHARE * steps)
    if step < warm_up:
        return peak * (step + 1) / (warm_up + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@dataclass(frozen=True)
class Lesson:
    """Images that go through the network together, and what the teacher says to them, all on the engine's device.

    `features` are the teacher's feature maps for the hints, by name.
    """

    inputs: Tensor
    labels: Tensor | None
    teacher: tuple[Tensor, ...]
    features: Mapping[str, Tensor] | None = None


def parts_of(images: int, at_once: int | None) -> list[slice]:
    """Return even parts of a batch, of `at_once` images at most but two at least, which BatchNorm needs."""
    count = 1 if at_once is None else max(1, min(-(-images // at_once), images // 2))
    ends = [images * (part + 1) // count for part in range(count)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


class _Forward(nn.Module):
    """A forward pass as processes share it: outputs, and the feature maps that hints compare."""

    def __init__(self, module: GraphModule, hints: FeatureHints | None, engine: Engine) -> None:
        super().__init__()
        self.module, self.hints, self.engine = module, hints, engine

    def forward(self, inputs: Tensor, hinted: bool) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        with self.module.synchronised(self.engine.mean, self.engine.processes):
            if self.hints is None or not hinted:
                return as_tuple(self.module(inputs)), {}
            outputs, features = self.hints.run(self.module, inputs)
            return as_tuple(outputs), dict(features)


@dataclass(frozen=True)
class _Progress:
    """Where a schedule stands at a step: it was at `reached` at step `since`, and goes on at `pace` steps a step."""

    since: int
    reached: float
    pace: float

    def of(self, index: float) -> float:
        return self.reached + (index - self.since) * self.pace


class Optimiser:
    """Trains one module on an engine over a known number of steps.

    `scales` are those of layers with large inputs, by the name of their weight (see `input_scales`). Scales of
    quantizers learn at the rate of the weights, without weight decay, and stay positive; `grids` has the factors of
    their gradients, and the weights that keep to fewer bits.
    """

    def __init__(
        self,
        module: GraphModule,
        settings: DistillSettings,
        *,
        steps: int,
        task: Task,
        engine: Engine,
        hints: FeatureHints | None = None,
        hint_steps: int | None = None,
        scales: Mapping[str, float] | None = None,
        grids: Mapping[str, Grid] | None = None,
    ) -> None:
        named = {name: module.weight(name) for name in scales or {}}
        self._scaled = [(weight, (scales or {})[name]) for name, weight in named.items() if weight is not None]
        self._grids = [
            (scale, (grids or {}).get(name, Grid(1.0)), scale.detach() * _LEAST_SCALE)
            for name in module.scales
            if (scale := module.weight(name)) is not None
        ]
        self.hints, self.hint_steps = hints, hint_steps or steps
        self._progress = _Progress(0, 0.0, 1.0)
        self.module, self.settings, self.steps, self.task, self.engine = module, settings, steps, task, engine
        parameters = module.weights()
        self.parameters = parameters
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        sgd = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
        self._forward, self.sgd = engine.fabric.setup(_Forward(module, hints, engine), sgd)

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self.sgd.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint has to keep beside the weights: momentum, and the scale of float16's losses."""
        return {
            "sgd": self.sgd.state_dict(),
            "precision": self.engine.fabric.strategy.precision.state_dict(),
            "progress": asdict(self._progress),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.sgd.load_state_dict(state["sgd"])
        self.engine.fabric.strategy.precision.load_state_dict(state["precision"])
        self._progress = _Progress(**state.get("progress", asdict(self._progress)))

    def hasten(self, index: int, left: int) -> None:
        """Run through what is left of the schedule, from step `index` on, in `left` steps."""
        at = self._progress.of(index)
        self._progress = _Progress(index, at, max(0.0, self.steps - at) / left)

    def step(self, index: int, lessons: Iterable[Lesson], images: int) -> float:
        """Take step `index` on a batch of `images` in all its lessons, and give its loss.

        Lessons go through the network one after the other and their gradients are summed, so the statistics of
        BatchNorm are those of a lesson. A batch whose loss isn't finite changes no weight. Hints count less and less
        until `hint_steps`. Where several processes train, each gives its own lessons of the batch, and gets the loss of
        all.
        """
        with watched_step("training step"):
            return self._step(index, lessons, images)

    def _step(self, index: float, lessons: Iterable[Lesson], images: int) -> float:
        engine, fabric = self.engine, self.engine.fabric
        index = self._progress.of(index)
        for group in self.sgd.param_groups:
            group["lr"] = learning_rate(index, self.steps, self.settings.learning_rate)
        self.sgd.zero_grad()
        total, seen = 0.0, 0
        for lesson in lessons:
            count = len(lesson.inputs)
            seen += count
            unfinished = engine.processes > 1 and seen < images
            with fabric.no_backward_sync(self._forward) if unfinished else nullcontext():
                loss = self._loss(index, lesson) * (count / images)
                fabric.backward(loss)
            total += float(loss.detach())
        fabric.strategy.precision.unscale_gradients(self.sgd.optimizer)
        for scale, grid, _ in self._grids:
            if scale.grad is not None:
                scale.grad.mul_(grid.factor)
        self._divide_gradients()
        # in the order of the graph, which decides how the sum is rounded
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self._divide_gradients()
        if engine.processes > 1:
            with torch.no_grad():
                total = float(engine.mean(engine.moved(torch.tensor(total))))
        # the scaler of float16 leaves out a step that isn't finite by itself, and goes on with smaller losses
        if engine.number_format == "fp16" or (math.isfinite(total) and bool(torch.isfinite(norm))):
            self.sgd.step()
            self._keep_to_grids()
        return total

    @torch.no_grad()
    def _keep_to_grids(self) -> None:
        for scale, grid, least in self._grids:
            torch.maximum(scale, least, out=scale)
            weight = self.module.weight(grid.weight) if grid.most is not None else None
            if weight is not None and grid.most is not None:
                most = grid.most * scale.reshape(grid.shape)
                torch.clamp(weight, -most, most, out=weight)

    def _divide_gradients(self) -> None:
        """Divide the gradients of layers with large inputs by these; twice, it is that of their weights."""
        for weight, scale in self._scaled:
            if weight.grad is not None:
                weight.grad.div_(scale)

    def _loss(self, index: float, lesson: Lesson) -> Tensor:
        hints = self.hints if lesson.features else None
        outputs, own = self._forward(lesson.inputs, hints is not None)
        mean = self.engine.mean if self.engine.processes > 1 else None
        loss = self.task.loss(outputs, lesson.teacher, lesson.labels, self.settings, mean)
        if hints is not None and lesson.features:
            weight = self.settings.hint_weight * max(0.0, 1.0 - index / self.hint_steps)
            loss = loss + weight * hints.distance(own, lesson.features, mean)
        return loss


def trains_in(model: ir.Model, inputs: Tensor, engine: Engine) -> bool:
    """Try one small pass in the engine's format: tell whether every op of the graph, forwards and backwards, has it."""
    module = engine.module(model)
    module.train()
    try:
        with engine.autocast():
            outputs = as_tuple(module(engine.moved(inputs)))
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True
