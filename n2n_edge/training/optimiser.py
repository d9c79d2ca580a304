"""One step of stochastic gradient descent towards the teacher, and the schedule of its learning rate."""

import math
from collections.abc import Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.tasks.channels import ChannelScale
from n2n_edge.tasks.losses import distillation_loss
from n2n_edge.tasks.outputs import OutputKind, as_tuple
from n2n_edge.training.compute import autocast
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.hints import FeatureHints
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step as watched_step

__all__ = ["Optimiser", "learning_rate", "trains_in_bf16"]

_WARM_UP_SHARE = 0.05


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Give the rate of `step` of `steps`: rising linearly over the first twentieth, then along a cosine to zero."""
    warm_up = math.ceil(_WARM_UP_SHARE * steps)
    if step < warm_up:
        return peak * (step + 1) / (warm_up + 1)
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


class Optimiser:
    """Trains one module over a known number of steps."""

    def __init__(
        self,
        module: GraphModule,
        settings: DistillSettings,
        *,
        steps: int,
        kind: OutputKind,
        bf16: bool,
        hints: FeatureHints | None = None,
        hint_steps: int | None = None,
        scales: Sequence[ChannelScale] | None = None,
    ) -> None:
        self.hints, self.hint_steps, self.scales = hints, hint_steps or steps, scales
        self.module, self.settings, self.steps, self.kind, self.bf16 = module, settings, steps, kind, bf16
        parameters = module.weights()
        self.parameters = parameters
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.sgd = torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )

    def step(
        self,
        index: int,
        inputs: Tensor,
        labels: Tensor | None,
        teacher: tuple[Tensor, ...],
        features: Mapping[str, Tensor] | None = None,
    ) -> float:
        """Take step `index` on a batch and give its loss; a batch whose loss isn't finite changes no weight.

        `features` are the teacher's feature maps for the hints, which count less and less until `hint_steps`.
        """
        with watched_step("training step"):
            return self._step(index, inputs, labels, teacher, features)

    def _step(
        self,
        index: int,
        inputs: Tensor,
        labels: Tensor | None,
        teacher: tuple[Tensor, ...],
        features: Mapping[str, Tensor] | None,
    ) -> float:
        for group in self.sgd.param_groups:
            group["lr"] = learning_rate(index, self.steps, self.settings.learning_rate)
        found: Tensor | tuple[Tensor, ...]
        own: Mapping[str, Tensor] = {}
        hints = self.hints if features else None
        with autocast(self.bf16):
            if hints is None:
                found = self.module(inputs)
            else:
                found, own = hints.run(self.module, inputs)
        outputs = as_tuple(found)
        loss = distillation_loss(
            outputs,
            teacher,
            labels,
            kind=self.kind,
            temperature=self.settings.temperature,
            kd_weight=self.settings.kd_weight,
            label_smoothing=self.settings.label_smoothing,
            scales=self.scales,
        )
        if hints is not None and features:
            weight = self.settings.hint_weight * max(0.0, 1.0 - index / self.hint_steps)
            loss = loss + weight * hints.distance(own, features)
        self.sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        value = float(loss.detach())
        if math.isfinite(value) and bool(torch.isfinite(norm)):
            self.sgd.step()
        return value


def trains_in_bf16(model: ir.Model, inputs: Tensor) -> bool:
    """Try one small pass in bfloat16: tell whether every op of the graph, forwards and backwards, has it."""
    module = GraphModule(model)
    module.train()
    try:
        with autocast(True):
            outputs = as_tuple(module(inputs))
        torch.stack([output.float().square().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True
