"""Weights that make up for what was cut: layers refitted by least squares to give what the teacher's give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from n2n_edge.data.dataset import Data
from n2n_edge.training.augmentation import normalise
from n2n_edge.training.batches import as_bytes
from n2n_edge.training.compute import Engine, deterministic, generator
from n2n_edge.training.evaluation import batch_for
from n2n_edge.training.executor import GraphModule, Halfway, write_back
from n2n_edge.training.ops.registry import Mode, NodeView
from n2n_edge.training.ops.window import Window, pad_spatial, read_window
from n2n_edge.training.settings import DistillSettings
from n2n_edge.watchdog import step

__all__ = ["FeatureTargets", "Kept", "reconstruct", "reconstructed"]

_SAMPLES_PER_FEATURE = 4
_LEAST_SAMPLES = 8192
_MOST_SAMPLES = 16_384
_QUICK_FEATURES = 288
"""Up to this many inputs for one output samples take little time, which goes with the square of these."""

_MOST_FEATURES = 4_608
"""Layers that read more than this many inputs for one output are left as they are: the solution grows with the cube."""

_WHOLE_GRAM = 144
"""Columns up to which halves would save nothing."""

_RIDGE = 0.03
"""Weight of staying near the inherited weights, as a share of the mean squared input."""

_NEAR_ENOUGH = 1e-4
"""A layer whose output is off by no more than this share of the largest figure stays as it is."""

_LEAST_SCALE = 1e-3
"""A norm's scale (in units of its deviation) below which it can't be undone."""

_STREAM = 2**34
"""Tells this use of the seed from others."""

_MOST_IMAGES = 512
_LEAST_IMAGES = 2
_FEWEST_SAMPLES = 2048
_MOST_BYTES = 1_500_000_000
"""What samples may take, and twice what an operator of the student reads and gives for all images."""

_MAP_AXES, _SAMPLED_AXES = 4, 3


Kept = Mapping[str, NDArray[np.intp]]
"""Which of the teacher's channels a value still has, by its name (see `surviving`)."""


