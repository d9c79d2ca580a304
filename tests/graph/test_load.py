"""What a person reads when the file they give is no model, or not one that can be compressed: one line, exit code 2."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model, serialize
from n2n_edge.graph.teacher import Teacher, build
from tests.graph.running import inputs_of, run
from tests.graph.test_costs import small_network


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    path = tmp_path / "models" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(serialize(small_network()))
    return path


def complaint(path: Path, input_shape: tuple[int, ...] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Teacher.load(path, input_shape)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def with_external_data(path: Path, location: str) -> None:
    """Rewrite the model at `path` with its weights in another file, which the model then says is at `location`."""
    proto = onnx.load(str(path))
    onnx.save_model(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    proto = onnx.load(str(path), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())


def test_no_such_file(tmp_path: Path) -> None:
    assert complaint(tmp_path / "none.onnx").endswith("none.onnx: no such file; give the path of an ONNX model")


def test_a_folder(tmp_path: Path) -> None:
    assert complaint(tmp_path).endswith("is a folder; give the path of an ONNX model file")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_a_truncated_file(model_path: Path, share: float) -> None:
    data = model_path.read_bytes()
    model_path.write_bytes(data[: int(len(data) * share)])

    said = complaint(model_path)

    assert str(model_path) in said
    assert "cut short" in said or "not a valid ONNX model" in said


@pytest.mark.parametrize("content", [b"this is text, no model", bytes(range(256)) * 8, b"\x00" * 100, b"PK\x03\x04zip"])
def test_a_file_of_something_else(model_path: Path, content: bytes) -> None:
    model_path.write_bytes(content)

    assert "not an ONNX file" in complaint(model_path) or "holds no ONNX graph" in complaint(model_path)


def test_corrupt_weights(model_path: Path) -> None:
    proto = onnx.load(str(model_path))
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-8]
    model_path.write_bytes(proto.SerializeToString())

    said = complaint(model_path)

    assert "not a valid ONNX model" in said or "is damaged" in said


def test_a_broken_graph(model_path: Path) -> None:
    proto = onnx.load(str(model_path))
    proto.graph.node[3].input[0] = "nowhere"
    model_path.write_bytes(proto.SerializeToString())

    assert "not a valid ONNX model" in complaint(model_path)


def test_external_data_beside_the_model_is_read(model_path: Path) -> None:
    before = serialize(load_model(model_path))
    with_external_data(model_path, "weights.bin")

    assert before == serialize(load_model(model_path))


def test_missing_external_data(model_path: Path) -> None:
    with_external_data(model_path, "weights.bin")
    (model_path.parent / "weights.bin").unlink()

    assert "external data 'weights.bin' is missing; put it beside the model" in complaint(model_path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "", "sub/../../weights.bin"])
def test_external_data_outside_the_folder(model_path: Path, location: str) -> None:
    with_external_data(model_path, location)
    (model_path.parent.parent / "weights.bin").write_bytes((model_path.parent / "weights.bin").read_bytes())

    assert "lies outside the model's folder" in complaint(model_path)


def test_external_data_behind_a_link_out_of_the_folder(model_path: Path) -> None:
    with_external_data(model_path, "weights.bin")
    (model_path.parent / "weights.bin").rename(model_path.parent.parent / "weights.bin")
    (model_path.parent / "weights.bin").symlink_to(model_path.parent.parent / "weights.bin")

    assert "lies outside the model's folder" in complaint(model_path)


def test_external_data_that_was_cut_short(model_path: Path) -> None:
    with_external_data(model_path, "weights.bin")
    data = (model_path.parent / "weights.bin").read_bytes()
    (model_path.parent / "weights.bin").write_bytes(data[: len(data) // 2])

    said = complaint(model_path)

    assert "not a valid ONNX model" in said or "is damaged" in said


def test_a_quantized_model(model_path: Path) -> None:
    proto = onnx.load(str(model_path))
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "q.scale")
    zero = numpy_helper.from_array(np.array(0, np.int8), "q.zero")
    proto.graph.initializer.extend([scale, zero])
    proto.graph.node.insert(0, helper.make_node("QuantizeLinear", ["input", "q.scale", "q.zero"], ["q"]))
    proto.graph.node.insert(1, helper.make_node("DequantizeLinear", ["q", "q.scale", "q.zero"], ["dq"]))
    proto.graph.node[2].input[0] = "dq"
    model_path.write_bytes(proto.SerializeToString())

    assert "the model is quantized (DequantizeLinear, QuantizeLinear); give the float model" in complaint(model_path)


def test_an_op_that_onnx_runtime_does_not_have(model_path: Path) -> None:
    proto = onnx.load(str(model_path))
    proto.graph.node.append(helper.make_node("Mystery", [proto.graph.output[0].name], ["y"], domain="example.org"))
    proto.graph.output[0].name = "y"
    proto.opset_import.append(helper.make_opsetid("example.org", 1))
    model_path.write_bytes(proto.SerializeToString())

    assert "ONNX Runtime can't run the model" in complaint(model_path)


@pytest.mark.parametrize("shape", [(8, 8), (3, 9, 8), (3, 8, 8, 1), (3, 8, 0)])
def test_an_input_shape_that_does_not_fit(model_path: Path, shape: tuple[int, ...]) -> None:
    given = "x".join(str(size) for size in shape)

    assert f"input shape {given} doesn't fit the model's input 'input', which is 3x8x8" in complaint(model_path, shape)


def test_free_rows_and_columns_take_the_given_input_shape() -> None:
    model = small_network()
    model.graph.inputs[0].shape = model.graph.inputs[0].shape.__class__(["N", 3, "H", "W"])

    teacher = Teacher(model, (3, 12, 10))

    assert teacher.layers[0].macs == 12 * 10 * 4 * 27


def test_constants_in_nodes_and_functions_are_understood(tmp_path: Path) -> None:
    """Shape arithmetic, Constant nodes, Dropout and Identity, as exporters leave them, all go."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "c.weight")
    head = numpy_helper.from_array(np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32), "fc.weight")
    nodes = [
        helper.make_node("Conv", ["x", "c.weight"], ["a"], kernel_shape=[3, 3]),
        helper.make_node("Dropout", ["a"], ["b"]),
        helper.make_node("Identity", ["b"], ["c"]),
        helper.make_node("Shape", ["c"], ["shape"]),
        constant_node("zero", np.array(0, np.int64)),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        constant_node("axes", np.array([0], np.int64)),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["lead"]),
        constant_node("rest", np.array([-1], np.int64)),
        helper.make_node("Concat", ["lead", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["c", "target"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc.weight"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [weight, head],
    )  # fmt: skip
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))

    teacher = Teacher.load(path)

    assert [node.op_type for node in teacher.model.graph] == ["Conv", "Reshape", "Gemm"]
    assert [group.shrinkable for group in teacher.groups if group.width == 4] == [True]
    for batch in (1, 3):
        inputs = inputs_of(teacher.model, batch)
        assert run(teacher.source, inputs)[0].tobytes() == run(teacher.model, inputs)[0].tobytes()


