"""QuantizeLinear and DequantizeLinear: rounding to a grid, straight through for gradients, its scale learned.

A pair of them is y = s clip(round(x / s), low - z, high - z), as ONNX Runtime calculates it, to the bit. Backwards,
rounding counts as the identity (Bengio et al., 2013), and with q the clipped integer the scale has

    dy/ds = q - x / s where x lies in the range, else q,

as in LSQ (Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1 to 3). Zero points stay as they are:
they are whole numbers, and keep nought (what is padded, what a Relu cuts off) on the grid.
"""

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.graph.op import MICROSOFT
from n2n_edge.graph.pairs import is_pair, moves_integers, quantized_type
from n2n_edge.training.ops.registry import Kernel, Mode, NodeView, register, torch_dtype

__all__ = ["RANGES", "Product", "Requantized", "round_to_grid"]

RANGES = {
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}
"""What QuantizeLinear cuts off at, by the type that it gives."""


Bound = float | Tensor
"""A number for all values, or one for each scale."""


class _Grid(torch.autograd.Function):
    """Rounding to multiples of a scale, `low` to `high` of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: Bound, high: Bound) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        return _steps(x, scale, low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        given, exact = gradients[0].float(), _quotients(x, scale)
        passed, own = _within(given, exact, ctx.low, ctx.high), None
        if ctx.needs_input_grad[1]:
            # q - x / s inside, q where x is cut off
            steps = exact.round().clamp_(ctx.low, ctx.high)
            own = steps.sub_(_within(exact, exact, ctx.low, ctx.high)).mul_(given).sum_to_size(scale.shape)
        return passed.to(x.dtype), own, None, None


class _Steps(torch.autograd.Function):
    """Integers of a grid, held as floats: what QuantizeLinear gives where its pair is not next to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Bound, low: Bound, high: Bound) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        return _steps(x, scale, low, high).add_(zero)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        exact = _quotients(x, scale)
        passed = _within(gradients[0].float(), exact, ctx.low, ctx.high).div_(scale)
        own = (-passed * exact).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        return passed.to(x.dtype), own, None, None, None


class _Floats(torch.autograd.Function):
    """Integers held as floats, multiplied by their scale."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(steps, scale)
        return steps * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, scale = ctx.saved_tensors
        given = gradients[0].float()
        own = (given * steps).sum_to_size(scale.shape) if ctx.needs_input_grad[1] else None
        return given * scale, own


def _quotients(x: Tensor, scale: Tensor) -> Tensor:
    # laid out as `x` is, also where an axis of one element would let torch choose
    return torch.div(x.float(), scale, out=torch.empty_like(x, dtype=torch.float32))


def _steps(x: Tensor, scale: Tensor, low: Bound, high: Bound) -> Tensor:
    return _quotients(x, scale).round_().clamp_(low, high)  # type: ignore[arg-type]


def _within(values: Tensor, exact: Tensor, low: Bound, high: Bound) -> Tensor:
    """Return `values`, and nought where `exact` is cut off."""
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return values * ((exact > low - 0.5) & (exact < high + 0.5))
    # one vectorised pass; a mask of truth values takes five times as long on a processor
    within: Tensor = torch.ops.aten.hardtanh_backward(values, exact, low - 0.5, high + 0.5)
    return within


@dataclass(frozen=True)
class _Form:
    """How a node's scale and zero point lie along its input."""

    axis: int
    block: int

    @classmethod
    def of(cls, view: NodeView) -> "_Form":
        return cls(view.get_int("axis", 1), view.get_int("block_size", 0))

    def spread(self, parameter: Tensor, x: Tensor) -> Tensor:
        """Return a scale or zero point so that it broadcasts to `x`."""
        if parameter.numel() == 1 and x.dim() != parameter.dim():
            return parameter.reshape(())
        if self.block:
            return parameter.repeat_interleave(self.block, self.axis).narrow(self.axis, 0, x.shape[self.axis])
        if parameter.dim() == 1 and x.dim() > 1:
            axis = self.axis % x.dim()
            return parameter.reshape([-1 if each == axis else 1 for each in range(x.dim())])
        return parameter


def round_to_grid(x: Tensor, scale: Tensor, low: Bound, high: Bound) -> Tensor:
    """Return ``scale * clip(round(x / scale), low, high)``, ties to even, in float32, for both of which it is trained.

    `scale`, `low` and `high` (of the integers less their zero point) broadcast to `x`.
    """
    result: Tensor = _Grid.apply(x, scale, low, high)  # type: ignore[no-untyped-call]
    return result


def _range(view: NodeView) -> tuple[ir.DataType, int, int]:
    kind = quantized_type(view.node)
    if kind not in RANGES:
        raise view.unsupported(f"to {kind.name.lower()}")
    return (kind, *RANGES[kind])


