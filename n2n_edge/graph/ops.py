"""Table of ops: one row per operator of ONNX, and per operator of ONNX Runtime's own that optimised files hold.

What the columns mean says `Op`.
"""

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from n2n_edge.graph import rules_elementwise as elementwise
from n2n_edge.graph import rules_moving as moving
from n2n_edge.graph import rules_weighted as weighted
from n2n_edge.graph import slicing
from n2n_edge.graph.op import MICROSOFT, Like, Macs, Op, Weight
from n2n_edge.graph.operands import pads_positions_only

__all__ = ["STANDARD_OPS"]


def _always(node: ir.Node, width: int) -> bool:
    return True


def _flattens(node: ir.Node, width: int) -> bool:
    return node.attributes.get_int("axis", 1) == 1


def _reshapes_flat(node: ir.Node, width: int) -> bool:
    shape = node.outputs[0].shape
    return shape is not None and len(shape) == 2 and isinstance(shape[1], int) and shape[1] % width == 0


def _pads_positions(node: ir.Node, width: int) -> bool:
    return pads_positions_only(node, len(node.inputs[0].shape or ()) if node.inputs[0] else 0)


def _names(node: ir.Node) -> list[str]:
    return [str(value.name) if value is not None else "" for value in node.inputs]


def _convolution(weight: int = 1, *, transposed: bool = False) -> Callable[[ir.Node], Macs | None]:
    """Every output position reads the weights of one output channel; every input position of a transposed one."""

    def macs(node: ir.Node) -> Macs | None:
        names, output = _names(node), str(node.outputs[0].name)
        if len(names) <= weight or not output:
            return None
        return Macs(names[0] if transposed else output, names[weight], (names[weight], 0))

    return macs


def _product(least: int = 2, *, axis: int = -1, turned: int = -1) -> Callable[[ir.Node], Macs | None]:
    """Every output element sums over one axis of input 0: `axis`, or `turned` where transA is set."""

    def macs(node: ir.Node) -> Macs | None:
        names, output = _names(node), str(node.outputs[0].name)
        if len(names) < least or not output:
            return None
        return Macs(output, "", (names[0], turned if node.attributes.get_int("transA", 0) else axis))

    return macs


def _gemm_axes(node: ir.Node, index: int) -> tuple[int, int]:
    return (0, 1) if node.attributes.get_int("transB", 0) else (1, 0)


_CONV = Weight(takes_any_width=lambda node, index: node.attributes.get_int("group", 1) == 1)
_CONV_TRANSPOSE = Weight(axes=lambda node, index: (1, 0), out_per_group=True)
_GEMM = Weight(axes=_gemm_axes, takes_any_width=lambda node, index: not node.attributes.get_int("transA", 0))
_MATMUL = Weight(
    inputs=(1, 0),
    axes=lambda node, index: (-1, -2) if index == 1 else (-2, -1),
    channels_last=True,
    takes_any_width=weighted.is_matrix_of_rows,
)

_unary = partial(Op, labels=elementwise.passing, per_image=True)
_activation = partial(Op, labels=elementwise.passing, per_image=True, activation=True, passes_width=_always)
_binary = partial(Op, labels=elementwise.elementwise, labels_constants=True, broadcasts=True)
_comparison = partial(_binary, compares=True, differentiable=False)
_pool = partial(
    Op, labels=elementwise.pooling, passes_width=_always, per_image=True, kernel="pooling", homogeneous=True
)
_reduction = partial(Op, labels=elementwise.reduction)
_sum = partial(Op, labels=elementwise.sum_reduction)
_softmax = partial(Op, labels=elementwise.softmax)
_layer_norm = partial(Op, labels=weighted.layer_norm)
_gemm = partial(Op, kernel="gemm")
_random = partial(Op, random=True, differentiable=False)
_unbounded = partial(Op, unbounded=True, differentiable=False)
_selecting = partial(Op, selects=True, differentiable=False, kernel="selecting")
_uncounted = partial(Op, uncounted=True)
_quantized = partial(Op, quantized=True, integer=True, weights=())

