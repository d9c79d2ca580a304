"""What ONNX Runtime runs has figures, whatever the checker says, and they are those of a well-formed twin."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from n2n_edge.cli.app import app
from n2n_edge.errors import InputError
from n2n_edge.graph.costs import costs, inferred_costs
from n2n_edge.graph.load import load_model, serialize
from n2n_edge.graph.model_file import file_size_bytes
from n2n_edge.graph.shapes import batch_of
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.file_figures import file_figures

Change = Callable[[onnx.ModelProto], None]


def network(
    *middle: onnx.NodeProto, opset: int = 17, shape: tuple[int | str, ...] = ("N", 3, 16, 16)
) -> onnx.ModelProto:
    """Conv (3 to 8), `middle` (from ``c`` to ``m``), Relu, global pool, Gemm (8 to 10)."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "kernel": rng.standard_normal((8, 3, 3, 3), np.float32),
        "bias": rng.standard_normal(8, np.float32),
        "fc": rng.standard_normal((8, 10), np.float32),
        "two": np.ones(2, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["c"], name="conv"),
        *(middle or [helper.make_node("Relu", ["c"], ["m"], name="relu")]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "fc"], ["y"], name="gemm"),
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [shape[0], 10])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def without_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def without_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def without_name(model: onnx.ModelProto) -> None:
    model.graph.name = ""


def backwards(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))


def with_named_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "ai.onnx"


