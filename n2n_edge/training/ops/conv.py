"""Weighted ops: Conv, ConvTranspose, Gemm, MatMul, Einsum."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from n2n_edge.training.convolution import RANKS, convolve, convolve_transposed
from n2n_edge.training.ops.registry import Kernel, NodeView, register
from n2n_edge.training.ops.window import Window, pad_spatial, read_window

__all__: list[str] = []


def _weight_window(view: NodeView) -> Window:
    weight = view.shape(1)
    window = read_window(view, None if weight is None else weight[2:])
    if len(window.kernel) not in RANKS:
        raise view.unsupported(f"over {len(window.kernel)} spatial axes")
    return window


@register("Conv", forgets_output=True)
def _conv(view: NodeView) -> Kernel:
    window = _weight_window(view)
    groups = view.get_int("group", 1)
    strides, dilations = window.strides, window.dilations

    if window.symmetric:
        padding = window.begin

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return convolve(x, weight, bias, strides, padding, dilations, groups)

        return run

    none = (0,) * len(window.kernel)

    def run_padded(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        before, after = window.amounts(x.shape[2:])
        return convolve(pad_spatial(x, before, after), weight, bias, strides, none, dilations, groups)

    return run_padded


@register("ConvTranspose", forgets_output=True)
def _conv_transpose(view: NodeView) -> Kernel:
    window = _weight_window(view)
    rank = len(window.kernel)
    groups = view.get_int("group", 1)
    output_padding = view.get_ints("output_padding") or (0,) * rank
    output_shape = view.get_ints("output_shape")
    strides, dilations, reach = window.strides, window.dilations, window.reach
    fits_torch = all(extra < max(s, d) for extra, s, d in zip(output_padding, strides, dilations, strict=True)) and all(
        pad <= span - 1 for pad, span in zip(window.begin, reach, strict=True)
    )

    if window.symmetric and output_shape is None and fits_torch:
        padding = window.begin

        def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
            return convolve_transposed(x, weight, bias, strides, padding, output_padding, groups, dilations)

        return run

    none = (0,) * rank

    def crops(spatial: torch.Size) -> tuple[list[int], list[int]]:
        if output_shape is None and window.auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
            return list(window.begin), list(window.end)
        sizes = output_shape[-rank:] if output_shape else tuple(n * s for n, s in zip(spatial, strides, strict=True))
        before, after = [], []
        for axis, size in enumerate(sizes):
            total = strides[axis] * (spatial[axis] - 1) + output_padding[axis] + reach[axis] - size
            total = max(total, 0) if output_shape is None else total
            small, large = total // 2, total - total // 2
            first_is_small = window.auto_pad == "SAME_UPPER"
            before.append(small if first_is_small else large)
            after.append(large if first_is_small else small)
        return before, after

    def run_cropped(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        before, after = crops(x.shape[2:])
        full = convolve_transposed(x, weight, None, strides, none, none, groups, dilations)
        # output_padding extends the far end with places that no input reaches, before the bias is added
        kept = pad_spatial(full, [-b for b in before], [o - a for o, a in zip(output_padding, after, strict=True)])
        return kept if bias is None else kept + bias.reshape(1, -1, *(1,) * rank)

    return run_cropped


@register("Gemm")
def _gemm(view: NodeView) -> Kernel:
    alpha, beta = view.get_float("alpha", 1.0), view.get_float("beta", 1.0)
    transpose_a, transpose_b = bool(view.get_int("transA", 0)), bool(view.get_int("transB", 0))
    bias_shape = view.shape(2)
    vector_bias = not view.has(2) or (bias_shape is not None and len(bias_shape) == 1 and bias_shape[0] > 1)

    if alpha == 1.0 and beta == 1.0 and not transpose_a and vector_bias:

        def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
            return F.linear(a, b if transpose_b else b.t(), c)

        return run

    def run_general(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        product = alpha * ((a.t() if transpose_a else a) @ (b.t() if transpose_b else b))
        return product if c is None else product + beta * c

    return run_general


@register("MatMul")
def _matmul(view: NodeView) -> Kernel:
    return torch.matmul


@register("Einsum")
def _einsum(view: NodeView) -> Kernel:
    equation = view.get_string("equation", "")
    return lambda *operands: torch.einsum(equation, *operands)