def constant_node(name: str, array: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def test_a_torch_module_comes_in_with_its_batch_norm_kept() -> None:
    torch = pytest.importorskip("torch", reason="exporting a module needs torch")
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )  # fmt: skip
    module.train()
    teacher = Teacher.from_torch(module, torch.zeros(2, 3, 16, 16))
    assert module.training  # left as it was
    assert "BatchNormalization" in {node.op_type for node in teacher.model.graph}
    assert len(teacher.layers) == 3
    group = next(group for group in teacher.groups if group.shrinkable)
    smaller = build(teacher, teacher.full.resize(group.name, 4))
    images = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)
    module.eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    (full,) = run(build(teacher, teacher.full), {"input": images})
    np.testing.assert_allclose(full, expected, rtol=1e-4, atol=1e-5)
    assert run(smaller, {"input": images})[0].shape == (5, 4)


def test_a_module_that_cannot_be_exported_is_one_line() -> None:
    torch = pytest.importorskip("torch", reason="exporting a module needs torch")

    class Odd(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            raise RuntimeError("nothing to see\nhere")

    with pytest.raises(InputError, match="torch can't export Odd: nothing to see; give an ONNX file instead"):
        Teacher.from_torch(Odd(), torch.zeros(1, 3, 8, 8))


def zero_state_model(last: list[onnx.NodeProto]) -> ir.Model:
    """A convolution whose pooled output meets zeros that are made for every image, then `last`."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["conv"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Shape", ["flat"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        *last,
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weight],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def test_zeros_made_for_every_image_become_one_constant_where_they_are_broadcast() -> None:
    model = zero_state_model([helper.make_node("Add", ["flat", "zeros"], ["y"])])
    teacher = Teacher(model)

    assert {"Shape", "ConstantOfShape"}.isdisjoint(node.op_type for node in teacher.model.graph)
    for batch in (1, 3):
        inputs = inputs_of(teacher.model, batch)
        assert run(model, inputs)[0].tobytes() == run(teacher.model, inputs)[0].tobytes()


def test_zeros_made_for_every_image_become_padding_where_they_are_joined() -> None:
    model = zero_state_model([helper.make_node("Concat", ["flat", "zeros"], ["y"], axis=1)])
    teacher = Teacher(model)

    assert [node.op_type for node in teacher.model.graph][-1] == "Pad"
    assert {"Shape", "ConstantOfShape"}.isdisjoint(node.op_type for node in teacher.model.graph)
    inputs = inputs_of(teacher.model, 3)
    assert run(model, inputs)[0].tobytes() == run(teacher.model, inputs)[0].tobytes()


def test_a_branch_that_is_always_taken_takes_the_place_of_its_if() -> None:
    scale = numpy_helper.from_array(np.full((1,), 2, np.float32), "two")
    doubled = helper.make_graph(
        [helper.make_node("Mul", ["conv", "two"], ["doubled"])],
        "doubled",
        [],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, None)],
        [scale],
    )
    same = helper.make_graph(
        [helper.make_node("Identity", ["conv"], ["same"])],
        "same",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    for size, expected in ((4, "Mul"), (5, "Conv")):
        model = ir.from_proto(
            helper.make_model(
                helper.make_graph(
                    [
                        helper.make_node("Conv", ["x", "w"], ["conv"], pads=[1, 1, 1, 1]),
                        helper.make_node("Shape", ["conv"], ["shape"]),
                        helper.make_node("Gather", ["shape", "one"], ["width"], axis=0),
                        helper.make_node("Equal", ["width", "four"], ["is_four"]),
                        helper.make_node("If", ["is_four"], ["y"], then_branch=doubled, else_branch=same),
                    ],
                    "graph",
                    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
                    [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                    [
                        numpy_helper.from_array(np.ones((size, 3, 3, 3), np.float32), "w"),
                        numpy_helper.from_array(np.array(1, np.int64), "one"),
                        numpy_helper.from_array(np.array(4, np.int64), "four"),
                    ],
                ),
                opset_imports=[helper.make_opsetid("", 17)],
                ir_version=9,
            )
        )
        teacher = Teacher(model)

        assert [node.op_type for node in teacher.model.graph][-1] == expected
        inputs = inputs_of(teacher.model, 2)
        assert run(model, inputs)[0].tobytes() == run(teacher.model, inputs)[0].tobytes()


def test_a_cast_to_the_type_of_the_image_is_a_constant() -> None:
    nodes = [
        helper.make_node("CastLike", ["half", "x"], ["bias"]),
        helper.make_node("Conv", ["x", "w", "bias"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"),
            numpy_helper.from_array(np.full(4, 0.5, np.float16), "half"),
        ],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    teacher = Teacher(model)

    assert [node.op_type for node in teacher.model.graph] == ["Conv"]
    inputs = inputs_of(teacher.model, 2)
    assert run(model, inputs)[0].tobytes() == run(teacher.model, inputs)[0].tobytes()


@pytest.mark.parametrize("levels", [1, 2])
def test_a_node_whose_body_reads_what_comes_later_in_the_file_is_put_behind_it(tmp_path: Path, levels: int) -> None:
    def branch(inner: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
        return helper.make_graph(inner, "branch", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])

    def conditional(output: str, depth: int) -> onnx.NodeProto:
        names = [f"{output}{side}" for side in "ab"]
        if depth > 1:
            bodies = [branch([conditional(name, depth - 1)], name) for name in names]
        else:
            bodies = [branch([helper.make_node("Relu", ["late"], [name])], name) for name in names]
        return helper.make_node("If", ["which"], [output], then_branch=bodies[0], else_branch=bodies[1])

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    graph = helper.make_graph(
        [conditional("y", levels), helper.make_node("Conv", ["x", "w"], ["late"])],
        "unsorted",
        [image, helper.make_tensor_value_info("which", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    path = tmp_path / "unsorted.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(proto.SerializeToString())

    model = load_model(path)
    assert [node.op_type for node in model.graph] == ["Conv", "If"]
    assert model.clone() is not None


def test_a_constant_of_another_type_than_its_attribute_is_one_line(model_path: Path) -> None:
    proto = onnx.load(str(model_path))
    constant = helper.make_node("Constant", [], ["odd"])
    constant.attribute.append(helper.make_attribute("value", [1.0, 2.0]))
    proto.graph.node.insert(0, constant)
    model_path.write_bytes(proto.SerializeToString())
    assert "not a valid ONNX model" in complaint(model_path)
