"""What torch-pruning makes of the same network: pruned at ratio 0.5 in every layer, then exported to ONNX."""

import io
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from families import Family
from zoo import module_of, tensors_of

__all__ = ["judge_peer"]

_BOUND = 1e-3


def judge_peer(family: Family) -> dict[str, object]:
    """Return how far MACs fell and whether the pruned network's export agrees; raises what torch-pruning raises.

    Pruned by group magnitude with the layers that give the outputs left alone, as torch-pruning's README shows.
    """
    import torch_pruning

    module, example = module_of(family)
    before, _ = torch_pruning.utils.count_ops_and_params(module, example)
    with torch.no_grad():
        wanted = tensors_of(module(example))
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            module,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=_heads(module, wanted),
        )
        pruner.step()
    with torch.no_grad():
        got = tensors_of(module(example))
    after, _ = torch_pruning.utils.count_ops_and_params(module, example)
    error = _export_error(module, example, got)
    return {
        "macs_fall": round(1 - after / before, 3),
        "shapes": [tuple(item.shape) for item in got] == [tuple(item.shape) for item in wanted],
        "onnx_error": error,
        "onnx_agrees": error <= _BOUND,
    }


def _heads(module: torch.nn.Module, outputs: list[torch.Tensor]) -> list[torch.nn.Module]:
    """Layers as wide as an output: the classifier, or the last convolutions of a dense prediction."""
    widths = {int(item.shape[1]) for item in outputs if item.dim() > 1}
    convolutions = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    layers = [item for item in module.modules() if isinstance(item, (torch.nn.Linear, *convolutions))]
    linear = [item for item in layers if isinstance(item, torch.nn.Linear) and item.out_features in widths]
    return linear or [item for item in layers if isinstance(item, convolutions) and item.out_channels in widths]


def _export_error(module: torch.nn.Module, example: torch.Tensor, wanted: list[torch.Tensor]) -> float:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "pruned.onnx"
        torch.onnx.export(module, (example,), str(path), dynamo=False, opset_version=17, input_names=["input"])
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        got = session.run(None, {"input": example.numpy()})
    worst = 0.0
    for tensor, array in zip(wanted, got, strict=True):
        scale = max(float(tensor.abs().max()), 1e-6)
        worst = max(worst, float(np.abs(tensor.numpy() - array).max()) / scale)
    return worst
