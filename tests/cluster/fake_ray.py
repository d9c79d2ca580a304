"""A stand-in for Ray whose workers are threads: what the pool does with losses, at no cost and without a port.

It has what `n2n_edge.cluster` uses. A worker that raises `Died` is gone as if its process were, and one that raises
`Frozen` says nothing any more. Objects are pickled on their way, as they are to another process. One task is done at a
time, since torch has settings for the whole process.
"""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any


class Died(BaseException):
    """The end of a worker's process."""


class Frozen(BaseException):
    """A worker's process that is there and does nothing."""


class RayError(Exception):
    """Base of Ray's errors."""


class RayTaskError(RayError):
    """What a task raised."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause

    def as_instanceof_cause(self) -> BaseException:
        return self.cause


class RayActorError(RayError):
    """A worker that has gone."""


class RaySystemError(RayError):
    """Ray itself that has gone."""


class ObjectStoreFullError(RayError):
    """No room."""


class OutOfDiskError(RayError):
    """No room there, either."""


_at_work = threading.Lock()


class Reference:
    """A result that comes, or an object in the store."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def hex(self) -> str:
        return f"{id(self):x}"


class _Actor:
    def __init__(self, make: Callable[[], Any]) -> None:
        self.object = make()
        self.tasks = ThreadPoolExecutor(1)
        self.pending: set[Reference] = set()
        self.gone, self.frozen = False, False
        self.lock = threading.Lock()

    def end(self, why: str) -> None:
        with self.lock:
            self.gone, lost, self.pending = True, self.pending, set()
        for reference in lost:
            reference.future.set_exception(RayActorError(why))
        self.tasks.shutdown(wait=False)

    def call(self, name: str, given: Sequence[Any], *, aside: bool) -> Reference:
        reference = Reference()
        if self.gone:
            reference.future.set_exception(RayActorError("The actor is dead"))
            return reference
        self.pending.add(reference)
        if self.frozen:
            return reference
        # references stay what they are
        sent = [each if isinstance(each, list) else pickle.loads(pickle.dumps(each)) for each in given]

        def work() -> None:
            try:
                with nullcontext() if aside else _at_work:
                    found = getattr(self.object, name)(*sent)
            except Died:
                self.end("The actor died unexpectedly")
                return
            except Frozen:
                self.frozen = True
                return
            except Exception as error:
                self.answer(reference, error=RayTaskError(error))
            else:
                self.answer(reference, found=found)

        if aside:
            work()
        else:
            self.tasks.submit(work)
        return reference

    def answer(self, reference: Reference, found: object = None, error: Exception | None = None) -> None:
        with self.lock:
            if reference not in self.pending:
                return
            self.pending.remove(reference)
        if error is None:
            reference.future.set_result(found)
        else:
            reference.future.set_exception(error)


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self.actor, self.name = actor, name
        self.aside = getattr(getattr(actor.object, name), "group", None) == "control"

    def remote(self, *given: object) -> Reference:
        return self.actor.call(self.name, given, aside=self.aside)


class _Handle:
    def __init__(self, actor: _Actor) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> _Method:
        return _Method(self._actor, name)


def fake_ray(cpus: int = 4) -> ModuleType:
    """Return a module that stands for Ray, running already, with so many cores."""
    ray: Any = ModuleType("ray")
    ray.__spec__ = ModuleSpec("ray", None)
    actors: list[_Actor] = []

    def remote(**options: object) -> Callable[[type], Any]:
        def of(kind: type) -> Any:
            def start(*given: object) -> _Handle:
                actors.append(_Actor(lambda: kind(*given)))
                return _Handle(actors[-1])

            return SimpleNamespace(remote=start)

        return of

    def put(value: object) -> Reference:
        reference = Reference()
        reference.future.set_result(pickle.loads(pickle.dumps(value)))
        return reference

    def wait(
        references: Sequence[Reference], *, num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Reference], list[Reference]]:
        wait_for([each.future for each in references], timeout, FIRST_COMPLETED)
        done = [each for each in references if each.future.done()][:num_returns]
        return done, [each for each in references if each not in done]

    def method(concurrency_group: str) -> Callable[[Any], Any]:
        def of(function: Any) -> Any:
            function.group = concurrency_group
            return function

        return of

    ray.remote, ray.put, ray.wait, ray.method = remote, put, wait, method
    ray.get = lambda reference: reference.future.result(0)
    ray.kill = lambda handle: handle._actor.end("killed")
    ray.nodes = lambda: [{"Alive": True, "Resources": {"CPU": float(cpus)}}]
    ray.is_initialized = lambda: True
    ray.shutdown = lambda: None
    ray.actors = actors
    ray.cloudpickle = SimpleNamespace(register_pickle_by_value=lambda module: None)
    ray.exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, RayActorError=RayActorError, RaySystemError=RaySystemError,
        ObjectStoreFullError=ObjectStoreFullError, OutOfDiskError=OutOfDiskError,
    )  # fmt: skip
    return ray
