"""Targets that models run on: this host, this host within a profile's limits, or a board over ssh."""

import base64
import hashlib
import os
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2n_edge.closing import ClosedAtExit
from n2n_edge.errors import InputError
from n2n_edge.graph.model_file import check_path, data_files, is_ort, read_external_data, read_proto, to_bytes
from n2n_edge.measure.board import BoardState, environment, usable_cores
from n2n_edge.measure.launch import Launch, worker_archive, worker_arguments
from n2n_edge.measure.messages import Checked, HolderReady, LimitMet, LimitPrepared, Put, State, WorkerReady, parse
from n2n_edge.measure.process import HolderProcess, WorkerProcess
from n2n_edge.measure.worker.state import board_state
from n2n_edge.measure.worker.system import allowed_cpus
from n2n_edge.metrics.figures import Provenance

__all__ = ["HostTarget", "MemoryLimit", "Target", "model_bytes"]

PIECE_BYTES = 3_000_000
CLEAR_UP_S = 10.0
CHECK_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class MemoryLimit:
    """How the memory of each worker is limited: `enforced` by the system, or only watched."""

    limit_bytes: int
    enforced: bool


class Target(ClosedAtExit):
    """Machine that starts workers. Use as a context: what was put there is removed at the end.

    Subclasses say how a worker is launched (`launch`); everything else is the same everywhere.
    """

    name: str
    provenance: Provenance = "measured"
    sends_models = True
    """Whether files have to be sent to the target before it can run them."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._holder_process: HolderProcess | None = None
        self._sent: dict[str, str] = {}
        self._enforced: bool | None = None
        self._checked: Checked | None = None

    @abstractmethod
    def launch(self, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        """Return how a worker is started there, with these arguments, behind the command `prefix`."""

    @property
    def cores(self) -> int:
        """The cores that a measurement uses unless told otherwise."""
        return int(self.describe()["cores"])

    @property
    def affinity(self) -> list[int] | None:
        """The processors that workers are bound to; None for all that are allowed."""
        return None

    @property
    def limit(self) -> MemoryLimit | None:
        """The limit on the memory of each worker."""
        if self._limit_bytes is None:
            return None
        if self._enforced is None:
            self._enforced = bool(self.limit_there().prefix)
        return MemoryLimit(self._limit_bytes, self._enforced)

    def limit_there(self) -> LimitPrepared:
        """Prepare a limit for one worker and return by what means it comes under it; see `worker.memory`."""
        return self._holder().request(LimitPrepared, self.name, CHECK_TIMEOUT_S, bytes=self._limit_bytes)

    def start(self, *, unlimited: bool = False, runtime: str = "onnxruntime") -> WorkerProcess:
        """Start a fresh worker of a runtime, under the limit on memory unless it is to be `unlimited`.

        Raises:
            MeasurementError: no Python or no runtime there; a board that can't be reached.
        """
        if unlimited or self._limit_bytes is None:
            return WorkerProcess(self.launch(("--runtime", runtime)), WorkerReady, self.name)
        means = self.limit_there()
        watched = () if means.prefix else ("--watch-memory", str(self._limit_bytes))
        limited = replace(
            self.launch((*watched, "--runtime", runtime), tuple(means.prefix)),
            limit_bytes=self._limit_bytes,
            was_over_limit=lambda: self._was_over_limit(means.cgroup),
        )
        return WorkerProcess(limited, WorkerReady, self.name)

    def put(self, model: Path | bytes) -> dict[str, str]:
        """Return the fields of a request that name a model there; it is sent at most once.

        Raises:
            InputError: no such file.
            MeasurementError: no room for it there, or the connection is lost.
        """
        if isinstance(model, Path):
            check_path(model)
        if not self.sends_models:
            if isinstance(model, Path):
                return {"model_path": str(model.absolute())}
            return {"model_base64": base64.b64encode(model).decode()}
        return {"model_path": self._send(model)}

    def put_file(self, path: Path) -> str:
        """Return the path there of a file, such as one that a model was converted to; it is sent at most once."""
        return self._send(path) if self.sends_models else str(path.absolute())

    def scratch(self) -> str:
        """Return a folder there for files that a measurement makes; it is removed at the end."""
        return self._holder().ready.folder

    def describe(self) -> Mapping[str, Any]:
        """Return the fingerprint of the machine and its software; see `check`."""
        kept = {"cpu", "cores", "logical_cpus", "memory_mb", "machine", "os", "python", "onnxruntime"}
        return self.check().model_dump(include=kept)

    def check(self) -> Checked:
        """Return what is there: machine, Python, packages, providers, free memory and disk.

        Raises:
            MeasurementError: it can't be reached, or has no Python.
        """
        if self._checked is None:
            self._checked = self._holder().request(Checked, self.name, CHECK_TIMEOUT_S)
        return self._checked

    def state(self) -> BoardState:
        """Return how it stands: clocks, temperature, throttling."""
        return BoardState.read(self._holder().request(State, self.name, CHECK_TIMEOUT_S))

    def reconnect(self) -> None:
        """Forget what was there: after a lost connection everything starts anew."""
        holder, self._holder_process = self._holder_process, None
        self._sent.clear()
        if holder is not None:
            holder.close()

    def close(self) -> None:
        """Remove what was put there; the next use starts anew."""
        holder, self._holder_process = self._holder_process, None
        self._sent.clear()
        if holder is not None:
            holder.finish(CLEAR_UP_S)

    def _was_over_limit(self, cgroup: str | None) -> bool:
        """Whether the system has killed a worker for want of memory; assumed where there is no group to look at."""
        if cgroup is None:
            return True
        return self._holder().request(LimitMet, self.name, CHECK_TIMEOUT_S, cgroup=cgroup).killed

    def _holder(self) -> HolderProcess:
        if self._holder_process is not None and not self._holder_process.alive:
            self.reconnect()
        if self._holder_process is None:
            launch = self.launch(("--holder", *self.holder_arguments()))
            self._holder_process = HolderProcess(launch, HolderReady, self.name)
        return self._holder_process

    def holder_arguments(self) -> tuple[str, ...]:
        """Return what the holder is told besides: the folder to put models into."""
        return ()

    def _send(self, model: Path | bytes) -> str:
        holder = self._holder()
        content, suffix = _content(model)
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._sent:
            label = str(model) if isinstance(model, Path) else "model"
            for start in range(0, max(1, len(content)), PIECE_BYTES):
                piece = content[start : start + PIECE_BYTES]
                answer = holder.request(
                    Put,
                    f"{label}: sending it to {self.name}",
                    CHECK_TIMEOUT_S,
                    name=digest + suffix,
                    data_base64=base64.b64encode(piece).decode(),
                    last=start + PIECE_BYTES >= len(content),
                    sha256=digest,
                )
            self._sent[digest] = answer.path
        return self._sent[digest]


class HostTarget(Target):
    """This machine. With a profile's cores and memory it is ``host-limited``, and says so.

    >>> n2n_edge.HostTarget().name  # n2n_edge.bench(..., target=n2n_edge.HostTarget())
    'host'
    """

    sends_models = False

    def __init__(
        self,
        *,
        limit_bytes: int | None = None,
        limited_to: str | None = None,
        cores: int | None = None,
    ) -> None:
        """Make `limited_to` (a profile's name) and `cores` limit the workers to so many of this machine's cores.

        Raises:
            InputError: this machine has fewer cores than that.
        """
        super().__init__(limit_bytes)
        self._cores = cores
        self._environment = environment()  # looked up once: every measurement asks for it
        self.name = "host"
        if limited_to is not None:
            self.name, self.provenance = f"host within the limits of {limited_to}", "host-limited"
        if cores is not None and cores > usable_cores():
            raise InputError(
                f"{limited_to or 'host'}: {cores} cores are more than the {usable_cores()} of this machine, so "
                "it can't stand in for it; give fewer ‹threads›, or measure on the board (‹target› ssh://...)"
            )

    @property
    def cores(self) -> int:
        return self._cores or super().cores

    @property
    def affinity(self) -> list[int] | None:
        if self._cores is None or not hasattr(os, "sched_getaffinity"):
            return None
        return allowed_cpus()[: self._cores]

    def describe(self) -> Mapping[str, Any]:
        return self._environment

    def state(self) -> BoardState:
        return BoardState.read(parse(State, board_state()))

    def launch(self, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Launch:
        return Launch([*prefix, sys.executable, *worker_arguments(arguments)], preamble=worker_archive())


def model_bytes(model: Path) -> bytes:
    """Return a model as the bytes of one file, external data taken in.

    Raises:
        InputError: no such file, or more data than one file holds.
    """
    check_path(model)
    return _content(model)[0]


def _content(model: Path | bytes) -> tuple[bytes, str]:
    """Return a model as one file's bytes, external data taken in, and the suffix of its name."""
    if isinstance(model, bytes):
        return model, ".onnx"
    if is_ort(model) or model.suffix in (".param", ".bin", ".xml", ".npz"):
        return model.read_bytes(), model.suffix
    try:
        proto = read_proto(model)
    except InputError:  # whatever it is, the runtime there says what is wrong with it
        return model.read_bytes(), ".onnx"
    if not data_files(proto, model):
        return model.read_bytes(), ".onnx"
    read_external_data(proto, model)
    try:
        return to_bytes(proto), ".onnx"
    except InputError as error:
        raise InputError(f"{model}: with its data it can't be sent as one file ({error}); bench it there") from error
