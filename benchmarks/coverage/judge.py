"""What n2n-edge makes of one ONNX model: is it cut, does the cut run, and is what was done right."""

import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import costs
from n2n_edge.graph.input_shape import input_layout
from n2n_edge.graph.load import load_model, serialize
from n2n_edge.graph.shape_run import run_graph
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.training.executor import GraphModule
from tests.graph.dead import with_dead_channels

__all__ = ["judge"]

Arrays = dict[str, np.ndarray]

_EXECUTOR_BOUND = 1e-4
_NODE_BOUND = 1e-5
_DEAD_BOUND, _DEAD_BOUND_DOUBLE = 1e-4, 1e-9

_SELECTIONS = {"TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "NonZero"}
_NOT_ZERO_AT_ZERO = {"Sigmoid", "HardSigmoid", "Exp", "Softplus", "Cos", "Softmax"}


def judge(path: Path) -> dict[str, object]:
    """Return one row of results; raises what the library raises."""
    source = load_model(path)
    start = time.perf_counter()
    teacher = Teacher(source)
    analysed = time.perf_counter() - start
    nodes = len(list(teacher.model.graph))
    inputs = _inputs(teacher.model)
    expected = _run(serialize(teacher.model), inputs)
    row: dict[str, object] = {
        "nodes": nodes,
        "params": costs(teacher.model).params,
        "layers": len(teacher.layers),
        "removable": sum(layer.removable for layer in teacher.layers),
        "groups": len(teacher.groups),
        "shrinkable": sum(group.shrinkable for group in teacher.groups),
        "analysis_s": round(analysed, 3),
        "reasons": _reasons(teacher),
    }
    row["full"] = _check_full(teacher, source, inputs)
    row["size"] = _check_size(teacher, path)
    architecture = _architecture(teacher)
    student, seconds = _built(teacher, architecture)
    row["build_s"] = round(seconds, 4)
    row["build_full_depth_s"] = round(_built(teacher, _half_widths(teacher))[1], 4)
    row["macs_fall"] = round(1 - costs(student).macs / max(1, costs(teacher.model).macs), 3)
    got = _run(serialize(student), inputs)
    runs = [array.shape for array in got] == [array.shape for array in expected]
    row["cut"] = "ok" if runs else "the student's outputs have other shapes"
    row["executor"] = _check_executor(teacher.model, expected, student, got, inputs)
    row["dead"] = _check_dead(teacher, inputs)
    return row


def _reasons(teacher: Teacher) -> dict[str, int]:
    """Count why groups can't shrink, names left out."""
    counted: dict[str, int] = {}
    for group in teacher.groups:
        if group.reason:
            stem = re.sub(r" '[^']*'", "", group.reason)
            counted[stem] = counted.get(stem, 0) + group.width
    return counted


def _architecture(teacher: Teacher) -> Architecture:
    """Widths near one half, and a third of the layers that can go removed."""
    chooser = random.Random(0)
    removable = [layer.name for layer in teacher.layers if layer.removable]
    gone = frozenset(chooser.sample(removable, len(removable) // 3))
    return _shrunk(teacher, teacher.full.remove(*teacher.repaired(gone)), chooser)


def _half_widths(teacher: Teacher) -> Architecture:
    return _shrunk(teacher, teacher.full, random.Random(1))


def _shrunk(teacher: Teacher, architecture: Architecture, chooser: random.Random) -> Architecture:
    for group in teacher.groups:
        if group.shrinkable:
            width = max(1, round(group.width * chooser.uniform(0.4, 0.6)))
            architecture = architecture.resize(group.name, width)
    return architecture


def _built(teacher: Teacher, architecture: Architecture) -> tuple[ir.Model, float]:
    """Build, and time a second build: the first one takes the layers out, which later widths share."""
    build(teacher, architecture)
    start = time.perf_counter()
    student = build(teacher, architecture)
    return student, time.perf_counter() - start


def _check_full(teacher: Teacher, source: ir.Model, inputs: Arrays) -> str:
    """The full architecture against the file as it came."""
    file, full = serialize(source), serialize(build(teacher, teacher.full))
    error = 0.0
    # a folded constant may get another kernel where ONNX Runtime doesn't fold it too, and so may a weight that the file
    # lists among its inputs too, as old exporters do: the runtime then doesn't take it for a constant
    for optimised in (True, False):
        got = _run(full, inputs, optimised=optimised)
        for form in (file, _with_constant_weights(file)):
            expected = _run(form, inputs, optimised=optimised)
            if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(expected, got, strict=True)):
                return "ok"
            error = max(error, _error(expected, got))
    return f"differs from the teacher by {error:.1e}"


def _with_constant_weights(data: bytes) -> bytes:
    """Take the initializers off the list of inputs."""
    model = onnx.load_from_string(data)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # until then every initializer had to be an input
    return bytes(model.SerializeToString())


def _check_size(teacher: Teacher, path: Path) -> str:
    """The full architecture must not be larger than the file."""
    before, after = path.stat().st_size, len(serialize(build(teacher, teacher.full)))
    return "ok" if after <= before else f"the full architecture has {after - before} bytes more than the file"


def _check_executor(
    teacher: ir.Model, expected: Sequence[np.ndarray], student: ir.Model, got: Sequence[np.ndarray], inputs: Arrays
) -> str:
    # a Sigmoid is right to about 1e-7 in ONNX Runtime, however small the probability that it gives
    floors = [0.01 if _is_probability(value) else 1e-6 for value in teacher.graph.outputs]
    for name, model, wanted in (("teacher", teacher, expected), ("student", student, got)):
        module = GraphModule(model, whole=True)
        with torch.no_grad():
            outputs = module(*_images(model, inputs))
        arrays = _by_graph(outputs, wanted)
        error = max(_error([want], [array], floor) for want, array, floor in zip(wanted, arrays, floors, strict=True))
        if not error <= _EXECUTOR_BOUND:
            reason = f"differs from ONNX Runtime by {error:.1e} on the {name}"
            if not any(node.op_type in _SELECTIONS for node in model.graph):
                return reason
            wrong = _wrong_node(model, inputs)
            if wrong:
                return f"{reason}: {wrong}"
    return "ok"


def _images(model: ir.Model, inputs: Arrays) -> list[torch.Tensor]:
    """Return the inputs as the executor takes them: channels first, whatever the graph's layout."""
    tensors = [torch.from_numpy(inputs[str(value.name)]) for value in model.graph.inputs]
    last = input_layout(model) == "nhwc"
    return [tensor.permute(0, 3, 1, 2) if last and tensor.dim() == 4 else tensor for tensor in tensors]


def _by_graph(outputs: torch.Tensor | tuple[torch.Tensor, ...], wanted: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return outputs as the graph gives them: one for a single image may lack the axis that the executor adds."""
    arrays = [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    return [a[0] if a.shape == (1, *b.shape) else a for a, b in zip(arrays, wanted, strict=True)]


def _wrong_node(model: ir.Model, inputs: Arrays) -> str:
    """Run every node in torch on what ONNX Runtime gave as its inputs; name the first that gives something else.

    A selection of the largest turns near ties, which rounding orders, into quite other places; here each selection
    is among the same values and has to be the same.
    """
    expected = run_graph(model, inputs)
    wrong: list[str] = []

    class Stepping:
        def before(self, node: ir.Node, read: Sequence[torch.Tensor | None]) -> None:
            """Take nothing: the values read are ONNX Runtime's already."""

        def after(self, node: ir.Node, outputs: Sequence[torch.Tensor]) -> None:
            for value, tensor in zip(node.outputs, outputs, strict=False):
                if wrong or not value.name:
                    continue
                want = expected[value.name]
                got = tensor.numpy()
                same = np.array_equal(want, got)
                error = 0.0 if same else _error([want], [got]) if want.dtype.kind == "f" else float("inf")
                if not error <= _NODE_BOUND:
                    wrong.append(f"{node.op_type} '{node.name}' by {error:.1e}")
                elif not same:
                    tensor.copy_(torch.from_numpy(want))

    module = GraphModule(model, whole=True)
    with torch.no_grad():
        outputs = module.visit(Stepping(), *_images(model, inputs))
    names = [str(value.name) for value in model.graph.outputs]
    arrays = _by_graph(outputs, [expected.get(name, np.empty(0)) for name in names])
    for value, array in zip(model.graph.outputs, arrays, strict=True):
        if not wrong and value.name in expected and not np.array_equal(expected[value.name], array):
            wrong.append(f"output '{value.name}' isn't what its node gave")
    return wrong[0] if wrong else ""


def _check_dead(teacher: Teacher, inputs: Arrays) -> str:
    """Kill about half of every group at once; where that changes outputs, name the groups that do."""
    chooser = random.Random(2)
    keep = {}
    for group in teacher.groups:
        if group.shrinkable:
            count = chooser.randint(1, max(1, group.width // 2))
            keep[group.name] = tuple(sorted(chooser.sample(range(group.width), count)))
    if not keep:
        return "ok"
    error = _dead_error(teacher, keep, inputs)
    if error <= _DEAD_BOUND:
        return "ok"
    lifted = any(node.op_type in _NOT_ZERO_AT_ZERO for node in teacher.model.graph)
    if lifted and _dead_error(teacher, keep, inputs, ignored=True) <= _DEAD_BOUND:
        return "ok"
    return f"dropping dead channels changes outputs by {error:.1e}: {', '.join(_guilty(teacher, keep, inputs)[:3])}"


def _guilty(teacher: Teacher, keep: dict[str, tuple[int, ...]], inputs: Arrays) -> list[str]:
    """Halve the set of groups until those that fail by themselves are left."""
    if len(keep) == 1:
        return list(keep)
    names = list(keep)
    halves = [{name: keep[name] for name in part} for part in (names[: len(names) // 2], names[len(names) // 2 :])]
    for half in halves:
        if not _dead_error(teacher, half, inputs) <= _DEAD_BOUND:
            return _guilty(teacher, half, inputs)
    return [f"{len(keep)} groups together"]


def _dead_error(teacher: Teacher, keep: dict[str, tuple[int, ...]], inputs: Arrays, *, ignored: bool = False) -> float:
    groups = {group.name: group for group in teacher.groups}
    dead = [unit for name, kept in keep.items() for i, unit in enumerate(groups[name].units) if i not in set(kept)]
    model = with_dead_channels(teacher, dead, ignored=ignored)
    dying = Teacher(model)
    if [group.dims for group in dying.groups] != [group.dims for group in teacher.groups]:
        raise RuntimeError("the groups of a model depend on its weights")
    cut = build(dying, dying.full, keep=keep)
    error = _error(_run(serialize(model), inputs), _run(serialize(cut), inputs))
    if error <= _DEAD_BOUND:
        return error
    # sums of fewer terms are rounded otherwise, which a deep network may amplify: in double precision it can't hide
    exact = _error(_run_double(model, inputs), _run_double(cut, inputs))
    return 0.0 if exact <= _DEAD_BOUND_DOUBLE else error


def _run_double(model: ir.Model, inputs: Arrays) -> list[np.ndarray]:
    """Run in torch in double precision."""
    module = GraphModule(model, whole=True).double()
    with torch.no_grad():
        outputs = module(*(tensor.double() for tensor in _images(model, inputs)))
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _is_probability(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in ("Sigmoid", "Softmax")


def _error(expected: Sequence[np.ndarray], got: Sequence[np.ndarray], floor: float = 1e-6) -> float:
    """Return the largest difference relative to the largest figure of its output, which counts as `floor` at least."""
    worst = 0.0
    for wanted, array in zip(expected, got, strict=True):
        if wanted.shape != array.shape:
            return float("inf")
        if not wanted.size:
            continue
        scale = max(float(np.abs(wanted).max()), floor)
        worst = max(worst, float(np.abs(wanted.astype(np.float64) - array).max()) / scale)
    return worst


def _inputs(model: ir.Model) -> Arrays:
    generator = np.random.default_rng(0)
    arrays = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        sizes = [size if isinstance(size, int) else 1 for size in value.shape]
        floats = value.dtype is None or value.dtype.is_floating_point()
        # integers are sizes of images: any that are positive
        array = generator.standard_normal(sizes) if floats else np.full(sizes, 320)
        arrays[str(value.name)] = array.astype(np.float32 if value.dtype is None else value.dtype.numpy())
    return arrays


def _run(data: bytes, inputs: Arrays, *, optimised: bool = True) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception:  # its pad fusion makes a pooling of shakeshakeresnet that it then refuses
        if not optimised:
            raise
        return _run(data, inputs, optimised=False)
    return list(session.run(None, inputs))
