"""Layers: a weighted op with the norm and activation that follow it, and whether it can be removed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir

from n2n_edge.graph.costs import NodeCost
from n2n_edge.graph.op import counted_op, op_of
from n2n_edge.graph.operands import layer_input, nodes_within, pad_amounts, pads_positions_only, weight_index
from n2n_edge.graph.propagate import is_understood
from n2n_edge.graph.refit import refit_blocker
from n2n_edge.graph.shapes import Shape, is_constant, shapes_of

__all__ = ["Layer", "QuantizedWeight", "find_layers", "float_layers", "layers_by_name", "quantized_weights"]

_MULTIPLYING = ("conv", "conv_transpose", "gemm", "matmul")

_SCALES = {
    "QLinearConv": 4, "QLinearMatMul": 4, "QGemm": 4, "MatMulIntegerToFloat": 3, "DynamicQuantizeMatMul": 2,
    "MatMulNBits": 2,
}  # fmt: skip
"""Which input of an operator on integers is the scale of its weight."""


@dataclass(frozen=True)
class Layer:
    """One layer; `reason` says why it can't be removed and is empty where it can.

    `nodes` are the names of its nodes in order: a Pad that only a convolution reads, the weighted op, then the bias,
    norm and activation that follow.
    `kernel`, `stride` and `padding` are (rows, columns) for a Conv and (1, 1), (1, 1), (0, 0) for a matrix product.
    `skip_start`: what it reads is read by others too; `skip_end`: what it gives is joined with another branch.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    weight: str
    source: str
    output: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    groups: int
    skip_start: bool
    skip_end: bool
    params: int
    macs: int
    reason: str

    @property
    def removable(self) -> bool:
        """Whether an architecture may leave this layer out."""
        return not self.reason


def find_layers(model: ir.Model, counted: Iterable[NodeCost]) -> tuple[Layer, ...]:
    """Return the layers of a normalised model in execution order; `counted` are the costs of its nodes."""
    shapes = shapes_of(model)
    costs = {cost.name: cost for cost in counted}
    holders = {inner: node for node in model.graph for inner in nodes_within(node)}
    layers = []
    for name, index, chain in _weighted_chains(model):
        node = next(item for item in chain if item.op_type != "Pad")
        source, axis = layer_input(node)
        padding = _pair(node.attributes.get_ints("pads"), 0)
        if node is not chain[0]:
            padding = _padding_before(chain[0], len(shapes[str(source.name)]), padding)
            source = _first_input(chain[0])
        weight = node.inputs[index]
        assert weight is not None
        output = chain[-1].outputs[0]
        layers.append(
            Layer(
                name=name,
                op_type=node.op_type,
                nodes=tuple(str(item.name) for item in chain),
                weight=str(weight.name),
                source=str(source.name),
                output=str(output.name),
                in_channels=shapes[str(source.name)][axis],
                out_channels=_out_channels(node, index, shapes[str(weight.name)]),
                kernel=_pair(node.attributes.get_ints("kernel_shape") or shapes[str(weight.name)][2:], 1),
                stride=_pair(node.attributes.get_ints("strides"), 1),
                padding=padding,
                groups=node.attributes.get_int("group", 1) or 1,
                skip_start=len({use.node for use in source.uses()}) > 1,
                skip_end=any(_joins(use.node) for use in output.uses()),
                params=sum(costs[str(item.name)].params for item in chain),
                macs=costs[str(node.name)].macs,
                reason=_why_not(source, output, axis, shapes, holders),
            )
        )
    return tuple(layers)


def _out_channels(node: ir.Node, index: int, weight: Shape) -> int:
    """Return how many channels a weighted op gives: one for the product with a vector."""
    row = op_of(node).weight
    assert row is not None
    if len(weight) < 2:
        return 1
    groups = node.attributes.get_int("group", 1) if row.out_per_group else 1
    return weight[row.axes(node, index)[0]] * (groups or 1)


def layers_by_name(model: ir.Model) -> dict[str, str]:
    """Map the name of every node of a layer, and of every value that they give, to the layer's name.

    Takes any graph, normalised or not, quantized or not: a quantized layer has its float twin's name where its weight
    is called after that one's, as quantizers do.
    """
    found: dict[str, str] = {}
    for name, _, chain in _weighted_chains(model):
        found |= _names_of(chain, name)
    for layer in quantized_weights(model, found.values()):
        found |= _names_of([layer.node], layer.name)
    return found


def _names_of(nodes: Iterable[ir.Node], layer: str) -> dict[str, str]:
    return {str(name): layer for node in nodes for name in (node.name, *(value.name for value in node.outputs)) if name}


class QuantizedWeight(NamedTuple):
    """A weighted operator whose weight is kept in few bits, with the weight's scale where that stands beside it."""

    name: str
    node: ir.Node
    weight: ir.Value
    scale: ir.Value | None


def float_layers(model: ir.Model) -> Iterator[tuple[str, ir.Node, ir.Value]]:
    """Yield the name of every layer whose weight is kept as it is, its weighted operator and the weight."""
    for name, index, chain in _weighted_chains(model):
        node = next(item for item in chain if item.op_type != "Pad")
        weight = node.inputs[index]
        assert weight is not None
        yield name, node, weight


def _weighted_chains(model: ir.Model) -> Iterator[tuple[str, int, list[ir.Node]]]:
    """Yield the name of each layer, which input of its first node is the weight, and its nodes."""
    names: set[str] = set()
    for node in model.graph:
        index = weight_index(node)
        if index is not None:
            name = _layer_name(node, str(node.inputs[index].name), names)  # type: ignore[union-attr]
            names.add(name)
            pad = _pad_before(node)
            yield name, index, [*([pad] if pad is not None else []), *_chain(node)]


