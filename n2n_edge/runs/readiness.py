"""What keeps a teacher from being compressed: shown by `inspect`, raised by `compress`."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable
from n2n_edge.graph.input_shape import IMAGE_TYPES
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.teacher import Teacher
from n2n_edge.graph.torch_export import EXPORT_WARNING

__all__ = ["Obstacle", "export_note", "is_half_weight", "obstacles", "refuse_unready", "runtime_note"]

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_NAMES_SHOWN = 3
_NODES_CHECKED = 3000
"""Beyond so many nodes `inspect` doesn't ask torch, which takes as long again as all the rest."""


@dataclass(frozen=True)
class Obstacle:
    """One thing that `compress` refuses: a code for programs, and a text that says what to do."""

    code: str
    text: str


def obstacles(teacher: Teacher) -> tuple[Obstacle, ...]:
    """Return what `compress` would refuse of a teacher, the most basic first.

    Whether torch can execute every operator is only told where torch is installed, and of graphs of ordinary size.
    """
    found = list(_of_graph(teacher))
    if not found and find_spec("torch") is not None and len(teacher.model.graph) <= _NODES_CHECKED:
        found += _of_operators(teacher)
    return tuple(found)


def export_note(teacher: Teacher) -> str:
    """Say what torch's tracer warned of when a teacher was exported; nothing if it didn't."""
    warned = teacher.source.metadata_props.get(EXPORT_WARNING, "")
    if not warned:
        return ""
    return f"torch's tracer warned: {printable(warned)}; on random inputs the exported file is the network's function"


def runtime_note(teacher: Teacher) -> str:
    """Say which nodes ONNX Runtime runs for torch, so that no gradient passes; nothing where there are none.

    Nothing is said, either, where torch isn't installed, of graphs beyond ordinary size, and of what can't be executed.
    """
    if find_spec("torch") is None or len(teacher.model.graph) > _NODES_CHECKED:
        return ""
    from n2n_edge.training.executor import GraphModule

    try:
        nodes = GraphModule(teacher.model).foreign
    except InputError:  # an obstacle
        return ""
    if not nodes:
        return ""
    named = [f"{node.op_type} {printable(node.name or node.outputs[0].name)}" for node in nodes]
    more = f" and {len(named) - _NAMES_SHOWN} more" if len(named) > _NAMES_SHOWN else ""
    return f"run by ONNX Runtime, no gradient passes: {', '.join(named[:_NAMES_SHOWN])}{more}"


def refuse_unready(teacher: Teacher, path: Path) -> None:
    """Raise InputError for the first obstacle in the graph; operators are refused by the torch executor itself."""
    for obstacle in _of_graph(teacher):
        raise InputError(f"{path}: {obstacle.text}")


def _of_graph(teacher: Teacher) -> Iterator[Obstacle]:
    inputs = teacher.model.graph.inputs
    if len(inputs) != 1:
        others = [printable(value.name) for value in inputs[1:]]
        given = " ".join(f"--bind {name}=VALUE" for name in others[:_NAMES_SHOWN])
        yield Obstacle("inputs", f"takes {len(inputs)} inputs; give those beside the image a value: {given}")
        return
    yield from _of_input(inputs[0])
    if any(
        output.dtype is not None and not output.dtype.is_floating_point() for output in learned_outputs(teacher.model)
    ):
        yield Obstacle(
            "integer_outputs", "gives whole numbers that follow from no trained layer: nothing can be distilled"
        )
    half = [printable(name) for name, value in teacher.model.graph.initializers.items() if is_half_weight(value)]
    if half:
        more = f" and {len(half) - _NAMES_SHOWN} more" if len(half) > _NAMES_SHOWN else ""
        shown = ", ".join(half[:_NAMES_SHOWN])
        yield Obstacle("half_precision", f"weights are half precision ({shown}{more}); give the float model")
    if not teacher.removable and not any(group.shrinkable for group in teacher.groups):
        reasons = [layer.reason for layer in teacher.layers] or ["it holds no weighted layer"]
        yield Obstacle(
            "untouchable",
            f"nothing in this model can be removed or shrunk ({printable(reasons[0])}); see `n2n-edge inspect`",
        )


def _of_input(value: ir.Value) -> Iterator[Obstacle]:
    name = printable(value.name)
    sizes = [size for size in list(value.shape or ())[1:] if isinstance(size, int)]
    if len(sizes) != 3:
        yield Obstacle(
            "input_rank",
            f"input '{name}' has shape {_words(value)}; images need (N, channels, height, width), or channels last",
        )
        return
    if value.dtype not in IMAGE_TYPES:
        yield Obstacle("input_type", f"input '{name}' is {value.dtype}; give a model that takes floats or uint8")
    batch = value.shape[0] if value.shape is not None else None
    if isinstance(batch, int) and batch > 1:
        yield Obstacle("fixed_batch", f"takes {batch} images at a time; export it for one, or with a free batch axis")


def _words(value: ir.Value) -> str:
    sizes = [str(size) if isinstance(size, int) else printable(size.value or "?") for size in value.shape or ()]
    return f"({', '.join(sizes)})"


def is_half_weight(value: ir.Value) -> bool:
    """Tell whether a constant has half precision; a lone number, such as a factor, isn't a weight."""
    tensor = value.const_value
    return tensor is not None and tensor.dtype in _HALF and tensor.size > 1


def _of_operators(teacher: Teacher) -> list[Obstacle]:
    from n2n_edge.training.executor import GraphModule

    try:
        GraphModule(teacher.model)
    except InputError as error:
        return [Obstacle("operator", str(error))]
    return []
