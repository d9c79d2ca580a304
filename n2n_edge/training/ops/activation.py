"""Activations: everything that maps each element by itself and is meant as a non-linearity."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.training.ops.registry import Kernel, NodeView, register

__all__: list[str] = []


@register("Relu")
def _relu(view: NodeView) -> Kernel:
    return torch.relu_ if view.overwrite_input else torch.relu


@register("LeakyRelu")
def _leaky_relu(view: NodeView) -> Kernel:
    slope = view.get_float("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@register("PRelu")
def _prelu(view: NodeView) -> Kernel:
    shape = view.shape(1)
    per_channel = shape is not None and len(shape) == 3 and shape[1:] == (1, 1)

    def run(x: Tensor, slope: Tensor) -> Tensor:
        if slope.numel() == 1 or (per_channel and x.dim() == 4):
            return F.prelu(x, slope.reshape(-1).to(x.dtype))
        return x.clamp(min=0) + slope * x.clamp(max=0)

    return run


@register("Clip")
def _clip(view: NodeView) -> Kernel:
    # bounds are attributes until opset 10, inputs since then
    bounds: list[float | None] = []
    for index, name in ((1, "min"), (2, "max")):
        known = view.constant(index)
        attribute = view.node.attributes.get(name)
        bounds.append(attribute.as_float() if attribute else None if known is None else float(known))
    low, high = bounds
    if not view.has(1) and not view.has(2) and low is None and high is None:
        return lambda x: x
    if all(not view.has(index) or view.constant(index) is not None for index in (1, 2)):
        return lambda x, *_: x.clamp(low, high)

    def run(x: Tensor, minimum: Tensor | None = None, maximum: Tensor | None = None) -> Tensor:
        return torch.clamp(x, minimum, maximum)

    return run


@register("HardSigmoid")
def _hard_sigmoid(view: NodeView) -> Kernel:
    alpha, beta = view.get_float("alpha", 0.2), view.get_float("beta", 0.5)
    return lambda x: (alpha * x + beta).clamp(0, 1)


@register("Elu")
def _elu(view: NodeView) -> Kernel:
    alpha = view.get_float("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@register("Selu")
def _selu(view: NodeView) -> Kernel:
    alpha, gamma = (
        view.get_float("alpha", 1.67326319217681884765625),
        view.get_float("gamma", 1.05070102214813232421875),
    )
    return lambda x: gamma * F.elu(x, alpha)


@register("Celu")
def _celu(view: NodeView) -> Kernel:
    alpha = view.get_float("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@register("ThresholdedRelu")
def _thresholded_relu(view: NodeView) -> Kernel:
    alpha = view.get_float("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@register("Shrink")
def _shrink(view: NodeView) -> Kernel:
    bias, bound = view.get_float("bias", 0.0), view.get_float("lambd", 0.5)
    return lambda x: torch.where(x < -bound, x + bias, torch.where(x > bound, x - bias, torch.zeros_like(x)))


@register("Swish")
def _swish(view: NodeView) -> Kernel:
    alpha = view.get_float("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


@register("Gelu")
def _gelu(view: NodeView) -> Kernel:
    approximate = view.get_string("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _softmax_like(view: NodeView, function: Callable[[Tensor, int], Tensor]) -> Kernel:
    if view.opset >= 13:
        axis = view.get_int("axis", -1)
        return lambda x: function(x, axis)
    first = view.get_int("axis", 1)

    def run(x: Tensor) -> Tensor:
        # until opset 12 everything from `axis` on is one flattened axis
        start = first % x.dim() if x.dim() else 0
        return function(x.flatten(start), start).reshape(x.shape)

    return run


@register("Softmax")
def _softmax(view: NodeView) -> Kernel:
    return _softmax_like(view, lambda x, axis: torch.softmax(x, axis))


@register("LogSoftmax")
def _log_softmax(view: NodeView) -> Kernel:
    return _softmax_like(view, lambda x, axis: torch.log_softmax(x, axis))


def _plain(function: Callable[..., Tensor]) -> Callable[[NodeView], Kernel]:
    return lambda view: function


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Sigmoid": torch.sigmoid,
    "HardSwish": F.hardswish,
    "Tanh": torch.tanh,
    "Softplus": F.softplus,
    "Mish": F.mish,
    "Softsign": F.softsign,
}
for _name, _function in _FUNCTIONS.items():
    register(_name)(_plain(_function))
