"""Students that no search chose: a smaller ResNet drawn by hand, and torch-pruning's group-magnitude pruner."""

import tempfile
import warnings
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from benchmarks.candidate_cost.resnet import CifarResNet
from n2n_edge.graph.teacher import Teacher
from n2n_edge.graph.torch_export import export_module
from n2n_edge.measure.bench import WarmWorker
from n2n_edge.metrics.budget import Budget
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.store import Journal
from n2n_edge.training.tensors import tensor_from_ir

__all__ = ["by_hand", "pruned_by_magnitude"]

_BLOCKS = {"resnet20": 3, "resnet56": 9}
_FEWER = {"resnet20": {"params/4": 1}, "resnet56": {"params/4": 4, "latency/2": 5}}
_OTHERWISE = {"resnet20": 2, "resnet56": 6}
"""Blocks a stage that a person would keep; widths then take what the budget leaves."""

_EXAMPLE = torch.zeros(1, 3, 32, 32)


def by_hand(network: str, budget: str, limit: Budget, meter: CostMeter, seed: int) -> ir.Model:
    """Return a new ResNet with fewer blocks, all widths in proportion, as wide as the budget allows."""
    blocks = _FEWER[network].get(budget, _OTHERWISE[network])
    best: ir.Model | None = None
    for width in range(6, 26, 2):  # shortcuts pad both sides alike
        torch.manual_seed(seed)
        model = Teacher(export_module(CifarResNet(blocks, base=width), _EXAMPLE)).model
        if _cost(model, limit, meter) > limit.limit:
            break
        best = model
    assert best is not None
    return best


def pruned_by_magnitude(network: str, teacher: ir.Model, limit: Budget, meter: CostMeter) -> ir.Model:
    """Return the teacher with the inner widths of its blocks pruned by torch-pruning until the budget is met.

    It can't prune the stream of a network with padded shortcuts, so all else is left alone.
    """
    import torch_pruning

    low, high = 0.0, 1.0
    best: ir.Model | None = None
    for _ in range(7):
        ratio = (low + high) / 2
        module = _filled(CifarResNet(_BLOCKS[network]), teacher)
        inner = {id(block.first[0]) for block in module.blocks}
        ignored = [m for m in module.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and id(m) not in inner]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.MagnitudePruner(
                module, _EXAMPLE, torch_pruning.importance.GroupMagnitudeImportance(p=2), global_pruning=True,
                pruning_ratio=ratio, ignored_layers=ignored,
            ).step()  # fmt: skip
        model = Teacher(export_module(module, _EXAMPLE)).model
        if _cost(model, limit, meter) <= limit.limit:
            best, high = model, ratio
        else:
            low = ratio
    assert best is not None, "inner widths alone don't meet this budget"
    return best


def _cost(model: ir.Model, limit: Budget, meter: CostMeter) -> float:
    if limit.cost != "latency_ms":
        return meter.static(model).as_mapping()[limit.cost]
    with (
        tempfile.TemporaryDirectory() as folder,
        WarmWorker() as worker,
        Journal.create(Path(folder) / "journal.sqlite") as journal,
    ):
        network = Teacher(model)
        measured = CostMeter(network, meter.profile, [], journal, worker).devices[0].measured(network.full, model)
    return float("inf") if measured is None else measured.value


def _filled(module: CifarResNet, teacher: ir.Model) -> CifarResNet:
    """Give a module the teacher's weights, which come in the same order."""
    weights = [tensor_from_ir(value.const_value) for value in teacher.graph.initializers.values() if value.const_value]
    own = {name: tensor for name, tensor in module.state_dict().items() if not name.endswith("num_batches_tracked")}
    weights = [tensor for tensor in weights if tensor.is_floating_point() and tensor.numel() > 1]
    assert [tuple(tensor.shape) for tensor in weights] == [tuple(tensor.shape) for tensor in own.values()]
    module.load_state_dict(dict(zip(own, weights, strict=True)), strict=False)
    return module.eval()
