"""Merging of layers: where the activation between two convolutions is the identity, both are one convolution.

What a merged layer pads in the middle is moved to the front of the first convolution, which is exact inside the map and
at the borders only in the cases that `Convolution.pads_alike` names.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from n2n_edge.graph.convolutions import (
    Convolution,
    composed,
    in_a_row,
    outlined,
    read_convolution,
    read_outline,
)
from n2n_edge.graph.layers import Layer
from n2n_edge.graph.load import drop_unused_initializers
from n2n_edge.graph.op import op_of
from n2n_edge.graph.shapes import is_constant

Numbers = NDArray[np.float64]

__all__ = [
    "Link", "Merge", "find_links", "made_merges", "merge_layers", "merges_of", "more_taps", "outline_merged",
]  # fmt: skip

_EPSILON = 1e-5

_MORE_TAPS = "n2n_edge.more_taps"
"""Metadata of a merged node: how many times as many positions its kernel reads as that of its last layer alone."""

_LONGEST = 4
"""Layers of one merge at most: an inverted residual has three."""


@dataclass(frozen=True)
class Link:
    """A layer that can be merged with the one that alone reads it, `into`.

    `activation`: whether it has one, which becomes the identity; `exact_borders`: whether nothing else changes, since
    no padding in the middle has to be moved to the front, or moving it makes no difference.
    """

    layer: str
    into: str
    activation: bool
    exact_borders: bool


@dataclass(frozen=True)
class Merge:
    """A run of layers that can be calculated as one, in order; all but the last lose their activation."""

    layers: tuple[str, ...]
    exact_borders: bool

    @property
    def linear(self) -> tuple[str, ...]:
        """The layers whose activation becomes the identity."""
        return self.layers[:-1]

    @property
    def name(self) -> str:
        """How it is called: by its first and last layer."""
        return f"{self.layers[0]}..{self.layers[-1]}"


def find_links(model: ir.Model, layers: Sequence[Layer]) -> tuple[Link, ...]:
    """Return which layers of a normalised model can be merged with the next, in execution order."""
    nodes = {str(node.name): node for node in model.graph}
    found = []
    for layer in layers:
        pair = _pair(nodes, layer)
        if pair is None:
            continue
        chain, reader = pair
        first, second = read_outline(_convolution_of(chain)), read_outline(reader)
        if first is None or second is None or not in_a_row(first, second) or not _is_linear(chain):
            continue
        into = next(other.name for other in layers if str(reader.name) in other.nodes)
        active = any(op_of(node).activation for node in chain)
        found.append(Link(layer.name, into, active, _pads_alike(chain, first, second)))
    return tuple(found)


def merges_of(links: Sequence[Link], longest: int = _LONGEST) -> Iterator[Merge]:
    """Yield every run of at least two layers, at most `longest`, that `links` tie together."""
    following = {link.layer: link for link in links}
    for link in links:
        run, exact = [link.layer], True
        step: Link | None = link
        while step is not None and len(run) < longest:
            run.append(step.into)
            exact = exact and step.exact_borders
            yield Merge(tuple(run), exact)
            step = following.get(step.into)


def made_merges(links: Sequence[Link], layers: Collection[str], linear: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the runs of layers that are one where those of `linear` are merged, `layers` being those that are left.

    A layer whose own reader is gone is merged with the next convolution that reads it, which isn't told here.
    """
    there = set(layers)
    following = {
        link.layer: link.into for link in links if link.layer in linear and there.issuperset((link.layer, link.into))
    }
    runs = []
    for start in (link.layer for link in links if link.layer in following):
        if start not in following.values():
            run = [start]
            while run[-1] in following:
                run.append(following[run[-1]])
            runs.append(tuple(run))
    return tuple(runs)


def merge_layers(model: ir.Model, layers: Sequence[Layer], linear: Collection[str]) -> tuple[ir.Model, frozenset[str]]:
    """Return a copy of `model` in which the layers called `linear` are part of those that read them, and their weights.

    Their activations are the identity; the norms between are part of the new convolution, which has the names and the
    norm, if any, of the last layer. What can't be merged, since its reader was removed, stays as it is. Second comes
    the names of the weights that are others now.
    """
    return _merged(model, layers, linear, _with_numbers)


