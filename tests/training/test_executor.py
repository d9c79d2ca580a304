"""A graph as a torch module: the same outputs, trainable where it should be, written back without loss."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.training.executor import GraphModule, load_student, write_back
from tests.strategies import GRAPH_SETTINGS, cnn_models
from tests.training.small import small_cnn


def run_file(content: bytes, images: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: images}))


def run_model(model: ir.Model, images: np.ndarray) -> list[np.ndarray]:
    return run_file(ir.to_proto(model).SerializeToString(), images)


def run_module(module: torch.nn.Module, images: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        outputs = module(torch.from_numpy(images))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def assert_agree(expected: list[np.ndarray], got: list[np.ndarray]) -> None:
    assert [array.shape for array in expected] == [array.shape for array in got]
    for wanted, array in zip(expected, got, strict=True):
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-4 * max(np.abs(wanted).max(), 1e-2))


def train_a_little(module: GraphModule, images: np.ndarray, steps: int = 3) -> None:
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(steps):
        outputs = module(torch.from_numpy(images))
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        optimiser.zero_grad()
        (first - 1.0).square().mean().backward()
        optimiser.step()
    module.eval()


@pytest.mark.parametrize("folder", ["teachers", "models"])
def test_real_models_agree_with_onnx_runtime(shared_data: Path, folder: str) -> None:
    paths = [path for path in sorted((shared_data / folder).glob("*.onnx")) if "int8" not in path.name]
    assert paths
    for path in paths:
        model = ir.load(path)
        sizes = [size if isinstance(size, int) and size > 0 else None for size in model.graph.inputs[0].shape or ()]
        free = (1, 3, 48, 192) if sizes[-1] is None else (3,)  # the OCR model leaves height and width open too
        shape = [size or free[axis] for axis, size in enumerate(sizes)]
        images = np.random.RandomState(0).randn(*shape).astype(np.float32)
        assert_agree(run_file(path.read_bytes(), images), run_module(GraphModule(model), images))


@GRAPH_SETTINGS
@given(cnn_models())
def test_random_networks_agree_with_onnx_runtime_before_and_after_training(model: ir.Model) -> None:
    shape = [size if isinstance(size, int) else 4 for size in model.graph.inputs[0].shape or ()]
    images = np.random.RandomState(0).randn(*shape).astype(np.float32)
    module = GraphModule(model)
    assert_agree(run_model(model, images), run_module(module, images))
    if shape[0] > 1:
        train_a_little(module, images, steps=1)
        assert_agree(run_module(module, images), run_model(write_back(model, module), images))


def test_batch_norm_follows_the_batch_in_training_alone() -> None:
    module = GraphModule(small_cnn())
    images = torch.randn(6, 1, 16, 16) * 3 + 1
    before = {name: tensor.clone() for name, tensor in module.learned().items()}
    module(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.learned().items())

    module.train()
    module(images)
    convolved = torch.nn.functional.conv2d(images, before["stem.weight"], padding=1)
    # ONNX's default momentum keeps nine tenths of the old value
    wanted = 0.9 * before["stem.mean"] + 0.1 * convolved.mean((0, 2, 3))
    torch.testing.assert_close(module.learned()["stem.mean"], wanted)
    assert not torch.equal(module.learned()["stem.var"], before["stem.var"])
    assert torch.equal(module.learned()["stem.weight"], before["stem.weight"])


def test_what_was_trained_is_what_the_written_model_computes(tmp_path: Path) -> None:
    model = small_cnn()
    module = GraphModule(model)
    images = np.random.RandomState(0).randn(8, 1, 16, 16).astype(np.float32)
    untrained = run_model(model, images)
    train_a_little(module, images)

    written = write_back(model, module)
    assert_agree(run_module(module, images), run_model(written, images))
    assert np.abs(run_model(written, images)[0] - untrained[0]).max() > 1e-2
    assert_agree(untrained, run_model(model, images))  # the model given is untouched
    assert [node.name for node in written.graph] == [node.name for node in model.graph]

    ir.save(written, tmp_path / "student.onnx")
    student = load_student(tmp_path / "student.onnx")
    assert not student.training
    assert_agree(run_module(module, images), run_module(student, images))


def test_write_back_refuses_the_module_of_another_graph() -> None:
    with pytest.raises(ValueError, match=r"no initializer 'stem\.weight'"):
        write_back(small_cnn(width=4), GraphModule(small_cnn(width=8)))


def one_path(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], channels: int = 3) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "path",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 6, 6])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def random(*shape: int) -> np.ndarray:
    return np.random.RandomState(sum(shape)).rand(*shape).astype(np.float32) + 0.1


def test_only_weights_are_trained() -> None:
    model = one_path(
        [
            helper.make_node("Sub", ["x", "pixel_mean"], ["centred"]),
            helper.make_node("Conv", ["centred", "conv.weight"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Reshape", ["flat_bias", "bias_shape"], ["bias"]),
            helper.make_node("Add", ["a", "bias"], ["b"]),
            helper.make_node("Div", ["b", "six"], ["c"]),
            helper.make_node("Mul", ["c", "table"], ["d"]),
            helper.make_node("BatchNormalization", ["d", "scale", "shift", "mean", "var"], ["y"]),
        ],
        {
            "pixel_mean": random(1, 3, 1, 1),
            "conv.weight": random(5, 3, 3, 3),
            "flat_bias": random(5),
            "bias_shape": np.array([1, 5, 1, 1]),
            "six": np.float32([6.0]),
            "table": random(1, 5, 6, 6),
            **{name: random(5) for name in ("scale", "shift", "mean", "var")},
        },
    )
    module = GraphModule(model)
    assert {"conv.weight", "flat_bias", "scale", "shift", "mean", "var"} == set(module.learned())
    assert len(list(module.parameters())) == 4
    images = random(4, 3, 6, 6)
    train_a_little(module, images)
    assert_agree(run_module(module, images), run_model(write_back(model, module), images))


def test_weights_in_constant_nodes_are_trained_and_written_back() -> None:
    weight = numpy_helper.from_array(random(5, 3, 3, 3))
    model = one_path(
        [
            helper.make_node("Constant", [], ["weight"], value=weight),
            helper.make_node("Conv", ["x", "weight"], ["y"]),
        ],
        {},
    )
    module = GraphModule(model)
    images = random(2, 3, 6, 6)
    before = run_model(model, images)
    train_a_little(module, images)
    written = run_model(write_back(model, module), images)
    assert_agree(run_module(module, images), written)
    assert np.abs(before[0] - written[0]).max() > 1e-3


def test_norms_that_share_statistics_keep_them() -> None:
    norm = ["scale", "shift", "mean", "var"]
    model = one_path(
        [
            helper.make_node("BatchNormalization", ["x", *norm], ["a"]),
            helper.make_node("BatchNormalization", ["a", *norm], ["y"]),
        ],
        {name: random(3) for name in norm},
    )
    module = GraphModule(model)
    images = random(4, 3, 6, 6)
    train_a_little(module, images)
    np.testing.assert_array_equal(module.learned()["mean"].numpy(), random(3))
    assert_agree(run_module(module, images), run_model(write_back(model, module), images))


def test_shape_arithmetic_follows_the_batch() -> None:
    model = one_path(
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["n"]),
            helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
            helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])},
    )
    module = GraphModule(model)
    for batch in (1, 5):
        images = random(batch, 3, 6, 6)
        np.testing.assert_array_equal(run_module(module, images)[0], images.reshape(batch, -1))


def test_a_relu_never_overwrites_what_others_still_read() -> None:
    model = one_path(
        [
            helper.make_node("Conv", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Neg", ["a"], ["c"]),
            helper.make_node("Relu", ["x"], ["d"]),
            helper.make_node("Concat", ["b", "c", "d", "x"], ["y"], axis=1),
        ],
        {"w": random(3, 3, 1, 1) - 0.6},
    )
    images = random(2, 3, 6, 6) - 0.5
    assert_agree(run_model(model, images), run_module(GraphModule(model), images))
    kept = torch.from_numpy(images.copy())
    GraphModule(model)(kept)
    np.testing.assert_array_equal(kept.numpy(), images)


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(ValueError, match="2 inputs given, the graph has 1"):
        GraphModule(small_cnn())(torch.zeros(1), torch.zeros(1))
