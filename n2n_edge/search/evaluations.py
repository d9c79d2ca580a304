"""Interface through which candidates are trained and scored, and its implementation in this process."""

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir
from onnx import ModelProto

from n2n_edge.closing import ClosedAtExit
from n2n_edge.watchdog import phase

if TYPE_CHECKING:
    from n2n_edge.data.dataset import Data
    from n2n_edge.search.precision import CandidatePrecision
    from n2n_edge.training.proxy_evaluation import ProxyResult
    from n2n_edge.training.reconstruct import Kept

__all__ = [
    "AHEAD", "WAY_ON", "Candidate", "Distiller", "Evaluations", "InProcess", "Outcome", "Pending", "Request",
    "SharedDistiller", "Work", "unheard",
]  # fmt: skip

AHEAD = 2
"""Evaluations that stand in line beyond those that other processes are busy with: who ends one begins the next."""

WAY_ON = "go on with ‹resume›"
"""What to do where evaluations can't go on."""


def unheard(text: str) -> None:
    """Take a line that nobody wants to hear."""


class Distiller(Protocol):
    """What evaluates candidates on equal terms, such as a `ShortDistiller`; a copy in another process does the same."""

    def evaluate(
        self,
        candidate: ir.Model,
        kept: "Kept | None" = None,
        *,
        seed: int,
        shipped: "Callable[[ir.Model, Data], ir.Model] | None" = None,
    ) -> "ProxyResult":
        """Train a candidate shortly, or only refit it, and evaluate it."""


class SharedDistiller:
    """A distiller that is made when it is first needed, by its name in messages."""

    def __init__(self, name: str, make: Callable[[], Distiller]) -> None:
        self.name = name
        self._make = make
        self._made: Distiller | None = None

    def get(self) -> Distiller:
        """Return the distiller, made at the first call."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def release(self) -> None:
        """Let go of it: where it is needed again it is made again."""
        self._made = None


@dataclass(frozen=True)
class Candidate:
    """A candidate to train: its graph, which of the teacher's channels its values still have, and what is in int8.

    It can be sent to another process, without the teacher.
    """

    model: ir.Model
    kept: "Kept"
    seed: int
    int8: frozenset[str] = frozenset()
    precision: "CandidatePrecision | None" = None
    """What quantizes it where `int8` names regions."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "model": ir.to_proto(self.model).SerializeToString()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update({**state, "model": ir.from_proto(ModelProto.FromString(state["model"]))})

    def evaluated(self, distiller: Distiller, tell: Callable[[str], None] = unheard) -> "Outcome":
        """Return what a distiller makes of it."""
        if self.precision is None or not self.int8:
            result = distiller.evaluate(self.model, self.kept, seed=self.seed)
        else:
            shipped = partial(self.precision.calibrated, int8=self.int8)
            result = distiller.evaluate(self.model, self.kept, seed=self.seed, shipped=shipped)
        return Outcome(
            result.accuracy, result.loss, result.seconds, result.training_seconds, resampled=result.resampled
        )


@dataclass(frozen=True)
class Outcome:
    """What became of an evaluation; `failed` says why it gave nothing, however often it was tried."""

    accuracy: float = 0.0
    loss: float = float("nan")
    seconds: float = 0.0
    training_seconds: float = 0.0
    failed: str | None = None
    resampled: tuple[float | None, ...] = ()
    """The metric on samples of the validation images, where the distiller gives it."""


class Work(Protocol):
    """What is done in this process or sent to another one, such as a `Candidate`."""

    def evaluated(self, distiller: Any, tell: Callable[[str], None]) -> "Outcome":
        """Do it with the distiller that its request names, and tell in lines how it gets on."""


@dataclass(frozen=True)
class Request:
    """An evaluation that is wanted: of which candidate, by which distiller, and under which kind and key it is kept.

    ``make()`` gives the candidate, or other work, when its turn comes; `phases` say in words what goes on, the last the
    evaluation. Without a `distiller` the work has all that it needs.
    """

    kind: str
    key: str
    distiller: SharedDistiller | None
    make: Callable[[], Work]
    phases: tuple[str, ...]

    @property
    def what(self) -> str:
        """The evaluation in words."""
        return self.phases[-1]


@dataclass(eq=False)
class Pending:
    """An evaluation that was begun, and its outcome once it has ended."""

    request: Request
    outcome: Outcome | None = None
    tries: int = field(default=0, kw_only=True)
    """How often it was begun and lost."""


class Evaluations(ClosedAtExit):
    """Where candidates are evaluated. What is begun is independent of everything else that is, so order means nothing.

    >>> from n2n_edge.search.evaluations import InProcess
    >>> evaluations = InProcess()
    >>> evaluations.width, evaluations.full
    (1, False)
    """

    aside: bool = False
    """Whether they happen in other processes: this one may do something else meanwhile, and outlives them."""
    width: int = 1
    """How many happen at once."""

    @abstractmethod
    def begin(self, request: Request) -> Pending:
        """Take on an evaluation; what makes the distiller raises here."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether what was begun keeps it busy, so that it is time to `wait` before more is begun."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until one more of those begun has its outcome; at once where none is under way.

        Raises:
            Exception: what an evaluation raised, as if it had been called.
        """

    def settle(self) -> None:
        """Wait until nothing calculates: what is timed is timed alone. Nothing may be under way."""
        return


class InProcess(Evaluations):
    """Evaluations in this process, one after the other, each when it is waited for."""

    def __init__(self) -> None:
        self._begun: deque[Pending] = deque()

    def begin(self, request: Request) -> Pending:
        """Make what the evaluation needs."""
        if request.distiller is not None:
            request.distiller.get()
        self._begun.append(Pending(request))
        return self._begun[-1]

    @property
    def full(self) -> bool:
        """Whether one is begun."""
        return bool(self._begun)

    def wait(self) -> None:
        """Evaluate the first of those begun."""
        if self._begun:
            pending = self._begun.popleft()
            request = pending.request
            with ExitStack() as stack:
                for name in request.phases:
                    stack.enter_context(phase(name))
                distiller = None if request.distiller is None else request.distiller.get()
                pending.outcome = request.make().evaluated(distiller, unheard)

    def close(self) -> None:
        """Forget what was begun."""
        self._begun.clear()
