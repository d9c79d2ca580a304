"""Sizes by which training is scaled: those of layers' inputs, and of what one scale of a quantizer rounds.

Layers whose inputs are large learn as if those had been divided by their size.
The gradient of a weight grows with the layer's inputs: of a network that takes pixels in 0..255 the first layer's is
hundreds of times that of all others, so that clipping leaves these none and the step destroys it. Dividing the inputs
by s and multiplying the weights changes no output; in these terms the gradient is 1/s of what it was, and a step of the
weights themselves 1/s squared (LeCun et al., Efficient BackProp, 1998, section 4.3, on the scale of inputs).

A merged layer reads what its last layer read at several positions, which are all but alike: t times as many taps add up
to t times the curvature along what they share, and s is the root of t. A MobileNetV2-type student with four merged
blocks had a loss of 0.42 after 6,144 images so, 0.50 at the rate of the others (docs/method.md).

The gradient of a quantizer's scale is a sum over all that is rounded by it; LSQ (Esser et al., Learned Step Size
Quantization, ICLR 2020, section 2.2) brings it to the size of a weight's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import onnx_ir as ir
import torch
from torch import Tensor

from n2n_edge.graph.merging import more_taps
from n2n_edge.graph.operands import is_fixed
from n2n_edge.graph.pairs import behind_pairs, quantized_type
from n2n_edge.training.executor import GraphModule
from n2n_edge.training.ops.quantize import RANGES

__all__ = ["LAYERS", "MEASURED_IMAGES", "Grid", "grids_of", "input_scales"]

MEASURED_IMAGES = 8
"""Images on which the inputs of layers are measured."""

_LARGE = 8.0
"""Root mean square of a layer's inputs from which on they are large; behind norms it is about one."""

_SEVEN_BITS = 64

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that are layers: one of their first two inputs is a weight."""


def input_scales(module: GraphModule, images: Tensor) -> dict[str, float]:
    """Return, by the name of their weight, by what the inputs of layers are larger than usual, where they are.

    That is their root mean square where it is large, times the root of `more_taps` of a merged layer. `images` are some
    that the network takes; the module is left in evaluation mode.
    """
    look = _Look(frozenset(module.learned()))
    with torch.no_grad():
        module.eval().visit(look, images)
    scales = {name: (size if size > _LARGE else 1.0) * sqrt(look.taps[name]) for name, size in look.sizes.items()}
    return {name: scale for name, scale in scales.items() if scale > 1.0}


def _names(value: ir.Value) -> tuple[str, ...]:
    """Return the name of a weight, and that of the scale it is rounded by, which is of its size."""
    source, producer = behind_pairs(value), value.producer()
    scale = None if source is value or producer is None else producer.inputs[1]
    return (str(source.name),) if scale is None else (str(source.name), str(scale.name))


@dataclass(frozen=True)
class Grid:
    """What training keeps to for one scale of a quantizer: the factor of its gradient, and the weight that it rounds.

    Where the weight came with fewer than its 8 bits, for processors whose sums of two products would else be cut off at
    16, it keeps within `most` steps; `shape` is that of the scale along it.
    """

    factor: float
    weight: str = ""
    most: int | None = None
    shape: tuple[int, ...] = ()


def grids_of(module: GraphModule, images: Tensor) -> dict[str, Grid]:
    """Return what is to be known of quantizers, by the name of their scale.

    The factor is LSQ's 1 / sqrt(N Q) where N values are rounded by one scale, in a weight or in the activations of one
    image, to Q steps at most.
    """
    look = _Grids(frozenset(module.scales))
    if module.scales:
        with torch.no_grad():
            module.eval().visit(look, images)
    return look.found


class _Grids:
    """Counts what is rounded."""

    def __init__(self, scales: frozenset[str]) -> None:
        self._scales = scales
        self.found: dict[str, Grid] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Take a quantizer's values; the most count where it shares its scale with others."""
        if node.op_type != "QuantizeLinear" or node.inputs[1] is None or node.inputs[0] is None:
            return
        name, (values, scale, *_) = str(node.inputs[1].name), inputs
        if name not in self._scales or values is None or scale is None:
            return
        constant = is_fixed(node.inputs[0])
        images = 1 if constant or not values.dim() else len(values)
        steps = RANGES[quantized_type(node)][1]
        factor = 1.0 / sqrt(max(1.0, values.numel() / images / scale.numel()) * steps)
        found = Grid(min(factor, self.found[name].factor if name in self.found else factor))
        if constant and quantized_type(node) == ir.DataType.INT8:
            shape = [-1 if axis == (node.attributes.get_int("axis", 1) or 0) else 1 for axis in range(values.dim())]
            along = tuple(shape) if scale.numel() > 1 else ()
            narrow = float((values / scale.reshape(along)).abs().max().round()) <= _SEVEN_BITS
            found = replace(found, weight=str(node.inputs[0].name), most=_SEVEN_BITS if narrow else None, shape=along)
        self.found[name] = found

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Ignore the outputs."""


class _Look:
    """Measures what layers read."""

    def __init__(self, learned: frozenset[str]) -> None:
        self._learned = learned
        self.sizes: dict[str, float] = {}
        self.taps: dict[str, float] = {}

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Keep the size of a layer's inputs, the largest where layers share a weight."""
        if node.op_type not in LAYERS or len(inputs) < len(("inputs", "weight")):
            return
        for place, other in ((0, 1), (1, 0)):
            value, given = node.inputs[place], inputs[other]
            names = () if value is None else _names(value)
            if given is None or not self._learned.issuperset(names):
                continue
            size = float(given.float().square().mean().sqrt())
            for name in names:
                self.sizes[name] = max(size, self.sizes.get(name, 0.0))
                self.taps[name] = max(more_taps(node), self.taps.get(name, 1.0))

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Ignore the outputs."""
