"""What Torch-Pruning would cut of a teacher, as an architecture of this package's own.

The teacher's graph is converted by onnx2torch and ranked by group magnitude at one global ratio. Which channels it
would prune is read from its groups, so the student is the teacher's graph without them, trained like any other.
Before that the teacher may be trained to be sparse by groups.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError, N2NError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.file_version import in_version
from n2n_edge.graph.groups import importance_order
from n2n_edge.graph.load import to_proto
from n2n_edge.graph.teacher import Teacher, build
from n2n_edge.training.batches import training_batches
from n2n_edge.training.settings import DistillSettings

__all__ = ["TorchPruningError", "pruned_by_torch_pruning", "sparse_learned"]

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_STEPS, _RANK = 200, 2
"""Ratios are tried in so many steps, smallest first: a larger one may cost more, as what would go as a whole stays."""
_MOST = 0.9
"""Of any group no more may go: a global ratio would take all of some."""
_PENALTY, _RATE = 5e-4, 0.01
"""The weight of the penalty on groups and the rate of learning, as its authors have them for CIFAR
(github.com/VainF/Torch-Pruning, reproduce/main.py); the rate falls to a hundredth over the last two fifths."""
_OPSET = 13
"""The one that onnx2torch knows best: of Pad and others it lacks the forms of later ones."""


class TorchPruningError(N2NError):
    """Torch-Pruning or onnx2torch can't take the network, or cuts it in a way that isn't one of its architectures."""


def pruned_by_torch_pruning(
    teacher: Teacher, shape: tuple[int, ...], multiple: int, cost: Callable[[ir.Model], float], limit: float
) -> tuple[Teacher, Architecture]:
    """Return the teacher that keeps what Torch-Pruning keeps, and the widest architecture whose `cost` is in `limit`.

    Widths are multiples of `multiple`; `shape` is that of one image ``(C, H, W)``.
    """
    try:
        own = [size for size in teacher.model.graph.inputs[0].shape or () if isinstance(size, int)]
        # as the graph takes it, where it says so: channels may come last
        example = torch.zeros(1, *(own[-len(shape) :] if len(own) >= len(shape) else shape))
        module = _converted(teacher)
        least = math.inf
        for ratio in np.arange(1, _STEPS) / _STEPS:
            found = _cut(teacher, module, example, float(ratio), multiple)
            reached = cost(build(*found))
            if reached <= limit:
                return found
            least = min(least, reached)
    except ImportError:
        raise
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise TorchPruningError(f"{type(error).__name__}: {line}") from error
    raise TorchPruningError(f"no ratio meets the budget of {limit:.3g}: the least is {least:.3g}")


def sparse_learned(teacher: Teacher, data: Data, settings: DistillSettings, epochs: int) -> Teacher:
    """Return a classifier trained on its labels, for so many epochs, with Torch-Pruning's penalty on groups.

    The norms of groups that are small already are pushed down most (Fang and others, *DepGraph*, CVPR 2023).
    """
    import torch_pruning

    module = _converted(teacher)
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    held = {key: tensor for key, tensor in named.items() if tensor.is_floating_point()}
    arrays = {
        (tuple(value.const_value.shape.numpy()), value.const_value.numpy().tobytes()): name
        for name, value in teacher.model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT
    }
    names: dict[str, str] = {}
    for key, tensor in held.items():
        for turned in (tensor, tensor.t() if tensor.dim() == _RANK else tensor):
            array = np.ascontiguousarray(turned.detach().numpy())
            names[key] = names.get(key) or arrays.get((array.shape, array.tobytes()), "")
    pruner = torch_pruning.pruner.GroupNormPruner(
        module, torch.zeros(1, *data.input_shape), reg=_PENALTY, global_pruning=True,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
        ignored_layers=_fixed_layers(teacher, _weights(teacher, module)),
    )  # fmt: skip
    sgd = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=0.9)
    steps = epochs * (len(data.train) // settings.batch_size)
    rates = torch.optim.lr_scheduler.MultiStepLR(sgd, [3 * steps // 5, 4 * steps // 5], 0.1)
    module.train()
    for epoch in range(1, epochs + 1):
        for batch in training_batches(data, replace(settings, kd_weight=0.0), epoch):
            sgd.zero_grad()
            assert batch.labels is not None
            nn.functional.cross_entropy(module(batch.inputs), batch.labels).backward()
            pruner.regularize(module)
            sgd.step()
            rates.step()
    model = teacher.model.clone()
    for key, name in names.items():
        if name:
            value = model.graph.initializers[name]
            tensor = held[key].detach()
            same = tuple(tensor.shape) == tuple(value.const_value.shape.numpy())  # type: ignore[union-attr]
            value.const_value = ir.tensor(np.ascontiguousarray((tensor if same else tensor.t()).numpy()), name=name)
    return Teacher(model)


def _converted(teacher: Teacher) -> nn.Module:
    from onnx2torch import convert

    try:
        model = in_version(teacher.model, _OPSET, None)
    except InputError:  # it has newer operators, some of which can be converted
        model = teacher.model
    module: nn.Module = convert(to_proto(model)).eval()
    return module


def _cut(
    teacher: Teacher, module: nn.Module, example: torch.Tensor, ratio: float, multiple: int
) -> tuple[Teacher, Architecture]:
    """Prune at a ratio; a group that would lose all its channels keeps a multiple of them, by their weights."""
    import torch_pruning

    names = _weights(teacher, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            module, example, torch_pruning.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
            pruning_ratio=ratio, max_pruning_ratio=_MOST, round_to=multiple,
            ignored_layers=_fixed_layers(teacher, names),
        )  # fmt: skip
        dropped = {
            unit
            for group in list(pruner.step(interactive=True))
            for item, places in group
            if pruner.DG.is_out_channel_pruning_fn(item.handler) and item.target.module in names
            for unit in names[item.target.module][list(places)].tolist()
        }
    architecture, kept = teacher.full, np.full(teacher.labels.count, np.nan)
    weights = teacher.base_graph(frozenset()).importance
    for group in teacher.groups:
        standing = [unit not in dropped for unit in group.units]
        if group.reason or all(standing):
            continue
        if not any(standing):
            for place in importance_order(group, weights)[:multiple]:
                standing[place] = True
        kept[list(group.units)] = standing
        architecture = architecture.resize(group.name, sum(standing))
    return teacher.ranked(kept), architecture


def _fixed_layers(teacher: Teacher, names: Mapping[nn.Module, NDArray[np.intp]]) -> list[nn.Module]:
    """Return the layers whose channels can't go."""
    fixed = {unit for group in teacher.groups if group.reason for unit in group.units}
    return [layer for layer, labels in names.items() if fixed & set(labels.tolist())]


def _weights(teacher: Teacher, module: nn.Module) -> Mapping[nn.Module, NDArray[np.intp]]:
    """Return the units of the output channels of each layer whose weight is one of the graph's."""
    known = {}
    for name, value in teacher.model.graph.initializers.items():
        if value.const_value is None or len(value.const_value.shape) < _RANK:
            continue
        weight = value.const_value.numpy()
        known[weight.shape, weight.tobytes()] = (name, False)
        if weight.ndim == _RANK:
            known[weight.T.shape, np.ascontiguousarray(weight.T).tobytes()] = (name, True)
    found: dict[nn.Module, NDArray[np.intp]] = {}
    for layer in module.modules():
        if isinstance(layer, _WEIGHTED):
            weight = layer.weight.detach().numpy()
            name, turned = known.get((weight.shape, np.ascontiguousarray(weight).tobytes()), ("", False))
            labels = teacher.labels.dims.get((name, int(turned != isinstance(layer, nn.ConvTranspose2d))))
            if labels is not None and labels.ndim == 1:
                found[layer] = teacher.labels.find(labels)
    return found
