"""Files from elsewhere: one line that names the file, and bounded time and memory, whatever they hold."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from n2n_edge.devices import load_profile, predict, predict_latency
from n2n_edge.errors import InputError, N2NError
from n2n_edge.foreign import UnforeseenError, foreign_file
from n2n_edge.gate.reached import file_figures, inferred_figures
from n2n_edge.graph import Teacher, child, load_model
from n2n_edge.graph.function_calls import check_function_calls
from n2n_edge.measure import file_size_bytes

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


@pytest.mark.parametrize("op_type", ["Relu", "Sigmoid"])
def test_a_loop_without_end_is_stopped(op_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_edge.graph.witness.RUN_SECONDS", 2.0)
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


@pytest.mark.parametrize("kind", ["device", "pipe", "loop", "long", "nul", "below a file"])
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


def function(nodes: list[onnx.NodeProto], opset: int = 17, gives: str = "q") -> onnx.FunctionProto:
    """A function of one input ``p`` and one output."""
    return helper.make_function("local", "F", ["p"], [gives], nodes, [helper.make_opsetid("", opset)])


def calling(path: Path, called: onnx.FunctionProto, inputs: int = 1, outputs: int = 1) -> Path:
    node = helper.make_node("F", ["x"] * inputs, ["y", "z"][:outputs], domain="local")
    return saved(path, [node], functions=(called,))


def external(name: str, location: str, kind: int, *dims: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(location: str, part: str) -> onnx.SparseTensorProto:
    """A weight ``w`` of 4x3x3x3, one part of which lies in another file."""
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = numpy_helper.from_array(np.array([0, 5], np.int64), "i")
    if part == "values":
        values = external("w", location, TensorProto.FLOAT, 2)
    else:
        indices = external("i", location, TensorProto.INT64, 2)
    return helper.make_sparse_tensor(values, indices, [4, 3, 3, 3])


def with_data_elsewhere(path: Path, place: str, location: str) -> Path:
    """A model whose convolution has its weight, or a part of it, in another file."""
    if place.startswith("function"):
        weight = helper.make_node("Constant", [], ["w"], value=external("w", location, TensorProto.FLOAT, 4, 3, 3, 3))
        nodes = [weight, helper.make_node("Conv", ["p", "w"], ["q"])]
        if place == "function's body":
            branch = helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)])
            yes = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
            nodes = [yes, helper.make_node("If", ["c"], ["q"], then_branch=branch, else_branch=branch)]
        return calling(path, function(nodes))
    held = sparse(location, place.split()[-1])
    if place.startswith("constant"):
        return saved(path, [helper.make_node("Constant", [], ["w"], sparse_value=held), *conv()])
    proto = onnx.load(str(saved(path, conv())))
    proto.graph.sparse_initializer.append(held)
    path.write_bytes(proto.SerializeToString())
    return path


PLACES = ["function", "function's body", "sparse values", "sparse indices", "constant values", "constant indices"]


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "missing.bin"])
@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_looked_for_wherever_tensors_are(place: str, location: str, tmp_path: Path) -> None:
    path = with_data_elsewhere(tmp_path / "model.onnx", place, location)

    for analyse in (Teacher.load, file_figures, inferred_in, file_size_bytes):
        assert "beside the model" in refused(path, analyse)


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_read_wherever_tensors_are(place: str, tmp_path: Path) -> None:
    content = np.arange(2, dtype=np.int64) if place.endswith("indices") else np.ones(108, np.float32)
    size = 2 if "values" in place else content.size
    (tmp_path / "w.bin").write_bytes(content[:size].tobytes())
    path = with_data_elsewhere(tmp_path / "model.onnx", place, "w.bin")

    assert file_figures(path)["macs"].value == 4 * 27 * 36
    assert inferred_in(path)
    assert file_size_bytes(path) == path.stat().st_size + size * content.itemsize


def inferred_in(path: Path) -> object:
    return inferred_figures(load_model(path), path)


def test_sparse_weights_in_bodies(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    dense = helper.make_graph([helper.make_node("Conv", ["x", "v"], ["b"])], "dense", [], [given])
    dense.initializer.append(numpy_helper.from_array(KERNEL["w"], "v"))
    thin = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["b"])], "thin", [], [given])
    indices = numpy_helper.from_array(np.array([0, 5], np.int64))
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    thin.sparse_initializer.append(helper.make_sparse_tensor(values, indices, KERNEL["w"].shape))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=thin, else_branch=dense)
    path = saved(tmp_path / "model.onnx", [choice], {"c": np.array(True)})

    for analyse in (Teacher.load, file_figures, inferred_in):
        analyse(path)


def _described(proto: onnx.ModelProto, field: str) -> None:
    if field in ("doc_string", "producer_name", "producer_version", "domain"):
        setattr(proto, field, "QQQQ")
    elif field in ("key", "value"):
        proto.metadata_props.add(**{"key": "k", "value": "v", field: "QQQQ"})
        proto.metadata_props.add(key="kept", value="yes")
    elif field == "graph's metadata":
        proto.graph.metadata_props.add(key="QQQQ", value="v")
    elif field == "graph's text":
        proto.graph.doc_string = "QQQQ"
    elif field == "node's text":
        proto.graph.node[0].doc_string = "QQQQ"
    elif field == "weight's text":
        proto.graph.initializer[0].doc_string = "QQQQ"
    else:
        proto.graph.input[0].type.denotation = "QQQQ"


DESCRIPTIONS = [
    "doc_string", "producer_name", "producer_version", "domain", "key", "value", "graph's metadata", "graph's text",
    "node's text", "weight's text", "type's denotation",
]  # fmt: skip


@pytest.mark.parametrize("field", DESCRIPTIONS)
def test_a_description_that_is_not_utf8_is_dropped(field: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", conv(), KERNEL)
    proto = onnx.load(str(path))
    _described(proto, field)
    path.write_bytes(proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))

    assert Teacher.load(path).layers
    assert file_figures(path)["params"].value == inferred_figures(load_model(path), path)["params"].value == 108
    if field in ("key", "value"):
        assert dict(load_model(path).metadata_props) == {"kept": "yes"}


@pytest.mark.parametrize("place", ["function", "input", "output", "node", "opset", "axis"])
def test_names_that_are_not_utf8_wherever_they_are(place: str, tmp_path: Path) -> None:
    inner = [helper.make_node("Relu", ["p"], ["q"], name="QQQQ" if place == "node" else "")]
    called = function(inner)
    for holder in (called.input, called.output):
        if place == ("input" if holder is called.input else "output"):
            holder[0] = "QQQQ"
    if place in ("input", "output"):
        inner_node = called.node[0]
        (inner_node.input if place == "input" else inner_node.output)[0] = "QQQQ"
    path = calling(tmp_path / "model.onnx", called)
    proto = onnx.load(str(path))
    if place == "function":
        proto.functions[0].name = proto.graph.node[0].op_type = "QQQQ"
    elif place == "opset":
        proto.opset_import.add(domain="QQQQ", version=1)
    elif place == "axis":
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "QQQQ"
    path.write_bytes(proto.SerializeToString().replace(b"QQQQ", b"\xff\xfe\xff\xfe"))

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "UTF-8" in refused(path, analyse)


@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (1, 2)])
def test_a_function_called_with_more_than_it_declares(inputs: int, outputs: int, tmp_path: Path) -> None:
    path = calling(tmp_path / "model.onnx", function([helper.make_node("Relu", ["p"], ["q"])]), inputs, outputs)

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "declares 1" in refused(path, analyse)


def test_a_function_of_another_version_with_the_same_operators(tmp_path: Path) -> None:
    path = calling(tmp_path / "model.onnx", function([helper.make_node("Relu", ["p"], ["q"])], opset=13))

    assert Teacher.load(path).model.graph.node(0).op_type == "Relu"
    file_figures(path)


def test_a_function_of_another_version_with_other_operators(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["p"], ["q"])]  # up to version 12 its axis is another one by default
    path = calling(tmp_path / "model.onnx", function(nodes, opset=12))

    for analyse in (Teacher.load, file_figures, inferred_in):
        assert "uses Softmax of version 12" in refused(path, analyse)


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

    assert predict(model, profile).nodes == ()
    assert predict_latency(model, profile).value == 0
