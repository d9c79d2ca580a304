"""What a teacher gives for fixed images at a few points of its graph: who is the same up to there begins there."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.training.executor import GraphModule, Halfway
from n2n_edge.watchdog import step

__all__ = ["TeacherPrefix", "shared_steps"]

_POINTS = 8
"""So many parts, of about as much work, a teacher's graph is divided into."""

_MOST_BYTES = 400_000_000
"""What the values at all points may take."""

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that take most of the time: so many multiplications for each output as its weight has figures."""

_Step = tuple[ir.Node, list[Tensor | str]]


def shared_steps(one: GraphModule, other: GraphModule) -> int:
    """Return how many steps both graphs begin with that calculate the same in evaluation mode.

    By name and weight: their values of the same names are the same up to there. Nought where images are run one by one.
    """
    if one.one_at_a_time or other.one_at_a_time:
        return 0
    count = 0
    for count, pair in enumerate(zip(one.described(), other.described(), strict=False), start=1):
        if not _same(*pair):
            return count - 1
    return count


def _same(one: _Step, other: _Step) -> bool:
    (node, reads), (their_node, their_reads) = one, other
    return (
        (node.domain, node.op_type, node.overload) == (their_node.domain, their_node.op_type, their_node.overload)
        and [value.name for value in node.outputs] == [value.name for value in their_node.outputs]
        and len(reads) == len(their_reads)
        and all(map(_equal, reads, their_reads))
        and _settings_of(node) == _settings_of(their_node)
    )


def _equal(one: Tensor | str, other: Tensor | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return one.dtype == other.dtype and torch.equal(one, other)


def _settings_of(node: ir.Node) -> Mapping[str, object]:
    """Return a node's attributes; tensors and graphs among them are the same only as one object."""
    plain = (int, float, str, bytes, list, tuple)
    values = {name: attribute.value for name, attribute in node.attributes.items()}
    return {name: value if isinstance(value, plain) else id(value) for name, value in values.items()}


class TeacherPrefix:
    """What a teacher's first steps give for `batches` of images, kept at a few points of its graph.

    Candidates that differ from it in one place, as those of a sensitivity profile do, begin at the last point before
    that. What they give is the same as if they had begun at the first step.
    """

    def __init__(self, teacher: GraphModule, batches: Sequence[Tensor]) -> None:
        self.batches = tuple(batches)
        self._teacher = teacher.eval()
        self._points = () if teacher.one_at_a_time else _points(teacher, self.batches)
        wanted = {name for point in self._points for name in point.names}
        self._values = [self._kept(batch, wanted) for batch in self.batches if wanted]

    def _kept(self, batch: Tensor, wanted: Collection[str]) -> Mapping[str, Tensor]:
        keeper = _Keeper(wanted)
        with step("teacher's features"), torch.no_grad():
            self._teacher.visit(keeper, batch)
        return keeper.kept

    def halfway(self, module: GraphModule) -> Sequence[Halfway | None]:
        """Return where `module` can begin with each batch, as its weights are; None: with its first step."""
        nowhere = [None] * len(self.batches)
        if not self._points:
            return nowhere
        shared, frontiers = shared_steps(module, self._teacher), module.frontiers
        for point in reversed(self._points):
            known = {*point.names, *module.input_names}
            if point.step <= min(shared, len(frontiers) - 1) and frontiers[point.step] <= known:
                nodes = self._teacher.nodes[: point.step]
                return [Halfway(nodes, {name: values[name] for name in point.names}) for values in self._values]
        return nowhere


@dataclass(frozen=True)
class _Point:
    """A point before a step of the teacher's, the values that are kept there, and their bytes for one image."""

    step: int
    names: tuple[str, ...]
    size: int


def _points(teacher: GraphModule, batches: Sequence[Tensor]) -> tuple[_Point, ...]:
    """Return, of each of `_POINTS` parts of about as much work, the point where least is to be kept, in order.

    Those that take most are left out where `_MOST_BYTES` isn't enough for all.
    """
    first = _Sizes()
    with step("teacher's features"), torch.no_grad():
        teacher.visit(first, batches[0][:1])
    best: dict[int, _Point] = {}
    done, whole = 0, sum(first.work)
    for number, (names, work) in enumerate(zip(teacher.frontiers, first.work, strict=True)):
        part = _POINTS * done // max(whole, 1)
        done += work
        kept = tuple({name: None for needed in sorted(names) for name in first.beside.get(needed, ())})
        point = _Point(number, kept, sum(first.bytes[name] for name in kept))
        if number and (part not in best or point.size <= best[part].size):
            best[part] = point
    points, images = sorted(best.values(), key=lambda point: point.size), sum(map(len, batches))
    while sum(point.size for point in points) * images > _MOST_BYTES:
        points.pop()
    return tuple(sorted(points, key=lambda point: point.step))


class _Sizes:
    """The bytes of every value for one image, and the work of every step: what it reads of weights for each output.

    `beside` has, by output, all of its node.
    """

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self.beside: dict[str, tuple[str, ...]] = {}
        self.work: list[int] = []
        self._each = 1

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        weight = inputs[1] if len(inputs) > 1 and node.op_type in _PRODUCTS else None
        self._each = 1 if weight is None else max(1, weight[0].numel())

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        self.work.append(self._each * outputs[0].numel())
        named = {value.name: tensor for value, tensor in zip(node.outputs, outputs, strict=False) if value.name}
        self.beside |= {name: tuple(named) for name in named}
        self.bytes |= {name: tensor.numel() * tensor.element_size() for name, tensor in named.items()}


class _Keeper:
    """Copies of some values of a pass, by name."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.kept: dict[str, Tensor] = {}
        self._wanted = wanted

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        for value, tensor in zip(node.outputs, outputs, strict=False):
            if str(value.name) in self._wanted:
                self.kept[str(value.name)] = tensor.clone()
