"""Several processes that train together, and what the first of them tells while it does."""

import multiprocessing
import queue
from collections.abc import Callable, Iterator
from threading import Thread
from typing import TYPE_CHECKING, Any

from n2n_edge.errors import UnsuitableEnvironmentError
from n2n_edge.training.compute import Engine
from n2n_edge.training.fabric import launch
from n2n_edge.training.settings import Format
from n2n_edge.watchdog import step

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["run_together"]

_LOOK_S = 0.2
"""How often the processes are looked after while they say nothing."""


class _Sealed:
    """Keeps the library from looking for tensors in what it only has to hand over."""

    def __init__(self, item: object) -> None:
        self.item = item


def run_together(work: Callable[..., None], engine: Engine, processes: int, given: object) -> Iterator[object]:
    """Run ``work(engine, given, tell)`` in so many new processes and yield what they tell.

    Each gets an engine of its own. What the first hands to ``tell`` comes in its order. The processes end with this
    iterator, however it ends.

    Raises:
        UnsuitableEnvironmentError: one of them ended before its work was done.
    """
    told: Any = multiprocessing.get_context("spawn").Queue()
    before = set(multiprocessing.active_children())
    failures: list[BaseException] = []

    def start() -> None:
        try:
            launch(
                _begin, engine.device, engine.number_format, processes, work, _Sealed(given), told, engine.number_format
            )
        except BaseException as error:
            failures.append(error)

    thread = Thread(target=start, daemon=True)
    thread.start()
    try:
        while True:
            with step("training step of several processes"):
                report = _next(told, thread)
            if report is None:
                break
            yield report
    finally:
        if thread.is_alive():
            for child in set(multiprocessing.active_children()) - before:
                child.kill()
        thread.join()
        told.close()
    if failures:
        words = str(failures[0]).strip().splitlines()
        raise UnsuitableEnvironmentError(
            f"one of {processes} processes that train together ended: {words[-1] if words else failures[0]!r}; "
            "the run can be resumed"
        ) from failures[0]


def _next(told: Any, thread: Thread) -> object | None:
    """Return what is told next; None once all processes have ended and nothing is left."""
    while True:
        ended = not thread.is_alive()
        try:
            report: object = told.get(timeout=0.0 if ended else _LOOK_S)
        except queue.Empty:
            if ended:
                return None
            continue
        return report


def _begin(fabric: "Fabric", work: Callable[..., None], given: _Sealed, told: Any, number_format: Format) -> None:
    work(Engine(fabric.device, number_format, fabric), given.item, told.put)
    told.close()
    told.join_thread()