STANDARD_OPS: tuple[Op, ...] = (
    # with weights
    Op(
        "Conv", labels=weighted.conv, labels_constants=True, rederive=slicing.mend_groups, weight=_CONV, per_image=True,
        macs=_convolution(), kernel="conv", kernel_weight=1, trained=(1, 2), integer=True,
    ),
    Op(
        "ConvTranspose", labels=weighted.conv_transpose, labels_constants=True, rederive=slicing.mend_groups,
        weight=_CONV_TRANSPOSE, per_image=True, macs=_convolution(transposed=True), kernel="conv_transpose",
        kernel_weight=1, trained=(1, 2),
    ),
    Op(
        "Gemm", labels=weighted.gemm, labels_constants=True, weight=_GEMM, macs=_product(axis=1, turned=0),
        kernel="gemm", trained=(0, 1, 2), integer=True,
    ),
    Op(
        "MatMul", labels=weighted.matmul, labels_constants=True, weight=_MATMUL, macs=_product(), kernel="matmul",
        trained=(0, 1), integer=True,
    ),
    _uncounted("Attention", differentiable=False),
    _uncounted("DeformConv", differentiable=False),
    _uncounted("Einsum", unbounded=True, trained=(0, 1, 2, 3)),
    _uncounted("GRU", trained=(1, 2, 3)),
    _uncounted("LSTM", trained=(1, 2, 3)),
    _uncounted("RNN", trained=(1, 2, 3)),
    # norms
    Op(
        "BatchNormalization", labels=weighted.batch_norm, labels_constants=True, norm=True, per_image=True,
        settings_from=3, fuses="norm", absorbs=True, trained=(1, 2), statistics=(3, 4),
    ),
    Op("InstanceNormalization", labels=weighted.batch_norm, labels_constants=True, norm=True, trained=(1, 2)),
    _layer_norm("GroupNormalization", trained=(1, 2)),
    _layer_norm("LayerNormalization", trained=(1, 2)),
    _layer_norm("LRN"),
    _layer_norm("LpNormalization"),
    _layer_norm("MeanVarianceNormalization"),
    _softmax("Hardmax", differentiable=False),
    _softmax("LogSoftmax"),
    _softmax("Softmax", integer=True),
    # activations
    _activation("Celu"),
    _activation("Clip", settings_from=1, fuses="activation"),
    _activation("Elu"),
    _activation("Gelu"),
    _activation("HardSigmoid", fuses="gate"),
    _activation("HardSwish"),
    _activation("LeakyRelu", fuses="activation", integer=True, homogeneous=True),
    _activation("Mish"),
    _binary("PRelu", activation=True, per_image=True, fuses="activation", trained=(1,), homogeneous=True),
    _activation("Relu", fuses="activation", homogeneous=True),
    _activation("Selu"),
    _activation("Sigmoid", fuses="gate", integer=True),
    _activation("Softplus"),
    _activation("Swish"),
    _activation("Tanh", fuses="activation"),
    # of one operand
    _unary("Abs", homogeneous=True),
    _unary("Cast", form="cast"),
    _unary("Ceil", differentiable=False),
    _unary("Cos"),
    _unary("Dropout", passes_width=_always, form="same", settings_from=1, kernel="free", homogeneous=True),
    _unary("Erf"),
    _unary("Exp"),
    _unary("Floor", differentiable=False),
    _unary("Identity", passes_width=_always, form="same", kernel="free", homogeneous=True),
    _unary("Log"),
    _unary("Neg", homogeneous=True),
    _unary("Reciprocal"),
    _unary("Round", differentiable=False),
    _unary("Shrink"),
    _unary("Sign", differentiable=False),
    _unary("Sin"),
    _unary("Softsign"),
    _unary("Sqrt"),
    _unary("Tan"),
    _unary("ThresholdedRelu"),
    # of several operands
    _binary("Add", join="sum", arithmetic=True, per_image=True, absorbs=True, integer=True, homogeneous=True),
    _binary("And", differentiable=False),
    _binary("Div", join="other", arithmetic=True, per_image=True),
    _comparison("Equal"),
    _comparison("Greater"),
    _comparison("GreaterOrEqual"),
    _comparison("Less"),
    _comparison("LessOrEqual"),
    _binary("Max", join="other", homogeneous=True),
    _binary("Mean", join="other", homogeneous=True),
    _binary("Min", join="other", homogeneous=True),
    _binary("Mul", join="product", arithmetic=True, per_image=True, integer=True),
    _binary("Not", differentiable=False),
    _binary("Or", differentiable=False),
    _binary("Pow", per_image=True),
    _binary("Sub", join="other", arithmetic=True, per_image=True, homogeneous=True),
    _binary("Sum", join="sum", homogeneous=True),
    _binary("Where", integer=True),
    # poolings and reductions
    _pool("AveragePool", pool="window", integer=True),
    _pool("GlobalAveragePool", pool="global", integer=True),
    _pool("GlobalLpPool", pool="global", differentiable=False),
    _pool("GlobalMaxPool", pool="global"),
    _pool("LpPool", pool="window"),
    _pool("MaxPool", pool="window", integer=True),
    _sum("ReduceL1", homogeneous=True),
    _sum("ReduceL2", homogeneous=True),
    _reduction("ReduceLogSumExp"),
    _reduction("ReduceMax", kernel="pooling", integer=True, homogeneous=True),
    _reduction("ReduceMean", kernel="pooling", homogeneous=True),
    _reduction("ReduceMin", integer=True, homogeneous=True),
    _reduction("ReduceProd"),
    _sum("ReduceSum", kernel="pooling", homogeneous=True),
    _sum("ReduceSumSquare"),
    # moving data
    Op("CastLike", form="cast", settings_from=1),
    Op(
        "Concat", labels=moving.concat, labels_constants=True, join="concat", kernel="layout", integer=True,
        homogeneous=True,
    ),
    Op("Constant", kernel="free"),
    Op("DepthToSpace", labels=moving.depth_to_space, kernel="layout", homogeneous=True),
    Op(
        "Expand", labels=moving.expand, rederive=slicing.mend_target, form="repeated", kernel="layout", integer=True,
        homogeneous=True,
    ),
    Op(
        "Flatten", labels=moving.reshape, passes_width=_flattens, form="reshaped", kernel="free", integer=True,
        homogeneous=True,
    ),
    Op(
        "Gather", labels=moving.gather, rederive=slicing.mend_selection, takes_part=True, kernel="slicing",
        integer=True, homogeneous=True,
    ),
    Op("GatherElements", kernel="slicing", integer=True),
    Op("GatherND", kernel="slicing"),
    Op(
        "Pad", labels=moving.pad, rederive=slicing.mend_pad, passes_width=_pads_positions, settings_from=1,
        kernel="layout", homogeneous=True,
    ),
    Op(
        "Reshape", labels=moving.reshape, rederive=slicing.mend_target, passes_width=_reshapes_flat, form="reshaped",
        kernel="free", integer=True, homogeneous=True,
    ),
    Op(
        "Resize", labels=moving.resize, rederive=slicing.mend_resize, settings_from=1, kernel="layout", integer=True,
        homogeneous=True,
    ),
    Op("Shape", labels=moving.shape, of_shape=True, kernel="free", differentiable=False),
    Op("Size", of_shape=True, differentiable=False),
    Op(
        "Slice", labels=moving.slice_, rederive=slicing.mend_selection, takes_part=True, kernel="slicing",
        integer=True, homogeneous=True,
    ),
    Op("SpaceToDepth", labels=moving.space_to_depth, kernel="layout", homogeneous=True),
    Op(
        "Split", labels=moving.split, rederive=slicing.mend_split, takes_part=True, kernel="slicing", integer=True,
        homogeneous=True,
    ),
    Op("Squeeze", labels=moving.squeeze, form="reshaped", kernel="free", integer=True, homogeneous=True),
    Op("Tile", labels=moving.tile, form="tiled", kernel="layout", integer=True, homogeneous=True),
    Op("Transpose", labels=moving.transpose, form="permuted", kernel="layout", integer=True, homogeneous=True),
    Op("Unsqueeze", labels=moving.unsqueeze, form="reshaped", kernel="free", integer=True, homogeneous=True),
    Op("Upsample", labels=moving.resize, settings_from=1, kernel="layout", homogeneous=True),
    # picking from results
    _selecting("ArgMax", kernel="elementwise"),
    _selecting("ArgMin", kernel="elementwise"),
    _selecting("DetectionOutput", "ncnn"),
    _selecting("NonMaxSuppression"),
    _selecting("NonZero"),
    _selecting("TopK", differentiable=True),
    # that nothing more is known of
    Op("CumSum"),
    Op("GridSample"),
    Op("Mod"),
    Op("ReduceLogSum"),
    Op("ScatterND"),
    Op("Trilu"),
    # what can't be told beforehand
    _random("Bernoulli"),
    _random("Multinomial"),
    _random("RandomNormal"),
    _random("RandomNormalLike"),
    _random("RandomUniform"),
    _random("RandomUniformLike"),
    _unbounded("MaxRoiPool"),
    _unbounded("RegexFullMatch"),
    _unbounded("RoiAlign"),
    _unbounded("StringNormalizer"),
    _unbounded("StringSplit"),
    _unbounded("TfIdfVectorizer"),
    # quantized
    _quantized("ConvInteger", weights=(0, 1), macs=_convolution(), kernel="conv", kernel_weight=1, integer_sums=True),
    _quantized("DequantizeLinear", weights=(0,), kernel="conversion", straight_through=True),
    _quantized("DynamicQuantizeLinear", kernel="conversion"),
    _quantized("MatMulInteger", weights=(0, 1), macs=_product(), kernel="gemm", integer_sums=True),
    _quantized("QLinearConv", weights=(3, 8), macs=_convolution(3), kernel="conv", kernel_weight=3),
    _quantized("QLinearMatMul", weights=(0, 3), macs=_product(4), kernel="matmul"),
    _quantized("QuantizeLinear", weights=(0,), kernel="conversion", straight_through=True),
    _quantized("DequantizeLinear", MICROSOFT, weights=(0,), kernel="conversion", straight_through=True),
    _quantized(
        "DynamicQuantizeMatMul", MICROSOFT, weights=(1, 4), macs=_product(), kernel="gemm",
        like=Like("MatMul", (0, 1), gives_float=True),
    ),
    _quantized(
        "MatMulIntegerToFloat", MICROSOFT, weights=(0, 1, 6), macs=_product(), kernel="gemm",
        like=Like("MatMul", (0, 1), gives_float=True),
    ),
    _quantized("MatMulNBits", MICROSOFT, integer=False, weights=(1,), macs=_product(), kernel="matmul"),
    _quantized(
        "QGemm", MICROSOFT, weights=(0, 3, 6), macs=_product(4, axis=1, turned=0), kernel="gemm",
        like=Like("Gemm", (0, 3), ("transA", "transB")),
    ),
    _quantized(
        "QLinearAdd", MICROSOFT, weights=(0, 3), join="sum", absorbs=True, like=Like("Add", (0, 3)),
    ),
    _quantized(
        "QLinearAveragePool", MICROSOFT, pool="window", kernel="pooling", like=Like(
            "AveragePool", (0,), ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
        ),
    ),
    _quantized("QLinearConcat", MICROSOFT, kernel="layout"),
    _quantized(
        "QLinearGlobalAveragePool", MICROSOFT, pool="global", kernel="pooling", like=Like("GlobalAveragePool", (0,)),
    ),
    _quantized("QLinearLeakyRelu", MICROSOFT, like=Like("Identity", (0,))),
    _quantized("QLinearMul", MICROSOFT, weights=(0, 3), join="product", like=Like("Mul", (0, 3))),
    _quantized("QLinearReduceMean", MICROSOFT, kernel="pooling"),
    _quantized("QLinearSigmoid", MICROSOFT, like=Like("Identity", (0,))),
    _quantized("QLinearSoftmax", MICROSOFT, like=Like("Identity", (0,))),
    _quantized("QuantizeLinear", MICROSOFT, weights=(0,), kernel="conversion", straight_through=True),
    # fused by ONNX Runtime
    Op("BiasGelu", MICROSOFT, like=Like("Add", (0, 1))),
    Op("FastGelu", MICROSOFT, like=Like("Identity", (0,))),
    Op(
        "FusedConv", MICROSOFT, macs=_convolution(), kernel="conv", kernel_weight=1, like=Like(
            "Conv", (0, 1, 2), ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
        ),
    ),
    Op(
        "FusedGemm", MICROSOFT, macs=_product(axis=1, turned=0), kernel="gemm",
        like=Like("Gemm", (0, 1, 2), ("transA", "transB")),
    ),
    Op("FusedMatMul", MICROSOFT, macs=_product(turned=-2), kernel="matmul"),
    Op("Gelu", MICROSOFT, like=Like("Identity", (0,))),
    Op("QuickGelu", MICROSOFT, like=Like("Identity", (0,))),
)  # fmt: skip
"""All rows of this package."""
