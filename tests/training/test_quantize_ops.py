"""Quantized graphs in torch: what ONNX Runtime gives, to the bit, and LSQ's gradients."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType

from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.load import load_model
from n2n_edge.quantize.qdq import folded
from n2n_edge.training.executor import GraphModule, write_back
from n2n_edge.training.input_scale import grids_of, input_scales
from n2n_edge.training.ops.quantize import round_to_grid
from tests.quantized import STATIC, floats, quantized, training_form

pytestmark = pytest.mark.processor

IMAGES = np.random.default_rng(1).random((4, 3, 32, 32), np.float32)


def runtime(path: Path, images: NDArray[np.float32] = IMAGES, *, optimised: bool = False) -> NDArray[np.float32]:
    """Run a file that takes one image in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[np.newaxis]})[0] for image in images])


def executor(path: Path, images: NDArray[np.float32] = IMAGES) -> NDArray[np.float32]:
    module = GraphModule(load_model(path), whole=True)
    with torch.inference_mode():
        outputs = module(torch.from_numpy(images))
    assert isinstance(outputs, torch.Tensor)
    return outputs.numpy()


@pytest.mark.parametrize("kind", STATIC)
@pytest.mark.parametrize("optimised", [False, True])
def test_quantized_files_give_what_they_give_in_onnx_runtime(kind: str, optimised: bool, tmp_path: Path) -> None:
    path = quantized(floats(tmp_path / "float.onnx"), kind)

    assert np.array_equal(executor(path), runtime(path, optimised=optimised))


@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=str)
def test_a_training_form_gives_what_its_shipped_form_gives(activations: QuantType, tmp_path: Path) -> None:
    path = training_form(floats(tmp_path / "float.onnx"), activations=activations)
    shipped = tmp_path / "shipped.onnx"
    ir.save(folded(load_model(path)), shipped)

    assert np.array_equal(executor(path), executor(shipped))
    assert np.array_equal(executor(path), runtime(shipped))


def test_activations_of_16_bits_are_exact(tmp_path: Path) -> None:
    path = training_form(floats(tmp_path / "float.onnx"), activations=QuantType.QUInt16)

    assert np.array_equal(executor(path), runtime(path))


def test_weights_of_a_training_form_are_floats_that_are_learned_with_their_scales(tmp_path: Path) -> None:
    source = floats(tmp_path / "float.onnx")
    module = GraphModule(load_model(training_form(source)))

    assert {"w0", "b0", "w1", "b1", "w2", "b2", "w3", "b3"} < module.learned().keys()
    assert {"w0_scale", "x_scale", "y_scale"} < set(module.scales) < module.learned().keys()
    assert module.learned()["w0_scale"].shape == (16,)


def test_shipped_weights_and_their_scales_stay(tmp_path: Path) -> None:
    module = GraphModule(load_model(training_form(floats(tmp_path / "float.onnx"), shipped=True)))

    assert [name for name in module.learned() if name.startswith(("w", "b"))] == []


def test_gradients_reach_every_weight_and_scale(tmp_path: Path) -> None:
    model = load_model(training_form(floats(tmp_path / "float.onnx")))
    module = GraphModule(model)
    module.train()
    outputs = module(torch.from_numpy(IMAGES))
    assert isinstance(outputs, torch.Tensor)
    outputs.square().mean().backward()

    assert [value.name for value in learned_outputs(model)] == [value.name for value in model.graph.outputs]
    assert module.foreign == ()
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in module.weights())


def test_a_scale_is_written_back(tmp_path: Path) -> None:
    model = load_model(training_form(floats(tmp_path / "float.onnx")))
    module = GraphModule(model)
    scale = module.weight("r0_scale")
    assert scale is not None
    with torch.no_grad():
        scale.mul_(2)

    changed = write_back(model, module)

    before, after = (each.graph.initializers["r0_scale"].const_value for each in (model, changed))
    assert before is not None
    assert after is not None
    assert float(after.numpy()) == 2 * float(before.numpy())
    path = tmp_path / "changed.onnx"
    ir.save(changed, path)
    assert np.array_equal(executor(path), runtime(path))


