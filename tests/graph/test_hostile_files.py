"""Files from elsewhere: one line that names the file, and bounded time and memory, whatever they hold."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError, N2NError
from n2n_edge.foreign import UnforeseenError, foreign_file
from n2n_edge.graph import child
from n2n_edge.graph.function_calls import check_function_calls
from n2n_edge.graph.load import load_model
from n2n_edge.graph.model_file import file_size_bytes
from n2n_edge.graph.teacher import Teacher
from n2n_edge.latency.file_figures import file_figures, inferred_figures
from n2n_edge.latency.model import LatencyModel

Constants = dict[str, np.ndarray]


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: Constants | None = None,
    *,
    shape: tuple[int | str, ...] = (1, 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> Path:
    """A model of the input ``x`` and the output ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, [f"d{axis}" for axis in range(len(shape))])],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", 17), *([helper.make_opsetid("local", 1)] if functions else [])]
    model = helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, analyse: Callable[[Path], object] = Teacher.load) -> str:
    """What is said against a file: one line that names it, and that some check has foreseen."""
    with pytest.raises(N2NError) as caught:
        analyse(path)
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert str(path) in said
    assert "\n" not in said
    assert not isinstance(caught.value, UnforeseenError)
    return said


def conv(**attributes: object) -> list[onnx.NodeProto]:
    return [helper.make_node("Conv", ["x", "w"], ["y"], **attributes)]


KERNEL = {"w": np.ones((4, 3, 3, 3), np.float32)}


def endless(op_type: str) -> list[onnx.NodeProto]:
    values = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("v", TensorProto.FLOAT, ["a", "b", "c", "d"]),
    ]
    results = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, ["a", "b", "c", "d"]),
    ]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node(op_type, ["v"], ["w"])],
        "body",
        values,
        results,
    )
    return [helper.make_node("Loop", ["turns", "true", "x"], ["y"], body=body)]


ENDLESS: Constants = {"turns": np.array(2**62, np.int64), "true": np.array(True)}


