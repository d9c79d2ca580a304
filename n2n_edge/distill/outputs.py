"""What a model's outputs mean: scores of classes, in which form, or anything else."""

from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor

__all__ = ["OutputKind", "as_logits", "as_tuple", "output_kind"]

OutputKind = Literal["logits", "probabilities", "log_probabilities", "other"]

_PASSING = ("Identity", "Reshape", "Flatten", "Squeeze", "Cast", "Dropout")
_BOUNDED = ("Sigmoid", "HardSigmoid", "Tanh")


def output_kind(model: ir.Model) -> OutputKind:
    """Tell what the outputs are: scores of classes are one output `(N, classes)` with at least two classes.

    A final Softmax or LogSoftmax makes them (log-)probabilities. Independent scores (a final Sigmoid), several outputs,
    and outputs with more axes are ``other``: they are compared as plain numbers.
    """
    if len(model.graph.outputs) != 1:
        return "other"
    value: ir.Value | None = model.graph.outputs[0]
    shape = None if value is None else value.shape
    if shape is not None and (len(shape) != 2 or shape[1] == 1):
        return "other"
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in _PASSING and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None:
        return "logits"
    if producer.op_type in _BOUNDED:
        return "other"
    return {"Softmax": "probabilities", "LogSoftmax": "log_probabilities"}.get(producer.op_type, "logits")  # type: ignore[return-value]


def as_logits(output: Tensor, kind: OutputKind) -> Tensor:
    """Give scores whose softmax is the model's distribution, in float32 (the logarithm of probabilities is that)."""
    output = output.float()
    return output.clamp_min(1e-12).log() if kind == "probabilities" else output


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give a module's outputs as a tuple."""
    return (outputs,) if isinstance(outputs, torch.Tensor) else outputs
