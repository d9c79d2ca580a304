"""Normalisations: BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, LRN."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.graph.normalise import is_in_training_mode
from n2n_edge.training.ops.registry import Kernel, Mode, NodeView, register

__all__: list[str] = []


@register("BatchNormalization", forgets_output=True)
def _batch_norm(view: NodeView) -> Kernel:
    if is_in_training_mode(view.node, view.opset):
        raise view.unsupported("in training mode")
    view.only_first_output()
    if view.get_int("spatial", 1) != 1:
        raise view.unsupported("with spatial=0")
    epsilon = view.get_float("epsilon", 1e-5)
    newest = 1.0 - view.get_float(
        "momentum", 0.9
    )  # ONNX gives the weight of the old value, torch wants that of the new
    mode = view.mode
    # two norms that share one tensor of statistics can't each follow their own batches: they keep the given ones
    follows = not view.shared_statistics and view.shape(3) is not None and view.shape(4) is not None

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        if mode.training and follows:
            momentum = newest if mode.momentum is None else mode.momentum
            if mode.processes > 1:
                return _synchronised(mode, x, scale, bias, mean, variance, momentum, epsilon)
            return F.batch_norm(x, mean, variance, scale, bias, True, momentum, epsilon)
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return run


def _synchronised(
    mode: Mode, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, momentum: float, epsilon: float
) -> Tensor:
    """Normalise a part of a batch by the statistics of the whole batch, of which each process has an equal part.

    As torch's SyncBatchNorm, which runs on GPUs only.
    """
    axes = [axis for axis in range(x.dim()) if axis != 1]
    form = (1, -1, *(1 for _ in range(x.dim() - 2)))
    wide = x.float()
    centre = mode.mean(wide.mean(axes))
    shifted = wide - centre.view(form)
    spread = mode.mean(shifted.square().mean(axes))
    with torch.no_grad():
        count = mode.processes * x.numel() // x.shape[1]
        mean.lerp_(centre, momentum)
        variance.lerp_(spread * (count / max(count - 1, 1)), momentum)
    normalised = shifted * ((spread + epsilon).rsqrt() * scale).view(form) + bias.view(form)
    return normalised.to(x.dtype)


@register("InstanceNormalization")
def _instance_norm(view: NodeView) -> Kernel:
    epsilon = view.get_float("epsilon", 1e-5)
    return lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@register("LayerNormalization")
def _layer_norm(view: NodeView) -> Kernel:
    view.only_first_output()
    axis = view.get_int("axis", -1)
    epsilon = view.get_float("epsilon", 1e-5)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        normalized = x.shape[axis:]
        if scale.shape == normalized and (bias is None or bias.shape == normalized):
            return F.layer_norm(x, normalized, scale, bias, epsilon)
        result = F.layer_norm(x, normalized, None, None, epsilon) * scale
        return result if bias is None else result + bias

    return run


@register("GroupNormalization")
def _group_norm(view: NodeView) -> Kernel:
    groups = view.get_int("num_groups", 1)
    epsilon = view.get_float("epsilon", 1e-5)
    per_group = view.opset < 21  # until opset 20 scale and bias had one value a group, since then one a channel

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if per_group:
            scale = scale.repeat_interleave(x.shape[1] // groups)
            bias = bias.repeat_interleave(x.shape[1] // groups)
        return F.group_norm(x, groups, scale, bias, epsilon)

    return run


@register("LRN")
def _local_response_norm(view: NodeView) -> Kernel:
    size = view.get_int("size", 1)
    alpha, beta, bias = view.get_float("alpha", 1e-4), view.get_float("beta", 0.75), view.get_float("bias", 1.0)
    before, after = (size - 1) // 2, size // 2  # of an even window, the longer half is the later one

    def run(x: Tensor) -> Tensor:
        channels = x.shape[1]
        squares = F.pad(x.square().flatten(2), (0, 0, before, after))
        total = torch.stack([squares[:, shift : shift + channels] for shift in range(size)]).sum(0).reshape(x.shape)
        return x / (bias + alpha / size * total).pow(beta)

    return run


@register("LpNormalization")
def _lp_normalization(view: NodeView) -> Kernel:
    axis, power = view.get_int("axis", -1), view.get_int("p", 2)

    def run(x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, ord=power, dim=axis, keepdim=True)
        return torch.where(size > 0, x / torch.where(size > 0, size, torch.ones_like(size)), torch.zeros_like(x))

    return run


@register("MeanVarianceNormalization")
def _mean_variance(view: NodeView) -> Kernel:
    axes = view.get_ints("axes") or (0, 2, 3)

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return run
