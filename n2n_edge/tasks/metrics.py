"""What an evaluation tells of a model: its score by labels, fidelity to the teacher, error of values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from n2n_edge.errors import InputError
from n2n_edge.metrics.scores import METRICS, LabelMetric, MetricName

__all__ = ["METRICS", "Evaluation", "LabelMetric", "MetricName"]


@dataclass(frozen=True)
class Evaluation:
    """What `n` images showed; shares in 0..1, None where there is nothing to compare with.

    `score`: what the labels say, in the task's metric: top-1 accuracy of classifiers, mean average precision of
    detectors and of independent classes, mean intersection over union of maps, object keypoint similarity, R² of
    values. `fidelity`: agreement with the teacher, in the same metric with the teacher in the labels' place; for values
    1 minus the squared error in units of the teacher's variance, at least 0, averaged over the channels of each output
    and over the outputs. `error`: what the distillation loss is on these images, where a meter tells it.
    `details` are further figures by name, such as ``mae`` of values (see `DETAILS` in `metrics.scores`). `precision` is
    that of detections at an IoU of 0.5, mean over classes, at recalls of 0, 0.01, ... 1, as COCO has it: with labels
    where there are any, else with the teacher's detections; empty for other tasks, and where no object is there.
    """

    score: float | None
    fidelity: float | None
    n: int
    error: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    precision: tuple[float, ...] = ()

    @property
    def metric(self) -> float:
        """The score where there are labels, else the fidelity."""
        value = self.score if self.score is not None else self.fidelity
        if value is None:
            raise InputError("a model can't be judged without labels and without a teacher: give one of them")
        return value
