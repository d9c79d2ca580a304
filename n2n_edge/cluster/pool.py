"""Evaluations on workers of Ray: what a worker loses is begun again elsewhere, so often, then counts as failed."""

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from n2n_edge.cluster.connection import Connection
from n2n_edge.cluster.losses import first_words, lacks_memory, reason_of
from n2n_edge.cluster.worker import versions
from n2n_edge.errors import N2NError, UnsuitableEnvironmentError, first_line
from n2n_edge.search.evaluations import AHEAD, Evaluations, Outcome, Pending, Request, SharedDistiller
from n2n_edge.watchdog import STALL_VARIABLE, Limits

if TYPE_CHECKING:
    import ray

__all__ = ["RayEvaluations"]

_LOOK_S = 1.0
"""How often workers are looked after that say nothing."""

_PING_S = 10.0
_NO_WORKER_S = 600.0
"""What the first worker may take to start, and the next one where all have gone."""

_STARTS = 3
"""Workers that may end before they have started, for each of those wanted, without one that starts."""

_ENVIRONMENT = (STALL_VARIABLE, "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "N2N_EDGE_DATA")
"""Variables that workers take over: they decide what an evaluation does."""


@dataclass(eq=False)
class _Worker:
    """A worker that starts (`ready` is what it will say first), waits, or evaluates (`task`)."""

    actor: Any
    ready: "ray.ObjectRef | None" = None
    name: str = ""
    task: "ray.ObjectRef | None" = None
    pending: Pending | None = None
    ping: "ray.ObjectRef | None" = None
    heard: float = 0.0

    @property
    def awaited(self) -> "ray.ObjectRef | None":
        return self.ready if self.ready is not None else self.task


class RayEvaluations(Evaluations):
    """Evaluations on so many workers at once, each with `threads` of torch and, if `gpu`, a GPU or its share of one.

    `cluster` is ``local`` (Ray is started on this machine for the time being), ``auto`` or ``ray://host:port``;
    `workers` None takes as many as a cluster has room for. Teacher, images and the teacher's outputs go to each node
    once, through Ray's object store. What a worker loses (it ends, its node goes, it doesn't answer, no memory is left)
    is begun again up to `retries` times; ``tell`` gets a line each time. Nothing is started before it is needed.
    """

    aside = True

    def __init__(
        self,
        workers: int | None,
        cluster: str = "local",
        *,
        threads: int = 1,
        gpu: bool = False,
        retries: int = 2,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._wanted, self._cluster, self._threads, self._gpu = workers, cluster, threads, gpu
        self._retries, self._tell = retries, tell
        self._limits = Limits.from_environment()
        self._connection: Connection | None = None
        self._workers: list[_Worker] = []
        self._queue: deque[Pending] = deque()
        self._references: WeakKeyDictionary[SharedDistiller, ray.ObjectRef] = WeakKeyDictionary()
        self._lost_starts = 0
        self._share = 0.0
        self._working = time.monotonic()
        """When a worker was last there."""

    @property
    def width(self) -> int:  # type: ignore[override]
        """How many workers there are to be; connects to find out how many a cluster has room for."""
        if self._wanted is None:
            self._connect()
        return self._wanted or 1

    def begin(self, request: Request) -> Pending:
        """Hand an evaluation to a worker, or put it in line."""
        self._connect()
        self._reference(request.distiller)
        pending = Pending(request)
        self._queue.append(pending)
        self._assign()
        if self._queue:
            self._hear(0.0)
            self._assign()
        return pending

    @property
    def full(self) -> bool:
        """Whether every worker has something to do, and the next ones to end will find something."""
        return len(self._queue) + sum(worker.pending is not None for worker in self._workers) >= self.width + AHEAD

    def wait(self) -> None:
        """Wait until one more evaluation has ended or failed for good; workers that are lost are replaced meanwhile."""
        look_s = _LOOK_S if self._limits is None else min(_LOOK_S, self._limits.stall_s / 4)
        while self._queue or any(worker.pending is not None for worker in self._workers):
            self._assign()
            ended = self._hear(look_s)
            if self._look_after() or ended:
                self._assign()
                return

    def _hear(self, most_s: float) -> bool:
        """Take what workers say, waiting for it up to `most_s`; tell whether an evaluation has ended with it."""
        import ray

        awaited = {worker.awaited: worker for worker in self._workers if worker.awaited is not None}
        try:
            done, others = ray.wait(list(awaited), num_returns=1, timeout=most_s)
            done += ray.wait(others, num_returns=len(others), timeout=0)[0] if others else []
        except (ConnectionError, ray.exceptions.RaySystemError) as error:
            raise self._gone(error) from error
        ended = [self._settle(awaited[reference]) for reference in done]
        return any(ended)

    def settle(self) -> None:
        """Wait for workers that are starting; those of a cluster that is reached by an address are elsewhere."""
        import ray

        while self._cluster in ("local", "auto"):
            starting = {worker.ready: worker for worker in self._workers if worker.ready is not None}
            if not starting:
                return
            for reference in ray.wait(list(starting), num_returns=1, timeout=_LOOK_S)[0]:
                self._settle(starting[reference])
            self._look_after()

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        if self._connection is not None:
            import ray

            for worker in self._workers:
                self._kill(ray, worker)
            self._workers = []
            self._references.clear()
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        if self._connection is not None:
            return
        gpus, share = 0.0, 0.0
        if self._gpu:
            import torch

            gpus = float(torch.cuda.device_count()) if self._cluster == "local" else 0.0
            share = min(1.0, gpus / (self._wanted or 1)) if self._cluster == "local" else 1.0
        self._connection = Connection(self._cluster, (self._wanted or 1) * self._threads, gpus)
        import ray

        from n2n_edge.cluster import worker as module

        ray.cloudpickle.register_pickle_by_value(module)
        room = sum(_room(node["Resources"], self._threads, share) for node in ray.nodes() if node["Alive"])
        if self._wanted is None:
            if room < 1:
                self.close()
                raise UnsuitableEnvironmentError(
                    f"‹cluster› {self._cluster}: no node has {self._needs} for a worker; begin the run with fewer "
                    "threads (OMP_NUM_THREADS), or add nodes"
                )
            self._wanted = room
        self._share = share
        self._working = time.monotonic()
        self._workers = [self._started() for _ in range(self._wanted)]
        fewer = f", {room} of them at once as it is now" if room < self._wanted else ""
        where = "this machine" if self._cluster == "local" else f"cluster {self._cluster}"
        self._tell(f"evaluating on {self._wanted} workers of {where}{fewer}, {self._threads} threads each")

    def _started(self) -> _Worker:
        import ray

        from n2n_edge.cluster.worker import Worker

        actor_class: Any = ray.remote(
            num_cpus=self._threads, num_gpus=self._share, max_restarts=0, concurrency_groups={"control": 1}
        )(Worker)
        actor = actor_class.remote(
            self._threads, {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        )
        return _Worker(actor, actor.hello.options(concurrency_group="control").remote())

    def _reference(self, distiller: SharedDistiller) -> "ray.ObjectRef":
        """Return the distiller in the object store, put there once."""
        import ray

        reference = self._references.get(distiller)
        if reference is None:
            made = distiller.get()
            try:
                reference = ray.put(made)
            except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
                raise UnsuitableEnvironmentError(
                    f"Ray's object store has no room for what evaluates {distiller.name} ({first_line(error)}); give "
                    "it more (`ray start --object-store-memory`) or more disk, and go on with ‹resume›"
                ) from error
            except (TypeError, AttributeError) as error:
                raise UnsuitableEnvironmentError(
                    f"what evaluates {distiller.name} can't be sent to another process ({first_line(error)}); a task "
                    "or an augmentation of your own has to be picklable, or leave ‹workers› and ‹cluster› out"
                ) from error
            self._references[distiller] = reference
            del made
            distiller.release()
        return reference

    def _assign(self) -> None:
        """Give what is in line to the workers that have nothing to do."""
        for worker in self._workers:
            if not self._queue:
                return
            if worker.ready is None and worker.pending is None:
                pending = self._queue.popleft()
                reference = self._reference(pending.request.distiller)
                worker.pending, worker.heard, worker.ping = pending, time.monotonic(), None
                worker.task = worker.actor.evaluate.remote([reference], reference.hex(), pending.request.make())

    def _settle(self, worker: _Worker) -> bool:
        """Take what a worker has said; tell whether an evaluation has ended with it."""
        import ray

        if worker.ready is not None:
            self._introduced(worker)
            return False
        pending, worker.pending, task, worker.task = worker.pending, None, worker.task, None
        if pending is None:
            return False
        try:
            pending.outcome = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return self._raised(worker, pending, error)
        except ray.exceptions.RayError as error:
            self._replace(worker)
            return self._lost(pending, reason_of(error, worker.name))
        self._working = time.monotonic()
        return True

    def _introduced(self, worker: _Worker) -> None:
        """Take a worker's first words: refuse other versions than those here, replace one that didn't come so far."""
        import ray

        reference, worker.ready = worker.ready, None
        try:
            theirs, node, process = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._lost_starts += 1
            if self._lost_starts >= _STARTS * len(self._workers):
                raise UnsuitableEnvironmentError(
                    f"‹cluster› {self._cluster}: workers end before they have started ({first_words(error)}); see the "
                    "logs of Ray on its nodes"
                ) from error
            self._replace(worker)
            return
        self._lost_starts, self._working = 0, time.monotonic()
        worker.name = f"{node} (process {process})"
        for name, own in versions().items():
            if theirs.get(name) != own:
                raise UnsuitableEnvironmentError(
                    f"‹cluster› {self._cluster}: {node} has {name} {theirs.get(name)}, this machine has {own}; results "
                    "depend on it: install the same on every node"
                )

    def _raised(self, worker: _Worker, pending: Pending, error: Any) -> bool:
        """Pass on what an evaluation raised, as if it had been called here; what the node lacked is a loss."""
        import ray

        cause = error.cause
        if isinstance(cause, ray.exceptions.RayError):  # the distiller couldn't be fetched: it is put there again
            self._references.pop(pending.request.distiller, None)
            return self._lost(pending, f"what it needs was lost on {worker.name}")
        if lacks_memory(cause):
            self._replace(worker)
            return self._lost(pending, f"no memory was left on {worker.name}")
        if isinstance(cause, N2NError):
            raise cause from error
        if isinstance(cause, ImportError):
            raise UnsuitableEnvironmentError(
                f"{worker.name}: {first_line(cause)}; modules that this run takes from you have to be importable on "
                "every node"
            ) from error
        raise error.as_instanceof_cause()

    def _lost(self, pending: Pending, why: str) -> bool:
        """Put an evaluation in line again, first of all, or give it up; tell whether it has ended with that."""
        pending.tries += 1
        what = pending.request.what
        if pending.tries <= self._retries:
            self._tell(f"{what}: {why}; begun again ({pending.tries} of {self._retries})")
            self._queue.appendleft(pending)
            return False
        pending.outcome = Outcome(failed=f"{why}, after {pending.tries - 1} other tries" if self._retries else why)
        return True

    def _look_after(self) -> bool:
        """Ask workers at work whether they are there, and give up those that don't answer; tell as `_settle` does."""
        import ray

        now, ended = time.monotonic(), False
        if any(worker.ready is None for worker in self._workers):
            self._working = now
        elif now - self._working > _NO_WORKER_S:
            raise UnsuitableEnvironmentError(
                f"‹cluster› {self._cluster}: no worker has started within {_NO_WORKER_S:.0f} s; look whether it has "
                f"nodes with {self._needs}, then go on with ‹resume›"
            )
        for worker in self._workers:
            if worker.pending is None:
                continue
            if worker.ping is not None and ray.wait([worker.ping], timeout=0)[0]:
                try:
                    for text in ray.get(worker.ping):
                        self._tell(f"{worker.pending.request.what} on {worker.name}: {text}")
                    worker.heard = now
                except ray.exceptions.RayError:
                    pass  # its task tells
                worker.ping = None
            if worker.ping is None and now - worker.heard > min(_PING_S, self._stall_s / 4):
                worker.ping = worker.actor.ping.options(concurrency_group="control").remote()
            if now - worker.heard > self._stall_s:
                pending, worker.pending, worker.task = worker.pending, None, None
                self._replace(worker)
                ended |= self._lost(pending, f"{worker.name} hasn't answered for {self._stall_s:.0f} s")
        return ended

    @property
    def _needs(self) -> str:
        return f"{self._threads} free cores{' and a GPU' if self._gpu else ''}"

    @property
    def _stall_s(self) -> float:
        return float("inf") if self._limits is None else self._limits.stall_s

    def _replace(self, worker: _Worker) -> None:
        """Put a new worker in the place of one that is lost."""
        import ray

        self._kill(ray, worker)
        self._workers[self._workers.index(worker)] = self._started()

    @staticmethod
    def _kill(ray: Any, worker: _Worker) -> None:
        try:
            ray.kill(worker.actor)
        except Exception:  # it is gone, or Ray is
            return

    def _gone(self, error: Exception) -> UnsuitableEnvironmentError:
        return UnsuitableEnvironmentError(
            f"‹cluster› {self._cluster}: the connection to Ray is lost ({first_line(error)}); go on with ‹resume›, "
            "without the candidates under way"
        )


def _room(resources: dict[str, float], threads: int, share: float) -> int:
    """Return how many workers a node has room for."""
    room = int(resources.get("CPU", 0.0) // threads)
    return min(room, int(resources.get("GPU", 0.0) / share)) if share else room
