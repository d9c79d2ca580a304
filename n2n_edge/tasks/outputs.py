"""What a model's outputs mean: scores of classes, in which form, or values of any other kind.

Outputs are those that a student learns to give (`learned_outputs`).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.graph.free_batch import takes_one_image
from n2n_edge.graph.learned import learned_outputs
from n2n_edge.graph.op import op_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "OUTPUTS_NAMES",
    "OutputKind",
    "OutputsChoice",
    "OutputsName",
    "as_tuple",
    "choose_outputs",
    "class_count",
    "last_op_of",
    "output_kind",
    "output_size",
]

OutputsName = Literal["classes", "values"]
"""``classes``: one output of scores, compared by the largest. ``values``: numbers, compared by normalised errors."""

OUTPUTS_NAMES: tuple[OutputsName, ...] = ("classes", "values")

OutputKind = Literal["logits", "probabilities", "log_probabilities", "other"]

_PASSING = ("same", "reshaped", "cast")
_BOUNDED = ("Sigmoid", "HardSigmoid", "Tanh")
_SOFTMAX: dict[str, OutputKind] = {"Softmax": "probabilities", "LogSoftmax": "log_probabilities"}
_NAMES_OF_SCORES = ("logit", "prob", "class", "score", "softmax")


@dataclass(frozen=True)
class OutputsChoice:
    """What the outputs are taken as, and why."""

    name: OutputsName
    reason: str


def output_kind(model: ir.Model, outputs: OutputsName | None = None) -> OutputKind:
    """Tell in which form the outputs are; ``other`` are compared as plain numbers.

    `outputs` is what they were taken as (see `choose_outputs`). None goes by the graph alone: one output `(N, classes)`
    of at least two is taken for scores; independent ones (a final Sigmoid), several outputs and more axes are not.
    """
    if outputs == "values" or _width(model) is None:
        return "other"
    last = _last_op(model)
    if last in _BOUNDED:
        return "other" if outputs is None else "logits" if last == "Tanh" else "probabilities"
    return _SOFTMAX.get(last, "logits")


def class_count(model: ir.Model, outputs: OutputsName | None = None) -> int | None:
    """Return how many classes the output has scores for, None where it isn't scores of classes or leaves that free."""
    width = _width(model)
    return width if width and output_kind(model, outputs) != "other" else None


def output_size(model: ir.Model) -> int | None:
    """Return how many numbers an image's only output has, None for several outputs or free sizes."""
    outputs = learned_outputs(model)
    if len(outputs) != 1:
        return None
    shape = _by_image(model, outputs[0])
    sizes = [] if shape is None else shape[1:]
    whole = [size for size in sizes if isinstance(size, int)]
    return math.prod(whole) if shape is not None and len(whole) == len(sizes) else None


def choose_outputs(
    model: ir.Model, wanted: OutputsName | None, *, labels: int | None, numeric_labels: bool
) -> OutputsChoice:
    """Decide what the outputs are taken as: as `wanted`, else from the graph and the labels.

    `labels` is how many classes the data names, None where it names none; `numeric_labels` says that its labels are
    numbers of another kind, such as coordinates.

    Raises:
        InputError: `wanted`, or the end of the graph, says classes, and the outputs or the labels aren't.
    """
    shape = _described(model)
    if wanted == "values":
        return OutputsChoice("values", "as asked")
    if wanted == "classes" and _width(model) is None:
        raise InputError(f"‹task› classification: the teacher gives {shape}, not (N, classes); give ‹task› regression")
    last = _last_op(model)
    if wanted == "classes" or last in _SOFTMAX:
        if numeric_labels:
            raise InputError(
                "the labels are neither class numbers nor one-hot rows, but the outputs are classes "
                f"({'‹task› classification' if wanted else f'the graph ends in {last}'}); give class numbers, or "
                "‹task› regression"
            )
        return OutputsChoice("classes", "as asked" if wanted else f"the graph ends in {last}")
    if _width(model) is None:
        return OutputsChoice("values", f"the teacher gives {shape}")
    if last in _BOUNDED:
        return OutputsChoice("values", f"the graph ends in {last}; for scores of classes give --task classification")
    if numeric_labels:
        return OutputsChoice("values", "the labels are no class numbers")
    if labels is not None:
        return OutputsChoice("classes", f"labels of {labels} classes; for anything else give --task regression")
    name = str(learned_outputs(model)[0].name)
    if any(part in name.lower() for part in _NAMES_OF_SCORES):
        return OutputsChoice("classes", f"the output is called '{name}'; for anything else give --task regression")
    return OutputsChoice("values", f"{shape} and no labels; for scores of classes give --task classification")


def _width(model: ir.Model) -> int | None:
    """Return the size of a single output `(N, K)` with K of at least 2, nought where it is free; else None."""
    outputs = learned_outputs(model)
    if len(outputs) != 1:
        return None
    shape = _by_image(model, outputs[0])
    if shape is None:
        return 0
    if len(shape) != 2 or shape[1] == 1:
        return None
    return shape[1] if isinstance(shape[1], int) else 0


def _last_op(model: ir.Model) -> str:
    return last_op_of(learned_outputs(model)[0])


def last_op_of(value: ir.Value) -> str:
    """Return the op that makes a value, past those that only hand it on."""
    producer = value.producer()
    while producer is not None and op_of(producer).form in _PASSING and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return "" if producer is None else producer.op_type


def _described(model: ir.Model) -> str:
    outputs = learned_outputs(model)
    if len(outputs) != 1:
        return f"{len(outputs)} outputs"
    shape = _by_image(model, outputs[0])
    if shape is None:
        return "an output of unknown shape"
    return f"({', '.join(['N', *map(str, shape[1:])])})"


def _by_image(model: ir.Model, output: ir.Value) -> list[int | str] | None:
    """Return the sizes of an output with an axis for the image, which the outputs of a model for one may lack."""
    if output.shape is None:
        return None
    sizes: list[int | str] = [size if isinstance(size, int) else str(size.value) for size in output.shape]
    lacks_it = not sizes or (isinstance(sizes[0], int) and sizes[0] != 1)
    return ["N", *sizes] if lacks_it and takes_one_image(model) else sizes


def as_tuple(outputs: "Tensor | tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    """Give a module's outputs as a tuple."""
    return outputs if isinstance(outputs, tuple) else (outputs,)
