"""What `compress` refuses of a teacher, `inspect` says, in the same words."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import n2n_edge
from n2n_edge.cli.inspect import inspect
from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.runs.readiness import is_half_weight, obstacles, runtime_note
from n2n_edge.training.executor import GraphModule

app = typer.Typer()
app.command()(inspect)

FLOAT, HALF, INT, DOUBLE, BFLOAT = (
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.BFLOAT16,
)  # fmt: skip


def network(
    path: Path,
    shape: list[int | str],
    *,
    inside: int = FLOAT,
    head: int = FLOAT,
    given: int = FLOAT,
    before: list[onnx.NodeProto] | None = None,
    after: list[onnx.NodeProto] | None = None,
    output: tuple[int, list[int | str]] = (FLOAT, ["N", 5]),
    more_inputs: list[onnx.ValueInfoProto] | None = None,
) -> Path:
    """Write two convolutions of type `inside` and a classifier of type `head`, with `before` and `after` around."""
    rng = np.random.default_rng(0)

    def weight(name: str, kind: int, *sizes: int) -> onnx.TensorProto:
        array = (rng.standard_normal(sizes) * 0.3).astype(np.float32)
        if kind == BFLOAT:
            return helper.make_tensor(name, BFLOAT, sizes, array.ravel().tolist())
        return numpy_helper.from_array(array.astype(helper.tensor_dtype_to_np_dtype(kind)), name)

    source = before[-1].output[0] if before else "x"
    nodes = [*(before or [])]

    def cast(name: str, to: int) -> str:
        nodes.append(helper.make_node("Cast", [name], [f"{name}.cast{to}"], to=to))
        return f"{name}.cast{to}"

    kind = given
    if kind != inside:
        source, kind = cast(source, inside), inside
    nodes += [
        helper.make_node("Conv", [source, "w1"], ["c1"], pads=[1] * 4, name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4, name="conv2"),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("ReduceMean", ["r2"], ["p"], axes=[2, 3], keepdims=0),
    ]
    pooled = "p" if inside == head else cast("p", head)
    nodes.append(helper.make_node("Gemm", [pooled, "w3"], ["y"], transB=1, name="fc"))
    result = "y" if head == FLOAT or after else cast("y", FLOAT)
    nodes += after or []
    result = after[-1].output[0] if after else result
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", given, shape), *(more_inputs or [])],
        [helper.make_tensor_value_info(result, *output)],
        [weight("w1", inside, 8, 3, 3, 3), weight("w2", inside, 8, 8, 3, 3), weight("w3", head, 5, 8)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


FREE = ["N", 3, 12, 12]
TO_NCHW = [helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2])]

TAKEN = {
    "half-precision images": {"shape": FREE, "given": HALF},
    "double-precision images": {"shape": FREE, "given": DOUBLE},
    "bytes": {"shape": FREE, "given": TensorProto.UINT8},
    "channels last": {"shape": ["N", 12, 12, 3], "before": TO_NCHW},
    "free height and width": {"shape": ["N", 3, "H", "W"]},
    "a final ArgMax": {
        "shape": FREE,
        "after": [helper.make_node("ArgMax", ["y"], ["z"], axis=1)],
        "output": (INT, ["N", 1]),
    },
    "an operator without a torch function": {
        "shape": FREE,
        "after": [helper.make_node("Hardmax", ["y"], ["z"], axis=1)],
    },
}

REFUSED = {
    "input_type": ({"shape": FREE, "given": INT}, "is INT64; give a model that takes floats or uint8"),
    "fixed_batch": (
        {"shape": [4, 3, 12, 12], "output": (FLOAT, [4, 5])}, "takes 4 images at a time",
    ),
    "half_precision": ({"shape": FREE, "inside": HALF}, r"weights are half precision \(w1, w2\); give the float model"),
    "half_precision of all": ({"shape": FREE, "inside": HALF, "head": HALF}, r"half precision \(w1, w2, w3\)"),
    "half_precision of the head": ({"shape": FREE, "head": HALF}, r"half precision \(w3\)"),
    "inputs": (
        {
            "shape": FREE,
            "after": [helper.make_node("Add", ["y", "other"], ["z"])],
            "more_inputs": [helper.make_tensor_value_info("other", FLOAT, ["N", 5])],
        },
        "takes 2 inputs",
    ),
}  # fmt: skip
REFUSED["operator"] = (
    {
        "shape": FREE,
        "before": [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["positive"], to=TensorProto.BOOL),
            helper.make_node(
                "If",
                ["positive"],
                ["chosen"],
                then_branch=helper.make_graph([helper.make_node("Identity", ["x"], ["a"])], "a", [], [value("a")]),
                else_branch=helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "b", [], [value("b")]),
            ),
        ],
    },
    "is If as an operator",
)


def teacher_of(name: str, tmp_path: Path) -> Path:
    return network(tmp_path / "t.onnx", **REFUSED[name][0])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REFUSED)
def test_what_compress_refuses_inspect_says(name: str, tmp_path: Path) -> None:
    path, words = teacher_of(name, tmp_path), REFUSED[name][1]
    np.savez(tmp_path / "d.npz", x=np.zeros((30, 12, 12, 3), np.uint8))

    with pytest.raises(InputError, match=words) as refused:
        n2n_edge.compress(path, data=tmp_path / "d.npz", mean=(0.5,), std=(0.5,), out=tmp_path / "run")
    shown = CliRunner().invoke(app, [str(path), "--json"])
    printed = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "400"})

    assert shown.exit_code == printed.exit_code == 0, shown.output + printed.output
    first = json.loads(shown.stdout)["obstacles"][0]
    assert first["code"] == name.split()[0]
    assert first["text"] in str(refused.value)
    assert f"compress would refuse it ({first['code']})" in printed.stdout
    if name == "inputs":
        bound = CliRunner().invoke(app, [str(path), "--bind", "other=1,2,3,4,5", "--json"])
        assert json.loads(bound.stdout)["obstacles"] == []


@pytest.mark.parametrize("name", TAKEN)
def test_what_compress_takes(name: str, tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", **TAKEN[name])  # type: ignore[arg-type]

    assert obstacles(Teacher.load(path)) == ()


def test_a_teacher_that_compress_takes_has_no_obstacle(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", FREE)  # type: ignore[arg-type]

    shown = CliRunner().invoke(app, [str(path), "--json"])
    printed = CliRunner().invoke(app, [str(path)])

    document = json.loads(shown.stdout)
    assert document["obstacles"] == []
    assert document["input"] == {"sizes": [3, 12, 12], "assumed": False}
    assert "refuse" not in printed.stdout


def test_free_height_and_width_are_said_with_the_size_that_stands_in(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", ["N", 3, "H", "W"])

    assumed = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "400"})
    given = CliRunner().invoke(app, [str(path), "--input-shape", "3x20x12", "--json"])

    assert "figures are for 3x224x224" in assumed.stdout
    document = json.loads(given.stdout)
    assert document["input"] == {"sizes": [3, 20, 12], "assumed": False}
    assert document["obstacles"] == []


def test_a_batch_of_one_that_can_be_opened_is_no_obstacle(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", [1, 3, 12, 12], output=(FLOAT, [1, 5]))

    assert obstacles(Teacher.load(path)) == ()


def test_weights_that_are_only_stored_in_half_precision_are_trained(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", FREE)  # type: ignore[arg-type]
    model = onnx.load(path)
    for tensor in list(model.graph.initializer):
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
        model.graph.node.insert(0, helper.make_node("Cast", [half.name], [tensor.name], to=FLOAT))
        model.graph.initializer.remove(tensor)
        model.graph.initializer.append(half)
    onnx.save(model, path)
    teacher = Teacher.load(path)

    assert obstacles(teacher) == ()
    assert len(list(GraphModule(teacher.model).parameters())) == 3


def test_double_weights_are_trained(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", FREE, head=DOUBLE)  # type: ignore[arg-type]
    teacher = Teacher.load(path)

    assert obstacles(teacher) == ()
    assert len(list(GraphModule(teacher.model).parameters())) == 3


def test_bfloat16_counts_as_half_precision() -> None:
    tensor = helper.make_tensor("w", BFLOAT, [2, 2], [1.0, 2.0, 3.0, 4.0])

    assert is_half_weight(ir.Value(name="w", const_value=ir.from_proto(tensor)))


def test_what_the_tracer_warned_of_is_shown(tmp_path: Path) -> None:
    path = network(tmp_path / "t.onnx", FREE)  # type: ignore[arg-type]
    model = onnx.load(path)
    helper.set_model_props(
        model, {"n2n_edge.export_warning": "Converting a tensor to a Python boolean (net.py, line 3)"}
    )
    onnx.save(model, path)

    printed = CliRunner().invoke(app, [str(path)], env={"COLUMNS": "400"})

    assert "torch's tracer warned: Converting a tensor to a Python boolean (net.py, line 3);" in printed.stdout


def test_nodes_that_onnx_runtime_runs_are_named(tmp_path: Path) -> None:
    before = [helper.make_node("Hardmax", ["x"], ["h"], axis=1, name="hard")]
    path = network(tmp_path / "t.onnx", FREE, before=before)

    printed = CliRunner().invoke(app, [str(path)]).stdout

    assert "run by ONNX Runtime, no gradient passes: Hardmax hard" in printed
    assert runtime_note(Teacher.load(network(tmp_path / "plain.onnx", FREE))) == ""
