"""The number of threads that a run calculates with: that which it was begun with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from n2n_edge.runs.observer import Observer
from n2n_edge.runs.settings import CompressSettings

__all__ = ["threads_of_run"]


@contextmanager
def threads_of_run(settings: CompressSettings, observer: Observer) -> Iterator[CompressSettings]:
    """Calculate in torch with the run's number of threads while in the block; a run that has none yet takes today's.

    Sums are rounded by how they are shared among threads, so a run can only go on to the same student with its own.
    """
    import torch

    before = torch.get_num_threads()
    threads = settings.threads or before
    if threads != before:
        observer.say(
            f"this run was begun with {threads} thread{'s' if threads > 1 else ''}; it goes on with as many instead of "
            f"{before} (OMP_NUM_THREADS), since its results depend on it"
        )
        torch.set_num_threads(threads)
    try:
        yield replace(settings, threads=threads)
    finally:
        torch.set_num_threads(before)