def quantized_weights(model: ir.Model, taken: Iterable[str] = ()) -> Iterator[QuantizedWeight]:
    """Yield the weighted operators whose weights are kept in few bits, under names that aren't `taken` yet."""
    names = set(taken)
    for node in model.graph:
        row = counted_op(node.op_type, node.domain)
        indices = row.weights if row.quantized else row.weight and row.weight.inputs
        if row.kernel not in _MULTIPLYING or not indices:
            continue
        for index in sorted({1, 3}.intersection(indices), reverse=True):
            value = _input(node, index)
            scale = _input(node, _SCALES.get(node.op_type))
            producer = None if value is None else value.producer()
            if producer is not None and producer.op_type == "DequantizeLinear":
                value, scale = _input(producer, 0), _input(producer, 1)
            elif not row.quantized:
                continue
            if value is not None and is_constant(value):
                name = _layer_name(node, str(value.name).removesuffix("_quantized"), names)
                names.add(name)
                yield QuantizedWeight(name, node, value, scale)
                break


def _input(node: ir.Node, index: int | None) -> ir.Value | None:
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _pad_before(node: ir.Node) -> ir.Node | None:
    """Return the Pad of rows and columns whose only reader is the convolution `node`."""
    source = node.inputs[0]
    pad = source.producer() if source is not None and op_of(node).convolves else None
    if pad is None or source is None or pad.op_type != "Pad" or pad.graph is not node.graph or not is_understood(pad):
        return None
    alone = len(source.uses()) == 1 and not source.is_graph_output() and pad.inputs[0] is not None
    weight = node.inputs[1]
    rank = len(weight.const_value.shape) if weight is not None and weight.const_value is not None else 0
    return pad if alone and not is_constant(_first_input(pad)) and pads_positions_only(pad, rank) else None


def _first_input(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _padding_before(pad: ir.Node, rank: int, padding: tuple[int, int]) -> tuple[int, int]:
    """Return `padding` and what a Pad adds to it."""
    rows, columns = _pair([before for before, _ in (pad_amounts(pad, rank) or ())[2:]], 0)
    return padding[0] + rows, padding[1] + columns


def _chain(node: ir.Node) -> list[ir.Node]:
    """Follow bias Add, norm and activation as long as each is the only reader of what came before."""
    chain = [node]
    norm = activation = bias = False
    while True:
        value = chain[-1].outputs[0]
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return chain
        following = uses[0].node
        if following.graph is not node.graph:
            return chain
        constant_rest = all(item is None or item is value or is_constant(item) for item in following.inputs)
        row = op_of(following)
        if row.norm and uses[0].idx == 0 and not norm and not activation:
            norm = True
        elif row.activation and uses[0].idx == 0 and constant_rest and not activation:
            activation = True
        elif following.op_type == "Add" and constant_rest and not (bias or norm or activation):
            bias = True
        else:
            return chain
        chain.append(following)


def _layer_name(node: ir.Node, weight: str, taken: set[str]) -> str:
    """Name a layer after its weight (``layer1.0.conv2.weight``) or, where exporters number weights, after its node."""
    stem = weight.removesuffix(".weight").removesuffix("_weight").removesuffix("/kernel")
    if stem == weight and ("::" in weight or weight.isdecimal() or weight.startswith(("const_fold", "val_"))):
        own = str(node.name).strip("/").removesuffix("_quant").removesuffix("_quantized")
        stem = own.removesuffix(f"/{node.op_type.removeprefix('QLinear')}").replace("/", ".")
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}#{count}", count + 1
    return name


def _why_not(
    source: ir.Value, output: ir.Value, channel: int, shapes: Mapping[str, Shape], holders: Mapping[ir.Node, ir.Node]
) -> str:
    if output.is_graph_output():
        return f"gives the graph output '{output.name}'"
    unknown = _unknown_op(source, output, holders)
    if unknown is not None:
        return f"touches op {unknown.op_type} '{unknown.name}', which isn't understood"
    before, after = shapes[str(source.name)], shapes[str(output.name)]
    if len(before) != len(after):
        return f"changes the rank from {len(before)} to {len(after)}"
    if any(old != new and axis != channel for axis, (old, new) in enumerate(zip(before, after, strict=True))):
        return f"changes the size from {_size(before)} to {_size(after)}"
    if before == after:
        return ""
    blocker = refit_blocker(output, after[channel]) if channel == 1 else "its channels aren't on axis 1"
    return f"changes the width from {before[channel]} to {after[channel]} and {blocker}" if blocker else ""


def _unknown_op(source: ir.Value, output: ir.Value, holders: Mapping[ir.Node, ir.Node]) -> ir.Node | None:
    """Return an op outside the known set that gives what the layer reads, or reads what it gives.

    `holders` maps the nodes in bodies of control flow to the op that holds them.
    """
    neighbours = [source.producer(), *(holders.get(use.node, use.node) for use in output.uses())]
    return next((node for node in neighbours if node is not None and not is_understood(node)), None)


def _joins(node: ir.Node) -> bool:
    computed = [value for value in node.inputs if value is not None and not is_constant(value)]
    return op_of(node).join in ("sum", "product", "concat") and len(computed) > 1


def _pair(values: object, default: int) -> tuple[int, int]:
    numbers = [int(item) for item in values] if isinstance(values, (tuple, list)) else []
    if not numbers:
        return (default, default)
    return (numbers[0], numbers[1] if len(numbers) > 1 else numbers[0])


def _size(shape: Shape) -> str:
    return "x".join(str(size) for size in shape[2:]) or "x".join(str(size) for size in shape)
