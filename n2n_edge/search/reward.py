"""Reward of a candidate: compression times accuracy inside the budgets, a graded penalty outside."""

import math
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["compression_reward", "infeasible_reward", "violation"]

_Name = TypeVar("_Name", bound=str)

_SHARPENING = 3.0
_LEAST_PENALTY = 1e-9


def compression_reward(accuracy_ratio: float, cost_ratio: float, target_ratio: float | None = None) -> float:
    """Return ``R = C (2 - C) A / A_teacher`` in [0, 1], with ``C = 1 - cost / cost_teacher``.

    `accuracy_ratio` is A / A_teacher and `cost_ratio` cost / cost_teacher, both against the *original* teacher. The
    form is that of N2N Learning (Ashok et al., ICLR 2018, section 3.3).

    `target_ratio` is the cost ratio that the budgets ask for. Somebody who sets budgets wants the most accurate student
    inside them, yet the plain form keeps paying for compression beyond the budget with accuracy. So C saturates at
    ``1 - target_ratio``: every candidate at or below the target earns the same compression and accuracy alone decides
    between them. Without a target (None) the paper's trade-off stands.

    A candidate that costs more than the teacher earns 0; one that beats the teacher is paid for it up to R = 1.
    """
    if not (math.isfinite(accuracy_ratio) and accuracy_ratio >= 0 and math.isfinite(cost_ratio) and cost_ratio >= 0):
        raise ValueError(f"ratios must be finite and not negative, not {accuracy_ratio} and {cost_ratio}")
    compression = 1.0 - cost_ratio
    if target_ratio is not None:
        compression = min(compression, 1.0 - target_ratio)
    compression = min(max(compression, 0.0), 1.0)
    return min(compression * (2.0 - compression) * accuracy_ratio, 1.0)


def violation(reached: Mapping[_Name, float], limits: Mapping[_Name, float]) -> dict[_Name, float]:
    """Return the budgets that are missed and by how much, ``reached / limit - 1``; empty if all are met.

    A budget whose figure is not in `reached` yet doesn't count. A figure that is not a number counts as infinitely far
    off. Raises ValueError for a limit that isn't positive.
    """
    excesses = {
        name: (math.inf if math.isnan(reached[name]) else reached[name]) / _positive(name, limit) - 1.0
        for name, limit in limits.items()
        if name in reached
    }
    return {name: excess for name, excess in excesses.items() if excess > 0}


def infeasible_reward(excesses: Mapping[str, float], progress: float) -> float:
    """Return the reward in [-1, 0) of a candidate that misses budgets by `excesses` (see `violation`).

    ``-s / (1 + s)`` with ``s = (1 + 3 progress) log(1 + sum of excesses)``: it falls with every excess, on a log scale
    so that there is a slope to follow from ten times over the budget as well as from a tenth over. `progress` in [0, 1]
    is the share of the search that is done; as it grows, the same miss costs more.

    Raises ValueError if nothing is missed: such a candidate has a reward of its own.
    """
    if not excesses or not all(excess > 0 for excess in excesses.values()):
        raise ValueError(f"an infeasible candidate misses at least one budget; excesses were {dict(excesses)}")
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress must be between 0 and 1, not {progress}")
    severity = (1.0 + _SHARPENING * progress) * math.log1p(math.fsum(excesses.values()))
    if math.isinf(severity):
        return -1.0
    return -max(severity / (1.0 + severity), _LEAST_PENALTY)


def _positive(name: str, limit: float) -> float:
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f"the limit for {name} must be positive, not {limit}")
    return limit
