"""Order in which a run's channel groups lose their units: found once by data, and kept in its journal."""

from dataclasses import replace

import numpy as np

from n2n_edge.runs.prepare import Prepared
from n2n_edge.runs.schedule import Schedule
from n2n_edge.search.store import Journal
from n2n_edge.training.unit_importance import MOST_IMAGES, data_importance

__all__ = ["with_kept_order", "with_unit_order"]

_KEY = "unit_importance"
_LEAST_IMAGES = 8
_SHARE = 0.04
"""Share of `--minutes` that looking at images for it may take."""


def with_unit_order(prepared: Prepared, journal: Journal, schedule: Schedule, minutes: float | None) -> Prepared:
    """Return what was prepared, its teacher giving up first what its layers miss least (see `data_importance`).

    Runs that were begun by versions without this go on by the weights alone.
    """
    if journal.meta().get(_KEY) is None and next(iter(journal.trials()), None) is None:
        images = MOST_IMAGES
        if minutes is not None and schedule.evaluate_s:
            images = max(_LEAST_IMAGES, min(images, int(_SHARE * minutes * 60 / schedule.evaluate_s)))
        found = data_importance(prepared.teacher, prepared.data, prepared.distilling, images=images)
        journal.set_meta(_KEY, [None if np.isnan(each) else float(each) for each in found])
    return with_kept_order(prepared, journal)


def with_kept_order(prepared: Prepared, journal: Journal) -> Prepared:
    """Return what was prepared with the order that the run's journal keeps, if any."""
    kept = journal.meta().get(_KEY)
    if kept is None:
        return prepared
    importance = np.array([np.nan if each is None else each for each in kept], np.float64)
    return replace(prepared, teacher=prepared.teacher.ranked(importance))
