"""What an evaluation tells of a model: accuracy by labels, fidelity to the teacher, error of values."""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from n2n_edge.data.dataset import Data
from n2n_edge.errors import InputError
from n2n_edge.tasks.outputs import output_kind

__all__ = ["Evaluation", "MetricName", "metric_name"]

MetricName = Literal["accuracy", "fidelity"]


@dataclass(frozen=True)
class Evaluation:
    """What `n` images showed; shares in 0..1, None where there is nothing to compare with.

    `accuracy`: top-1 agreement with the labels. `fidelity`: top-1 agreement with the teacher for classifiers; for any
    other model 1 minus the squared error in units of the teacher's variance, at least 0, averaged over the channels of
    each output and over the outputs. `error`: what `distillation_loss` is on these images; None for classifiers.
    `label_error`: the mean absolute difference from labels that are values, in their units.
    """

    accuracy: float | None
    fidelity: float | None
    n: int
    error: float | None = None
    label_error: float | None = None

    @property
    def metric(self) -> float:
        """The accuracy where there are labels, else the fidelity."""
        value = self.accuracy if self.accuracy is not None else self.fidelity
        if value is None:
            raise InputError("a model can't be judged without labels and without a teacher: give one of them")
        return value


def metric_name(model: ir.Model, data: Data) -> MetricName:
    """Name what a model is judged by on this data: accuracy for classifiers with labels, else fidelity."""
    return "accuracy" if data.labelled and output_kind(model, data.outputs) != "other" else "fidelity"
