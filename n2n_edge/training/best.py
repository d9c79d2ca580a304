"""Choice between states of a student: by the validation metric where it tells them apart, else by the loss."""

from dataclasses import dataclass
from math import isfinite

from n2n_edge.tasks.paired import chance_error
from n2n_edge.tasks.task import Meter

__all__ = ["Validation", "is_better"]


@dataclass(frozen=True)
class Validation:
    """What validation images showed of a student: its metric in 0..1, its distillation loss, and their meter.

    The loss is infinite where there is none.
    """

    metric: float
    loss: float
    meter: Meter


def is_better(new: Validation, kept: Validation, highest: float) -> bool:
    """Tell whether a student is to be kept instead of another, of those of which the highest metric was `highest`.

    A metric that is higher, or lower than the highest, by more than chance explains (see `chance_error`) decides; else
    the lower loss does, which tells more where images are few. Without losses the higher metric does.
    """
    if not (isfinite(new.loss) or isfinite(kept.loss)) or new.loss == kept.loss:
        return new.metric >= kept.metric
    if new.metric == kept.metric:
        return new.loss < kept.loss
    error = chance_error(kept.meter, new.meter)
    if abs(new.metric - kept.metric) > error:
        return new.metric > kept.metric
    return new.loss < kept.loss and new.metric >= highest - error
