"""One predicted latency: search, shipping, gate, predict and inspect say the same of a file on a device."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from n2n_edge.cli.gate import gate
from n2n_edge.cli.inspect import inspect
from n2n_edge.cli.predict import predict
from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.load import load_model, save_model
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.latency.file_figures import ModelFile
from n2n_edge.latency.model import LatencyModel
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.figures import Figure, FigureJson
from n2n_edge.runs.layers import layer_rows
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.precision import Base
from n2n_edge.search.store import Journal
from tests.cli.outputs import document_of
from tests.graph.test_quantized import floats, quantized
from tests.latency.made_up import board, calibration

DEVICE = "raspberry-pi-4"

Sizes = tuple[int | str, ...]


def network(
    path: Path,
    *,
    size: Sizes = (32, 32),
    before: Sequence[onnx.NodeProto] = (),
    last: onnx.NodeProto | None = None,
    given: bool = False,
    functions: Sequence[onnx.FunctionProto] = (),
    narrow: bool = False,
) -> Path:
    """Write Conv, Relu, Conv, Add, Relu, pooling and a last product; `given` makes the weights graph inputs.

    `before` are nodes that calculate ``w1`` of ``stored``; `narrow` stores that in 16 bits.
    """
    rng = np.random.default_rng(0)
    shapes = {"w0": (16, 3, 3, 3), "w1": (16, 16, 3, 3), "w2": (16, 10)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    if before:
        weights["stored"] = weights.pop("w1").astype(np.float16 if narrow else np.float32)
    nodes = [
        *before,
        helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1] * 4, kernel_shape=[3, 3], name="first"),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1] * 4, kernel_shape=[3, 3], name="second"),
        helper.make_node("Add", ["c1", "r0"], ["a"]),
        helper.make_node("Relu", ["a"], ["r1"]),
        helper.make_node("GlobalAveragePool", ["r1"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        last or helper.make_node("Gemm", ["f", "w2"], ["y"], name="last"),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size])]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if given:
        inputs += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in tensors]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    graph = helper.make_graph(nodes, "graph", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


def einsum(path: Path) -> Path:
    return network(path, last=helper.make_node("Einsum", ["f", "w2"], ["y"], equation="nc,cd->nd"))


def einsum_in_a_function(path: Path) -> Path:
    product = helper.make_node("Einsum", ["a", "b"], ["c"], equation="nc,cd->nd")
    function = helper.make_function("own", "Product", ["a", "b"], ["c"], [product], [helper.make_opsetid("", 17)])
    return network(path, last=helper.make_node("Product", ["f", "w2"], ["y"], domain="own"), functions=[function])


def identity(path: Path) -> Path:
    return network(path, before=[helper.make_node("Identity", ["stored"], ["w1"])])


def cast(path: Path) -> Path:
    return network(path, before=[helper.make_node("Cast", ["stored"], ["w1"], to=TensorProto.FLOAT)], narrow=True)


def given(path: Path) -> Path:
    return network(path, given=True)


def free_sizes(path: Path) -> Path:
    return network(path, size=("height", "width"))


def tiny(path: Path) -> Path:
    return network(path, size=(8, 8))


def wide(path: Path) -> Path:
    return network(path, size=(32, 640))


def large(path: Path) -> Path:
    return network(path, size=(768, 768))


KINDS = (network, einsum, einsum_in_a_function, identity, cast, given, free_sizes, tiny, wide, large)


def command(function: Callable[..., None], *arguments: object) -> dict[str, Any]:
    app = typer.Typer()
    app.command()(function)
    return document_of(CliRunner().invoke(app, [*map(str, arguments), "--json"]))


def of_file(path: Path) -> dict[str, FigureJson]:
    """The latency of a file, by who says it."""
    gated = command(gate, path, "--device", DEVICE, "--max-latency-ms", "1000000")
    return {
        "shipping": ModelFile(path).latency(load_profile(DEVICE)).figure.to_json(),
        "gate": gated["budgets"][0]["reached"],
        "predict": command(predict, path, "--device", DEVICE)["latency_ms"],
        "inspect": command(inspect, path, "--device", DEVICE)["costs"]["latency_ms"],
    }


def same(one: FigureJson, other: Mapping[str, Any]) -> bool:
    return set(one) == set(other) and all(
        value == (pytest.approx(other[name], rel=1e-9) if isinstance(value, float) else other[name])
        for name, value in one.items()
    )


@pytest.mark.parametrize("kind", [*KINDS, *(lambda path: quantized(floats(path), "pairs"),)])
def test_all_that_read_a_file_say_the_same(kind: Callable[[Path], Path], tmp_path: Path) -> None:
    path = kind(tmp_path / "model.onnx")
    expected = LatencyModel(load_profile(DEVICE)).estimate(load_model(path)).figure.to_json()
    for who, figure in of_file(path).items():
        assert same(figure, expected), (who, figure, expected)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not einsum_in_a_function])
def test_the_search_says_the_same_of_a_candidate_as_shipping_of_its_file(
    kind: Callable[[Path], Path], tmp_path: Path
) -> None:
    teacher = Teacher.load(kind(tmp_path / "teacher.onnx"))
    architecture = teacher.full
    for group in teacher.groups:
        if group.shrinkable:
            architecture = architecture.resize(group.name, group.width // 2)
    widths = np.array([[architecture.width(group.name) for group in teacher.groups]])
    candidate = build(teacher, architecture)
    student = tmp_path / "student.onnx"
    save_model(ir.from_proto(ir.to_proto(candidate)), student)
    for device in (DEVICE, "raspberry-pi-5", "jetson-nano"):
        profile = load_profile(device)
        with Journal.create(tmp_path / f"{device}.sqlite") as journal, WarmWorker() as worker:
            budgets = [Budget("latency_ms", 1e6)]
            meters = [
                CostMeter(teacher, profile, budgets, journal, worker, accept_expected=expected)
                for expected in (False, True)
            ]
            latency = meters[0].evaluate(architecture).latency
            upper, value = (float(meter.predicted(Base(), widths)["latency_ms"][0]) for meter in meters)
        found = ModelFile(student).latency(profile).figure
        assert latency is not None
        assert same(latency.to_json(), found.to_json())
        assert (value, upper) == pytest.approx((found.value, found.high), rel=1e-9)


def test_layers_of_a_report_add_up_to_its_latency(tmp_path: Path) -> None:
    path = einsum(tmp_path / "teacher.onnx")
    profile = load_profile("raspberry-pi-4")

    rows = layer_rows(Teacher.load(path), frozenset(), ModelFile(path), ModelFile(path), [profile])

    latencies = [row["latency_ms"][profile.name]["student"] for row in rows]
    figure = ModelFile(path).latency(profile).figure
    assert sum(float(each["value"]) for each in latencies if each is not None) == pytest.approx(figure.value)
    assert {each["provenance"] for each in latencies if each is not None} == {figure.provenance} == {"analytic"}


def test_what_nobody_counts_widens_the_interval_in_the_search_too(tmp_path: Path) -> None:
    """A candidate whose upper bound breaks the budget at the end must not be thought to meet it before."""
    teacher = Teacher.load(einsum(tmp_path / "teacher.onnx"))
    profile = board(calibration())
    plain = LatencyModel(profile).basis()
    with Journal.create(tmp_path / "journal.sqlite") as journal, WarmWorker() as worker:
        meter = CostMeter(teacher, profile, [], journal, worker)
        latency: Figure | None = meter.evaluate(teacher.full).latency
    assert latency is not None
    assert latency.provenance == "analytic"
    assert (latency.low, latency.high) == pytest.approx(
        (latency.value * plain.low_ratio / 10, latency.value * plain.high_ratio * 10)
    )