def outline_merged(model: ir.Model, layers: Sequence[Layer], linear: Collection[str]) -> ir.Model:
    """Return what `merge_layers` does with noughts for the numbers of merged weights, for what depends on none."""
    return _merged(model, layers, linear, _without_numbers)[0]


def _merged(
    model: ir.Model, layers: Sequence[Layer], linear: Collection[str], join: "_Join"
) -> tuple[ir.Model, frozenset[str]]:
    model = model.clone()
    nodes = {str(node.name): node for node in model.graph}
    changed: set[str] = set()
    for layer in layers:
        pair = _pair(nodes, layer) if layer.name in linear else None
        if pair is None:
            continue
        chain, reader = pair
        merged = join(chain, reader) if _is_linear(chain) else None
        if merged is None:
            continue
        source = _convolution_of(chain).inputs[0]
        weight = reader.inputs[1]
        assert weight is not None
        _write(model, reader, merged)
        reader.replace_input_with(0, source)
        changed.add(str(weight.name))
        gone = chain[1:] if chain[0].op_type == "Pad" else chain
        model.graph.remove(gone, safe=True)
        for node in gone:
            nodes.pop(str(node.name))
    drop_unused_initializers(model)
    return model, frozenset(changed)


def more_taps(node: ir.Node) -> float:
    """Return how many times as many positions a merged convolution reads as its last layer did alone; 1 for others."""
    return float(node.metadata_props.get(_MORE_TAPS, 1.0))


_Join = Callable[[Sequence[ir.Node], ir.Node], Convolution | None]
"""Gives the one convolution that stands for the nodes of a layer and the convolution that reads them."""


def _with_numbers(chain: Sequence[ir.Node], reader: ir.Node) -> Convolution | None:
    first, second = _linear_part(chain), read_convolution(reader)
    if first is None or second is None or not in_a_row(first, second):
        return None
    return composed(first.padded_for(second), second.unpadded())


def _without_numbers(chain: Sequence[ir.Node], reader: ir.Node) -> Convolution | None:
    first, second = read_outline(_convolution_of(chain)), read_outline(reader)
    if first is None or second is None or not in_a_row(first, second):
        return None
    return outlined(first.padded_for(second), second.unpadded())


def _pair(nodes: dict[str, ir.Node], layer: Layer) -> tuple[list[ir.Node], ir.Node] | None:
    """Return the nodes of a layer and the convolution that alone reads it; None where there is no such."""
    chain = [nodes[name] for name in layer.nodes if name in nodes]
    if layer.op_type != "Conv" or len(chain) < len(layer.nodes):
        return None
    output = chain[-1].outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or uses[0].idx != 0 or output.is_graph_output() or uses[0].node.op_type != "Conv":
        return None
    reader = uses[0].node
    constants = [value for value in reader.inputs[1:] if value is not None]
    own = all(len(value.uses()) == 1 and not value.is_graph_output() for value in constants)
    return (chain, reader) if own and reader.graph is chain[0].graph else None


def _convolution_of(chain: Sequence[ir.Node]) -> ir.Node:
    return next(node for node in chain if node.op_type == "Conv")


def _is_linear(chain: Sequence[ir.Node]) -> bool:
    """Tell whether a layer is a constant linear map but for its activation."""
    for node in chain:
        constant = all(value is None or is_constant(value) for value in node.inputs[1:])
        if node.op_type == "BatchNormalization":
            if not constant or len(node.outputs) > 1 or node.attributes.get_int("training_mode", 0) != 0:
                return False
        elif node.op_type == "Add":
            if _shift(node) is None:
                return False
        elif op_of(node).norm:
            return False
    return True