def with_named_import(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = "ai.onnx"


def sparse(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "fc")
    dense = numpy_helper.to_array(tensor).copy()
    model.graph.initializer.remove(tensor)
    places = np.arange(dense.size)
    written = model.graph.sparse_initializer.add(dims=dense.shape)
    written.values.CopyFrom(numpy_helper.from_array(dense.ravel(), "fc"))
    written.indices.CopyFrom(numpy_helper.from_array(places.astype(np.int64), "fc.indices"))


@pytest.mark.parametrize(
    "change",
    [without_shape, without_type, without_name, backwards, with_named_domain, with_named_import, sparse],
    ids=lambda change: change.__name__,
)
def test_figures_are_those_of_the_well_formed_twin(change: Change, tmp_path: Path) -> None:
    twin, model = network(), network()
    change(model)
    path, expected = write(tmp_path / "model.onnx", model), costs(load_model(write(tmp_path / "twin.onnx", twin)))
    onnxruntime.InferenceSession(str(path))

    for found in (costs(load_model(path)), inferred_costs(load_model(path))[0], costs(Teacher.load(path).model)):
        assert (found.params, found.macs) == (expected.params, expected.macs)
        assert found.memory_bound_bytes == expected.memory_bound_bytes


@pytest.mark.parametrize("opset", [18, 20])
def test_group_normalization_of_old_opsets(opset: int, tmp_path: Path) -> None:
    norm = helper.make_node("GroupNormalization", ["c", "two", "two"], ["m"], num_groups=2)
    path = write(tmp_path / "norm.onnx", network(norm, opset=opset))

    assert file_figures(path)["params"].value == 8 * 27 + 8 + 80 + 2


def test_an_op_of_onnx_runtime_without_its_import(tmp_path: Path) -> None:
    path = write(tmp_path / "gelu.onnx", network(helper.make_node("Gelu", ["c"], ["m"], domain="com.microsoft")))

    assert file_figures(path)["macs"].value == 14 * 14 * 8 * 27 + 80


def test_what_onnx_runtime_refuses_stays_refused(tmp_path: Path) -> None:
    unknown = helper.make_node("Relu", ["c"], ["m"], consumed_inputs=[0])

    with pytest.raises(InputError, match="not a valid ONNX model"):
        load_model(write(tmp_path / "model.onnx", network(unknown)))


def test_weights_that_nothing_reads_count_nowhere(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer.append(numpy_helper.from_array(np.ones(100_000, np.float32), "training.head"))
    path, twin = write(tmp_path / "model.onnx", model), write(tmp_path / "twin.onnx", network())

    for found in (costs(load_model(path)), costs(Teacher.load(path).model)):
        assert found.params == costs(load_model(twin)).params
        assert found.memory_bound_bytes == costs(load_model(twin)).memory_bound_bytes


@pytest.mark.parametrize("op_type", ["Identity", "Transpose", "Mul", "Cast"])
def test_calculated_weights_count_alike_before_and_after_folding(op_type: str, tmp_path: Path) -> None:
    model = network()
    attributes = {"Transpose": {"perm": [0, 1, 3, 2]}, "Cast": {"to": TensorProto.FLOAT}}.get(op_type, {})
    inputs = ["kernel", "scale"] if op_type == "Mul" else ["kernel"]
    if op_type == "Mul":
        model.graph.initializer.append(numpy_helper.from_array(np.full((8, 1, 1, 1), 2, np.float32), "scale"))
    model.graph.node[0].input[1] = "calculated"
    model.graph.node.insert(0, helper.make_node(op_type, inputs, ["calculated"], **attributes))
    path = write(tmp_path / "model.onnx", model)

    assert costs(load_model(path)).params == costs(Teacher.load(path).model).params == 8 * 27 + 8 + 80


def test_a_fixed_batch_is_told() -> None:
    assert batch_of(onnx_ir(network(shape=(8, 3, 16, 16)))) == 8
    assert batch_of(onnx_ir(network())) == 1


def onnx_ir(model: onnx.ModelProto):  # type: ignore[no-untyped-def]
    import onnx_ir as ir

    return ir.from_proto(model)


def cached(tmp_path: Path) -> Path:
    """A model in the form of the Hugging Face cache: model and data are links into one store."""
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    store.mkdir()
    snapshot.mkdir(parents=True)
    plain = tmp_path / "plain"
    plain.mkdir()
    onnx.save_model(
        network(), str(plain / "model.onnx"), save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    for name, digest in (("model.onnx", "1f2e"), ("model.onnx.data", "3d4c")):
        (plain / name).rename(store / digest)
        (snapshot / name).symlink_to(Path("../../blobs") / digest)
    return snapshot / "model.onnx"


def test_links_into_a_store_of_models(tmp_path: Path) -> None:
    path = cached(tmp_path)
    twin = write(tmp_path / "twin.onnx", network())

    assert costs(load_model(path)).params == costs(load_model(twin)).params
    assert file_size_bytes(path) == sum(part.stat().st_size for part in (tmp_path / "blobs").iterdir())


def test_a_link_to_data_elsewhere_stays_refused(tmp_path: Path) -> None:
    path = cached(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    data = path.parent / "model.onnx.data"
    (elsewhere / "data").write_bytes(data.read_bytes())
    data.unlink()
    data.symlink_to(elsewhere / "data")

    for analyse in (load_model, file_size_bytes):
        with pytest.raises(InputError, match="lies outside the model's folder"):
            analyse(path)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [16, 17])
def test_sizes_are_those_that_onnx_runtime_calculates(pool: str, size: int, tmp_path: Path) -> None:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    model = network(helper.make_node(pool, ["c"], ["m"], **attributes), opset=19, shape=(1, 3, size, size))
    model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    path = write(tmp_path / "pool.onnx", model)
    seen = onnxruntime.InferenceSession(str(path)).run(["m"], {"x": np.zeros((1, 3, size, size), np.float32)})[0]

    teacher = Teacher.load(path)

    value = next(value for node in teacher.model.graph for value in node.outputs if value.name == "m")
    assert value.shape is not None
    assert tuple(value.shape.numpy() if value.shape.is_static() else list(value.shape)[2:])[-2:] == seen.shape[2:]


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool", "AveragePool counting padding", "LpPool"])
@pytest.mark.parametrize("edges", [(16, 16), (17, 17), (17, 16), (15, 18)])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(2, 2, 1), (3, 2, 1), (3, 3, 1), (2, 3, 1), (3, 4, 2)])
def test_onnx_infers_the_sizes_of_a_loaded_pool(
    pool: str, edges: tuple[int, int], kernel: int, stride: int, pad: int, tmp_path: Path
) -> None:
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": 1}
    if "counting" in pool:
        attributes["count_include_pad"] = 1
    node = helper.make_node(pool.split()[0], ["c"], ["m"], **attributes)
    model = network(node, opset=19, shape=(1, 3, *edges))
    model.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    path = write(tmp_path / "pool.onnx", model)
    images = {"x": np.random.default_rng(0).normal(size=(1, 3, *edges)).astype(np.float32)}
    seen = onnxruntime.InferenceSession(str(path)).run(["m"], images)[0]

    teacher = Teacher.load(path)
    loaded = onnx.load_from_string(serialize(build(teacher, teacher.full)))
    del loaded.graph.output[:]
    loaded.graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
    inferred = onnx.shape_inference.infer_shapes(loaded)

    assert [dim.dim_value for dim in inferred.graph.output[0].type.tensor_type.shape.dim][2:] == list(seen.shape[2:])
    again = onnxruntime.InferenceSession(inferred.SerializeToString()).run(["m"], images)[0]
    np.testing.assert_allclose(again, seen, rtol=1e-5, atol=1e-6)


def test_a_fixed_batch_is_said_where_costs_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "eight.onnx", network(shape=(8, 3, 16, 16)))

    for command, words in (
        (["inspect", path], "batch 8"),
        (["predict", path, "--device", "raspberry-pi-4"], "takes 8 images at a time"),
        (["gate", path, "--max-mb", "1", "--no-config"], "takes 8 images at a time"),
    ):
        result = CliRunner().invoke(app, [str(word) for word in command])
        assert result.exit_code == 0
        assert words in result.output
