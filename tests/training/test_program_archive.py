"""Programs from elsewhere: none runs code while it is loaded, unless it is trusted; honest ones load."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from n2n_edge.errors import InputError
from n2n_edge.graph.teacher import Teacher
from n2n_edge.training.program_archive import checked_program
from n2n_edge.training.program_expression import is_arithmetic
from n2n_edge.training.torch_teachers import torch_teacher
from tests.graph.running import run

pytest.importorskip("onnxscript", reason="exporting a program needs onnxscript")

GRAPH = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
SAMPLE = "data/sample_inputs/model.pt"


class Network(nn.Module):
    """With sizes that are read, a constant, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 5)
        self.register_buffer("scale", torch.full((1,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.norm(self.first(x)))
        coarse = nn.functional.interpolate(torch.relu(self.second(fine)), size=fine.shape[-2:])
        both = (fine + coarse) * self.scale * torch.tensor([0.5])
        mixed: torch.Tensor = self.head(both.mean((2, 3)))
        return mixed


def saved(path: Path, **shapes: object) -> nn.Module:
    module = Network().eval()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, 16, 16),), **shapes), path)
    return module


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    free = torch.export.Dim.AUTO
    saved(path, dynamic_shapes=({0: free, 2: free, 3: free},))
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(members: dict[str, bytes], path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def hostile_pickle(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": Touch(marker)}, buffer)
    return buffer.getvalue()


def first(found: Any, key: str) -> Any:
    """The first dictionary below `found` that has `key`."""
    if isinstance(found, dict):
        if key in found:
            return found
        found = list(found.values())
    for item in found if isinstance(found, list) else []:
        below = first(item, key)
        if below is not None:
            return below
    return None


def changed(members: dict[str, bytes], name: str, change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    full = next(item for item in members if item.endswith(name))
    document = json.loads(members[full])
    change(document)
    return {**members, full: json.dumps(document).encode()}


def code(marker: Path) -> str:
    return f"__import__('os').system('touch {marker}')"


def add_node(document: dict[str, Any], target: str, text: str) -> None:
    """Let the first node call `target` with `text`."""
    node = document["graph_module"]["graph"]["nodes"][0]
    node["target"] = target
    node["inputs"] = [{"name": "x", "arg": {"as_string": text}, "kind": 1}]


Change = Callable[[dict[str, Any], str], object]

IN_THE_GRAPH: dict[str, Change] = {
    "a size": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=c),
    "a size behind a symbol": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=f"Symbol('s0') + {c}"),
    "a size in a comment's disguise": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=f"s0 # \n + {c}"),
    "a size through an attribute": lambda d, c: first(d, "as_expr")["as_expr"].update(
        expr_str=f"().__class__.__bases__[0].__subclasses__() or {c}"
    ),
    "a size through sympify": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=f"sympify({c!r})"),
    "a size through a symbol's name": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=f"Symbol({c!r})"),
    "a size through lambdify": lambda d, c: first(d, "as_expr")["as_expr"].update(expr_str=f"lambdify(s0, {c!r})(1)"),
    "a size of a node's value": lambda d, c: d["graph_module"]["graph"]["sym_int_values"].update(
        evil={"as_expr": {"expr_str": c, "hint": None}}
    ),
    "a condition": lambda d, c: d["graph_module"]["graph"]["sym_bool_values"].update(
        evil={"as_expr": {"expr_str": c, "hint": None}}
    ),
    "a guard": lambda d, c: d.update(guards_code=[c]),
    "a name in the signature": lambda d, c: first(d["graph_module"]["graph"]["inputs"], "name").update(name=f"x={c}"),
    "a name of a value": lambda d, c: d["graph_module"]["graph"]["tensor_values"].update(
        {f"x={c}": next(iter(d["graph_module"]["graph"]["tensor_values"].values()))}
    ),
    "a name of a parameter": lambda d, c: first(d, "parameter_name").update(parameter_name=f"a.{c}"),
    "a range": lambda d, c: d["range_constraints"].update({c: {"min_val": 1, "max_val": 2}}),
    "a call of os.system": lambda d, c: add_node(d, "torch.os.system", c),
    "a call of load_library": lambda d, c: add_node(d, "torch.ops.load_library", c),
    "a call of eval": lambda d, c: add_node(d, "torch.serialization.builtins.eval", c),
    "a call of operator.methodcaller": lambda d, c: add_node(d, "_operator.methodcaller", c),
    "a call of aten.save": lambda d, c: add_node(d, "torch.ops.aten.save.default", c),
    "a call of aten.from_file": lambda d, c: add_node(d, "torch.ops.aten.from_file.default", c),
    "an operator of another library": lambda d, c: add_node(d, "torch.ops.mylib.run.default", c),
    "an operator by extension": lambda d, c: add_node(d, "#mylib:run", c),
    "an operator as an argument": lambda d, c: d["graph_module"]["graph"]["nodes"][0]["inputs"].append(
        {"name": "f", "arg": {"as_operator": "torch.os.system"}, "kind": 1}
    ),
    "a tree with a factory": lambda d, c: first(d, "in_spec").update(
        in_spec=json.dumps(
            [1, {"type": "collections.defaultdict", "context": json.dumps({
                "default_factory_module": "evil", "default_factory_name": "make", "dict_context": []}),
                "children_spec": []}]
        )
    ),
    "a tree with an enumeration": lambda d, c: first(d, "in_spec").update(
        in_spec=json.dumps([1, {"type": "builtins.dict", "context": json.dumps(
            [{"__enum__": True, "fqn": "evil.Evil", "name": "A"}]), "children_spec": []}])
    ),
    "an object": lambda d, c: d["graph_module"]["graph"]["nodes"][0]["inputs"].append(
        {"name": "o", "arg": {"as_custom_obj": {"name": "o", "class_fqn": "evil.Evil"}}, "kind": 1}
    ),
}  # fmt: skip

