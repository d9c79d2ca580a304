"""What a runtime makes of a graph, and the amounts that decide how long each kernel takes."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given

from n2n_edge.calibration.builder import Net
from n2n_edge.calibration.pack import calibration_pack
from n2n_edge.devices.terms import TERMS, UNITS
from n2n_edge.graph.costs import NodeSpec, costs
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.graph.width_costs import WidthCosts
from n2n_edge.latency.kernels import Kernels, kernels_of
from tests.latency.made_up import net_model, rates
from tests.strategies import GRAPH_SETTINGS, cnn_models

CANDIDATES = 4


def node(op_type: str, inputs: str, outputs: str, *form: object) -> NodeSpec:
    return NodeSpec(outputs, op_type, tuple(inputs.split()), tuple(outputs.split()), *form)  # type: ignore[arg-type]


def classes(nodes: Sequence[NodeSpec], outputs: Sequence[str] = ()) -> list[str]:
    return list(Kernels(nodes, outputs).classes)


def terms_of(model: ir.Model, block: int = 1) -> dict[str, float]:
    """The terms that a model has any of."""
    kernels, amounts = kernels_of(model, block)
    found = kernels.terms(amounts)[:, 0]
    return {term: float(amount) for term, amount in zip(TERMS, found, strict=True) if amount}


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (node("Conv", "x", "y", (1, 1), (1, 1)), "conv_1x1"),
        (node("Conv", "x", "y", (1, 1), (2, 2)), "conv_1x1"),
        (node("Conv", "x", "y", (3, 3), (1, 1)), "conv_3x3"),
        (node("Conv", "x", "y", (3,), (1,)), "conv_3x3"),
        (node("Conv", "x", "y", (3, 3), (2, 2)), "conv_3x3_strided"),
        (node("Conv", "x", "y", (3, 3), (1, 2)), "conv_3x3_strided"),
        (node("Conv", "x", "y", (5, 5), (1, 1)), "conv_large"),
        (node("Conv", "x", "y", (1, 7), (1, 1)), "conv_large"),
        (node("Conv", "x", "y", (3, 3), (1, 1), 8, True), "depthwise"),
        (node("Conv", "x", "y", (3, 3), (1, 1), 8, False), "grouped"),
        (node("QLinearConv", "x", "y", (3, 3), (1, 1)), "conv_3x3"),
        (node("ConvTranspose", "x", "y", (3, 3), (1, 1)), "conv_large"),
        (node("Gemm", "x", "y"), "gemm"),
        (node("MatMul", "x", "y"), "gemm"),
        (node("MatMulInteger", "x", "y"), "gemm"),
        (node("MatMul", "x x2", "y"), "matmul"),
        (node("MaxPool", "x", "y", (2, 2), (2, 2)), "pooling"),
        (node("GlobalAveragePool", "x", "y"), "pooling"),
        (node("ReduceMean", "x", "y"), "pooling"),
        (node("Add", "x x2", "y"), "residual"),
        (node("Add", "x", "y"), "elementwise"),
        (node("Mul", "x x2", "y"), "elementwise"),
        (node("Softmax", "x", "y"), "elementwise"),
        (node("Concat", "x x2", "y"), "layout"),
        (node("Transpose", "x", "y"), "layout"),
        (node("Resize", "x", "y"), "layout"),
        (node("Slice", "x", "y"), "slicing"),
        (node("Split", "x", "y y2"), "slicing"),
        (node("NonMaxSuppression", "x x2", "y"), "selecting"),
        (node("NobodyKnowsThis", "x", "y"), "elementwise"),
    ],
    ids=lambda value: "-".join([value.op_type, *map(str, value.kernel)]) if isinstance(value, NodeSpec) else value,
)  # fmt: skip
def test_each_operator_has_its_class(node: NodeSpec, expected: str) -> None:
    assert classes([node]) == [expected]
    assert {f"mac_{expected}", f"byte_{expected}"} & set(UNITS)


def test_norms_and_activations_are_computed_inside_what_comes_before() -> None:
    found = classes(
        [
            node("Conv", "x", "c1", (3, 3), (1, 1)),
            node("BatchNormalization", "c1", "n1"),
            node("Relu", "n1", "r1"),
            node("Conv", "r1", "c2", (1, 1), (1, 1)),
            node("Clip", "c2", "r2"),
            node("Add", "r2 r1", "s"),
            node("Relu", "s", "r3"),
            node("Relu", "r3", "r4"),
            node("Gemm", "r4", "g"),
            node("Tanh", "g", "y"),
        ]
    )

    assert found == [
        "conv_3x3", "fused", "fused", "conv_1x1", "fused", "residual", "fused", "elementwise", "gemm", "fused",
    ]  # fmt: skip


def test_a_norm_without_a_convolution_is_a_kernel_that_takes_an_activation_in() -> None:
    nodes = [node("MaxPool", "x", "p"), node("BatchNormalization", "p", "n"), node("Relu", "n", "y")]

    assert classes(nodes) == ["pooling", "elementwise", "fused"]


def test_a_norm_behind_a_sum_is_a_kernel() -> None:
    assert classes([node("Add", "x x2", "s"), node("BatchNormalization", "s", "n")]) == ["residual", "elementwise"]


def test_a_value_that_others_read_is_not_fused_away() -> None:
    conv, relu = node("Conv", "x", "c", (1, 1), (1, 1)), node("Relu", "c", "r")

    assert classes([conv, relu], ["r"]) == ["conv_1x1", "fused"]
    assert classes([conv, relu], ["c", "r"]) == ["conv_1x1", "elementwise"]
    assert classes([conv, relu, node("Add", "c r", "s")], ["s"]) == ["conv_1x1", "elementwise", "residual"]


@pytest.mark.parametrize("order", ["c g", "g c"])
@pytest.mark.parametrize("gate", ["Sigmoid", "HardSigmoid"])
def test_a_value_times_its_gate_is_one_kernel(gate: str, order: str) -> None:
    nodes = [node("Conv", "x", "c", (1, 1), (1, 1)), node(gate, "c", "g"), node("Mul", order, "y")]

    assert classes(nodes) == ["conv_1x1", "fused", "elementwise"]


def test_a_gate_of_another_value_is_not_part_of_the_product() -> None:
    nodes = [
        node("MaxPool", "x", "p"),
        node("GlobalAveragePool", "p", "m"),
        node("Sigmoid", "m", "g"),
        node("Mul", "p g", "y"),
    ]

    assert classes(nodes) == ["pooling", "pooling", "elementwise", "elementwise"]


def test_renaming_the_same_bytes_is_free() -> None:
    names = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
    nodes = [node(op_type, f"v{i}", f"v{i + 1}") for i, op_type in enumerate(names)]

    assert classes(nodes) == ["free"] * len(names)


def test_arithmetic_on_shapes_is_free_until_it_meets_data() -> None:
    nodes = [
        node("Constant", "", "k"),
        node("Shape", "x", "s"),
        node("Gather", "s", "n"),
        node("Mul", "n k", "m"),
        node("Concat", "m k", "t"),
        node("Gather", "x", "d"),
        node("Expand", "d t", "y"),
    ]

    assert classes(nodes) == ["free", "free", "free", "free", "free", "slicing", "layout"]


def test_the_terms_of_a_model_by_hand() -> None:
    net = Net("hand", 8, 4, 4)
    x = net.conv(net.input, 16, 3)
    x = net.pool(x, 2, 2)
    model = net.model(net.linear(x, 10))

    conv_bytes, pooled_bytes = 4 * 16 * (8 + 16), 4 * 16 * (16 + 4)
    assert terms_of(model) == {
        "mac_conv_3x3": 16 * 16 * 8 * 9,
        "mac_gemm": 64 * 10,
        "byte_dense": conv_bytes + 4 * (64 + 10),
        "byte_weights": 4 * (16 * 8 * 9 + 16 + 64 * 10 + 10),
        "byte_pooling": pooled_bytes,
        "reduction": 8 * 9 + 64,
        "launch_compute": 2,
        "launch_pooling": 1,
    }


@pytest.mark.parametrize(("groups", "kind"), [(6, "depthwise"), (2, "grouped")])
def test_convolutions_in_groups_move_bytes_of_their_own_and_fill_up_no_block(groups: int, kind: str) -> None:
    net = Net("hand", 6, 4, 4)

    found = terms_of(net.model(net.conv(net.input, 6, 3, groups=groups, act=None)), block=4)

    assert found[f"mac_{kind}"] == 16 * 6 * (6 // groups) * 9
    assert found["byte_depthwise"] == 2 * 4 * 6 * 16
    assert not {"byte_dense", "mac_idle"} & set(found)


@pytest.mark.parametrize(
    ("channels", "out", "block", "share"),
    [
        (8, 16, 8, 0.0),
        (8, 6, 8, 8 / 6 - 1),
        (6, 8, 8, 8 / 6 - 1),
        (6, 6, 4, (8 / 6) ** 2 - 1),
        (9, 16, 8, 16 / 9 - 1),
        (3, 16, 8, 0.0),  # an image
        (3, 12, 8, 16 / 12 - 1),
        (7, 5, 1, 0.0),
    ],
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_that_only_fill_up_a_block_cost_as_much(
    channels: int, out: int, block: int, share: float, kernel: int
) -> None:
    net = Net("hand", channels, 4, 4)

    found = terms_of(net.model(net.conv(net.input, out, kernel, act=None)), block)

    macs = 16 * out * channels * kernel**2
    assert found[f"mac_conv_{kernel}x{kernel}"] == macs
    assert found.get("mac_idle", 0.0) == pytest.approx(macs * share)


def test_a_wider_block_never_makes_a_model_cheaper() -> None:
    model = net_model(width=9)
    times = [float(kernels.total_ns(amounts, rates())[0]) for kernels, amounts in
             (kernels_of(model, block) for block in (1, 2, 4, 8, 16))]  # fmt: skip

    assert times == sorted(times)
    assert times[0] < times[-1]


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_times_are_rates_times_terms_and_the_whole_is_the_sum_of_its_nodes(model: ir.Model) -> None:
    normal = Teacher(model).model
    random = np.random.default_rng(0)
    ns = dict(zip(TERMS, random.uniform(0.1, 10, len(TERMS)), strict=True))

    kernels, amounts = kernels_of(normal, 4)
    terms, nodes = kernels.terms(amounts), kernels.node_ns(amounts, ns)

    assert nodes.shape == (len(kernels.nodes), 1)
    assert kernels.total_ns(amounts, ns) == pytest.approx(nodes.sum(axis=0))
    assert kernels.total_ns(amounts, ns) == pytest.approx(np.array([ns[term] for term in TERMS]) @ terms)
    assert [bool(row[0] > 0) for row in nodes] == [each not in ("free", "fused") for each in kernels.classes]
    besides = ("mac_idle", "mac_unpacked")  # what these count, a class counts, too
    compute = terms[[i for i, term in enumerate(TERMS) if term.startswith("mac_") and term not in besides]]
    assert compute.sum() == costs(normal).macs


def test_a_rate_that_is_not_given_counts_nothing() -> None:
    kernels, amounts = kernels_of(net_model())

    assert kernels.total_ns(amounts, {"launch_compute": 7.0})[0] == 3 * 7.0
    assert kernels.total_ns(amounts, {})[0] == 0.0


@given(model=cnn_models())
@GRAPH_SETTINGS
def test_many_widths_at_once_have_the_terms_of_the_graphs_that_are_built(model: ir.Model) -> None:
    teacher = Teacher(model)
    base = teacher.base_graph(frozenset())
    at = WidthCosts(base)
    full = [group.width for group in base.groups]
    # of one channel a group, what is built is a depthwise convolution
    lowest = [min(2, group.width) if group.shrinkable else group.width for group in base.groups]
    widths = np.random.default_rng(0).integers(lowest, np.array(full) + 1, (CANDIDATES, len(full)))
    widths[0] = full
    kernels = Kernels(at.plan.nodes, [str(value.name) for value in base.model.graph.outputs], 4)

    found = kernels.terms(at.costs(widths))

    assert found.shape == (len(TERMS), CANDIDATES)
    for index, row in enumerate(widths):
        architecture = teacher.full
        for group, width in zip(base.groups, row, strict=True):
            if group.shrinkable:
                architecture = architecture.resize(group.name, min(int(width), architecture.width(group.name)))
        built, amounts = kernels_of(build(teacher, architecture), 4)
        assert found[:, index] == pytest.approx(built.terms(amounts)[:, 0])


def test_every_term_is_exercised_by_the_calibration_pack() -> None:
    told = {term for _, model in calibration_pack() for term in terms_of(model, 8)}

    untold = set(TERMS) - told
    assert untold <= {"byte_selecting", "launch_selecting"}
