"""Corrected biases bring the means of quantized layers to those of the float network."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from n2n_edge.graph.normalise import normalise
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.quantize.bias_correction import correct_biases
from n2n_edge.quantize.integer_ops import constant_of
from n2n_edge.quantize.plan import QuantizationPlan
from n2n_edge.quantize.qdq import folded, quantized_nodes
from tests.graph.running import Arrays, inputs_of, run
from tests.quantize.pairs import network, paired


def _mean_errors(quantized: ir.Model, reference: ir.Model, images: Arrays) -> float:
    """Sum over layers of the squared error of channels' means, in units of the layer's mean square."""
    twins = {node.name: node for node in quantized.graph}
    total = 0.0
    for node in reference.graph:
        if node.op_type in ("Conv", "Gemm") and node.name in twins:
            name, other = str(node.outputs[0].name), str(twins[node.name].outputs[0].name)
            want, got = run_graph(reference, images, {name})[name], run_graph(quantized, images, {other})[other]
            axes = tuple(axis for axis in range(want.ndim) if axis != 1)
            total += float(np.square((got - want).mean(axis=axes)).sum() / np.square(want).mean())
    return total


def _coarse(model: ir.Model) -> ir.Model:
    """Weights with one large figure in each row, so that the rest is rounded coarsely."""
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Conv" else None
        if weight is not None and weight.const_value is not None:
            array = weight.const_value.numpy().copy()
            array[:, 0, 0, 0] *= 8
            weight.const_value = ir.Tensor(array, name=weight.name)
    return model


@pytest.mark.parametrize("blocks", [("plain", "residual"), ("separable", "inverted"), ("grouped", "gated")])
def test_layers_come_nearer_to_the_means_of_the_float_network(blocks: tuple[str, ...]) -> None:
    model = _coarse(network(*blocks, seed=3))
    images = inputs_of(model, 16)
    quantized = paired(model, images)
    before = _mean_errors(quantized, model, images)
    after = _mean_errors(correct_biases(quantized, model, [images]), model, images)
    assert after < 0.5 * before


@pytest.mark.parametrize("stride", [1, 2])
def test_the_shift_is_that_of_rounded_weights_on_the_layers_inputs(stride: int) -> None:
    """One layer, whose inputs aren't rounded: its means are right to the last digit, padding included."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] = 40
    proto = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, 9, 9] x) => (float[N, 4, M, M] y) {{
            y = Conv<pads=[1, 1, 1, 1], strides=[{stride}, {stride}]>(x, w)
        }}"""
    )
    proto.graph.node[0].name = "conv"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model = ir.from_proto(proto)
    pairs = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 3, 9, 9] x) => (float[N, 4, M, M] y) {{
            q = QuantizeLinear(w, scale, zero)
            d = DequantizeLinear(q, scale, zero)
            y = Conv<pads=[1, 1, 1, 1], strides=[{stride}, {stride}]>(x, d)
        }}"""
    )
    pairs.graph.node[2].name = "conv"
    scale = np.float32(np.abs(weight).max() / 127)
    for name, array in (("w", weight), ("scale", scale), ("zero", np.int8(0))):
        pairs.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    images = {"x": rng.normal(1, 1, (8, 3, 9, 9)).astype(np.float32)}
    corrected = correct_biases(ir.from_proto(pairs), model, [images])
    wanted, plain, got = (
        run(each, images)[0].mean(axis=(0, 2, 3)) for each in (model, ir.from_proto(pairs), corrected)
    )
    assert np.abs(plain - wanted).max() > 0.05
    assert np.abs(got - wanted).max() < 1e-4


def test_batches_are_one_set_of_images() -> None:
    model = network("residual")
    images = inputs_of(model, 12)
    quantized = paired(model, images, cut=0.7)
    parts = [{name: array[start : start + 4] for name, array in images.items()} for start in (0, 4, 8)]
    whole = run(correct_biases(quantized, model, [images]), images, optimised=False)
    split = run(correct_biases(quantized, model, parts), images, optimised=False)
    assert np.abs(whole[0] - split[0]).max() < 1e-3


def test_layers_without_a_bias_get_one_and_float_ones_stay() -> None:
    model = network("plain", "plain")
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    convolutions[1].resize_inputs(2)
    images = inputs_of(model, 8)
    plan = QuantizationPlan(float_nodes=frozenset({str(convolutions[0].name)}))
    quantized = paired(model, images, plan, cut=0.5)
    corrected = correct_biases(quantized, model, [images])
    nodes = {node.name: node for node in corrected.graph}
    assert len(nodes[convolutions[1].name].inputs) == 3
    kept, old = nodes[convolutions[0].name].inputs[2], convolutions[0].inputs[2]
    assert kept is not None
    assert old is not None
    assert kept.const_value is not None
    assert old.const_value is not None
    assert np.array_equal(kept.const_value.numpy(), old.const_value.numpy())
    assert convolutions[1].name in quantized_nodes(model, plan)


@pytest.mark.parametrize("opset", [7, 9, 10, 11])
def test_dense_layers_of_every_opset_are_corrected(opset: int) -> None:
    """Before opset 11 nothing is added by leaving an input out."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (8, 5)).astype(np.float32)
    weight[0] = 40
    proto = onnx.parser.parse_model(
        f"""<ir_version: 6, opset_import: ["": {opset}]>
        g (float[N, 8] x) => (float[N, 5] y) {{ y = Gemm(x, w, b) }}"""
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(5, np.float32), "b"))
    model = normalise(ir.from_proto(proto))
    images = {"x": rng.normal(1, 1, (32, 8)).astype(np.float32)}
    quantized = paired(model, images)
    assert _mean_errors(correct_biases(quantized, model, [images]), model, images) < 0.5 * _mean_errors(
        quantized, model, images
    )


def test_what_is_folded_afterwards_has_the_correction() -> None:
    model = _coarse(network("separable", "residual", seed=5))
    images = inputs_of(model, 32)
    quantized = paired(model, images)
    wanted = run(model, images)[0]
    corrected = correct_biases(quantized, model, [images])
    plain, shipped = (run(folded(each), images)[0] for each in (quantized, corrected))
    assert np.square((shipped - wanted).mean(axis=0)).sum() < 0.5 * np.square((plain - wanted).mean(axis=0)).sum()


def test_ranges_that_cut_off_leave_the_correction_as_it_is() -> None:
    model = _coarse(network("residual", "plain", seed=6))
    images = inputs_of(model, 8)
    wide, narrow = (correct_biases(paired(model, images, cut=cut), model, [images]) for cut in (1.0, 0.5))
    biases = [[constant_of(node, 2) for node in each.graph if node.op_type == "Conv"] for each in (wide, narrow)]
    assert len(biases[0]) > 2
    for first, second in zip(*biases, strict=True):
        assert first is not None
        assert second is not None
        assert np.array_equal(first, second)