@pytest.mark.parametrize("op_type", ["Relu", pytest.param("Sigmoid", marks=pytest.mark.slow)])
def test_a_loop_without_end_is_stopped(op_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_edge.graph.shape_run.RUN_SECONDS", 2.0)
    path = saved(tmp_path / "loop.onnx", endless(op_type), ENDLESS)

    assert "was stopped" in refused(path)
    assert "was stopped" in refused(path, file_figures)


def test_what_is_static_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_execute", lambda *_: pytest.fail("a model was run"))
    path = saved(tmp_path / "loop.onnx", endless("Relu"), ENDLESS)

    figures = inferred_figures(load_model(path), path)

    assert set(figures) == {"size_mb", "params"}


def summed(*nodes: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The sum of the value ``k``, added to the image."""
    return [*nodes, helper.make_node("ReduceSum", ["k"], ["r"], keepdims=0), helper.make_node("Add", ["x", "r"], ["y"])]


def doubled(times: int) -> list[onnx.NodeProto]:
    names = ["one", *(f"d{turn}" for turn in range(times - 1)), "k"]
    return [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]


BOMBS: dict[str, tuple[list[onnx.NodeProto], Constants]] = {
    "ConstantOfShape": (
        summed(helper.make_node("ConstantOfShape", ["s"], ["k"])),
        {"s": np.array([40000, 40000], np.int64)},
    ),
    "Expand": (
        summed(helper.make_node("Expand", ["one", "s"], ["k"])),
        {"one": np.ones(1, np.float32), "s": np.array([60000, 60000], np.int64)},
    ),
    "Range": (
        summed(helper.make_node("Range", ["a", "b", "c"], ["k"])),
        {"a": np.array(0, np.float32), "b": np.array(2e9, np.float32), "c": np.array(1, np.float32)},
    ),
    "Tile": (
        summed(helper.make_node("Tile", ["one", "s"], ["k"])),
        {"one": np.ones(1, np.float32), "s": np.array([2**31], np.int64)},
    ),
    "Pad": (
        summed(helper.make_node("Pad", ["one", "s"], ["k"])),
        {"one": np.ones(1, np.float32), "s": np.array([2**31, 0], np.int64)},
    ),
    "Concat": (summed(*doubled(32)), {"one": np.ones(1, np.float32)}),
    "Resize": (
        summed(helper.make_node("Resize", ["one", "", "s"], ["k"])),
        {"one": np.ones(1, np.float32), "s": np.array([2.0**31], np.float32)},
    ),
}


def kept_elements(path: Path) -> int | None:
    """How many elements the constants of a teacher have; None where the file is refused for what a run of it needs."""
    try:
        constants = Teacher.load(path).model.graph.initializers.values()
    except InputError as error:
        if "one run needs over" not in str(error):
            raise
        return None
    return sum(value.const_value.size for value in constants if value.const_value is not None)


@pytest.mark.parametrize("name", BOMBS)
def test_constants_are_calculated_only_where_they_are_small(name: str, tmp_path: Path) -> None:
    nodes, constants = BOMBS[name]
    path = saved(tmp_path / "bomb.onnx", nodes, constants)

    kept = kept_elements(path)

    assert kept is None or kept < 2**25
    assert file_figures(path)["params"].value <= 1


def tower(height: int) -> tuple[onnx.FunctionProto, ...]:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    first = helper.make_function("local", "F0", ["p"], ["q"], [helper.make_node("Relu", ["p"], ["q"])], imports)
    others = [
        helper.make_function(
            "local",
            f"F{level}",
            ["p"],
            ["q"],
            [
                helper.make_node(f"F{level - 1}", ["p"], ["t"], domain="local"),
                helper.make_node(f"F{level - 1}", ["t"], ["q"], domain="local"),
            ],
            imports,
        )
        for level in range(1, height + 1)
    ]
    return (first, *others)


def test_functions_that_stand_for_too_many_nodes(tmp_path: Path) -> None:
    calls = [helper.make_node("F25", ["x"], ["y"], domain="local")]
    path = saved(tmp_path / "tower.onnx", calls, functions=tower(25))

    assert "functions stand for over 100,000 nodes" in refused(path)
    assert "functions stand for over 100,000 nodes" in refused(path, file_figures)


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    body = [helper.make_node("F", ["p"], ["q"], domain="local")]
    function = helper.make_function("local", "F", ["p"], ["q"], body, imports)
    path = saved(tmp_path / "f.onnx", [helper.make_node("F", ["x"], ["y"], domain="local")], functions=(function,))

    assert "calls itself" in refused(path)
    check_function_calls(onnx.load(saved(tmp_path / "g.onnx", [helper.make_node("Relu", ["x"], ["y"])])), path)


def test_functions_are_counted_where_they_are_called(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Conv", ["p", "k"], ["q"])]
    function = helper.make_function("local", "Layer", ["p", "k"], ["q"], body, imports)
    called = saved(
        tmp_path / "called.onnx",
        [helper.make_node("Layer", ["x", "w"], ["y"], domain="local")],
        KERNEL,
        functions=(function,),
    )
    plain = saved(tmp_path / "plain.onnx", conv(), KERNEL)

    assert file_figures(called)["macs"] == file_figures(plain)["macs"]
    assert inferred_figures(load_model(called), called)["macs"] == file_figures(plain)["macs"]


@pytest.mark.parametrize("group", [0, -3, 2**40, 7])
def test_impossible_groups(group: int, tmp_path: Path) -> None:
    refused(saved(tmp_path / "group.onnx", conv(group=group), KERNEL))


@pytest.mark.parametrize("shape", [(1, 3, 100_000, 100_000), (1, 3, 2**31, 2**31), (2**40, 3, 8, 8)])
def test_declared_sizes_beyond_any_image(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path / "huge.onnx", conv(), KERNEL, shape=shape)

    assert "more than any image has" in refused(path)


def test_an_attribute_of_another_type(tmp_path: Path) -> None:
    refused(saved(tmp_path / "strides.onnx", conv(strides=3), KERNEL))


@pytest.mark.parametrize("location", ["a\0b", "a" * 5000, "", ".", "../w.bin"])
def test_locations_of_external_data(location: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv(), KERNEL)
    proto = onnx.load(str(path))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(proto.SerializeToString())

    for analyse in (Teacher.load, file_figures, file_size_bytes):
        assert len(refused(path, analyse)) < 500


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["y"], name="nnnn")])
    path.write_bytes(path.read_bytes().replace(b"nnnn", b"\xff\xfe\xfd\xfc"))

    refused(path)
    refused(path, file_figures)


@pytest.mark.parametrize("kind", ["device", "pipe", "loop", "long", "nul", "below a file", "empty", "kernel"])
def test_paths_that_are_no_model_files(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if kind == "device":
        path = Path("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "long":
        path = tmp_path / ("a" * 5000)
    elif kind == "nul":
        path = tmp_path / "a\0b"
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "kernel":
        path = Path("/proc/kmsg")
        if not path.exists():
            pytest.skip("a system without /proc")
    else:
        path.write_bytes(b"")
        path = path / "model.onnx"

    for analyse in (Teacher.load, file_figures, file_size_bytes):
        refused(path, analyse)


def test_a_working_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert "no such file" in refused(Path("model.onnx"))


def test_what_nobody_foresaw_is_one_line_and_keeps_its_cause() -> None:
    for cause in (IndexError("list index"), ValueError("a\nb"), KeyError("seq"), ZeroDivisionError()):
        with (
            pytest.raises(UnforeseenError, match=r"model\.onnx: can't be analysed") as caught,
            foreign_file("model.onnx"),
        ):
            raise cause
        assert caught.value.__cause__ is cause
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="needs more memory"), foreign_file("model.onnx"):
        raise MemoryError
    with pytest.raises(KeyboardInterrupt), foreign_file("model.onnx"):
        raise KeyboardInterrupt


def test_a_file_without_operator_versions(tmp_path: Path) -> None:
    path = saved(tmp_path / "old.onnx", conv(), KERNEL)
    proto = onnx.load(str(path))
    del proto.opset_import[:]
    proto.ir_version = 1
    path.write_bytes(proto.SerializeToString())

    assert "export it again with a current exporter" in refused(path)


def test_an_output_that_is_an_input(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["r"])])
    proto = onnx.load(str(path))
    proto.graph.output[0].name = "x"
    path.write_bytes(proto.SerializeToString())

    assert file_figures(path)["params"].value == 0
    assert Teacher.load(path).layers == ()


def inferred_in(path: Path) -> object:
    return inferred_figures(load_model(path), path)


@pytest.mark.parametrize("rank", [2, 6, 25])
@pytest.mark.parametrize("declared", [True, False])
def test_more_elements_than_can_be_counted(declared: bool, rank: int, tmp_path: Path) -> None:
    sizes = (2**50,) * rank
    nodes = [helper.make_node("Expand", ["x", "s"], ["e"]), helper.make_node("Relu", ["e"], ["y"])]
    path = saved(tmp_path / "model.onnx", nodes, {"s": np.array(sizes)}, shape=sizes if declared else (1,))

    for analyse in (Teacher.load, file_figures):
        assert len(refused(path, analyse)) < 500
    if not declared:
        assert "macs" not in inferred_figures(load_model(path), path)


def test_a_graph_without_nodes_takes_no_time(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["r"])])
    proto = onnx.load(str(path))
    proto.graph.output[0].name = "x"
    path.write_bytes(proto.SerializeToString())
    model, profile = Teacher.load(path).model, load_profile("raspberry-pi-4")

    assert LatencyModel(profile).estimate(model).nodes == ()
    assert LatencyModel(profile).estimate(model).figure.value == 0
