"""Make a family's member with random weights and export it once."""

import sys
import types
import warnings
from copy import deepcopy
from pathlib import Path

import torch
from families import Family

from n2n_edge.graph.load import save_model
from n2n_edge.graph.torch_export import export_module

__all__ = ["Exported", "export", "module_of", "settle", "tensors_of"]

Exported = tuple[torch.nn.Module, torch.Tensor]


def module_of(family: Family) -> Exported:
    """Return the network in evaluation mode with random weights, and an input.

    Weights are those that it is made with, or its norms are shown a batch first, whichever amplifies rounding less:
    deep networks with random weights can be chaotic, and then no two ways to compute them agree.
    """
    _let_pytorchcv_import()
    from pytorchcv.model_provider import get_model

    torch.manual_seed(0)
    given = {} if family.kind in ("classification", "pose", "face") else {"in_size": family.size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = get_model(family.member, pretrained=False, **given)
        example = torch.randn(1, 3, *family.size, generator=torch.Generator().manual_seed(1))
        settle(module, example)
    return module, example


def settle(module: torch.nn.Module, example: torch.Tensor) -> None:
    """Leave a network in evaluation mode the weights it has, or show its norms a batch, whichever amplifies less."""
    module.eval()
    made = deepcopy(module.state_dict())
    before = _amplification(module, example)
    _see_a_batch(module, tuple(example.shape[2:]))
    if before <= _amplification(module, example):
        module.load_state_dict(made)


def export(family: Family, path: Path) -> None:
    """Write the network to `path` as `compress` would export it, BatchNorms kept, the batch axis free."""
    module, example = module_of(family)
    save_model(export_module(module, example), path)


def _amplification(module: torch.nn.Module, example: torch.Tensor) -> float:
    """Return the largest relative change of an output when the input changes by 1e-6; infinite where it overflows."""
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        first, second = (tensors_of(module(item)) for item in (example, example + 1e-6 * noise))
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if not bool(torch.isfinite(a).all()):
            return float("inf")
        worst = max(worst, float((a - b).abs().max()) / max(float(a.abs().max()), 1e-6))
    return worst


def tensors_of(outputs: object) -> list[torch.Tensor]:
    """Return the tensors of a network's outputs, however they are nested."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, tuple | list):
        return [tensor for item in outputs for tensor in tensors_of(item)]
    return []


def _see_a_batch(module: torch.nn.Module, size: tuple[int, int]) -> None:
    """Set the statistics of every BatchNorm from one random batch, in the manner of a first training step."""
    norms = [item for item in module.modules() if isinstance(item, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [item.momentum for item in norms]
    module.eval()
    for item in norms:
        item.momentum = 1.0
        item.train()
    try:
        with torch.no_grad():
            module(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2)))
    except Exception:  # a network that can't take two images keeps the statistics that it was made with
        module.eval()
    for item, momentum in zip(norms, momenta, strict=True):
        item.momentum = momentum
        if item.running_var is not None:
            item.running_var.clamp_(min=1e-3)
    module.eval()


def _let_pytorchcv_import() -> None:
    """Stand in for torchvision, which pytorchcv imports for one network that isn't tried here."""
    try:
        import torchvision.ops  # noqa: F401
    except (ImportError, RuntimeError):
        vision, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        ops.DeformConv2d = None  # type: ignore[attr-defined]
        vision.ops = ops  # type: ignore[attr-defined]
        sys.modules |= {"torchvision": vision, "torchvision.ops": ops}
