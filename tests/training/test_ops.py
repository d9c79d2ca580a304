"""Every op means in torch what ONNX Runtime says it means."""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.graph.ops import STANDARD_OPS
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.ops.registry import OPS, UnsupportedOpError

Array = NDArray[np.generic]
RANDOM = np.random.RandomState(7)


def floats(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def longs(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


@dataclass(frozen=True)
class Case:
    """One node: `inputs` are fed, or, where their place is in `known`, given as initializers; None is left out."""

    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, object] = field(default_factory=dict)
    known: tuple[int, ...] = ()
    outputs: int = 1
    opset: int = 18
    note: str = ""

    def __str__(self) -> str:
        return "-".join(part for part in (self.op, self.note, f"opset{self.opset}") if part)


def case(op: str, *inputs: Array | None, known: tuple[int, ...] = (), outputs: int = 1, opset: int = 18,
         note: str = "", **attributes: object) -> Case:  # fmt: skip
    return Case(op, inputs, attributes, known, outputs, opset, note)


IMAGE = floats(2, 3, 9, 8)
EVEN = floats(2, 4, 6, 6)
POSITIVE = floats(3, 5, low=0.2, high=3.0)
PLAIN = floats(3, 5)
OTHER = floats(3, 5)

CASES = [
    # weighted
    case("Conv", IMAGE, floats(4, 3, 3, 3), floats(4), known=(1, 2), pads=[1, 1, 1, 1], note="same"),
    case("Conv", IMAGE, floats(4, 3, 3, 3), known=(1,), pads=[0, 1, 2, 1], strides=[2, 1], note="asymmetric"),
    case("Conv", IMAGE, floats(4, 3, 3, 2), known=(1,), auto_pad="SAME_UPPER", strides=[2, 2], note="same_upper"),
    case("Conv", IMAGE, floats(4, 3, 3, 2), known=(1,), auto_pad="SAME_LOWER", strides=[2, 2], note="same_lower"),
    case("Conv", IMAGE, floats(4, 3, 3, 3), known=(1,), auto_pad="VALID", note="valid"),
    case("Conv", IMAGE, floats(3, 1, 3, 3), known=(1,), group=3, dilations=[2, 2], pads=[2] * 4, note="depthwise"),
    case("Conv", EVEN, floats(6, 2, 1, 1), floats(6), known=(1, 2), group=2, note="grouped"),
    case("Conv", floats(2, 3, 11), floats(4, 3, 5), floats(4), known=(1, 2), pads=[2, 2], strides=[2], note="1d"),
    case("Conv", floats(2, 3, 11), floats(4, 3, 4), known=(1,), auto_pad="SAME_UPPER", note="1d_same"),
    case("Conv", IMAGE, floats(4, 3, 1, 1), floats(4), known=(1, 2), strides=[2, 2], note="pointwise"),
    case("Conv", IMAGE, floats(4, 3, 1, 1), known=(1,), strides=[2, 3], pads=[1] * 4, note="pointwise_padded"),
    case("Conv", IMAGE, floats(4, 3, 1, 1), floats(4), known=(1, 2), strides=[3, 1], pads=[0, 1, 2, 0],
         note="pointwise_uneven"),
    case("Conv", IMAGE, floats(4, 3, 1, 1), known=(1,), strides=[2, 2], auto_pad="SAME_LOWER", note="pointwise_same"),
    case("Conv", EVEN, floats(6, 2, 1, 1), known=(1,), strides=[2, 2], group=2, note="pointwise_grouped"),
    case("Conv", floats(2, 3, 11), floats(4, 3, 1), known=(1,), strides=[2], note="pointwise_1d"),
    case("Conv", floats(2, 3, 5, 4, 6), floats(4, 3, 1, 1, 1), known=(1,), strides=[2, 1, 2], note="pointwise_3d"),
    case("ConvTranspose", EVEN, floats(4, 3, 1, 1), floats(3), known=(1, 2), strides=[2, 2], output_padding=[1, 0],
         note="pointwise"),
    case("ConvTranspose", EVEN, floats(4, 3, 1, 1), floats(3), known=(1, 2), strides=[3, 2], pads=[1, 0, 0, 1],
         note="pointwise_cropped"),
    case("ConvTranspose", EVEN, floats(4, 3, 1, 1), floats(3), known=(1, 2), strides=[2, 2], output_shape=[12, 12],
         note="pointwise_output_shape"),
    case("ConvTranspose", EVEN, floats(4, 2, 1, 1), known=(1,), strides=[2, 2], group=2, note="pointwise_grouped"),
    case("ConvTranspose", floats(2, 3, 7), floats(3, 2, 1), known=(1,), strides=[2], note="pointwise_1d"),
    case("ConvTranspose", EVEN, floats(4, 3, 3, 3), floats(3), known=(1, 2), strides=[2, 2], pads=[1] * 4,
         output_padding=[1, 1], note="doubling"),
    case("ConvTranspose", EVEN, floats(4, 3, 3, 3), floats(3), known=(1, 2), strides=[2, 2], pads=[0, 1, 1, 0],
         note="asymmetric"),
    case("ConvTranspose", EVEN, floats(4, 2, 2, 2), known=(1,), strides=[2, 2], group=2, note="grouped"),
    case("ConvTranspose", EVEN, floats(4, 3, 3, 3), known=(1,), strides=[2, 2], auto_pad="SAME_UPPER", note="upper"),
    case("ConvTranspose", EVEN, floats(4, 3, 3, 3), known=(1,), strides=[2, 2], auto_pad="SAME_LOWER", note="lower"),
    case("ConvTranspose", EVEN, floats(4, 3, 3, 3), floats(3), known=(1, 2), strides=[2, 2], output_shape=[12, 12],
         note="output_shape"),
    case("ConvTranspose", floats(2, 3, 7), floats(3, 2, 3), known=(1,), dilations=[2], note="1d"),
    case("Gemm", PLAIN, floats(4, 5), floats(4), known=(1, 2), transB=1, note="linear"),
    case("Gemm", PLAIN, floats(5, 4), known=(1,), note="bare"),
    case("Gemm", floats(5, 3), floats(4, 5), floats(3, 1), known=(1, 2), transA=1, transB=1, alpha=0.5, beta=2.0,
         note="everything"),
    case("Gemm", PLAIN, floats(5, 4), floats(1), known=(1, 2), note="scalar_bias"),
    case("MatMul", floats(2, 3, 5), floats(5, 4), known=(1,)),
    case("MatMul", floats(2, 3, 5), floats(2, 5, 4), note="batched"),
    case("Einsum", floats(2, 3, 5), floats(2, 5, 4), equation="bij, bjk -> bik"),
    # normalisations
    case("BatchNormalization", IMAGE, floats(3), floats(3), floats(3), floats(3, low=0.5), known=(1, 2, 3, 4),
         epsilon=1e-3),
    case("BatchNormalization", PLAIN, floats(5), floats(5), floats(5), floats(5, low=0.5), known=(1, 2, 3, 4),
         opset=9, note="2d"),
    case("InstanceNormalization", IMAGE, floats(3), floats(3), known=(1, 2), epsilon=1e-3),
    case("LayerNormalization", floats(2, 3, 5), floats(5), floats(5), known=(1, 2)),
    case("LayerNormalization", floats(2, 3, 5), floats(3, 5), known=(1,), axis=1, note="two_axes"),
    case("LayerNormalization", floats(2, 3, 5), floats(1), floats(5), known=(1, 2), note="broadcast_scale"),
    case("GroupNormalization", EVEN, floats(4), floats(4), known=(1, 2), num_groups=2, opset=21),
    case("LRN", floats(2, 7, 4, 4), size=3, alpha=0.3, beta=0.6, bias=1.5),
    # recurrent: sequences of 5 for 2 images, 3 features, 4 hidden
    *(
        case(op, floats(5, 2, 3), floats(d, g * 4, 3), floats(d, g * 4, 4), floats(d, g * 8), known=(1, 2, 3),
             outputs=3 if op == "LSTM" else 2, hidden_size=4, direction=direction, opset=14, note=direction, **more)
        for op, g, more in (("LSTM", 4, {}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {}))
        for direction, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
    ),
    case("LSTM", floats(5, 2, 3), floats(1, 16, 3), floats(1, 16, 4), known=(1, 2), hidden_size=4, note="bare"),
    case("LSTM", floats(5, 2, 3), floats(1, 16, 3), floats(1, 16, 4), floats(1, 32), None, floats(1, 2, 4),
         floats(1, 2, 4), known=(1, 2, 3), hidden_size=4, outputs=3, note="states"),
    case("Resize", IMAGE, np.zeros(0, np.float32), np.array([1, 1, 2, 1.5], np.float32), known=(1, 2), mode="nearest",
         opset=11, coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor", note="tf"),
    # activations
    case("Relu", PLAIN),
    case("LeakyRelu", PLAIN, alpha=0.2),
    case("PRelu", IMAGE, floats(3, 1, 1), known=(1,), note="per_channel"),
    case("PRelu", IMAGE, floats(1), known=(1,), note="one"),
    case("PRelu", PLAIN, floats(5), known=(1,), note="broadcast"),
    case("Clip", PLAIN, min=-0.5, max=0.7, opset=6, note="attributes"),
    case("Clip", PLAIN, np.float32(-0.5), np.float32(0.7), known=(1, 2), note="inputs"),
    case("Clip", PLAIN, None, np.float32(0.7), known=(2,), note="upper_only"),
    case("Clip", PLAIN, np.float32(-0.5), note="computed"),
    case("Clip", PLAIN, note="nothing"),
    case("Celu", PLAIN, alpha=0.7),
    case("ThresholdedRelu", PLAIN, alpha=0.5),
    case("Shrink", PLAIN, bias=0.3, lambd=0.6),
    case("Softsign", PLAIN),
    case("Swish", PLAIN, alpha=0.7, opset=24),
    case("LpNormalization", PLAIN, axis=1, p=2),
    case("LpNormalization", PLAIN, axis=0, p=1, note="sums"),
    case("MeanVarianceNormalization", IMAGE, axes=[0, 2, 3]),
    case("Sin", PLAIN),
    case("Cos", PLAIN),
    case("Tan", PLAIN),
    case("IsNaN", PLAIN),
    case("Xor", PLAIN > 0, OTHER > 0),
    case("Mean", PLAIN, OTHER, POSITIVE),
    case("Mod", longs(7, -7, 7, -7), longs(3, 3, -3, -3), known=(1,), note="integers"),
    case("Mod", PLAIN, POSITIVE, fmod=1, note="remainder"),
    case("CumSum", PLAIN, np.int64(1), known=(1,)),
    case("CumSum", PLAIN, np.int64(0), known=(1,), exclusive=1, reverse=1, note="backwards"),
    case("ReduceLogSum", POSITIVE, longs(1), known=(1,)),
    case("ReduceLogSumExp", PLAIN, longs(0, 1), known=(1,), keepdims=0),
    case("ReduceProd", IMAGE, longs(1, 3), known=(1,)),
    case("ReduceProd", IMAGE, longs(-1, 1), known=(1,), keepdims=0, note="flat"),
    case("ArgMin", PLAIN, axis=1),
    case("ArgMin", PLAIN, axis=0, keepdims=0, select_last_index=1, note="last"),
    case("TopK", EVEN, outputs=2, opset=9, axis=1, k=2, note="attribute"),
    case("TopK", EVEN, outputs=2, opset=1, axis=2, k=3, note="attribute_first"),
    case("LogSoftmax", EVEN, opset=11, axis=1, note="flattened"),
    case("TopK", PLAIN, longs(3), known=(1,), outputs=2),
    case("TopK", floats(4, 6).round(), longs(4), known=(1,), outputs=2, axis=0, largest=0, note="smallest"),
    case("GatherElements", PLAIN, np.array([[0, -1], [2, 1], [4, 0]]), known=(1,), axis=1),
    case("GatherND", IMAGE, np.array([[0, 1], [1, 2]]), known=(1,)),
    case("GatherND", IMAGE, np.array([[[2], [0]], [[1], [1]]]), known=(1,), batch_dims=1, note="batched"),
    case("ScatterND", PLAIN, np.array([[0], [2]]), floats(2, 5), known=(1,), note="rows"),
    case("ScatterND", PLAIN, np.array([[0, 1], [2, 0], [0, 1]]), floats(3), known=(1,), reduction="add"),
    case("NonZero", PLAIN.clip(0)),
    case("Trilu", IMAGE, np.int64(1), known=(1,)),
    case("Trilu", IMAGE, upper=0, note="lower"),
    case("Sigmoid", PLAIN),
    case("HardSigmoid", PLAIN, alpha=0.3, beta=0.4),
    case("HardSwish", floats(3, 5, low=-5, high=5)),
    case("Tanh", PLAIN),
    case("Softplus", PLAIN),
    case("Elu", PLAIN, alpha=0.7),
    case("Selu", PLAIN),
    case("Selu", PLAIN, alpha=1.2, gamma=0.9, note="attributes"),
    case("Gelu", PLAIN, opset=20),
    case("Gelu", PLAIN, approximate="tanh", opset=20, note="tanh"),
    case("Mish", PLAIN),
    case("Softmax", floats(2, 3, 4)),
    case("Softmax", floats(2, 3, 4), axis=1, note="axis"),
    case("Softmax", floats(2, 3, 4), opset=11, note="flattened"),
    case("Softmax", floats(2, 3, 4), axis=-1, opset=11, note="flattened_last"),
    case("LogSoftmax", floats(2, 3, 4), axis=1),
    case("LogSoftmax", floats(2, 3, 4), opset=11, note="flattened"),
    # arithmetic
    *(case(op, PLAIN) for op in ("Exp", "Abs", "Neg", "Erf", "Floor", "Ceil", "Sign")),
    *(case(op, POSITIVE) for op in ("Log", "Sqrt", "Reciprocal")),
    case("Round", np.array([-2.5, -1.5, -0.4, 0.5, 1.5, 2.6], np.float32)),
    *(case(op, PLAIN, floats(5), known=(1,)) for op in ("Add", "Sub", "Mul")),
    *(case(op, PLAIN, floats(3, 1), floats(5), note="three") for op in ("Min", "Max", "Sum")),
    case("Div", PLAIN, POSITIVE),
    case("Div", longs(7, -7, 9), longs(2, 2, -4), note="integers"),
    case("Pow", POSITIVE, floats(5)),
    case("Pow", PLAIN, np.float32(2.0), known=(1,), note="square"),
    case("Pow", PLAIN, longs(3), known=(1,), note="integer_power"),
    *(case(op, PLAIN, np.where(PLAIN > 0, PLAIN, OTHER))
      for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    case("Where", PLAIN > 0, PLAIN, floats(5)),
    *(case(op, PLAIN > 0, OTHER > 0) for op in ("And", "Or")),
    case("Not", PLAIN > 0),
    case("Cast", PLAIN, to=TensorProto.INT64),
    case("Cast", longs(1, 0, 5), to=TensorProto.BOOL, note="to_bool"),
    *(case(op, floats(2, 3, 4), axes=[1, -1], opset=11, note="attribute")
      for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")),
    *(case(op, floats(2, 3, 4), longs(1), known=(1,), keepdims=0, note="input")
      for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")),
    case("ReduceMean", floats(2, 3, 4), note="all"),
    case("ReduceSum", floats(2, 3, 4), noop_with_empty_axes=1, note="noop"),
    case("ArgMax", floats(2, 3, 4), axis=1, keepdims=0),
    case("ArgMax", np.array([[1, 3, 3], [2, 2, 0]], np.float32), axis=-1, select_last_index=1, note="last"),
    # pools
    case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0], outputs=2, note="places"),
    case("MaxPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], pads=[0, 0, 1, 1], note="asymmetric"),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, note="ceil"),
    case("MaxPool", IMAGE, kernel_shape=[2, 3], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1, note="ceil_padded"),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", note="same_upper"),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER", note="same_lower"),
    case("MaxPool", IMAGE, kernel_shape=[2, 2], dilations=[2, 3], note="dilated"),
    case("MaxPool", floats(2, 3, 10), kernel_shape=[3], strides=[2], note="1d"),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, note="counting"),
    case("AveragePool", IMAGE, kernel_shape=[3, 2], strides=[2, 2], pads=[0, 0, 1, 1], note="asymmetric"),
    case("AveragePool", IMAGE, kernel_shape=[3, 2], pads=[0, 0, 2, 1], count_include_pad=1, note="asym_counting"),
    case("AveragePool", IMAGE, kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1, note="ceil"),
    case("AveragePool", IMAGE, kernel_shape=[2, 3], strides=[2, 3], pads=[1] * 4, ceil_mode=1, count_include_pad=1,
         opset=19, note="ceil_counting"),
    case("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", note="same_upper"),
    case("AveragePool", IMAGE, kernel_shape=[2, 2], dilations=[2, 2], opset=19, note="dilated"),
    case("AveragePool", floats(2, 3, 10), kernel_shape=[3], strides=[2], note="1d"),
    case("LpPool", IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("LpPool", IMAGE, kernel_shape=[2, 2], p=3, note="cubes"),
    case("GlobalAveragePool", IMAGE),
    case("GlobalMaxPool", IMAGE),
    # arrangement
    case("Reshape", floats(2, 3, 4), longs(0, -1), known=(1,), note="zero_copies"),
    case("Reshape", floats(2, 3, 4), longs(4, 6), note="computed"),
    case("Reshape", floats(0, 3), longs(3, 0), known=(1,), allowzero=1, note="allowzero"),
    case("Flatten", floats(2, 3, 4)),
    case("Flatten", floats(2, 3, 4), axis=-1, note="negative"),
    case("Flatten", floats(2, 3, 4), axis=0, note="zero"),
    case("Squeeze", floats(2, 1, 3, 1), axes=[1], opset=11, note="attribute"),
    case("Squeeze", floats(2, 1, 3, 1), longs(-1, 1), known=(1,), note="input"),
    case("Squeeze", floats(2, 1, 3, 1), note="all"),
    case("Unsqueeze", floats(2, 3), axes=[0, 3], opset=11, note="attribute"),
    case("Unsqueeze", floats(2, 3), longs(-1, 0), known=(1,), note="input"),
    case("Transpose", floats(2, 3, 4)),
    case("Transpose", floats(2, 3, 4), perm=[1, 2, 0], note="perm"),
    case("Expand", floats(3, 1), longs(2, 1, 4), known=(1,)),
    case("Expand", floats(3, 4), longs(1, 1), known=(1,), note="larger_input"),
    case("Tile", floats(2, 3), longs(2, 3), known=(1,)),
    case("Concat", floats(2, 3), floats(2, 1), floats(2, 2), axis=-1),
    case("Split", floats(2, 6), axis=1, split=[2, 4], outputs=2, opset=11, note="attribute"),
    case("Split", floats(2, 6), longs(1, 5), known=(1,), axis=1, outputs=2, note="input"),
    case("Split", floats(2, 7), axis=1, num_outputs=3, outputs=3, note="uneven"),
    case("Split", floats(2, 6), axis=-1, outputs=3, opset=13, note="equal"),
    case("DepthToSpace", floats(2, 8, 3, 2), blocksize=2),
    case("DepthToSpace", floats(2, 8, 3, 2), blocksize=2, mode="CRD", note="crd"),
    case("SpaceToDepth", EVEN, blocksize=2),
    case("Identity", PLAIN),
    case("Dropout", PLAIN, opset=11, ratio=0.5),
    case("Dropout", PLAIN, np.float32(0.5), known=(1,), note="input"),
    case("Shape", floats(2, 3, 4)),
    case("Shape", floats(2, 3, 4), start=1, end=-1, note="part"),
    case("Constant", value=numpy_helper.from_array(PLAIN)),
    case("Constant", value_ints=[3, 4], note="ints"),
    case("Constant", value_float=0.5, note="float"),
    case("ConstantOfShape", longs(2, 3), known=(0,), value=numpy_helper.from_array(longs(7))),
    case("ConstantOfShape", longs(2, 3), note="computed"),
    case("Range", np.int64(2), np.int64(11), np.int64(3)),
    # picking
    case("Slice", IMAGE, starts=[1, -5], ends=[3, 2147483647], axes=[1, 2], opset=9, note="attributes"),
    case("Slice", IMAGE, longs(0, 0), longs(9, 9), longs(2, 3), longs(2, 2), known=(1, 2, 3, 4), note="strided"),
    case("Slice", IMAGE, longs(-1), longs(-(2**62)), longs(3), longs(-1), known=(1, 2, 3, 4), note="reversed"),
    case("Slice", IMAGE, longs(7), longs(1), longs(2), longs(-2), known=(1, 2, 3, 4), note="backwards"),
    case("Slice", IMAGE, longs(1), longs(2**63 - 1), longs(-1), known=(1, 2, 3), note="negative_axis"),
    case("Slice", IMAGE, longs(0, 1), longs(1, 3), note="computed"),
    case("Gather", IMAGE, np.int64(-1), known=(1,), axis=1, note="scalar"),
    case("Gather", IMAGE, longs(2, 0, -1), known=(1,), axis=2, note="list"),
    case("Gather", IMAGE, np.array([[0, 1], [2, -1]]), axis=-1, note="table"),
    case("Pad", IMAGE, pads=[0, 1, 0, 2, 0, 0, 3, 0], value=1.5, opset=10, note="attributes"),
    case("Pad", IMAGE, longs(0, 0, 1, 2, 0, 0, 3, 0), np.float32(1.5), known=(1, 2), note="inputs"),
    case("Pad", IMAGE, longs(1, -1), None, longs(2), known=(1, 3), note="axes_and_crop"),
    case("Pad", IMAGE, longs(0, 0, 1, 2, 0, 0, 3, 4), known=(1,), mode="reflect", note="reflect"),
    case("Pad", IMAGE, longs(0, 1, 1, 2, 0, 2, 3, 4), mode="edge", note="edge_computed"),
    case("Pad", IMAGE, longs(0, 0, 3, 1, 0, 0, 0, 2), known=(1,), mode="edge", note="edge_of_maps"),
    case("Pad", IMAGE, longs(0, 1, 1, 0, 0, 0, 0, 0), known=(1,), mode="reflect", note="reflect_of_channels"),
    case("Pad", IMAGE, longs(0, 0, 1, -1, 0, 0, 3, 0), known=(1,), mode="reflect", note="reflect_and_crop"),
    case("Pad", IMAGE, longs(0, 0, 1, 2, 0, 0, 3, 4), known=(1,), mode="wrap", opset=19, note="wrap"),
    # resizing
    case("Resize", EVEN, np.array([1, 1, 2, 2], np.float32), known=(1,), opset=10, note="nearest"),
    case("Resize", EVEN, None, np.array([1, 1, 2, 2.5], np.float32), known=(2,), mode="nearest",
         coordinate_transformation_mode="asymmetric", nearest_mode="floor", note="nearest_asymmetric"),
    case("Resize", EVEN, None, np.array([1, 1, 0.6, 1.7], np.float32), known=(2,), note="nearest_half_pixel"),
    case("Resize", EVEN, None, np.array([1, 1, 1.5, 1.7], np.float32), known=(2,), nearest_mode="ceil",
         coordinate_transformation_mode="align_corners", note="nearest_corners"),
    case("Resize", EVEN, None, None, longs(2, 4, 9, 13), known=(3,), nearest_mode="round_prefer_ceil", note="sizes"),
    case("Resize", EVEN, None, np.array([1, 1, 2, 1.7], np.float32), known=(2,), mode="linear", note="linear"),
    case("Resize", EVEN, None, None, longs(2, 4, 13, 3), known=(3,), mode="linear", note="linear_sizes"),
    case("Resize", EVEN, None, np.array([1, 1, 2, 3], np.float32), known=(2,), mode="linear",
         coordinate_transformation_mode="align_corners", note="linear_corners"),
    case("Resize", EVEN, None, np.array([1, 1, 2, 3], np.float32), known=(2,), mode="linear",
         coordinate_transformation_mode="pytorch_half_pixel", note="linear_pytorch"),
    case("Resize", EVEN, None, np.array([1, 1, 1.7, 3], np.float32), known=(2,), mode="linear",
         coordinate_transformation_mode="asymmetric", note="linear_asymmetric"),
    case("Upsample", EVEN, scales=[1.0, 1.0, 2.0, 3.0], opset=7, note="attribute"),
    case("Upsample", EVEN, np.array([1, 1, 2, 2], np.float32), known=(1,), mode="linear", opset=9, note="linear"),
]  # fmt: skip

GRID = floats(2, 5, 7, 2, low=-1.6, high=1.6)
CASES += [
    case("GridSample", IMAGE, GRID, mode=mode, padding_mode=padding, align_corners=aligned, opset=opset,
         note=f"{mode}_{padding}_{aligned}")
    for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic")))
    for mode in modes
    for padding in ("zeros", "border", "reflection")
    for aligned in (0, 1)
]  # fmt: skip
CASES += [case("GridSample", IMAGE, GRID, opset=opset, note="defaults") for opset in (16, 20)]
CASES += [
    case("GridSample", floats(2, 3, 4, 5, 6), floats(2, 3, 5, 4, 3, low=-1.6, high=1.6), mode=mode, opset=20,
         note=f"volume_{mode}")
    for mode in ("linear", "nearest")
]  # fmt: skip

TIES = (np.arange(-40, 40, dtype=np.float32) / 4).reshape(2, 4, 10)
BYTES = np.arange(-120, 120, 3, dtype=np.int8).reshape(2, 4, 10)
SCALE, SCALES_OF_FOUR = np.array(0.5, np.float32), np.array([0.5, 0.25, 1.0, 0.03], np.float32)
CASES += [
    case("QuantizeLinear", TIES, SCALE, known=(1,), note="unsigned"),
    case("QuantizeLinear", TIES, SCALE, np.array(-7, np.int8), known=(1, 2), note="signed"),
    case("QuantizeLinear", 100 * TIES, SCALE, np.array(3, np.uint8), known=(1, 2), note="cut_off"),
    case("QuantizeLinear", TIES, SCALES_OF_FOUR, np.array([0, 3, -4, 7], np.int8), known=(1, 2), axis=-2, note="axis"),
    case("QuantizeLinear", 1e4 * TIES, SCALE, np.array(9, np.int16), known=(1, 2), opset=21, note="16_bits"),
    case("DequantizeLinear", BYTES, SCALE, np.array(-7, np.int8), known=(1, 2), note="signed"),
    case("DequantizeLinear", BYTES, SCALES_OF_FOUR, known=(1,), axis=1, note="axis"),
    case("DequantizeLinear", BYTES.astype(np.int32) << 20, SCALES_OF_FOUR, known=(0, 1), axis=-2, note="32_bits"),
    case("DequantizeLinear", BYTES[0], floats(4, 2, low=0.1), np.zeros((4, 2), np.int8), known=(0, 1, 2), axis=1,
         block_size=5, opset=21, note="blocks"),
]  # fmt: skip


def build(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Make a model of the one node, and its feed."""
    names = ["" if array is None else f"in{place}" for place, array in enumerate(case.inputs)]
    while names and not names[-1]:
        names.pop()
    arrays = {name: np.asarray(array) for name, array in zip(names, case.inputs, strict=False) if name}
    fixed = {f"in{place}" for place in case.known}
    outputs = [f"out{place}" for place in range(case.outputs)]
    graph = helper.make_graph(
        [helper.make_node(case.op, names, outputs, name="node", **case.attributes)],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in arrays.items()
            if name not in fixed
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in fixed],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    return model, {name: array for name, array in arrays.items() if name not in fixed}


def run_in_runtime(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnx_runtime(case: Case) -> None:
    model, feed = build(case)
    expected = run_in_runtime(model, feed)
    module = GraphModule(ir.from_proto(model), whole=True)
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(np.array(array)) for array in feed.values()))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert len(expected) == len(outputs)
    for wanted, got in zip(expected, outputs, strict=True):
        assert wanted.shape == tuple(got.shape)
        assert wanted.dtype == got.numpy().dtype
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_group_normalization_until_opset_20_scales_groups() -> None:
    # ONNX Runtime has no kernel for this form: its reference is the newer form with one value a channel
    image, scale, bias = floats(2, 6, 4, 4), floats(2), floats(2)
    old, feed = build(case("GroupNormalization", image, scale, bias, known=(1, 2), num_groups=2, opset=18))
    new, _ = build(
        case("GroupNormalization", image, scale.repeat(3), bias.repeat(3), known=(1, 2), num_groups=2, opset=21)
    )
    got = GraphModule(ir.from_proto(old))(torch.from_numpy(feed["in0"]))
    np.testing.assert_allclose(got.detach().numpy(), run_in_runtime(new, feed)[0], rtol=1e-4, atol=1e-5)


def test_lrn_with_an_even_window_reaches_further_forwards() -> None:
    # ONNX Runtime refuses even windows; the operator's text: channels from c - (size-1)//2 to c + ceil((size-1)/2)
    image = floats(2, 7, 3, 3)
    model, _ = build(case("LRN", image, size=4, alpha=0.3, beta=0.5, bias=1.0))
    sums = np.stack([(image[:, max(0, c - 1) : c + 3] ** 2).sum(1) for c in range(7)], axis=1)
    got = GraphModule(ir.from_proto(model))(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(got, image / np.sqrt(1 + 0.3 / 4 * sums), rtol=1e-5)


def test_every_registered_op_has_a_case() -> None:
    assert {op.rpartition(":")[2] for op in OPS} == {case.op for case in CASES}


@pytest.mark.parametrize(
    "unknown",
    [
        case("Det", floats(2, 3, 3)),
        case("Resize", EVEN, None, np.array([1, 1, 2, 2], np.float32), known=(2,), mode="cubic"),
        case("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2, ceil_mode=1, strides=[2, 2]),
    ],
    ids=lambda value: value.op,
)
def test_an_unknown_op_or_form_is_run_by_onnx_runtime_and_named(unknown: Case) -> None:
    model, feed = build(unknown)
    module = GraphModule(ir.from_proto(model), whole=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    outputs = module(*(torch.from_numpy(array) for array in feed.values()))

    assert [node.name for node in module.foreign] == ["node"]
    got = outputs if isinstance(outputs, tuple) else (outputs,)
    for expected, tensor in zip(session.run(None, feed), got, strict=True):
        assert np.array_equal(expected, tensor.numpy())


def test_gradients_pass_through_what_has_a_torch_function() -> None:
    rows = [op for op in STANDARD_OPS if not op.domain and op.passes_gradients and op.name not in ("CastLike",)]

    assert [op.name for op in rows if op.name not in OPS] == []


def test_an_op_that_no_runtime_has_is_named_with_its_node() -> None:
    model, _ = build(case("Relu", PLAIN))
    model.graph.node[0].op_type, model.graph.node[0].domain = "Hiss", "nobodys.ops"

    with pytest.raises(UnsupportedOpError, match=r"'node' is Hiss of domain 'nobodys\.ops'"):
        GraphModule(ir.from_proto(model))


SCALES = (0.3, 0.4, 0.6, 0.7, 0.9, 1.1, 1.3, 1.7, 2.0, 2.3)
FORMS = [
    (18, {"mode": "nearest", "coordinate_transformation_mode": transform, "nearest_mode": rounding})
    for transform in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
]
FORMS += [
    (18, {"mode": "linear", "coordinate_transformation_mode": transform})
    for transform in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
]
FORMS += [(10, {"mode": "nearest"}), (10, {"mode": "linear"})]


@pytest.mark.parametrize(("opset", "attributes"), FORMS, ids=str)
def test_resize_is_the_runtimes_for_every_scale_and_size(opset: int, attributes: dict[str, object]) -> None:
    for size in (3, 10, 17):
        image = np.arange(size * 3, dtype=np.float32).reshape(1, 1, 3, size)
        for scale in SCALES:
            scales = np.array([1, 1, 1, scale], np.float32)
            inputs = (image, scales) if opset == 10 else (image, None, scales)
            one = case("Resize", *inputs, known=(len(inputs) - 1,), opset=opset, **attributes)
            model, feed = build(one)
            (expected,) = run_in_runtime(model, feed)
            got = GraphModule(ir.from_proto(model))(torch.from_numpy(image)).numpy()
            np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=f"{size} pixels by {scale}")
