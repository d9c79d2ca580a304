"""Output sizes of poolings and transposed convolutions as ONNX Runtime calculates them, where ONNX infers others."""

from collections.abc import Sequence

import onnx_ir as ir

from n2n_edge.graph.op import op_of

__all__ = ["exact_sizes"]


def exact_sizes(node: ir.Node, source: Sequence[int], weight: Sequence[int] = ()) -> tuple[int, ...] | None:
    """Return the spatial output sizes of `node` for an input of shape `source`; None where ONNX infers them rightly.

    A pool of ``ceil_mode`` has no window that begins in the padding behind the input; a transposed convolution of
    ``SAME`` padding gives its stride times the input at most, whatever its output padding.
    """
    attributes = node.attributes
    rank = len(source) - 2
    row = op_of(node)
    if row.pool == "window" and attributes.get_int("ceil_mode", 0) == 1:
        kernel = tuple(attributes.get_ints("kernel_shape", ()))
        strides = tuple(attributes.get_ints("strides", ())) or (1,) * rank
        dilations = tuple(attributes.get_ints("dilations", ())) or (1,) * rank
        pads = tuple(attributes.get_ints("pads", ())) or (0,) * (2 * rank)
        automatic = attributes.get_string("auto_pad", "NOTSET")
        if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank or min(strides) < 1:
            return None
        if automatic not in ("NOTSET", ""):
            return None
        return tuple(
            _pooled(source[2 + axis], kernel[axis], strides[axis], dilations[axis], pads[axis], pads[rank + axis])
            for axis in range(rank)
        )
    if row.kernel == "conv_transpose" and attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        kernel = tuple(attributes.get_ints("kernel_shape", ())) or tuple(weight[2:])
        strides = tuple(attributes.get_ints("strides", ())) or (1,) * rank
        dilations = tuple(attributes.get_ints("dilations", ())) or (1,) * rank
        more = tuple(attributes.get_ints("output_padding", ())) or (0,) * rank
        if (
            attributes.get_ints("output_shape")
            or not len(kernel) == len(strides) == len(dilations) == len(more) == rank
        ):
            return None
        full = [
            (source[2 + axis] - 1) * strides[axis] + more[axis] + dilations[axis] * (kernel[axis] - 1) + 1
            for axis in range(rank)
        ]
        return tuple(min(size, source[2 + axis] * strides[axis]) for axis, size in enumerate(full))
    return None


def _pooled(size: int, kernel: int, stride: int, dilation: int, before: int, behind: int) -> int:
    room = size + before + behind - dilation * (kernel - 1) - 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count
