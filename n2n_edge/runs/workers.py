"""Where a run's candidates are trained: in its own process, or on workers of Ray."""

from collections.abc import Callable
from importlib.util import find_spec

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.evaluations import WAY_ON, Evaluations, InProcess

__all__ = ["check_workers", "evaluations_of", "on_workers"]


def check_workers(settings: CompressSettings) -> None:
    """Raise UnsuitableEnvironmentError where workers are asked for and Ray isn't installed, or doesn't answer there."""
    if not on_workers(settings):
        return
    if find_spec("ray") is None:
        asked = "workers" if settings.cluster is None else "cluster"
        raise UnsuitableEnvironmentError(
            f"‹{asked}› {getattr(settings, asked)}: needs Ray, which is not installed; run: "
            'pip install "n2n-edge[cluster]", or leave it out'
        )
    if settings.cluster is not None and settings.cluster.startswith("ray://"):
        from n2n_edge.cluster.connection import check_answers

        check_answers(settings.cluster)


def evaluations_of(
    settings: CompressSettings, *, gpu: bool, tell: Callable[[str], None], way_on: str = WAY_ON
) -> Evaluations:
    """Return what evaluates the candidates of a run that has its number of threads; `gpu`: it trains on one.

    `way_on` says what to do where the workers are lost for good.
    """
    if not on_workers(settings):
        return InProcess()
    from n2n_edge.cluster.pool import RayEvaluations

    return RayEvaluations(
        settings.workers,
        settings.cluster or "local",
        threads=settings.threads or 1,
        gpu=gpu,
        retries=settings.retries,
        tell=tell,
        way_on=way_on,
    )


def on_workers(settings: CompressSettings) -> bool:
    """Tell whether candidates go to workers."""
    return settings.cluster is not None or (settings.workers or 1) > 1
