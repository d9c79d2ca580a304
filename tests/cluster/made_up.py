"""Distillers that cost nothing, some of which harm the process that they are in."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.watchdog import step


@dataclass(frozen=True)
class Result:
    """What a `ProxyResult` holds, without the import of torch."""

    accuracy: float
    loss: float
    seconds: float
    training_seconds: float
    model: ir.Model
    resampled: tuple[float | None, ...] = ()


class Counts:
    """Scores a candidate by its weights alone; `shipped` ones by one per cent less."""

    def evaluate(self, candidate: ir.Model, kept: object = None, *, seed: int, shipped: object = None) -> Result:
        count = sum(int(np.prod(value.shape.numpy())) for value in candidate.graph.initializers.values())
        score = (1 + count % 97) / (100 + seed) * (0.99 if shipped else 1.0)
        return Result(score, 1.0 - score, 0.0, 0.0, candidate, (score, None))


class Harms(Counts):
    """The same after it has done `what` to its process so many times, which a file counts.

    In a thread that stands for a process it raises what stands for that.
    """

    def __init__(self, what: str, times: int, count: Path, *, thread: bool) -> None:
        self.what, self.times, self.count, self.thread = what, times, count, thread

    def evaluate(self, candidate: ir.Model, kept: object = None, *, seed: int, shipped: object = None) -> Result:
        with self.count.open("a") as file:
            file.write(".")
        if self.count.stat().st_size <= self.times:
            getattr(self, f"_{self.what}")()
        return super().evaluate(candidate, kept, seed=seed, shipped=shipped)

    def _kill(self) -> None:
        if self.thread:
            from tests.cluster.fake_ray import Died

            raise Died
        os.kill(os.getpid(), signal.SIGKILL)

    def _freeze(self) -> None:
        if self.thread:
            from tests.cluster.fake_ray import Frozen

            raise Frozen
        os.kill(os.getpid(), signal.SIGSTOP)

    def _hang(self) -> None:
        with step("training step"):
            while True:
                time.sleep(0.05)

    def _fill(self) -> None:
        raise MemoryError

    def _refuse(self) -> None:
        raise InputError("this augmentation gives no images: mend it")
