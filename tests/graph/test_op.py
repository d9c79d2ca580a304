"""The table of ops, and operators that come from outside the package."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from typer.testing import CliRunner

from n2n_edge import Op, Teacher, build, costs, register_op
from n2n_edge.cli.app import app
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph import op
from n2n_edge.graph.costs import counted, node_costs
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.op import op_of
from n2n_edge.graph.ops import STANDARD_OPS
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.ops.registry import OPS, register
from tests.graph import own_ops


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every test change a table of its own."""
    op_of(ir.Node("", "Conv", []))  # the package's own rows are there
    monkeypatch.setattr(op, "_ROWS", dict(op._ROWS))
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    path = tmp_path / "own.onnx"
    save_model(own_ops.model(), path)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The metadata of an installed package that names rows as an entry point."""
    metadata = tmp_path / "site" / "own_ops-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-ops\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[n2n_edge.ops]\nown = tests.graph.own_ops:ROWS\n")
    monkeypatch.syspath_prepend(metadata.parent)
    op._load.cache_clear()
    yield metadata
    op._load.cache_clear()


def test_every_operator_has_one_row() -> None:
    keys = [(row.domain, row.name) for row in STANDARD_OPS]
    assert len(set(keys)) == len(keys)


def test_standard_rows_are_operators_of_onnx() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert {row.name for row in STANDARD_OPS if row.domain == ""} <= names


def test_an_op_without_a_row_cant_be_touched(own_model: Path) -> None:
    with pytest.raises(InputError, match="ONNX Runtime can't run the model"):
        Teacher.load(own_model)


def test_an_op_from_outside_is_inspected(own_model: Path) -> None:
    register_op(*own_ops.ROWS)
    result = CliRunner().invoke(app, ["inspect", str(own_model), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [layer["op_type"] for layer in document["layers"]] == ["WrappedConv", "WrappedConv", "Gemm"]
    assert [layer["removable"] for layer in document["layers"]] == [True, True, False]
    assert [(group["width"], group["shrinkable"]) for group in document["groups"]] == [
        (3, False),
        (8, True),
        (6, True),
        (4, False),
    ]


def test_macs_of_an_op_from_outside_are_counted(own_model: Path) -> None:
    register_op(*own_ops.ROWS)
    pixels = 8 * 8
    by_op: dict[str, int] = {}
    for node in node_costs(counted(load_model(own_model))):
        by_op[node.op_type] = by_op.get(node.op_type, 0) + node.macs
    assert by_op["WrappedConv"] == pixels * (8 * 3 * 9 + 6 * 8 * 9)
    assert by_op["Snake"] == 0
    assert costs(load_model(own_model)).macs == by_op["WrappedConv"] + by_op["Gemm"]


def test_the_channels_of_an_op_from_outside_shrink(own_model: Path) -> None:
    register_op(*own_ops.ROWS)
    teacher = Teacher.load(own_model)
    group = next(group for group in teacher.groups if group.width == 8)
    kept = (0, 2, 5, 7)
    student = build(teacher, teacher.full.resize(group.name, 4), keep={group.name: kept})
    weights = {name: value.const_value.numpy() for name, value in student.graph.initializers.items()}  # type: ignore[union-attr]
    whole = own_ops.model().graph.initializers
    assert np.array_equal(weights["first.weight"], whole["first.weight"].const_value.numpy()[list(kept)])  # type: ignore[union-attr]
    assert np.array_equal(weights["second.weight"], whole["second.weight"].const_value.numpy()[:, list(kept)])  # type: ignore[union-attr]
    images = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32))
    module = GraphModule(student)
    with torch.no_grad():
        scores = module(images)
    assert torch.allclose(scores, _calculated(weights, images), atol=1e-4)


def test_a_layer_from_outside_is_removed(own_model: Path) -> None:
    register_op(*own_ops.ROWS)
    teacher = Teacher.load(own_model)
    student = build(teacher, teacher.full.remove("second"))
    assert "second.weight" not in student.graph.initializers
    assert tuple(student.graph.initializers["head.weight"].const_value.shape) == (4, 8)  # type: ignore[union-attr]


def test_an_op_from_outside_is_trained(own_model: Path) -> None:
    register_op(*own_ops.ROWS)
    module = GraphModule(Teacher.load(own_model).model)
    images = torch.ones((2, 3, 8, 8))
    module(images).square().sum().backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert len(gradients) == 6
    assert all(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)


def test_an_installed_package_gives_ops(installed: Path, own_model: Path) -> None:
    assert [layer.op_type for layer in Teacher.load(own_model).layers] == ["WrappedConv", "WrappedConv", "Gemm"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("tests.graph.no_such_module:ROWS", "raised ModuleNotFoundError: No module named 'tests.graph.no_such_module'"),
        ("tests.graph.own_ops:NO_SUCH_ROWS", "raised AttributeError"),
        ("tests.graph.own_ops:DOMAIN", "gives something else than n2n_edge.graph.Op"),
    ],
)
def test_an_installed_package_that_fails_is_named_in_one_line(
    installed: Path, own_model: Path, target: str, reason: str
) -> None:
    (installed / "entry_points.txt").write_text(f"[n2n_edge.ops]\nown = {target}\n")
    for _ in range(2):  # the second time, too
        with pytest.raises(UnsuitableEnvironmentError) as caught:
            Teacher.load(own_model)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"entry point 'own' of n2n_edge.ops ({target}) {reason}")


def test_shapes_from_outside_that_fail_are_named_in_one_line(own_model: Path) -> None:
    def failing(node: ir.Node, inputs: own_ops.Shapes) -> list[tuple[int, ...]]:
        raise KeyError("kernel")

    register_op(Op("WrappedConv", own_ops.DOMAIN, shapes=failing), own_ops.ACTIVATION)
    with pytest.raises(InputError, match=r"the shapes of op own\.ops:WrappedConv raised KeyError: 'kernel'"):
        Teacher.load(own_model)


def test_a_standard_op_without_a_rule_gets_one() -> None:
    before = Teacher(_with_atan())
    assert not any(group.shrinkable for group in before.groups)
    assert "op Atan" in next(group.reason for group in before.groups if group.width == 6)
    register_op(Op("Atan", labels=own_ops.snake_labels, activation=True, passes_width=lambda node, width: True))
    register("Atan")(lambda view: torch.atan)
    teacher = Teacher(_with_atan())
    group = next(group for group in teacher.groups if group.width == 6)
    student = build(teacher, teacher.full.resize(group.name, 3))
    assert tuple(student.graph.initializers["first_weight"].const_value.shape) == (3, 3, 1, 1)  # type: ignore[union-attr]
    images = np.random.default_rng(1).standard_normal((2, 3, 4, 4)).astype(np.float32)
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(student).SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"images": images})
    with torch.no_grad():
        assert np.allclose(GraphModule(student)(torch.from_numpy(images)).numpy(), expected, atol=1e-5)


def _with_atan() -> ir.Model:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    own (float[N, 3, 4, 4] images) => (float[N, 2, 4, 4] y) {
        h = Conv(images, first_weight)
        a = Atan(h)
        y = Conv(a, second_weight)
    }"""
    proto = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name, shape in (("first_weight", (6, 3, 1, 1)), ("second_weight", (2, 6, 1, 1))):
        weight = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return ir.from_proto(proto)


def _calculated(weights: dict[str, np.ndarray], images: torch.Tensor) -> torch.Tensor:
    """What the own model gives, calculated without its graph."""
    held = {name: torch.from_numpy(np.array(weight)) for name, weight in weights.items()}
    for name in ("first", "second"):
        convolution = torch.nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
        convolution.weight = torch.nn.Parameter(held[f"{name}.weight"])
        convolution.bias = torch.nn.Parameter(held[f"{name}.bias"])
        images = convolution(images)
        images = images + images.sin() ** 2
    return images.mean(dim=(2, 3)) @ held["head.weight"].t() + held["head.bias"]