@register("QuantizeLinear")
@register("QuantizeLinear", domain=MICROSOFT)
def _quantize(view: NodeView) -> Kernel:
    kind, low, high = _range(view)
    form = _Form.of(view)

    known = view.constant(2)
    one_zero = 0.0 if not view.has(2) else None if known is None or known.min() != known.max() else float(known.max())

    def parts(x: Tensor, scale: Tensor, zero: Tensor | None) -> tuple[Tensor, Bound, Bound, Bound]:
        zeros: Bound = form.spread(zero, x).float() if one_zero is None and zero is not None else one_zero or 0.0
        return form.spread(scale.float(), x), zeros, low - zeros, high - zeros

    if is_pair(view.node):

        def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
            spread, _, least, most = parts(x, scale, zero)
            return round_to_grid(x, spread, least, most).to(scale.dtype)

        return run

    as_floats = moves_integers(view.node)
    given = torch_dtype(kind) or (torch.int64 if kind == ir.DataType.UINT16 else torch.int8)

    def run_alone(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        spread, zeros, least, most = parts(x, scale, zero)
        steps: Tensor = _Steps.apply(x, spread, zeros, least, most)  # type: ignore[no-untyped-call]
        return steps if as_floats else steps.to(given)

    return run_alone


@register("DequantizeLinear")
@register("DequantizeLinear", domain=MICROSOFT)
def _dequantize(view: NodeView) -> Kernel:
    source = None if view.node.inputs[0] is None else view.node.inputs[0].producer()
    if source is not None and source.op_type == "QuantizeLinear" and is_pair(source):
        return lambda x, *_: x
    form = _Form.of(view)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        spread = form.spread(scale.float(), x)
        steps = x
        if zero is not None:
            wide = torch.int64 if x.dtype == torch.int32 else torch.float32
            steps = x.to(wide) - form.spread(zero, x).to(wide)
        floats: Tensor = _Floats.apply(steps.float(), spread)  # type: ignore[no-untyped-call]
        return floats.to(scale.dtype)

    return run


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product of dequantized values, and where the scales of its operands lie.

    Kernels on integers sum exactly and add a bias that is a whole number of products of the two scales. In evaluation
    the same is done here, in floats, which are exact up to 2^24: a sum that is rounded otherwise falls to another step
    of what quantizes it, and in a deep network every such step makes others.
    """

    kernel: Kernel
    mode: Mode
    weight_axis: int
    output_axis: int

    @classmethod
    def of(cls, view: NodeView, kernel: Kernel) -> "Product | None":
        """Return the form of a node whose first two inputs are dequantized, None where it is no product of these."""
        found: Product | None = None
        match view.node.op_type:
            case "Conv":
                found = cls(kernel, view.mode, 0, 1)
            case "ConvTranspose" if view.get_int("group", 1) == 1:
                found = cls(kernel, view.mode, 1, 1)
            case "Gemm" if view.get_float("alpha", 1.0) == 1.0 == view.get_float("beta", 1.0):
                found = cls(kernel, view.mode, 0 if view.get_int("transB", 0) else 1, -1)
            case "MatMul":
                found = cls(kernel, view.mode, -1, -1)
        return found if found is not None and found.is_scaled_by_outputs(view) else None

    def is_scaled_by_outputs(self, view: NodeView) -> bool:
        """Tell whether the weight has one scale, or one for each of the outputs."""
        pair = None if view.node.inputs[1] is None else view.node.inputs[1].producer()
        scale = None if pair is None or pair.inputs[1] is None else pair.inputs[1].const_value
        if pair is None or scale is None:
            return False
        rank, axis = len(view.shape(1) or ()), pair.attributes.get_int("axis", 1) or 0
        return scale.size == 1 or (rank > 0 and axis % rank == self.weight_axis % rank)

    def __call__(self, x: Tensor, weight: Tensor, *rest: Tensor | None) -> Tensor:
        """Run the node on its inputs, and the two scales behind them."""
        *others, scale, scales = rest
        bias = others[0] if others else None
        assert scale is not None
        assert scales is not None
        if self.mode.training or torch.is_grad_enabled() or scale.numel() > 1:
            return self._run(x, weight, *others)
        along = _along(scales, self.weight_axis, weight)
        integers = self._run(_quotients(x, scale.reshape(())).round_(), _quotients(weight, along).round_())
        product = scale * scales
        if bias is not None:
            integers += _along(torch.round(bias.reshape(-1) / product), self.output_axis, integers)
        return integers.mul_(_along(product, self.output_axis, integers))

    def _run(self, *inputs: Tensor | None) -> Tensor:
        result = self.kernel(*inputs)
        assert isinstance(result, Tensor)
        return result


@dataclass(frozen=True)
class Requantized:
    """What QuantizeLinear makes of a product's sums, behind a Relu at most: kernels on integers multiply these once."""

    kernel: Kernel
    mode: Mode
    output_axis: int

    def __call__(self, x: Tensor, scale: Tensor, *rest: Tensor | None) -> Tensor:
        """Run the node on its inputs, and the two scales of the product."""
        *others, first, second = rest
        assert first is not None
        assert second is not None
        if not (self.mode.training or torch.is_grad_enabled() or scale.numel() > 1 or first.numel() > 1):
            product = first * second
            sums = _quotients(x, _along(product, self.output_axis, x)).round_()
            x = sums.mul_(_along(product / scale, self.output_axis, x)).round_().mul_(scale)
        result = self.kernel(x, scale, *others)
        assert isinstance(result, Tensor)
        return result


def _along(values: Tensor, axis: int, like: Tensor) -> Tensor:
    """Return one value, or values along an axis, so that they broadcast to `like`."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if each == axis % like.dim() else 1 for each in range(like.dim())])
