from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from n2n_edge.graph.layers import layers_by_name
from n2n_edge.graph.teacher import Teacher
from n2n_edge.measure.bench import bench
from n2n_edge.measure.messages import Profiled, parse
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.per_op import OpProfile
from n2n_edge.measure.worker.profiling import read_profile
from tests.measure.small_models import write_conv_model

LAYERS = {"conv1": "first", "relu1": "first", "y": "second"}


def raw(plain_us: float, **kernels: float) -> Profiled:
    rows = [{"name": name, "op_type": "Conv", "provider": "CPU", "us": us} for name, us in kernels.items()]
    fields = {"plain_us": plain_us, "run_us": 2 * plain_us, "kernels": rows}
    return parse(Profiled, {**fields, "arena_bytes": None, "arena_in_use_bytes": None})


def test_the_profilers_own_time_is_taken_off_each_kernel() -> None:
    found = OpProfile.read(raw(98.0, conv1=70.0, y_nchwc=32.0), LAYERS)

    assert found.overhead_us == pytest.approx(2.0)
    assert [kernel.latency_ms for kernel in found.kernels] == pytest.approx([0.068, 0.030])
    assert found.accounted == pytest.approx(1.0)
    assert found.by_layer() == {"first": (1, pytest.approx(68 / 98)), "second": (1, pytest.approx(30 / 98))}


def test_no_kernel_goes_below_nought() -> None:
    found = OpProfile.read(raw(50.0, conv1=96.0, tiny=1.0), LAYERS)

    assert found.overhead_us == 1.0
    assert [kernel.latency_ms for kernel in found.kernels] == pytest.approx([0.050, 0.0])


def test_what_kernels_leave_open_is_said() -> None:
    found = OpProfile.read(raw(100.0, conv1=60.0, other=20.0), LAYERS)

    assert found.overhead_us == 0.0
    assert found.accounted == pytest.approx(0.8)
    assert found.by_layer()[""] == (1, pytest.approx(0.25))
    assert found.by_op_type() == {"Conv": (2, pytest.approx(1.0))}


def test_a_profile_of_the_runtime_is_summed_up_over_runs_that_nothing_disturbed() -> None:
    events = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 500}]
    for place in range(8):
        start, took = 1000 * (place + 1), 10 if place in (2, 5, 6) else 300
        for order, name in enumerate(("a", "b")):
            args = {"op_name": "Conv", "provider": "CPU", "mem_arena_held": str(1000 + place), "mem_in_use_peak": "7"}
            event = {"cat": "Node", "name": f"{name}_kernel_time", "ts": start + 1 + took * order}
            events.append({**event, "dur": took, "args": args})
        events.append({"cat": "Session", "name": "model_run", "ts": start, "dur": 2 * took + 3})

    found = read_profile(events, 7)

    assert [(kernel["name"], kernel["us"]) for kernel in found["kernels"]] == [("a", 10.5), ("b", 10.5)]
    assert found["run_us"] == pytest.approx(23)
    assert (found["arena_bytes"], found["arena_in_use_bytes"]) == (1007, 7)


def test_a_runtime_that_says_nothing_of_its_arena() -> None:
    events = [
        {"cat": "Node", "name": "a_kernel_time", "ts": 1, "dur": 3, "args": {"op_name": "Conv", "provider": "CPU"}},
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 5},
    ]

    assert read_profile(events, 1)["arena_bytes"] is None


def test_layers_are_named_as_inspect_names_them(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx", 16, 32)
    names = {layer.name for layer in Teacher.load(path).layers}

    found = bench(path, BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1))

    assert found.profile is not None
    assert names == set(found.profile.by_layer()) - {""}
    assert names == set(layers_by_name(ir.load(path)).values())
    assert found.measurement.arena_bytes is None or found.measurement.arena_bytes > 0


def test_a_graph_without_node_names_has_layers_too(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = ""
    path.write_bytes(model.SerializeToString())

    assert set(layers_by_name(ir.load(path)).values()) == {"w1", "w2"}