def test_the_gradient_of_a_scale_is_that_of_lsq() -> None:
    x = torch.tensor([-3.0, -1.3, -0.2, 0.49, 0.8, 9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    given = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    (round_to_grid(x, scale, -4, 3) * given).sum().backward()

    # Esser et al., equation 3: -v / s + round(v / s) inside, -Q_N and Q_P outside
    inside = [2.6 - 3, 0.4 - 0, 1 - 0.98, 2 - 1.6]
    wanted = [-4.0, *inside, 3.0]
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(float((torch.tensor(wanted) * given).sum()), abs=1e-6)
    assert x.grad is not None
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 0]


def graph_of(nodes: Sequence[onnx.NodeProto], weights: dict[str, NDArray[np.generic]], channels: int = 2) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))


def moved_between(moving: bool) -> ir.Model:
    """A convolution behind a pair; with `moving` its integers are pooled and turned before they become floats."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("MaxPool", ["q" if moving else "f"], ["p"], kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("DequantizeLinear", ["t" if moving else "q", "s", "z"], ["f"]),
        helper.make_node("Conv", ["f" if moving else "t", "w"], ["y"]),
    ]
    order = [0, 1, 2, 3, 4] if moving else [0, 3, 1, 2, 4]
    weight = np.random.default_rng(0).standard_normal((3, 2, 3, 3)).astype(np.float32)
    return graph_of(
        [nodes[at] for at in order],
        {"s": np.array(0.05, np.float32), "z": np.array(3, np.int8), "w": weight},
    )


def test_integers_that_are_moved_before_they_become_floats_teach_alike() -> None:
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    found = []
    for moving in (False, True):
        module = GraphModule(moved_between(moving))
        outputs = module(x)
        assert isinstance(outputs, torch.Tensor)
        outputs.square().sum().backward()
        assert module.scales == ("s",)
        found.append((outputs.detach(), [weight.grad for weight in module.weights()]))

    (one, plain), (other, moved) = found
    assert torch.equal(one, other)
    for first, second in zip(plain, moved, strict=True):
        assert first is not None
        assert second is not None
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)


def test_scales_of_a_graph_whose_pairs_differ_are_not_learned() -> None:
    model = moved_between(False)
    other = ir.Value(name="other", const_value=ir.tensor(np.array(0.07, np.float32), name="other"))
    model.graph.register_initializer(other)
    (dequantize,) = (node for node in model.graph if node.op_type == "DequantizeLinear")
    dequantize.replace_input_with(1, other)

    assert GraphModule(model).scales == ("s",)


def test_layers_that_read_pixels_are_scaled_with_the_grid_of_their_weights(tmp_path: Path) -> None:
    module = GraphModule(load_model(training_form(floats(tmp_path / "float.onnx"), images=255 * IMAGES)))

    scales = input_scales(module, torch.from_numpy(255 * IMAGES))

    assert scales["w0"] == scales["w0_scale"] > 100


def test_gradients_of_scales_are_weighed_by_what_is_rounded(tmp_path: Path) -> None:
    module = GraphModule(load_model(training_form(floats(tmp_path / "float.onnx"))))

    grids = grids_of(module, torch.from_numpy(IMAGES))

    assert grids.keys() == set(module.scales)
    assert grids["x_scale"].factor == pytest.approx((3 * 32 * 32 * 255) ** -0.5)
    assert grids["w0_scale"].factor == pytest.approx((3 * 3 * 3 * 127) ** -0.5)
    assert {grid.weight for grid in grids.values()} == {"", "w0", "w1", "w2", "w3"}


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_short_floats_are_rounded_to_the_grid_in_float32(kind: torch.dtype) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(kind)
    scale = torch.tensor(0.0173)

    with torch.autocast("cpu", torch.bfloat16):
        own = round_to_grid(x, scale, -128, 127)

    assert own.dtype == torch.float32
    assert torch.equal(own, round_to_grid(x.float(), scale, -128, 127))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MatMul"])
def test_products_are_right_whatever_their_weights_are_scaled_along(op: str, axis: int) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 6) if op == "MatMul" else (2, 2, 3, 3)
    model = graph_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["f"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["v"], axis=axis),
            helper.make_node(op, ["f", "v"], ["y"]),
        ],
        {
            "s": np.array(0.05, np.float32),
            "z": np.array(3, np.int8),
            "w": rng.integers(-127, 128, shape).astype(np.int8),
            "ws": rng.uniform(0.01, 0.1, shape[axis]).astype(np.float32),
        },
    )
    x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    with torch.inference_mode():
        outputs = GraphModule(model, whole=True)(torch.from_numpy(x))

    assert isinstance(outputs, torch.Tensor)
    np.testing.assert_allclose(outputs.numpy(), session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-4)