def _pads_alike(chain: Sequence[ir.Node], first: Convolution, second: Convolution) -> bool:
    """Tell whether the padding of `second` can be moved without a change; `first` and it are outlines."""
    if not second.padded:
        return True
    source = _convolution_of(chain).inputs[0]
    sizes = [] if source is None or source.shape is None else list(source.shape)[2:]
    known = tuple(size for size in sizes if isinstance(size, int))
    if len(known) != len(second.kernel) or not first.pads_alike(second, known):
        return False
    found = _linear_part(chain)
    return found is not None and found.pads_alike(second, known)


def _linear_part(chain: Sequence[ir.Node]) -> Convolution | None:
    """Return a layer's convolution with its bias and norm, without its activation."""
    found = read_convolution(_convolution_of(chain))
    for node in chain:
        if found is None:
            return None
        if node.op_type == "BatchNormalization":
            found = _normed(found, node)
        elif node.op_type == "Add" and (shift := _shift(node)) is not None:
            found = replace(found, bias=found.bias + shift)
    return found


def _normed(convolution: Convolution, norm: ir.Node) -> Convolution:
    scale, shift, mean, variance = (_numbers(value) for value in norm.inputs[1:5])
    epsilon = norm.attributes.get_float("epsilon", _EPSILON)
    factor = scale / np.sqrt(variance + (_EPSILON if epsilon is None else epsilon))
    weight = convolution.weight * factor.reshape(-1, *(1,) * (convolution.weight.ndim - 1))
    return replace(convolution, weight=weight, bias=(convolution.bias - mean) * factor + shift)


def _shift(add: ir.Node) -> Numbers | None:
    """Return what a bias Add adds to each channel, or one number for all; None where it varies otherwise."""
    constant = next((value for value in add.inputs if value is not None and is_constant(value)), None)
    given = add.outputs[0].shape
    if constant is None or given is None:
        return None
    numbers = _numbers(constant)
    shape = (1,) * (len(given) - numbers.ndim) + numbers.shape
    varies = any(size != 1 for place, size in enumerate(shape) if place != 1)
    return None if len(shape) != len(given) or varies else numbers.ravel()


def _write(model: ir.Model, node: ir.Node, merged: Convolution) -> None:
    """Let a convolution's node calculate `merged`, in place, its weight under the name that it has."""
    weight, bias = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    assert weight is not None
    assert weight.const_value is not None
    dtype = weight.const_value.dtype
    before = prod(weight.const_value.shape.numpy()[2:])
    node.metadata_props[_MORE_TAPS] = str(prod(merged.kernel) / before)
    if bias is None and (merged.bias.any() or not any(merged.bias.strides)):
        bias = ir.Value(name=_free_name(model, f"{node.outputs[0].name}.bias"))
        bias.const_value = ir.Tensor(_stored(merged.bias, dtype.numpy()), name=bias.name)
        model.graph.register_initializer(bias)
        node.resize_inputs(3)
        node.replace_input_with(2, bias)
    for value, numbers in ((weight, merged.weight), (bias, merged.bias)):
        if value is not None:
            array = _stored(numbers, dtype.numpy())
            value.const_value = ir.Tensor(array, dtype=dtype, name=value.name)
            value.shape, value.dtype = value.const_value.shape, dtype
    pads = [before for before, _ in merged.pads] + [after for _, after in merged.pads]
    settings = {
        "kernel_shape": merged.kernel, "strides": merged.strides, "dilations": merged.dilations, "pads": pads,
    }  # fmt: skip
    for name, amounts in settings.items():
        node.attributes[name] = ir.AttrInt64s(name, list(amounts))
    node.attributes["group"] = ir.AttrInt64("group", merged.groups)
    node.attributes.pop("auto_pad", None)


def _stored(numbers: Numbers, dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    if any(numbers.strides):
        return np.ascontiguousarray(numbers.astype(dtype))
    return np.broadcast_to(np.zeros((), dtype), numbers.shape)  # an outline, which takes no memory


def _free_name(model: ir.Model, stem: str) -> str:
    taken = {*model.graph.initializers, *(value.name for node in model.graph for value in node.outputs)}
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}.{count}", count + 1
    return name


def _numbers(value: ir.Value | None) -> Numbers:
    assert value is not None
    assert value.const_value is not None
    found: Numbers = value.const_value.numpy().astype(np.float64)
    return found
