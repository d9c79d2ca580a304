"""Outputs of a model of images, read together with the labels of data."""

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import onnx_ir as ir

from n2n_edge.tasks.outputs import OutputsChoice, OutputsName, choose_outputs, output_size

if TYPE_CHECKING:
    from n2n_edge.data.dataset import Data, Split  # needs Pillow at run time, the rest here does not

__all__ = ["OUTPUTS_KEY", "as_outputs_name", "read_outputs"]

OUTPUTS_KEY = "n2n_edge.outputs"
"""Metadata of an ONNX file: what its outputs were taken as."""


def as_outputs_name(text: str | None) -> OutputsName | None:
    """Return a name that settings or metadata hold, None for any other text."""
    return cast("OutputsName", text) if text in ("classes", "values") else None


def read_outputs(model: ir.Model, data: "Data", wanted: OutputsName | None) -> "tuple[Data, OutputsChoice]":
    """Decide what the outputs are taken as, and return the data for it.

    Labels that are values stay where there is one for each number of a single output. Class numbers are values where
    the output is one number an image.

    Raises:
        InputError: classes are wanted, and the outputs or the labels aren't.
    """
    labelled = data.labelled
    choice = choose_outputs(
        model,
        wanted,
        labels=len(data.class_names) if labelled else None,
        numeric_labels=data.train.targets is not None,
    )
    data = replace(data, outputs=choice.name)
    if choice.name == "classes":
        return data, choice
    size = output_size(model)
    parts = [_with_targets(part, size) for part in (data.train, data.validation, data.test)]
    if any(part.targets is None for part in parts):
        parts = [replace(part, targets=None) for part in parts]
        if labelled or data.train.targets is not None:
            choice = replace(choice, reason=f"{choice.reason}; the labels don't count, fidelity to the teacher does")
    train, validation, test = parts
    return replace(data, train=train, validation=validation, test=test), choice


def _with_targets(part: "Split", size: int | None) -> "Split":
    targets = part.targets
    if targets is None and part.labels is not None and size == 1:
        targets = part.labels.astype("float32").reshape(-1, 1)
    return replace(part, targets=targets if targets is not None and targets.shape[1] == size else None)
