"""Shapes as ONNX Runtime calculates them, where ONNX infers others or, for the runtime's own operators, none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx import helper

from n2n_edge.graph.op import MICROSOFT, op_of

__all__ = ["StandIn", "drop_ignored_padding", "exact_sizes", "is_refused", "stand_in"]


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


def is_refused(node: ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether ONNX Runtime won't run a convolution for inputs of these shapes, though ONNX infers its output's.

    Its weight is of another rank than its input, or reads another number of channels.
    """
    row = op_of(node)
    if row.kernel not in ("conv", "conv_transpose") or row.kernel_weight is None or node.domain == MICROSOFT:
        return False
    given = [node.inputs[place] if place < len(node.inputs) else None for place in (0, row.kernel_weight)]
    known = [None if value is None else shapes.get(str(value.name)) for value in given]
    source, weight = known
    if source is None or weight is None or len(source) < 3:
        return False
    groups = node.attributes.get_int("group", 1) if row.kernel == "conv" else 1
    return len(weight) != len(source) or source[1] != weight[row.kernel == "conv"] * (groups or 1)


def drop_ignored_padding(model: ir.Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Spell, in place, pools of ``ceil_mode`` so that ONNX infers the sizes that ONNX Runtime calculates.

    ONNX Runtime refuses files in which inference contradicts itself, such as a sum of such a pool and a value that is
    enlarged to the pool's real size.
    """
    for node in model.graph:
        if op_of(node).pool != "window" or node.attributes.get_int("ceil_mode", 0) != 1 or node.inputs[0] is None:
            continue
        source, output = (shapes.get(str(value.name), ()) for value in (node.inputs[0], node.outputs[0]))
        rank = len(source) - 2
        attributes = node.attributes
        kernel = attributes.get_ints("kernel_shape", ())
        strides = attributes.get_ints("strides", ()) or (1,) * rank
        dilations = attributes.get_ints("dilations", ()) or (1,) * rank
        pads = list(attributes.get_ints("pads", ()) or (0,) * (2 * rank))
        if not len(kernel) == len(strides) == len(dilations) == len(output) - 2 == rank or len(pads) != 2 * rank:
            continue
        # how far the padded input reaches beyond the last window
        beyond = [
            source[2 + axis] + pads[axis] + pads[rank + axis]
            - (output[2 + axis] - 1) * strides[axis] - dilations[axis] * (kernel[axis] - 1) - 1
            for axis in range(rank)
        ]  # fmt: skip
        if not any(rest > 0 for rest in beyond):
            continue
        if all(0 <= rest < stride for rest, stride in zip(beyond, strides, strict=True)):
            attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
        elif all(rest <= pad for rest, pad in zip(beyond, pads[rank:], strict=True)):
            pads[rank:] = [pad - max(rest, 0) for rest, pad in zip(beyond, pads[rank:], strict=True)]
            attributes["pads"] = ir.AttrInt64s("pads", pads)


def _pooled(size: int, kernel: int, stride: int, dilation: int, before: int, behind: int) -> int:
    room = size + before + behind - dilation * (kernel - 1) - 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + before else count


_FLOAT = onnx.TensorProto.FLOAT
_UINT8 = onnx.TensorProto.UINT8


@dataclass(frozen=True)
class StandIn:
    """A node that has the same output shape; `kind` is the element type where that isn't its first input's."""

    node: onnx.NodeProto
    kind: int | None = None


def stand_in(node: ir.Node) -> StandIn | None:
    """Return what stands for `node`, of another domain, in shape inference; None where nothing does."""
    row = op_of(node)
    if node.domain == MICROSOFT and node.attributes.get_int("channels_last", 0) == 1:
        return None
    names = [str(value.name) if value is not None else "" for value in node.inputs]
    outputs = [str(value.name) for value in node.outputs]
    if row.domain == MICROSOFT and row.name == "QLinearConcat":
        tensors = names[2::3]
        return StandIn(helper.make_node("Concat", tensors, outputs, axis=node.attributes.get_int("axis", 0)))
    if row.domain == MICROSOFT and row.kernel == "conversion":
        return _conversion(node, names, outputs)
    like = row.like
    if like is None:
        return None
    proto = helper.make_node(like.name, _chosen(names, like.inputs), outputs[:1])
    proto.attribute.extend(
        ir.serde.serialize_attribute(attribute)
        for name, attribute in node.attributes.items()
        if name in like.attributes
    )
    floats = like.gives_float or (row.name == "QGemm" and len([name for name in names if name]) < 8)
    return StandIn(proto, _FLOAT if floats else None)


def _chosen(names: Sequence[str], indices: Sequence[int]) -> list[str]:
    return [names[index] for index in indices if index < len(names)]


def _conversion(node: ir.Node, names: Sequence[str], outputs: Sequence[str]) -> StandIn:
    """Stand for the conversions to and from 4 and 16 bits, which ONNX Runtime had before ONNX."""
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    kind: int = _FLOAT
    if node.op_type == "QuantizeLinear":
        kind = int(zero_point.dtype) if zero_point is not None and zero_point.dtype is not None else _UINT8
    return StandIn(helper.make_node("Identity", [names[0]], list(outputs)), kind)
