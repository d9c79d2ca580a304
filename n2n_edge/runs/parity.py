"""Proof that the shipped file computes what was trained."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.runs.agreement import MAX_RELATIVE_ERROR, worst_difference
from n2n_edge.training.executor import GraphModule

__all__ = ["MIN_TOP1_AGREEMENT", "Parity", "check_parity"]

MIN_TOP1_AGREEMENT = 0.99
_IMAGES = 256


@dataclass(frozen=True)
class Parity:
    """How torch and ONNX Runtime agree on `n` real images.

    `max_relative_error` is the largest difference of any output element beyond an absolute floor (see `agreement`),
    relative to the largest magnitude of that output; `top1_agreement` is None for outputs that aren't class scores.
    """

    max_relative_error: float
    top1_agreement: float | None
    n: int


def check_parity(trained: ir.Model, shipped: Path, data: Data) -> Parity:
    """Run the trained graph in torch and the shipped file in ONNX Runtime on the same real images and compare.

    Raises:
        UnsuitableEnvironmentError: they differ by more than the bounds of this module; the file must not be used.
    """
    import onnxruntime
    import torch

    from n2n_edge.training.augmentation import normalise

    images = torch.from_numpy(np.ascontiguousarray(data.validation.images[:_IMAGES]))
    inputs = normalise(images, torch.tensor(data.mean), torch.tensor(data.std))
    session = onnxruntime.InferenceSession(str(shipped), providers=["CPUExecutionProvider"])
    declared = session.get_inputs()[0]
    size = declared.shape[0] if isinstance(declared.shape[0], int) else len(inputs)
    module = GraphModule(trained)
    module.eval()
    worst, agreeing, seen = 0.0, 0, 0
    classifier = False
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        count = len(batch)
        if count < size:  # a fixed batch axis: fill up by repeating
            batch = torch.cat([batch] * -(-size // count))[:size]
        with torch.inference_mode():
            outputs = module(batch)
        own = [item.numpy()[:count] for item in (outputs if isinstance(outputs, tuple) else (outputs,))]
        theirs = [item[:count] for item in session.run(None, {declared.name: batch.contiguous().numpy()})]
        worst = max(worst, worst_difference(own, theirs).relative)
        classifier = len(own) == 1 and own[0].ndim == 2 and data.outputs != "values"
        if classifier:
            agreeing += int((own[0].argmax(1) == theirs[0].argmax(1)).sum())
        seen += count
    agreement = agreeing / seen if classifier and seen else None
    if (
        not np.isfinite(worst)
        or worst > MAX_RELATIVE_ERROR
        or (agreement is not None and agreement < MIN_TOP1_AGREEMENT)
    ):
        raise UnsuitableEnvironmentError(
            f"{shipped}: ONNX Runtime and torch differ (relative error {worst:.2g}, bound {MAX_RELATIVE_ERROR:g}; "
            f"top-1 agreement {agreement if agreement is not None else 'not applicable'}); "
            "the file isn't what was trained: don't use it, and report this"
        )
    return Parity(worst, agreement, seen)