class FeatureTargets:
    """What the teacher's layers, and the sums behind them, give for some training images, at sampled positions.

    `images`, or as many as fit into memory; the seed of `settings` decides which. They are not augmented. `values` are
    the samples ``(N, positions, channels)`` of maps and the whole ``(N, channels)`` of vectors, by the value's name.
    Where they are `few`, layers that read many inputs are refitted on fewer of them.
    """

    def __init__(
        self,
        teacher: GraphModule,
        data: Data,
        settings: DistillSettings,
        engine: Engine,
        images: int = _MOST_IMAGES,
        few: bool = False,
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self.few = few
        self.engine = engine
        self._places: dict[int, Tensor] = {}
        self._parts: dict[str, list[Tensor]] = {}
        order = torch.randperm(len(data.train), generator=generator(settings.seed, _STREAM))
        first = _Sizes()
        with step("teacher's features"), torch.no_grad():
            teacher.eval().visit(first, self._given(data, order[:1]))
        most = _MOST_BYTES // 2 // max(first.most_bytes, 1)
        count = max(_LEAST_IMAGES, min(images, most, len(order)))
        self.samples = max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, _MOST_BYTES // max(4 * first.channels, 1)))
        self.images = self._given(data, order[:count])
        self._start = 0
        for part in torch.split(self.images, batch_for(data)):
            with step("teacher's features"), torch.no_grad():
                teacher.visit(self, part)
            self._start += len(part)
        self.values = {name: torch.cat(parts) for name, parts in self._parts.items()}
        self._parts = {}

    def __getstate__(self) -> dict[str, Any]:
        values = {name: value.cpu() for name, value in self.values.items()}
        return {"images": self.images.cpu(), "values": values, "samples": self.samples, "few": self.few}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update({**state, "_places": {}, "_parts": {}, "_start": 0})

    def put_on(self, engine: Engine) -> None:
        """Move what came from another process to the device of an engine."""
        self.engine = engine
        self.images, self.values = engine.moved(self.images), engine.moved(self.values)

    def _given(self, data: Data, chosen: Tensor) -> Tensor:
        return self.engine.moved(normalise(as_bytes(data.train, chosen), data.preprocessing))

    def places(self, positions: int) -> Tensor:
        """Return random places out of so many positions for every image ``(images, places)``, always the same."""
        if positions not in self._places:
            order = torch.rand(len(self.images), positions, generator=generator(0)).argsort(dim=1)
            each = min(positions, -(-self.samples // len(self.images)))
            self._places[positions] = self.engine.moved(order[:, :each].contiguous())
        return self._places[positions]

    def samples_for(self, features: int) -> int:
        """Return on how many samples a layer is refitted that reads so many inputs for one output."""
        least = _LEAST_SAMPLES
        if self.few and features > _QUICK_FEATURES:
            least = round(least * (_QUICK_FEATURES / features) ** 2)
        return min(_MOST_SAMPLES, max(least, _SAMPLES_PER_FEATURE * features))

    def sampled(self, maps: Tensor, start: int = 0) -> Tensor:
        """Return what maps ``(n, C, H, W)`` of the images from `start` on hold at the places ``(n, places, C)``.

        What has two axes comes back as it is.
        """
        if maps.dim() != _MAP_AXES:
            return maps.clone()
        places = self.places(maps.shape[2] * maps.shape[3])[start : start + len(maps)]
        rows = maps.flatten(2)
        return rows.gather(2, places[:, None].expand(-1, maps.shape[1], -1)).transpose(1, 2)

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Ignore the inputs."""

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Keep what a layer or a sum gives that `reconstruct` may aim at."""
        if _is_aim(node, outputs[0]):
            self._parts.setdefault(str(node.outputs[0].name), []).append(self.sampled(outputs[0], self._start))


def _is_aim(node: ir.Node, output: Tensor) -> bool:
    plain = node.op_type == "Gemm" or (node.op_type == "Conv" and node.attributes.get_int("group", 1) == 1)
    summed = node.op_type == "Add" and all(v is not None and v.const_value is None for v in node.inputs)
    return (plain or summed) and output.dim() in (2, _MAP_AXES)


class _Sizes:
    """What a pass takes: the most bytes that an operator reads and gives, and the channels of all aims together."""

    def __init__(self) -> None:
        self.most_bytes, self.channels, self._read = 0, 0, 0

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        self._read = sum(each.numel() * each.element_size() for each in inputs if each is not None)

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        given = sum(each.numel() * each.element_size() for each in outputs)
        self.most_bytes = max(self.most_bytes, self._read + given)
        self.channels += outputs[0].shape[1] if _is_aim(node, outputs[0]) else 0


def reconstruct(student: GraphModule, targets: FeatureTargets, kept: Kept, halfway: Halfway | None = None) -> int:
    """Refit the student's layers in order, each on what the layers before it, already refitted, feed it.

    Returns how many were looked at. With `halfway`, what the teacher itself gives for the images before it differs from
    the student, the layers before that stay as they are.

    A layer's new weights minimise the squared distance to the teacher's output of the same layer, over sampled images
    and positions, with a ridge towards the inherited weights. Where the output goes through a norm into a sum, the
    distance is that of the sum: then a layer makes up for layers that were removed before it. After the
    reconstruction of He, Zhang and Sun (Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017).

    Plain 2-D convolutions and Gemms are refitted; grouped, transposed, 1-D and 3-D convolutions, MatMuls, layers that
    share their weights and those that read very many inputs stay as they are. Weights change in place; the module is
    left in evaluation mode.
    """
    refit = _Refit(student, targets, kept)
    before = () if halfway is None else halfway.nodes
    refit.done = sum(_is_layer(node) and str(node.outputs[0].name) in targets.values for node in before)
    with step("refitting"), torch.no_grad():
        student.eval().visit(refit, targets.images, halfway=halfway)
    return refit.done


def reconstructed(
    student: ir.Model, teacher: ir.Model, data: Data, settings: DistillSettings, kept: Kept, *, images: int = 512
) -> ir.Model:
    """Return a copy of `student` whose layers are refitted to those of `teacher` on so many images (`reconstruct`).

    Raises InputError when a model takes other than one input.
    """
    with deterministic(settings.threads):
        engine = Engine.of(settings)
        module = engine.module(student, "student")
        targets = FeatureTargets(engine.module(teacher, "teacher"), data, settings, engine, images)
        reconstruct(module, targets, kept)
        return write_back(student, module)


@dataclass
class _Refit:
    student: GraphModule
    targets: FeatureTargets
    kept: Kept

    def __post_init__(self) -> None:
        self.weights = self.student.learned()
        self.sums: dict[str, Tensor] = {}
        self.done = 0

    def after(self, node: ir.Node, outputs: Sequence[Tensor]) -> None:
        """Keep what may be added to a layer's output later."""
        for value, tensor in zip(node.outputs, outputs, strict=False):
            if any(use.node.op_type == "Add" for use in value.uses()):
                self.sums[str(value.name)] = self.targets.sampled(tensor)

    def before(self, node: ir.Node, inputs: Sequence[Tensor | None]) -> None:
        """Refit a layer that is about to run."""
        if not _is_layer(node) or inputs[0] is None or inputs[1] is None:
            return
        weight = self.weights.get(str(node.inputs[1].name)) if node.inputs[1] is not None else None
        if weight is None or len(node.inputs[1].uses()) != 1:  # type: ignore[union-attr]
            return
        bias = None
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            bias = self.weights.get(str(node.inputs[2].name))
            if bias is None or len(node.inputs[2].uses()) != 1:
                return
        wanted = self._wanted(node)
        if wanted is None:
            return
        if node.op_type == "Conv":
            self._convolution(node, inputs[0], weight, bias, wanted)
        else:
            self._linear(node, inputs[0], weight, bias, wanted)

    def _wanted(self, node: ir.Node) -> Tensor | None:
        """Return what the layer should give: for the sum behind it to be the teacher's, or the teacher's own output."""
        name = str(node.outputs[0].name)
        own = self.targets.values.get(name)
        if own is None:
            return None
        own = self._cut(own, name)
        norm = _only_reader(node)
        last, summed = (norm, _only_reader(norm)) if norm is not None else (None, None)
        if norm is not None and norm.op_type == "Add":
            return self._before_sum(norm, node, own)
        if last is None or last.op_type != "BatchNormalization" or summed is None or summed.op_type != "Add":
            return own
        scale, shift, mean, variance = (self.weights.get(str(v.name)) for v in last.inputs[1:5] if v is not None)
        if scale is None or shift is None or mean is None or variance is None:
            return own
        wanted = self._before_sum(summed, last, None)
        if wanted is None:
            return own
        epsilon = last.attributes.get_float("epsilon", 1e-5) or 1e-5
        deviation = (variance + epsilon).sqrt()
        undone = (wanted - shift) * (deviation / scale) + mean
        return torch.where((scale / deviation).abs() > _LEAST_SCALE, undone, own)

    def _before_sum(self, summed: ir.Node, last: ir.Node, otherwise: Tensor | None) -> Tensor | None:
        """Return what `last` has to give for `summed` to give what the teacher's does."""
        total = self.targets.values.get(str(summed.outputs[0].name))
        other = next((value for value in summed.inputs if value is not last.outputs[0]), None)
        beside = None if other is None else self.sums.get(str(other.name))
        if total is None or beside is None:
            return otherwise
        total = self._cut(total, str(summed.outputs[0].name))
        return total - beside if total.shape == beside.shape else otherwise

    def _cut(self, target: Tensor, name: str) -> Tensor:
        if name not in self.kept:
            return target
        return target[..., self.targets.engine.moved(torch.from_numpy(self.kept[name]))]

    def _convolution(self, node: ir.Node, inputs: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor) -> None:
        window = _plain_window(node, weight)
        outputs, features = weight.shape[0], weight[0].numel()
        if window is None or features > _MOST_FEATURES or wanted.shape[-1] != outputs or wanted.dim() != _SAMPLED_AXES:
            return
        rows, columns = window.places(inputs.shape[2:])
        places = self.targets.places(rows * columns)
        if places.shape != wanted.shape[:2] or len(inputs) != len(places):
            return
        places = places[:, : -(-self.targets.samples_for(features) // len(places))]
        patches = _patches(inputs, places, columns, weight.shape[2:], window)
        values = wanted[:, : places.shape[1]].reshape(-1, outputs)
        self.done += 1
        start = weight.reshape(outputs, features)
        matrix, constant = _solve(patches, values, start, bias)
        if matrix is start:
            return
        weight.copy_(matrix.reshape(weight.shape))
        if bias is not None and constant is not None:
            bias.copy_(constant)

    def _linear(self, node: ir.Node, inputs: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor) -> None:
        plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not plain or _flag(node, "transA") or inputs.dim() != 2 or inputs.shape[1] > _MOST_FEATURES:
            return
        if wanted.shape != (len(inputs), weight.shape[0 if _flag(node, "transB") else 1]):
            return
        turned = _flag(node, "transB")
        self.done += 1
        matrix, constant = _solve(inputs, wanted, weight if turned else weight.t(), bias)
        weight.copy_(matrix if turned else matrix.t())
        if bias is not None and constant is not None:
            bias.copy_(constant)


def _is_layer(node: ir.Node) -> bool:
    return node.op_type in ("Conv", "Gemm")


def _only_reader(node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and not node.outputs[0].is_graph_output() else None


def _flag(node: ir.Node, name: str) -> bool:
    return bool(node.attributes.get_int(name, 0))


def _plain_window(node: ir.Node, weight: Tensor) -> Window | None:
    """Return the window of a 2-D convolution that isn't grouped, None for any other."""
    if weight.dim() != 4 or node.attributes.get_int("group", 1) != 1:
        return None
    return read_window(NodeView(node, 0, Mode(), ()), tuple(weight.shape[2:]))


def _patches(inputs: Tensor, places: Tensor, columns: int, kernel: torch.Size, window: Window) -> Tensor:
    """Return (samples, C * kernel) inputs of the chosen output places of every image."""
    padded = pad_spatial(inputs, *window.amounts(inputs.shape[2:]))
    count, each = places.shape
    down, right = (
        torch.arange(size, device=inputs.device) * step for size, step in zip(kernel, window.dilations, strict=True)
    )
    rows = (places // columns * window.strides[0])[..., None] + down
    across = (places % columns * window.strides[1])[..., None] + right
    images = torch.arange(count, device=inputs.device)[:, None, None, None]
    taken = padded.permute(0, 2, 3, 1)[images, rows[..., :, None], across[..., None, :]]  # N, each, kh, kw, C
    return taken.permute(0, 1, 4, 2, 3).reshape(count * each, -1)


def _gram(inputs: Tensor) -> Tensor:
    """Return the products of all pairs of columns; as they are symmetric, blocks beside the diagonal are made once."""
    size = inputs.shape[1]
    if size <= _WHOLE_GRAM:
        return inputs.t() @ inputs
    first, second = inputs[:, : size // 2], inputs[:, size // 2 :]
    beside = first.t() @ second
    return torch.cat([torch.cat([_gram(first), beside], dim=1), torch.cat([beside.t(), _gram(second)], dim=1)])


def _solve(inputs: Tensor, wanted: Tensor, start: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return (outputs, features) weights, and a bias where there was one, nearest to `wanted` in the least squares."""
    constant = None
    centre, aim = inputs.new_zeros(inputs.shape[1]), wanted.new_zeros(wanted.shape[1])
    scale = wanted.abs().max()
    if bias is not None:
        centre, aim = inputs.mean(dim=0), wanted.mean(dim=0)
        inputs, wanted = inputs - centre, wanted - aim
    rest = wanted - inputs @ start.t()
    shifted = 0.0 if bias is None else (aim - start @ centre - bias).abs().max()
    if max(rest.abs().max(), shifted) <= _NEAR_ENOUGH * scale:
        return start, bias
    gram = _gram(inputs)
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean() + 1e-8)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if int(failed):
        return start, bias
    change = torch.cholesky_solve(inputs.t() @ rest, factor).t()
    matrix = start + change
    if bias is not None:
        constant = aim - matrix @ centre
    return (matrix, constant) if bool(torch.isfinite(matrix).all()) else (start, bias)
