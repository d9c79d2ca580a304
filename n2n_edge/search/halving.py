"""Successive halving: which candidates are evaluated again, and on how many more images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from n2n_edge.search.precision import Base, Depth
from n2n_edge.search.trial import Trial

if TYPE_CHECKING:
    from n2n_edge.training.proxy_evaluation import ShortDistiller

__all__ = ["Rung", "best_by_depth", "finalists_of"]


@dataclass(frozen=True)
class Rung:
    """One step of successive halving: so many of the best are evaluated again, on `times` the images of a candidate.

    Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016.
    """

    finalists: int
    times: int
    make: "Callable[[], ShortDistiller]"


def finalists_of(ranked: Sequence[Trial], most: int, judged: Sequence[Trial] = ()) -> list[Trial]:
    """Return so many trials to evaluate again: half of them the best, then the best of other choices of layers.

    Those that are `judged` on as many images already cost nothing and come besides.

    After a short distillation candidates of the same layers are all but even, and those that have lost fewer layers
    stand better than they will after a long one (benchmarks/peers).
    """
    best = list(ranked[: -(-most // 2)])
    depths = {Base.of(trial.architecture).depth for trial in best}
    chosen = best + [trial for depth, trial in best_by_depth(ranked).items() if depth not in depths]
    return _each_once([*_each_once([*chosen, *ranked])[:most], *judged])


def _each_once(trials: Iterable[Trial]) -> list[Trial]:
    """Return the first trial of each architecture, in order."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(trial.key, trial)
    return list(first.values())


def best_by_depth(ranked: Sequence[Trial]) -> dict[Depth, Trial]:
    """Return the first trial of each choice of layers, in order."""
    best: dict[Depth, Trial] = {}
    for trial in ranked:
        best.setdefault(Base.of(trial.architecture).depth, trial)
    return best