RUNS_WHEN_TRUSTED = ("a size",)


@pytest.mark.parametrize("place", IN_THE_GRAPH)
def test_code_in_the_graph_is_refused_or_left_out(place: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    members = changed(honest, GRAPH, lambda document: IN_THE_GRAPH[place](document, code(marker)))
    path = archive_of(members, tmp_path / "net.pt2")

    if place == "a guard":  # nothing needs them
        torch_teacher(str(path), None, None)
    else:
        with pytest.raises(InputError, match=r"net\.pt2: holds .*trust_pt2"):
            torch_teacher(str(path), None, None)

    assert not marker.exists()
    if place in RUNS_WHEN_TRUSTED:  # which shows that the marker would tell
        with pytest.raises(InputError):
            torch_teacher(str(path), None, None, trust_pt2=True)
        assert marker.exists()


OTHER: dict[str, Callable[[dict[str, bytes], Path], dict[str, bytes]]] = {
    "weights as a pickle": lambda m, at: {
        **changed(m, WEIGHTS, lambda d: next(iter(d["config"].values())).update(use_pickle=True)),
        "net/data/weights/weight_0": hostile_pickle(at),
    },
    "a constant as a pickle": lambda m, at: {
        **changed(m, CONSTANTS, lambda d: next(iter(d["config"].values())).update(use_pickle=True)),
        "net/data/constants/tensor_0": hostile_pickle(at),
    },
    "a constant as an object": lambda m, at: {
        **changed(m, CONSTANTS, lambda d: next(iter(d["config"].values())).update(path_name="opaque_obj_0")),
        "net/data/constants/opaque_obj_0": pickle.dumps(Touch(at)),
    },
    "a constant as a script object": lambda m, at: {
        **changed(m, CONSTANTS, lambda d: next(iter(d["config"].values())).update(path_name="custom_obj_0")),
        "net/data/constants/custom_obj_0": hostile_pickle(at),
    },
    "weights of the old form": lambda m, at: {**m, "net/data/weights/model.pt": hostile_pickle(at)},
    "sample inputs": lambda m, at: {**m, next(n for n in m if n.endswith(SAMPLE)): hostile_pickle(at)},
    "compiled code": lambda m, at: {**m, "net/data/aotinductor/model/model.so": b"\x7fELF"},
    "another model": lambda m, at: {**m, "net/models/other.json": m[next(n for n in m if n.endswith(GRAPH))]},
    "a program of old": lambda m, at: {
        "version": b"8.8", "serialized_exported_program.json": b"{}", "serialized_state_dict.pt": hostile_pickle(at),
        "serialized_constants.pt": hostile_pickle(at), "serialized_example_inputs.pt": hostile_pickle(at),
    },
}  # fmt: skip


@pytest.mark.parametrize("what", OTHER)
def test_other_parts_that_are_code_are_refused(what: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = archive_of(OTHER[what](honest, marker), tmp_path / "net.pt2")

    with pytest.raises(InputError, match=r"net\.pt2: holds .*trust_pt2"):
        torch_teacher(str(path), None, None)

    assert not marker.exists()


def test_a_member_that_is_there_twice_is_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    path = archive_of(honest, tmp_path / "net.pt2")
    name = next(name for name in honest if name.endswith(GRAPH))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(name, honest[name])

    with pytest.raises(InputError, match="twice"):
        checked_program(path)


def test_a_compressed_member_is_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    path = archive_of(
        {**honest, "net/data/weights/weight_99": b"\0" * 10**6}, tmp_path / "net.pt2", zipfile.ZIP_DEFLATED
    )

    with pytest.raises(InputError, match="trust_pt2"):
        checked_program(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_damaged_program_is_one_line(
    share: float, honest: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = archive_of(honest, tmp_path / "whole.pt2").read_bytes()
    (tmp_path / "net.pt2").write_bytes(content[: round(len(content) * share)])

    # cut at its very end, the archive within it is what is left to be found
    with pytest.raises(
        InputError, match=r"net\.pt2: (not a program of torch\.export\.save|holds 'data\.pkl')"
    ) as caught:
        torch_teacher(str(tmp_path / "net.pt2"), None, None)

    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"null", b"{}", b"[" * 100_000, b"\xff", b"7"])
@pytest.mark.parametrize("name", [GRAPH, WEIGHTS, CONSTANTS])
def test_parts_that_say_nothing_are_one_line(
    name: str, content: bytes, honest: dict[str, bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    full = next(item for item in honest if item.endswith(name))
    path = archive_of({**honest, full: content}, tmp_path / "net.pt2")

    with pytest.raises(InputError, match=r"net\.pt2: not a program of torch\.export\.save"):
        torch_teacher(str(path), None, None)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("free", "trusted"), [(False, True), (True, False)])
def test_an_honest_program_loads_and_is_the_network(free: bool, trusted: bool, tmp_path: Path) -> None:
    shapes = {"dynamic_shapes": ({0: torch.export.Dim.AUTO},)} if free else {}
    module = saved(tmp_path / "net.pt2", **shapes)

    teacher = Teacher(torch_teacher(str(tmp_path / "net.pt2"), None, None, trust_pt2=trusted))

    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images)).numpy()
    (got,) = run(teacher.model, {str(teacher.model.graph.inputs[0].name): images})
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "s0", "Symbol('s77', positive=True, integer=True)",
        "Add(FloorDiv(Add(Symbol('s0'), Integer(-1)), Integer(2)), 1)",
        "2*s0 + 1", "(s0 - 1)//2", "Max(1, s0)", "s0**2", "Pow(Symbol('s0'), Integer(2))", "Eq(s0, 4)", "s0 >= 2",
        "True",
        "-s0 % 3", "IntTrueDiv(s0, 2)", "1.5*s0", "int_oo",
    ],
)  # fmt: skip
def test_arithmetic_of_symbols_is_taken(text: str) -> None:
    assert is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "eval('1')", "exec('1')", "open('x')", "__import__('os')", "().__class__", "s0.foo", "s0[0]", "lambda: 1",
        "[s0]", "'text'", "s0; s1", "s0\ns1", "s0 if s1 else s2", "Symbol(s0)(1)", "Symbol('a b')", "Add(*s0)",
        "Add(s0, evaluate=foo)", "f'{s0}'", "sympify('s0')", "S('s0')", "Function('f')(s0)", "9**9**9", "(9**8)**8",
        "Pow(Pow(9, 8), 8)", "9**s0", "Pow(9, 99999)", "PowByNatural(3, s0)", "9" * 400, "s0 + " * 2000 + "s0",
        "(" * 500,
        "1j", "print(s0)", "Ｓymbol('s0')", "factorial(99999)", "s0 and open('x')", "Add(s0, x:=1)", "s0 # c",
        "s0 \\\n",
    ],
)  # fmt: skip
def test_anything_else_is_not(text: str) -> None:
    assert not is_arithmetic(text)
